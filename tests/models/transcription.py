"""Stripped mode in plain NumPy loops, from the stored tensors: it shares no code with pmt.

Each family's own storage is undone here by hand: one (W_Q, W_K, W_V, W_O) a head and layer, each
acting on a token as a column.
"""

import json

import numpy as np
from safetensors.numpy import load_file


def stripped(folder, x, *, biases=False, alpha=1.0):
    """The state after every layer, from x (n, d)."""
    raw = json.loads((folder / "config.json").read_text())
    tensors = {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}
    states = []
    for layer in range(depth(raw)):
        heads, out_bias, scale, sees = layer_of(raw, tensors, layer)
        x = step(x, heads, out_bias if biases else 0.0, scale, sees, biases, alpha)
        states.append(x)
    return states


def step(x, heads, out_bias, scale, sees, biases, alpha):
    y = np.empty_like(x)
    n = len(x)
    for i in range(n):
        update = np.zeros(x.shape[1]) + out_bias
        for (wq, bq), (wk, bk), (wv, bv), wo in heads:
            if not biases:
                bq, bk, bv = 0.0 * bq, 0.0 * bk, 0.0 * bv
            logits = {
                j: scale * ((wq @ x[i] + bq) @ (wk @ x[j] + bk)) for j in range(n) if sees(i, j)
            }
            top = max(logits.values())
            weights = {j: np.exp(value - top) for j, value in logits.items()}
            total = sum(weights.values())
            update += wo @ sum(w / total * (wv @ x[j] + bv) for j, w in weights.items())
        y[i] = x[i] + alpha * update
        y[i] /= np.sqrt(y[i] @ y[i])
    return y


def depth(raw):
    kind = raw["model_type"]
    if kind == "albert":
        return raw["num_hidden_layers"] * raw["inner_group_num"]
    return (
        raw.get("num_hidden_layers")
        or raw.get("n_layer")
        or raw.get("n_layers")
        or raw["num_layers"]
    )


def layer_of(raw, t, layer):
    kind = raw["model_type"]

    def causal(i, j):
        return j <= i

    def near(i, j):
        return 0 <= i - j < window

    if kind in ("bert", "roberta", "albert", "distilbert"):
        q, k, v, o, count = encoder_names(raw, layer, t)
        w = [t[name + ".weight"] for name in (q, k, v, o)]
        b = [t[name + ".bias"] for name in (q, k, v, o)]
        heads = split(w[:3], b[:3], w[3], count, count)
        return heads, b[3], (len(w[0]) // count) ** -0.5, lambda i, j: True
    if kind == "gpt2":
        base, count, d = f"transformer.h.{layer}.attn.", raw["n_head"], raw["n_embd"]
        fused, bias = t[base + "c_attn.weight"].T, t[base + "c_attn.bias"]
        w, b = [fused[i * d : (i + 1) * d] for i in range(3)], np.split(bias, 3)
        scale = (d // count) ** -0.5 if raw["scale_attn_weights"] else 1.0
        scale /= layer + 1 if raw["scale_attn_by_inverse_layer_idx"] else 1
        heads = split(w, b, t[base + "c_proj.weight"].T, count, count)
        return heads, t[base + "c_proj.bias"], scale, causal
    if kind == "gpt_neo":
        base = f"transformer.h.{layer}.attn.attention."
        w = [t[base + f"{name}_proj.weight"] for name in "qkv"]
        heads = split(w, None, t[base + "out_proj.weight"], raw["num_heads"], raw["num_heads"])
        window = raw["window_size"]
        sees = near if raw["attention_layers"][layer] == "local" else causal
        return heads, t[base + "out_proj.bias"], 1.0, sees
    if kind == "gpt_neox":
        base, count, d = (
            f"gpt_neox.layers.{layer}.attention.",
            raw["num_attention_heads"],
            raw["hidden_size"],
        )
        k = d // count
        fused = t[base + "query_key_value.weight"]
        bias = t.get(base + "query_key_value.bias", np.zeros(3 * d))
        rows = [
            np.concatenate([np.arange(k) + (3 * h + part) * k for h in range(count)])
            for part in range(3)
        ]
        heads = split(
            [fused[r] for r in rows],
            [bias[r] for r in rows],
            t[base + "dense.weight"],
            count,
            count,
        )
        return heads, t.get(base + "dense.bias", 0.0), k**-0.5, causal
    base = f"model.layers.{layer}.self_attn."
    w = [t[base + f"{name}_proj.weight"] for name in "qkv"]
    b = [t.get(base + f"{name}_proj.bias") for name in "qkv"]
    count, groups = raw["num_attention_heads"], raw["num_key_value_heads"]
    heads = split(w, None if b[0] is None else b, t[base + "o_proj.weight"], count, groups)
    window = raw.get("sliding_window")
    if kind == "qwen2" and raw["layer_types"][layer] != "sliding_attention":
        window = None
    sees = causal if window is None else near
    return heads, t.get(base + "o_proj.bias", 0.0), (len(w[0]) // count) ** -0.5, sees


def split(w, b, o, count, groups):
    """The maps of every head; head h uses the key-value head h // (count / groups)."""
    k = len(w[0]) // count
    b = b or [np.zeros(len(each)) for each in w]
    heads = []
    for h in range(count):
        g = h // (count // groups)
        own, shared = slice(h * k, (h + 1) * k), slice(g * k, (g + 1) * k)
        heads.append(
            (
                (w[0][own], b[0][own]),
                (w[1][shared], b[1][shared]),
                (w[2][shared], b[2][shared]),
                o[:, own],
            )
        )
    return heads


def encoder_names(raw, layer, t):
    kind = raw["model_type"]
    if kind == "distilbert":
        base = f"distilbert.transformer.layer.{layer}.attention."
        return *(base + f"{x}_lin" for x in "qkv"), base + "out_lin", raw["n_heads"]
    count = raw["num_attention_heads"]
    if kind == "albert":
        inner = raw["inner_group_num"]
        outer = layer // inner
        group = outer * raw["num_hidden_groups"] // raw["num_hidden_layers"]
        base = (
            f"albert.encoder.albert_layer_groups.{group}.albert_layers.{layer % inner}.attention."
        )
        return *(base + x for x in ("query", "key", "value")), base + "dense", count
    prefix = next(p for p in ("", "bert.", "roberta.") if f"{p}embeddings.LayerNorm.bias" in t)
    base = f"{prefix}encoder.layer.{layer}.attention."
    names = (base + f"self.{x}" for x in ("query", "key", "value"))
    return *names, base + "output.dense", count

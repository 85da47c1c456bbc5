"""Stripped-mode analysis of a BERT checkpoint in plain NumPy, float64, slow and obvious.

Shares no code with pmt: it reads the tensors itself, loops over heads, tokens and eigendirections,
and projects with P = B (B^T B)^{-1} B^T as the paper writes it (arXiv 2605.25619, eqs. (4)-(7)).
"""

from math import lgamma, pi

import numpy as np
from safetensors import safe_open


def read_layers(path, layers, biases):
    """Per layer the four maps y = x W^T + b of its attention block, as (W, b)."""
    found = []
    with safe_open(str(path), framework="numpy") as file:
        for layer in range(layers):
            base = f"encoder.layer.{layer}.attention."
            maps = {}
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                weight = file.get_tensor(base + name + ".weight").astype(np.float64)
                bias = file.get_tensor(base + name + ".bias").astype(np.float64)
                maps[name.split(".")[-1]] = (weight, bias if biases else np.zeros_like(bias))
            found.append(maps)
    return found


def step(maps, heads, alpha, x):
    """One prompt: (n, d) -> (n, d)."""
    n, d = x.shape
    k = d // heads

    def apply(name, y):
        weight, bias = maps[name]
        return y @ weight.T + bias

    q, key, v = apply("query", x), apply("key", x), apply("value", x)
    mixed = np.zeros((n, d))
    for head in range(heads):
        part = slice(head * k, (head + 1) * k)
        for i in range(n):
            logits = key[:, part] @ q[i, part] / np.sqrt(k)
            weights = np.exp(logits - logits.max())
            mixed[i, part] = weights / weights.sum() @ v[:, part]
    y = x + alpha * apply("dense", mixed)
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def sort_eigenpairs(f, order, alpha):
    """Values and unit right vectors; within a pair the positive imaginary part first."""
    values, vectors = np.linalg.eig(f)
    key = {
        "real": values.real,
        "skip": np.abs(1 + alpha * values),
        "modulus": np.abs(values),
    }[order]
    # The key of both members of a pair is the same number; rounded, so that it is for sure.
    chosen = np.lexsort((-values.imag, -np.round(key, 12)))
    return values[chosen], vectors[:, chosen]


def projector(values, vectors, index):
    """P of the line of a real eigenvalue, or of the plane of a complex one."""
    v = vectors[:, index]
    b = v.real[:, None] if values[index].imag == 0 else np.stack([v.real, v.imag], axis=1)
    return b @ np.linalg.inv(b.T @ b) @ b.T


def rho(x, p):
    """(batch, n): |P x| / |x|."""
    return np.linalg.norm(x @ p, axis=-1) / np.linalg.norm(x, axis=-1)


def chance(d, dimension):
    """E rho of a uniform token."""
    line = np.exp(lgamma(d / 2) - lgamma((d + 1) / 2)) / np.sqrt(pi)
    return line if dimension == 1 else line * pi / 2


def distance(x):
    """Mean over prompts and pairs of |x_i - x_j|."""
    total = [
        np.linalg.norm(prompt[i] - prompt[j])
        for prompt in x
        for i in range(len(prompt))
        for j in range(i)
    ]
    return float(np.mean(total))


def analyze(path, tokens, *, layers, heads, order="real", alpha=1.0, biases=False):
    """The ``layers`` list of ``pmt analyze --json``, less the null models."""
    x = tokens.astype(np.float64)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    report = []
    for index, maps in enumerate(read_layers(path, layers, biases)):
        f = maps["dense"][0] @ maps["value"][0]
        d = len(f)
        values, vectors = sort_eigenpairs(f, order, alpha)
        after = np.stack([step(maps, heads, alpha, prompt) for prompt in x])
        key = {"real": values.real, "skip": np.abs(1 + alpha * values), "modulus": np.abs(values)}
        key = key[order]
        first = values[0]
        is_complex = first.imag != 0
        next_real = next((k for k in range(1, d) if values[k].imag == 0), None)
        close = (
            not is_complex
            and next_real is not None
            and abs(first - values[next_real]) <= 1e-2 * abs(first)
        )
        low, high = (rho(state, projector(values, vectors, 0)) for state in (x, after))
        delta = high - low
        left = np.linalg.inv(vectors)[0]
        everywhere = []
        for k in range(d):
            p = projector(values, vectors, k)
            everywhere.append((rho(x, p), rho(after, p)))
        lows, highs = (np.stack(part) for part in zip(*everywhere, strict=True))
        v = vectors[:, 0]
        report.append(
            {
                "index": index + 1,
                "mask": "full",
                "scale": 1 / np.sqrt(d // heads),
                "eigenvalues": [[value.real, value.imag] for value in values[:5]],
                "principal": {
                    "eigenvalue": [first.real, first.imag],
                    "dimension": 2 if is_complex else 1,
                    "case": 2 if is_complex else 3 if close else 1,
                    "gap": key[0] - key[2 if is_complex else 1],
                    "residual": np.linalg.norm(f @ v - first * v) / np.linalg.norm(f),
                    "condition": np.linalg.norm(left) * np.linalg.norm(v),
                    "collinearity": None
                    if is_complex or values[1].imag != 0
                    else abs(vectors[:, 0].real @ vectors[:, 1].real),
                    "chance": chance(d, 2 if is_complex else 1),
                },
                "rho_before": low.mean(),
                "rho_after": high.mean(),
                "rho_after_std": high.std(),
                "rho_after_se": high.mean(axis=1).std(ddof=1) / np.sqrt(len(x)),
                "delta_rho": delta.mean(),
                "delta_rho_std": delta.std(),
                "delta_rho_se": delta.mean(axis=1).std(ddof=1) / np.sqrt(len(x)),
                "p_increase": np.mean(high > low),
                "mean_rho_before": lows.mean(),
                "mean_rho_after": highs.mean(),
                "mean_delta_rho": (highs - lows).mean(),
                "mean_p_increase": np.mean(highs > lows),
                "intertoken_distance": distance(after),
            }
        )
        x = after
    return report


def error_over_texts(means, lengths):
    """Standard error of a mean over all tokens of texts, from the texts' own means.

    By Taylor's formula for the ratio of the mean sum to the mean length, whose covariance is that
    of the texts.
    """
    means, lengths = np.asarray(means, np.float64), np.asarray(lengths, np.float64)
    sums, count = means * lengths, len(means)
    covariance = np.cov(np.stack([sums, lengths]), ddof=1) / count
    gradient = np.array([1 / lengths.mean(), -sums.mean() / lengths.mean() ** 2])
    return np.sqrt(gradient @ covariance @ gradient)

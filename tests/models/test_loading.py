"""A checkpoint fits its model exactly, or one error lists everything that does not."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from pmt.errors import RequestError
from pmt.models import BertConfig, Transformer, from_pretrained, open_layers
from tests.models.conftest import DATA, Tiny


def parameters(folder):
    return jax.tree.leaves(nnx.state(from_pretrained(folder, dtype="float64")))


def unchanged(tiny):
    """Whether the changed copy gives the same model as the original does."""
    pairs = zip(parameters(tiny.folder), parameters(DATA / "bert-tanh"), strict=True)
    return all(np.array_equal(got, wanted) for got, wanted in pairs)


def test_fault_36_with_the_prefix_of_a_model_with_a_head(tiny):
    tiny.tensors(
        lambda t: (
            {f"bert.{k}": v for k, v in t.items()}
            | {"cls.predictions.bias": np.zeros(61), "cls.seq_relationship.bias": np.zeros(2)}
        )
    )
    assert unchanged(tiny)


def test_fault_37_gamma_and_beta(tiny):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    tiny.tensors(lambda t: {old(k): v for k, v in t.items()})
    assert unchanged(tiny)


def test_the_same_tensor_under_both_spellings_is_refused(tiny):
    name = "embeddings.LayerNorm.weight"
    tiny.tensors(lambda t: t | {"bert.embeddings.LayerNorm.gamma": t[name]})
    with pytest.raises(RequestError, match="holds one tensor twice"):
        from_pretrained(tiny.folder)


def test_stored_buffers_are_ignored_fault_35(tiny):
    tiny.tensors(lambda t: t | {"embeddings.position_ids": np.arange(13)[None]})
    assert unchanged(tiny)


def test_one_error_lists_all_offenders_fault_38(tiny):
    def change(t):
        t = dict(t)
        del t["encoder.layer.1.attention.self.query.bias"]
        t["encoder.layer.0.output.dense.weight"] = np.zeros((24, 41), np.float32)
        t["encoder.layer.3.output.dense.bias"] = np.zeros(24, np.float32)
        t["adapter"] = np.zeros(1, np.float32)
        t["embeddings.LayerNorm.bias"] = np.zeros(24, np.int32)
        t["pooler.dense.bias"] = np.full(24, np.nan, np.float32)
        return t

    tiny.tensors(change)
    with pytest.raises(RequestError) as raised:
        from_pretrained(tiny.folder)
    for part in (
        "encoder.layer.1.attention.self.query.bias is missing",
        "encoder.layer.0.output.dense.weight has shape (24, 41) instead of (24, 40)",
        "encoder.layer.3.output.dense.bias is not used",
        "adapter is not used",
        "embeddings.LayerNorm.bias is stored as I32",
        "pooler.dense.bias holds 24 numbers that are NaN or infinite",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fault_46_a_single_nan_or_infinity_in_a_weight(tiny, bad):
    def change(t):
        t["encoder.layer.2.attention.self.value.weight"][3, 4] = bad
        return t

    tiny.tensors(change)
    with pytest.raises(RequestError, match=r"layer\.2\.attention\.self\.value\.weight holds 1 num"):
        from_pretrained(tiny.folder)


def test_fault_13_zero_size_tensor_in_place_of_a_weight(tiny):
    tiny.tensors(lambda t: t | {"embeddings.LayerNorm.bias": np.zeros((0,), np.float32)})
    with pytest.raises(RequestError, match=r"has shape \(0,\) instead of \(24,\)"):
        from_pretrained(tiny.folder)


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_converted_once(tiny, stored):
    originals = {}

    def change(t):
        originals.update(t)
        return {k: v.astype(stored) for k, v in t.items()}

    tiny.tensors(change)
    model = from_pretrained(tiny.folder, dtype="float32")
    expected = originals["embeddings.word_embeddings.weight"].astype(stored).astype(np.float32)
    np.testing.assert_array_equal(model.embeddings.token.embedding[...], expected)


def test_heads_are_split_as_torch_stores_them(tiny):
    originals = {}
    tiny.tensors(lambda t: originals.update(t) or t)
    attention = from_pretrained(tiny.folder).layer(1).attention
    base = "encoder.layer.1.attention."
    value = originals[base + "self.value.weight"]
    output = originals[base + "output.dense.weight"]
    np.testing.assert_array_equal(attention.value[...][2], value[16:24])
    np.testing.assert_array_equal(attention.output[...][2], output[:, 16:24])
    layer = attention.as_map()
    np.testing.assert_allclose(layer.layer_matrix, output @ value, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "5 attention heads do not divide the width 24"),  # fault 41
        ({"hidden_size": -24}, "hidden_size is -24 in the config; it must be positive"),
        ({"hidden_size": 24.0}, "hidden_size is 24.0, which is no int"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, which is no int"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ({"layer_norm_eps": "1e-3"}, "layer_norm_eps is '1e-3', which is no float"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish' in the config; supported are gelu"),
        ({"position_embedding_type": "relative_key"}, "supported is 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True, supported is False"),
        ({"rotary": 1, "window": 2}, "rotary is unknown here; window is unknown here"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "asks for code from its own repository"),  # fault 31
        (
            {"model_type": "bart"},
            "of the family 'bart'; supported are albert, bert, distilbert, gpt2",
        ),  # fault 44
        ({"model_type": ["bert"]}, "of the family"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),  # fault 45
        ({"num_hidden_layers": 4}, "encoder.layer.3.attention.self.query.weight is missing"),
        ({"num_hidden_layers": 2}, "encoder.layer.2.output.dense.bias is not used"),
    ],
)
def test_faults_31_41_44_45_config_that_cannot_be_honoured(tiny, changes, message):
    tiny.config(**changes)
    with pytest.raises(RequestError, match=message.replace("(", r"\(")):
        from_pretrained(tiny.folder)


def test_absent_config_fields_have_the_defaults_of_the_format(tiny):
    tiny.without("hidden_act", "type_vocab_size", "layer_norm_eps")
    config = BertConfig.from_dict({"model_type": "bert"})
    assert (config.hidden_act, config.type_vocab_size, config.layer_norm_eps) == ("gelu", 2, 1e-12)
    with pytest.raises(RequestError, match=r"has shape \(3, 24\) instead of \(2, 24\)"):
        from_pretrained(tiny.folder)


@pytest.mark.parametrize("dtype", ["float16", "int32", "no dtype"])
def test_a_dtype_that_is_not_computed_in(tiny, dtype):
    with pytest.raises(RequestError, match="must be float32 or float64"):
        from_pretrained(tiny.folder, dtype=dtype)


def test_float64_without_64_bit_mode_is_refused(tiny):
    with (
        jax.enable_x64(False),
        pytest.raises(RequestError, match="float64 needs JAX's 64-bit mode"),
    ):
        from_pretrained(tiny.folder, dtype="float64")


def test_the_model_says_where_its_weights_come_from(tiny):
    model = from_pretrained(tiny.folder)
    assert isinstance(model, Transformer) and model.family == "bert"
    assert model.checkpoint.directory == tiny.folder and len(model.checkpoint.sha256) == 64


@pytest.mark.parametrize("repeat", ["same", "different"])
def test_fault_39_a_tied_table_that_is_stored_all_the_same(tmp_path, repeat):
    copy = Tiny(tmp_path / "copy", "gpt2-inverse")
    shift = 0 if repeat == "same" else 1

    def change(t):
        return t | {"lm_head.weight": t["transformer.wte.weight"] + np.float32(shift)}

    copy.tensors(change)
    if repeat == "same":
        assert from_pretrained(copy.folder).head.table is None
    else:
        with pytest.raises(RequestError, match=r"lm_head\.weight differs from .*wte\.weight"):
            from_pretrained(copy.folder)


def test_fault_39_tied_embedding_absent_its_repeat_takes_its_place(tmp_path):
    copy = Tiny(tmp_path / "copy", "gpt2-inverse")

    def change(t):
        t["lm_head.weight"] = t.pop("transformer.wte.weight")
        return t

    copy.tensors(change)
    pairs = zip(parameters(copy.folder), parameters(DATA / "gpt2-inverse"), strict=True)
    assert all(np.array_equal(got, wanted) for got, wanted in pairs)


def test_fault_39_an_untied_table_that_is_absent(tmp_path):
    copy = Tiny(tmp_path / "copy", "gpt2-unscaled")
    copy.tensors(lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    with pytest.raises(RequestError, match=r"lm_head\.weight is missing"):
        from_pretrained(copy.folder)
    # The class without a head is complete without it.
    copy.config(architectures=["GPT2Model"])
    model = from_pretrained(copy.folder)
    assert model.head is None and model(np.zeros(2, int)).logits is None


@pytest.mark.parametrize(
    "name", ["gpt2-inverse", "gpt-neo-tied", "gpt-neox-parallel", "llama-plain"]
)
def test_faults_35_and_36_buffers_and_no_prefix(tmp_path, name):
    """As saved from the class without a head, and with the buffers of older versions."""
    copy = Tiny(tmp_path / "copy", name)
    prefix = {"llama-plain": "model.", "gpt-neox-parallel": "gpt_neox."}.get(name, "transformer.")
    buffers = {
        "gpt2-inverse": ["h.0.attn.bias", "h.2.attn.masked_bias"],
        "gpt-neo-tied": ["h.0.attn.attention.bias", "h.1.attn.attention.masked_bias"],
        "gpt-neox-parallel": ["layers.0.attention.bias", "layers.0.attention.rotary_emb.inv_freq"],
        "llama-plain": ["layers.1.self_attn.rotary_emb.inv_freq"],
    }[name]
    copy.config(architectures=["Base"])
    copy.tensors(
        lambda t: (
            {k.removeprefix(prefix): v for k, v in t.items()}
            | {buffer: np.ones((1, 1), np.float32) for buffer in buffers}
        )
    )
    pairs = zip(parameters(copy.folder), parameters(DATA / name), strict=True)
    assert all(np.array_equal(got, wanted) for got, wanted in pairs)


def test_fault_33_a_matrix_of_gpt2_stored_as_a_linear_layer(tmp_path):
    copy = Tiny(tmp_path / "copy", "gpt2-inverse")
    name = "transformer.h.1.attn.c_attn.weight"
    copy.tensors(lambda t: t | {name: t[name].T})
    with pytest.raises(
        RequestError, match=r"c_attn\.weight has shape \(27, 9\) instead of \(9, 27\)"
    ):
        from_pretrained(copy.folder)


def test_fault_38_a_missing_and_an_extra_bias(tmp_path):
    copy = Tiny(tmp_path / "copy", "llama-plain")

    def change(t):
        del t["model.layers.0.self_attn.k_proj.bias"]
        return t | {"model.layers.1.mlp.up_proj.bias": np.zeros(13, np.float32)}

    copy.tensors(change)
    with pytest.raises(RequestError) as raised:
        from_pretrained(copy.folder)
    assert "layers.0.self_attn.k_proj.bias is missing" in str(raised.value)
    assert "model.layers.1.mlp.up_proj.bias is not used" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        # fault 40
        ("albert-groups", {"num_hidden_groups": 5}, "5 groups for 4 layers"),
        ("albert-groups", {"embedding_size": 6}, r"has shape \(19, 5\) instead of \(19, 6\)"),
        (
            "albert-groups",
            {"inner_group_num": 1},
            "albert_layers.1.attention.LayerNorm.bias is not",
        ),
        # fault 41
        ("gpt2-inverse", {"n_head": 4}, "4 attention heads do not divide the width 9"),
        ("albert-uneven", {"num_attention_heads": 5}, "5 attention heads do not divide"),
        # fault 42
        ("llama-plain", {"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value"),
        ("llama-plain", {"num_key_value_heads": 4}, r"instead of \(24, 12\)"),
        ("llama-plain", {"head_dim": 5}, "a head has 5 dimensions"),
        # fault 43
        ("gpt-neo-tied", {"window_size": 0}, "window_size is 0 in the config"),
        ("gpt-neo-tied", {"attention_layers": ["global"] * 3}, "both must say the same"),
        (
            "gpt-neo-tied",
            {"attention_types": [[["global", "sparse"], 1], [["local"], 1]]},
            "must say the same",
        ),
        ("gpt-neo-tied", {"attention_types": 7}, "attention_types is 7"),
        # fault 45
        ("llama-plain", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        # rotary positions
        ("llama-linear", {"rope_parameters": {"rope_type": "yarn"}}, "scaled by 'yarn'"),
        ("llama-linear", {"rope_parameters": {"rope_type": "linear"}}, r"expected \['factor'\]"),
        ("llama-linear", {"rope_parameters": {"rope_theta": -1.0}}, "positive numbers"),
        ("llama-linear", {"rope_parameters": 3}, "must be an object"),
        ("gpt-neox-parallel", {"rope_parameters": {"partial_rotary_factor": 0.01}}, "turn 0 of"),
        ("qwen2-window", {"layer_types": ["full_attention"]}, "for each of the 2 layers"),
        ("mistral-window", {"sliding_window": -3}, "sliding_window is -3"),
        ("roberta-tied", {"pad_token_id": 10}, "pad_token_id is 10"),
        # what nobody knows
        ("distilbert-learned", {"attention_temperature": 2.0}, "attention_temperature is unknown"),
        ("gpt2-inverse", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("llama-plain", {"hidden_act": "swiglu"}, "hidden_act is 'swiglu'"),
    ],
)
def test_faults_40_to_45_in_the_other_families(tmp_path, name, changes, message):
    copy = Tiny(tmp_path / "copy", name)
    copy.config(**changes)
    with pytest.raises(RequestError, match=message):
        from_pretrained(copy.folder)


def test_opening_the_layers_checks_all_tensors_and_reads_none(tmp_path):
    """A NaN is found when its layer is read; what does not fit, at once."""
    copy = Tiny(tmp_path / "copy", "bert-tanh")

    def poison(t):
        t["encoder.layer.2.attention.self.value.weight"][3, 4] = np.nan
        return t

    copy.tensors(poison)
    with open_layers(copy.folder) as layers:
        layers.layer(1)
        with pytest.raises(RequestError, match=r"layer\.2\.attention\.self\.value\.weight holds 1"):
            layers.layer(2)
        layers.layer(1)
    copy.tensors(lambda t: {k: v for k, v in t.items() if "pooler.dense.bias" not in k})
    with pytest.raises(RequestError, match=r"pooler\.dense\.bias is missing"):
        open_layers(copy.folder)

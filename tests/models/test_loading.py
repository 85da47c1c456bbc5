"""A checkpoint fits its model exactly, or one error lists everything that does not."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from pmt.errors import RequestError
from pmt.models import Bert, BertConfig, from_pretrained
from tests.models.conftest import DATA


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
    attention = from_pretrained(tiny.folder).layers[1].attention
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
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; supported are gelu"),
        ({"position_embedding_type": "relative_key"}, "supported is 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True, supported is False"),
        ({"rotary": 1, "window": 2}, "rotary is unknown here; window is unknown here"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "asks for code from its own repository"),  # fault 31
        ({"model_type": "bart"}, "of the family 'bart'; supported are bert"),  # fault 44
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
    assert isinstance(model, Bert)
    assert model.checkpoint.directory == tiny.folder and len(model.checkpoint.sha256) == 64

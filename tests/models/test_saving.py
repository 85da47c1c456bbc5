"""What is written can be read again, and only what was edited has changed."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from pmt.errors import RequestError
from pmt.models import FAMILIES, from_pretrained, save_pretrained
from tests.models.conftest import DATA, Tiny
from tests.models.test_parity import NAMES


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_unedited_copy_has_the_same_bits_and_the_same_config(tmp_path, name):
    save_pretrained(from_pretrained(DATA / name), tmp_path / "copy")
    assert same(weights(tmp_path / "copy"), weights(DATA / name))
    configs = (
        json.loads((path / "config.json").read_text()) for path in (DATA / name, tmp_path / "copy")
    )
    assert next(configs) == next(configs)


@pytest.mark.parametrize("name", ["albert-groups", "gpt-neox-parallel", "llama-llama3"])
def test_a_model_without_a_checkpoint_is_written_under_the_family_s_names(tmp_path, name):
    model = from_pretrained(DATA / name)
    model.checkpoint = None
    save_pretrained(model, tmp_path / "new")
    again = from_pretrained(tmp_path / "new")
    assert again.config == model.config
    before, after = (nnx.to_flat_state(nnx.state(each, nnx.Param)) for each in (model, again))
    for (path, one), (other_path, other) in zip(before, after, strict=True):
        assert path == other_path
        np.testing.assert_array_equal(one[...], other[...])
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["architectures"] == [FAMILIES[config["model_type"]].architecture]


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_an_edit_changes_one_tensor_and_keeps_every_dtype(tmp_path, stored):
    """Heads on top of the model, buffers and repeats are carried over too."""
    copy = Tiny(tmp_path / "base", "gpt2-inverse")

    def change(t):
        t = {name: array.astype(stored) + stored(1e-9) for name, array in t.items()}
        buffers = {"transformer.h.0.attn.bias": np.tril(np.ones((3, 3), np.float32))}
        return t | buffers | {"lm_head.weight": t["transformer.wte.weight"]}

    copy.tensors(change)
    model = from_pretrained(copy.folder)
    edited = model.layer(1).attention.value
    edited[...] = edited[...].at[0, 0, 0].add(1.0)
    save_pretrained(model, tmp_path / "edited")
    before, after = weights(copy.folder), weights(tmp_path / "edited")
    name = "transformer.h.1.attn.c_attn.weight"
    assert same(before | {name: after[name]}, after)
    # Value of head 0, its first row, first input: column 18 of the fused (9, 27).
    np.testing.assert_array_equal(np.argwhere(before[name] != after[name]), [[0, 18]])
    difference = np.float64(after[name][0, 18]) - np.float64(before[name][0, 18])
    assert abs(difference - 1.0) < 0.02


def test_a_value_that_the_stored_dtype_cannot_hold_is_refused(tmp_path):
    copy = Tiny(tmp_path / "base", "bert-erf")
    copy.tensors(lambda t: {name: array.astype(np.float16) for name, array in t.items()})
    model = from_pretrained(copy.folder)
    bias = model.layer(0).attention.output_bias
    bias[...] = bias[...] + 1e6
    with pytest.raises(RequestError, match=r"output\.dense\.bias holds 1e\+06, which float16"):
        save_pretrained(model, tmp_path / "edited")
    assert not (tmp_path / "edited").exists()
    bias[...] = jnp.full_like(bias[...], jnp.nan)
    with pytest.raises(RequestError, match=r"output_bias holds NaN or infinity"):
        save_pretrained(model, tmp_path / "edited")


def test_the_real_model_keeps_its_tokenizer(tmp_path):
    model = from_pretrained("minilm")
    save_pretrained(model, tmp_path / "copy")
    again = from_pretrained(tmp_path / "copy")
    text = ["Power method."]
    np.testing.assert_array_equal(again.tokenize(text).ids, model.tokenize(text).ids)
    assert same(weights(tmp_path / "copy"), weights(model.checkpoint.directory))
    with pytest.raises(RequestError, match="is not empty"):
        save_pretrained(model, tmp_path / "copy")
    save_pretrained(model, tmp_path / "copy", overwrite=True)

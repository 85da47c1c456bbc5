"""Hidden states against the reference implementation, layer by layer, on stored data."""

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.models import from_pretrained
from tests.models.conftest import DATA

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}


def off_by_layer(got, expected, largest=None):
    """The largest error of every layer relative to the largest entry of that layer."""
    axes = tuple(range(1, expected.ndim))
    scale = np.abs(expected).max(axis=axes) if largest is None else largest
    return np.abs(np.asarray(got, np.float64) - expected).max(axis=axes) / scale


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["bert-tanh", "bert-erf"])
def test_tiny_random_models_with_every_field_off_its_default(name, dtype):
    expected = np.load(DATA / name / "expected.npz")
    model = from_pretrained(DATA / name, dtype=dtype)
    output = model(expected["ids"], present=expected["present"], segments=expected["segments"])
    assert output.hidden_states.dtype == dtype
    assert np.all(off_by_layer(output.hidden_states, expected["hidden_states"]) < TOLERANCE[dtype])
    if "pooled" in expected:
        assert np.abs(np.asarray(output.pooled) - expected["pooled"]).max() < TOLERANCE[dtype]
    else:
        assert output.pooled is None


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_minilm_on_real_text(dtype):
    expected = np.load(DATA / "minilm.npz")
    stride = int(expected["stride"])
    output = from_pretrained("minilm", dtype=dtype)(expected["ids"], present=expected["present"])
    off = off_by_layer(
        output.hidden_states[..., ::stride], expected["hidden_states"], expected["largest"]
    )
    assert off.shape == (7,)
    assert np.all(off < TOLERANCE[dtype])
    assert (
        np.abs(np.asarray(output.pooled)[..., ::stride] - expected["pooled"]).max()
        < TOLERANCE[dtype]
    )


def test_one_text_is_the_same_as_a_batch_of_it():
    expected = np.load(DATA / "bert-erf" / "expected.npz")
    model = from_pretrained(DATA / "bert-erf", dtype="float64")
    ids, segments = (jnp.asarray(expected[name][0]) for name in ("ids", "segments"))
    alone = model(ids, segments=segments).hidden_states
    assert np.all(off_by_layer(alone, expected["hidden_states"][:, 0]) < 1e-11)


def test_padding_changes_nothing_for_the_tokens_that_are_there():
    expected = np.load(DATA / "bert-tanh" / "expected.npz")
    model = from_pretrained(DATA / "bert-tanh", dtype="float64")
    count = int(expected["present"][1].sum())
    short = model(expected["ids"][1, :count], segments=expected["segments"][1, :count])
    assert np.all(
        off_by_layer(short.hidden_states, expected["hidden_states"][:, 1, :count]) < 1e-11
    )

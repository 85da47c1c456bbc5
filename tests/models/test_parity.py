"""States and logits against the reference implementation, layer by layer, on stored data.

The data are made by tests/parity/generate.py; padding is not compared.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.models import from_pretrained
from tests.models.conftest import DATA

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
NAMES = sorted(path.parent.name for path in DATA.glob("*/expected.npz"))
OLDER = sorted(path.parent.name for path in DATA.glob("*/older.json"))


def off(got, expected, present=None, largest=None):
    """The largest error relative to the largest entry."""
    got = np.asarray(got, np.float64)
    assert got.shape == expected.shape
    if present is not None:
        got, expected = got[present], expected[present]
    return np.abs(got - expected).max() / (np.abs(expected).max() if largest is None else largest)


def run(folder, expected, dtype):
    segments = expected["segments"] if "segments" in expected else None
    model = from_pretrained(folder, dtype=dtype)
    return model(expected["ids"], present=expected["present"], segments=segments)


def assert_equal(output, expected, tolerance):
    present = expected["present"]
    assert len(output.hidden_states) == len(expected["hidden_states"])
    for got, wanted in zip(output.hidden_states, expected["hidden_states"], strict=True):
        assert off(got, wanted, present) < tolerance
    final = expected["final"] if "final" in expected else expected["hidden_states"][-1]
    assert off(output.final, final, present) < tolerance
    for name, got in (("logits", output.logits), ("pooled", output.pooled)):
        assert (got is None) == (name not in expected)
        if got is not None:
            assert off(got, expected[name], present if name == "logits" else None) < tolerance


def test_every_family_has_data():
    from pmt.models import FAMILIES

    there = {json.loads((DATA / name / "config.json").read_text())["model_type"] for name in NAMES}
    assert there == set(FAMILIES)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NAMES)
def test_tiny_random_models_with_every_field_off_its_default(name, dtype):
    expected = dict(np.load(DATA / name / "expected.npz"))
    output = run(DATA / name, expected, dtype)
    assert output.hidden_states.dtype == dtype
    assert_equal(output, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("name", OLDER)
def test_configs_in_the_form_of_older_checkpoints_mean_the_same(name):
    """Fields that newer versions of the format renamed or moved: rotary positions, windows."""
    from pmt.models import FAMILIES

    new, old = (json.loads((DATA / name / f).read_text()) for f in ("config.json", "older.json"))
    family = FAMILIES[new["model_type"]]
    before, after = family.read_config(old), family.read_config(new)
    for what in ("dimensions", "windows", "biases", "rope_theta", "rope_scaling", "turned"):
        if hasattr(after, what):
            assert getattr(before, what) == getattr(after, what)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_minilm_on_real_text(dtype):
    expected = np.load(DATA / "minilm.npz")
    stride = int(expected["stride"])
    output = from_pretrained("minilm", dtype=dtype)(expected["ids"], present=expected["present"])
    assert output.hidden_states.shape[0] == 7 and output.logits is None
    for layer, wanted in enumerate(expected["hidden_states"]):
        got = output.hidden_states[layer][..., ::stride]
        largest = expected["largest"][layer]
        assert off(got, wanted, expected["present"], largest) < TOLERANCE[dtype]
    assert np.abs(output.pooled[..., ::stride] - expected["pooled"].astype(dtype)).max() < 1e-5


def test_one_text_is_the_same_as_a_batch_of_it():
    expected = np.load(DATA / "bert-heads" / "expected.npz")
    model = from_pretrained(DATA / "bert-heads", dtype="float64")
    ids, segments = (jnp.asarray(expected[name][0]) for name in ("ids", "segments"))
    alone = model(ids, segments=segments)
    assert off(alone.hidden_states, expected["hidden_states"][:, 0]) < 1e-11
    assert off(alone.logits, expected["logits"][0]) < 1e-11
    assert off(alone.pooled, expected["pooled"][0]) < 1e-11
    assert model(ids, segments=segments, logits=False).logits is None


@pytest.mark.parametrize("name", ["bert-tanh", "gpt2-inverse"])
def test_padding_changes_nothing_for_the_tokens_that_are_there(name):
    expected = dict(np.load(DATA / name / "expected.npz"))
    model = from_pretrained(DATA / name, dtype="float64")
    count = int(expected["present"][1].sum())
    segments = expected["segments"][1, :count] if "segments" in expected else None
    short = model(expected["ids"][1, :count], segments=segments)
    assert off(short.hidden_states, expected["hidden_states"][:, 1, :count]) < 1e-11

"""The layers as maps: for every family the same as loops over the stored tensors."""

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.attention import Causal, LocalWindow
from pmt.errors import RequestError
from pmt.models import from_pretrained, open_layers
from tests.models.conftest import DATA
from tests.models.test_parity import NAMES
from tests.models.transcription import stripped
from tests.tolerance import assert_close


def tokens(d, n=5):
    x = np.random.default_rng(0).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_stripped_mode_in_plain_numpy(name):
    """Without biases and with them; read one at a time from the file."""
    for biases in (False, True):
        with open_layers(DATA / name, dtype="float64", biases=biases, alpha=0.6) as layers:
            x = tokens(layers.dimensions.d)
            expected = stripped(DATA / name, x, biases=biases, alpha=0.6)
            assert layers.depth == layers.dimensions.layers == len(expected)
            for index, wanted in enumerate(expected):
                layer = layers.layer(index)
                assert biases or layer.is_plain
                x = layer(jnp.asarray(x))
                assert_close(x, wanted, size=64 * len(expected))


@pytest.mark.parametrize("name", ["albert-groups", "gpt-neo-tied", "qwen2-window", "gpt2-inverse"])
def test_the_stack_is_the_layers_one_after_another(name):
    """Shared weights, masks of several kinds, scales that differ."""
    stack = from_pretrained(DATA / name, dtype="float64").layer_stack(alpha=0.6)
    x = tokens(stack.layers.query.shape[-1])
    assert_close(stack(jnp.asarray(x)), stripped(DATA / name, x, alpha=0.6)[-1], size=512)


def test_rotary_positions_are_kept_when_asked_for():
    """Logits then depend on positions through their difference only, as in the whole model."""
    with open_layers(DATA / "llama-plain", dtype="float64", rotary=True) as layers:
        layer = layers.layer(0)
        assert layer.rotary is not None and not layer.is_plain
        same = jnp.broadcast_to(jnp.asarray(tokens(layers.dimensions.d, 1)), (5, 12))
        logits = np.asarray(layer.logits(same))
    with open_layers(DATA / "llama-plain", dtype="float64") as layers:
        plain = np.asarray(layers.layer(0).logits(same))
    for offset in range(-4, 5):
        diagonals = np.stack([np.diagonal(head, offset) for head in logits])
        np.testing.assert_allclose(diagonals, diagonals[:, :1] + 0 * diagonals, atol=1e-13)
    assert np.abs(logits - plain).max() > 0.01
    np.testing.assert_allclose(
        np.diagonal(logits, 0, 1, 2), np.diagonal(plain, 0, 1, 2), atol=1e-13
    )


def test_masks_of_the_layers():
    with open_layers(DATA / "gpt-neo-tied") as layers:
        assert [layers.layer(i).mask for i in range(3)] == [
            Causal(),
            LocalWindow(3),
            LocalWindow(3),
        ]


def test_layers_that_share_weights_say_so():
    with open_layers(DATA / "albert-groups") as layers:
        assert layers.shared
        assert [layers.block(i) for i in range(layers.depth)] == [0, 1, 0, 1, 2, 3, 2, 3]
    with open_layers(DATA / "bert-erf") as layers:
        assert not layers.shared


def test_there_is_no_such_layer():
    with open_layers(DATA / "bert-erf") as layers:
        for index in (2, -1):
            with pytest.raises(RequestError, match=r"outside 0\.\.1"):
                layers.layer(index)

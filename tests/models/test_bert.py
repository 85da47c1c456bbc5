"""What a call refuses, and the layers of the model as maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pmt.errors import RequestError
from pmt.models import Bert, BertConfig, from_pretrained
from tests.models.conftest import DATA

CONFIG = BertConfig(
    vocab_size=11,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=16,
    max_position_embeddings=6,
)


@pytest.fixture(scope="module")
def model():
    # Compiled as one, since every initial draw by itself compiles too.
    return nnx.jit(lambda: Bert(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.float64))()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": [1, 11]}, "no token id 11; this model has 0 to 10"),
        ({"ids": [1, -1]}, "no token id -1"),
        ({"ids": [1] * 7}, "has 7 tokens; this model takes 1 to 6"),
        ({"ids": np.zeros(0, int)}, "has 0 tokens"),
        ({"ids": [1, 2], "segments": [0, 2]}, "no segment 2; this model has 0 to 1"),
        ({"ids": [[1, 2], [3, 4]], "present": [[True, False], [False, False]]}, "padding only"),
        ({"ids": [1, 2], "present": [True]}, "all must be"),
        ({"ids": np.zeros((1, 1, 1), int)}, "all must be"),
    ],
)
def test_refusals(model, arguments, message):
    given = {name: jnp.asarray(value) for name, value in arguments.items()}
    ids = given.pop("ids")
    with pytest.raises(RequestError, match=message):
        model(ids, **given)


def test_a_fresh_model_has_the_shapes_it_says(model):
    output = model(jnp.array([[1, 2, 3], [4, 5, 6]]))
    assert output.hidden_states.shape == (3, 2, 3, 12)
    assert output.pooled.shape == (2, 12)
    norms = output.hidden_states.mean(axis=-1)
    np.testing.assert_allclose(norms, 0, atol=1e-12)


def test_layer_stack_is_stripped_mode_in_plain_numpy():
    """x <- (x + alpha Attn(x)) / |.|, from the stored tensors, without biases and with them."""
    from safetensors.numpy import load_file

    stored = {
        name: array.astype(np.float64)
        for name, array in load_file(DATA / "bert-tanh" / "model.safetensors").items()
    }
    x = np.random.default_rng(0).normal(size=(4, 24))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    model = from_pretrained(DATA / "bert-tanh", dtype="float64")
    for biases in (False, True):
        expected = x
        for layer in range(3):
            expected = step(expected, stored, f"encoder.layer.{layer}.attention.", biases, 0.6)
        stack = model.layer_stack(biases=biases, alpha=0.6)
        assert stack.layers.has_biases == biases
        np.testing.assert_allclose(stack(jnp.asarray(x)), expected, rtol=1e-12, atol=1e-14)


def step(x, stored, base, biases, alpha):
    def linear(name, y):
        bias = stored[base + name + ".bias"] if biases else 0
        return y @ stored[base + name + ".weight"].T + bias

    q, k, v = (linear(f"self.{name}", x) for name in ("query", "key", "value"))
    mixed = []
    for head in range(3):
        rows = slice(8 * head, 8 * head + 8)
        logits = q[:, rows] @ k[:, rows].T / np.sqrt(8)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        mixed.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, rows])
    y = x + alpha * linear("output.dense", np.concatenate(mixed, axis=1))
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def test_gradients_reach_every_parameter(model):
    ids = jnp.array([[1, 2, 3], [4, 5, 6]])

    def loss(m):
        output = m(ids)
        return jnp.sum(output.hidden_states[-1] ** 3) + jnp.sum(output.pooled)

    gradients = nnx.grad(loss)(model)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(gradients))
    # A shift of all keys by one vector changes no attention weight, so that bias is free.
    silent = [jax.tree_util.keystr(path) for path, leaf in leaves if np.abs(leaf).max() < 1e-12]
    assert leaves and all("key_bias" in path for path in silent)

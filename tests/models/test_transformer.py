"""What a call refuses, what it returns, and that it can be differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pmt.errors import RequestError
from pmt.models import FAMILIES, BertConfig, from_pretrained
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
    parts = frozenset({"pooler", "head"})
    # Compiled as one, since every initial draw by itself compiles too.
    return nnx.jit(lambda: FAMILIES["bert"].build(CONFIG, parts, jnp.float64, nnx.Rngs(0)))()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": [1, 11]}, "no token id 11; this model has 0 to 10"),
        ({"ids": [1, -1]}, "no token id -1"),
        ({"ids": [1] * 7}, "has 7 tokens; this model takes 1 to 6"),
        ({"ids": np.zeros(0, int)}, "has 0 tokens"),
        ({"ids": [1, 2], "segments": [0, 2]}, "no segment 2; this model has 0 to 1"),
        ({"ids": [[1, 2], [3, 4]], "present": [[True, False], [False, False]]}, "padding only"),
        ({"ids": [1, 2], "present": [False, True]}, "padding before a token"),
        ({"ids": [1, 2], "present": [True]}, "all must be"),
        ({"ids": np.zeros((1, 1, 1), int)}, "all must be"),
    ],
)
def test_refusals(model, arguments, message):
    given = {name: jnp.asarray(value) for name, value in arguments.items()}
    ids = given.pop("ids")
    with pytest.raises(RequestError, match=message):
        model(ids, **given)


def test_roberta_refuses_texts_that_reach_beyond_its_positions():
    model = from_pretrained(DATA / "roberta-untied")
    assert model.dimensions.positions == 12 - 3 - 1
    with pytest.raises(RequestError, match="has 9 tokens; this model takes 1 to 8"):
        model(jnp.zeros(9, int))


def test_a_fresh_model_has_the_shapes_it_says(model):
    output = model(jnp.array([[1, 2, 3], [4, 5, 6]]))
    assert output.hidden_states.shape == (3, 2, 3, 12)
    assert output.pooled.shape == (2, 12)
    assert output.logits.shape == (2, 3, 11)
    np.testing.assert_array_equal(output.final, output.hidden_states[-1])
    np.testing.assert_allclose(output.hidden_states.mean(axis=-1), 0, atol=1e-12)


def test_gradients_reach_every_parameter(model):
    ids = jnp.array([[1, 2, 3], [4, 5, 6]])

    def loss(m):
        output = m(ids)
        return (
            jnp.sum(output.hidden_states[-1] ** 3)
            + jnp.sum(output.pooled)
            + jnp.sum(output.logits**2)
        )

    gradients = nnx.grad(loss)(model)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(gradients))
    # A shift of all keys by one vector changes no attention weight, so that bias is free.
    silent = [jax.tree_util.keystr(path) for path, leaf in leaves if np.abs(leaf).max() < 1e-12]
    assert leaves and all("key_bias" in path for path in silent)


def test_a_call_can_be_compiled_as_one(model):
    ids = jnp.array([[1, 2, 3]])
    whole = nnx.jit(lambda m, tokens: m(tokens).logits)(model, ids)
    np.testing.assert_allclose(whole, model(ids).logits, rtol=1e-12, atol=1e-14)

"""The two blocks that a structured start ever moves: against the full model, with its twins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped
from pmt.errors import RequestError
from tests.tolerance import assert_close

D, N, BATCH, LOOPS = 3, 5, 4, 3


@pytest.fixture(scope="module")
def given():
    return jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3))(jax.random.key(0), BATCH, N, D)


@pytest.fixture(scope="module")
def weights():
    """Both blocks full, and nothing else."""
    drawn = looped.initial_weights(D, start="unstructured", scale=0.5, key=jax.random.key(1))
    value = jnp.zeros_like(drawn.value).at[D:, :D].set(drawn.value[D:, :D])
    return looped.Weights(
        value, jnp.zeros_like(drawn.key).at[:D, D:].set(drawn.key[:D, D:]), drawn.gain
    )


@partial(jax.jit, static_argnums=(0, 3))
def every_slope(model, weights, given, norm):
    """The derivative of the loss of every sample on its own."""

    def one(weights, sample):
        batch = jax.tree.map(lambda part: part[None], sample)
        y = model(weights, batch.data, batch.query, LOOPS, norm)
        return looped.sample_losses("subspace", y, batch)[0]

    return jax.vmap(jax.value_and_grad(one), in_axes=(None, 0))(weights, given)


def other_entries(gradient):
    """Largest derivative by an entry outside the two blocks."""
    value, key = np.array(gradient.value), np.array(gradient.key)
    value[..., D:, :D] = 0
    key[..., :D, D:] = 0
    return max(np.abs(value).max(), np.abs(key).max())


@pytest.mark.parametrize("norm", looped.CONFINING)
def test_the_blocks_alone_give_the_loss_and_slope_of_the_full_model(given, weights, norm):
    loss, slope = every_slope(looped.apply_blocks, weights, given, norm)
    whole, full = every_slope(looped.apply, weights, given, norm)
    assert_close(loss, whole, size=100, conditioning=10, scale=float(jnp.max(whole)))
    for one, other in zip(slope[:2], full[:2], strict=True):
        assert_close(one, other, size=100, conditioning=10, scale=float(jnp.max(jnp.abs(other))))
    assert np.abs(slope.value).max() > 0.01
    # Of every sample, and not of their mean: SGD stays where it is too.
    assert other_entries(slope) == 0
    assert other_entries(full) == 0


@pytest.mark.parametrize("block", ["value diagonal", "value upper", "key lower", "layer"])
def test_elsewhere_the_full_model_is_not_stationary(given, weights, block):
    """Drop a hypothesis: another block that is not zero, or a norm that mixes the halves."""
    value, key, norm = weights.value, weights.key, "l2"
    if block == "value diagonal":
        value = value.at[:D, :D].set(0.3 * jnp.eye(D))
    elif block == "value upper":
        value = value.at[:D, D:].set(0.3 * jnp.eye(D))
    elif block == "key lower":
        key = key.at[D:, :D].set(0.3 * jnp.eye(D))
    else:
        norm = "layer"
    moved = weights._replace(value=value, key=key)
    assert other_entries(every_slope(looped.apply, moved, given, norm)[1]) > 1e-3


def test_training_from_a_structured_start_is_training_of_the_full_model(monkeypatch):
    config = looped.TrainConfig(
        d=3, n=5, loops=2, batch=8, train=32, test=8, epochs=4, every=4, dtype="float64"
    )
    assert config.confined
    short = looped.train(config)
    monkeypatch.setattr(looped.TrainConfig, "confined", property(lambda _: False))
    jax.clear_caches()
    whole = looped.train(config)
    for one, other in zip(short.weights, whole.weights, strict=True):
        assert_close(one, other, size=1000, conditioning=10)
    jax.clear_caches()


def test_a_norm_that_moves_data_tokens_is_refused(given, weights):
    with pytest.raises(RequestError, match="the norm is 'rms'; two blocks are all there is for l2"):
        looped.apply_blocks(weights, given.data, given.query, LOOPS, "rms")


@pytest.mark.parametrize("changed", [{"start": "unstructured"}, {"norm": "rms"}, {"norm": "layer"}])
def test_other_runs_train_all_blocks(changed):
    assert not looped.TrainConfig(**changed).confined

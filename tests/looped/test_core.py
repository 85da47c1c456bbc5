"""The model: against plain NumPy, its written reverse pass against autodiff, and the module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pmt import looped
from pmt.errors import RequestError
from pmt.looped import core
from tests.tolerance import assert_close
from theory import oracles_looped as oracle

D, N, BATCH, LOOPS = 3, 4, 2, 3


# Compiled as one function: operation by operation would compile each of them.
APPLY = jax.jit(looped.apply, static_argnums=(3, 4))


@pytest.fixture(scope="module")
def given():
    drawn = jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3))
    return drawn(jax.random.key(0), BATCH, N, D)


@pytest.fixture(scope="module")
def weights():
    drawn = looped.initial_weights(D, start="unstructured", scale=0.3, key=jax.random.key(1))
    gain = drawn.gain * (1.0 + 0.1 * jnp.arange(2 * D, dtype=drawn.gain.dtype))
    return drawn._replace(gain=gain)


@pytest.mark.parametrize("norm", looped.NORMS)
def test_the_model_is_the_papers_formula_in_columns(given, weights, norm):
    found = APPLY(weights, given.data, given.query, LOOPS, norm)
    arrays = [np.asarray(part) for part in weights]
    for index in range(BATCH):
        x, a = np.asarray(given.data[index]).T, np.asarray(given.query[index])
        expected = oracle.looped(x, a, *arrays, LOOPS, norm)
        assert_close(found[index], expected, size=100, conditioning=100)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="halves are for the cores of a CPU")
def test_halves_of_a_batch_give_what_the_whole_gives(weights, monkeypatch):
    drawn = jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3))(jax.random.key(4), 5, N, D)

    def value_and_slope():
        def total(weights):
            return jnp.sum(looped.apply(weights, drawn.data, drawn.query, LOOPS, "l2")[:, 0] ** 3)

        compiled = jax.jit(jax.value_and_grad(total)).lower(weights)
        return compiled.compile()(weights), compiled.as_text().count("concatenate")

    whole, joined = value_and_slope()
    monkeypatch.setattr(core, "_WORTH_HALVING", 5)
    halves, again = value_and_slope()
    assert again > joined
    for one, other in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(other))))
        assert_close(one, other, size=100, conditioning=10, scale=scale)


def plainly(weights, e, loops, norm):
    def one(e):
        for _ in range(loops):
            e = looped.loop(weights, e, norm)
        return e[-1]

    return jax.vmap(one)(e)


@pytest.mark.parametrize(
    ("norm", "loops"), [("l2", 1), ("l2", 3), ("rms", 2), ("layer", 2), ("none", 2)]
)
def test_the_written_reverse_pass_is_the_derivative(given, weights, norm, loops):
    start = looped.embed(given.data, given.query)
    toward = jax.random.normal(jax.random.key(2), (BATCH, 2 * D))

    def value(function):
        loss = jax.grad(lambda w, e: jnp.sum(toward * function(w, e, loops, norm)), (0, 1))
        return jax.jit(loss)

    found = jax.tree.leaves(value(looped.looped)(weights, start))
    expected = jax.tree.leaves(value(plainly)(weights, start))
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(other))))
        assert_close(one, other, size=100, conditioning=100, scale=scale)


def test_seeds_are_a_batch_of_models(given, weights):
    both = jax.tree.map(lambda part: jnp.stack([part, 0.5 * part]), weights)
    each = jax.jit(jax.vmap(lambda w: looped.apply(w, given.data, given.query, LOOPS, "l2")))(both)
    half = jax.tree.map(lambda part: part[1], both)
    alone = APPLY(half, given.data, given.query, LOOPS, "l2")
    assert_close(each[1], alone, size=100)


def test_on_the_manifold_the_data_stay_and_the_query_takes_power_steps(given):
    point = looped.on_manifold(1.7, 0.4, D)
    e = looped.embed(given.data, given.query)
    for _ in range(LOOPS):
        e = jax.vmap(lambda e: looped.loop(point, e, "l2"))(e)
    assert_close(e[:, :-1, :D], given.data, size=50)
    assert np.all(np.asarray(e[:, :-1, D:]) == 0) and np.all(np.asarray(e[:, -1, :D]) == 0)
    y = looped.reduced(given.data, given.query, 1.7 * 0.4, LOOPS)
    expected = y / jnp.linalg.norm(y, axis=-1, keepdims=True)
    assert_close(e[:, -1, D:], expected, size=100)
    far = looped.on_manifold(1e7, 1e7, D)
    y = APPLY(far, given.data, given.query, LOOPS, "l2")
    assert_close(
        y, looped.power_iterate(given.data, given.query, LOOPS), size=100, conditioning=100
    )
    for index in range(BATCH):
        x, a = np.asarray(given.data[index]).T, np.asarray(given.query[index])
        expected = oracle.power_steps(x, a, LOOPS)
        assert_close(
            looped.power_iterate(given.data, given.query, LOOPS)[index], expected, size=100
        )


def test_a_token_that_vanishes_stays_zero():
    for norm in ("l2", "rms", "layer"):
        y = looped.normalized(norm, jnp.zeros((1, 4)), jnp.ones(4))
        assert np.all(np.asarray(y) == 0)


def test_the_module_computes_the_function(given):
    model = looped.LoopedTransformer(D, LOOPS, "rms", rngs=nnx.Rngs(0), start="unstructured")
    found = nnx.jit(lambda model, *sample: model(*sample))(model, given.data, given.query)
    expected = APPLY(model.weights, given.data, given.query, LOOPS, "rms")
    assert_close(found, expected, size=100)
    assert_close(model(given.data[0], given.query[0]), found[0], size=100)
    assert sorted(nnx.state(model, nnx.Param)) == ["gain", "key", "value"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"norm": "l3"}, "the norm is 'l3'; it must be one of l2, rms"),
        ({"loops": 0}, "loops is 0"),
        ({"start": "unstructured"}, "give a key"),
        ({"start": "elsewhere"}, "it must be one of structured, unstructured"),
        ({"weights": looped.initial_weights(2)}, "for d = 3 both must be"),
    ],
)
def test_a_wrong_request_is_one_sentence(arguments, sentence):
    with pytest.raises(RequestError, match=sentence):
        looped.LoopedTransformer(D, **arguments)

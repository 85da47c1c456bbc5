"""The range of a layer norm: against its own outputs, and against a search over them."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from pmt.errors import RequestError
from pmt.models.norm import LayerNorm
from pmt.steering import reach

EPSILON = 0.1


def layer_norm(gain, bias, y):
    norm = LayerNorm(len(gain), epsilon=EPSILON, dtype=jnp.float64)
    norm.scale[...], norm.bias[...] = jnp.asarray(gain), jnp.asarray(bias)
    return np.asarray(norm(jnp.asarray(y)[None])[0])


def some_norm(rng, d):
    gain = rng.normal(size=d) * np.exp(0.7 * rng.normal(size=d))
    return gain, rng.normal(size=d) * np.exp(rng.normal())


def searched(gain, bias, w, rng, starts=12):
    """The largest cosine over sum(u) = 0, |u|² = d, from many starts."""
    d = len(gain)

    def negative(v):
        v = v - v.mean()
        z = gain * v * np.sqrt(d) / np.linalg.norm(v) + bias
        return -(z @ w) / np.linalg.norm(z) / np.linalg.norm(w)

    found = [
        scipy.optimize.minimize(negative, rng.normal(size=d), method="BFGS", tol=1e-9).fun
        for _ in range(starts)
    ]
    return -min(found)


def plain(rng, d):
    return some_norm(rng, d)


def without_bias(rng, d):
    return some_norm(rng, d)[0], np.zeros(d)


def balanced(rng, d):
    """sum(b / g) = 0: the outputs lie in a hyperplane through zero."""
    gain, bias = some_norm(rng, d)
    bias = 3.0 * bias
    return gain, bias - gain * (bias / gain).mean()


def one_silent(rng, d):
    gain, bias = some_norm(rng, d)
    return np.where(np.arange(d) < 1, 0.0, gain), bias


def two_silent(rng, d):
    gain, bias = some_norm(rng, d)
    return np.where(np.arange(d) < 2, 1e-30, gain), bias


def mostly_bias(rng, d):
    gain, bias = some_norm(rng, d)
    return gain, 20.0 * bias


@pytest.mark.parametrize(
    "kind", [plain, without_bias, balanced, one_silent, two_silent, mostly_bias]
)
def test_the_nearest_output_is_what_a_search_finds(kind):
    rng = np.random.default_rng(1)
    gain, bias = kind(rng, 5)
    w = rng.normal(size=5)
    found = reach(gain, bias, EPSILON, w)
    for cosine, target in ((found.cosine, w), (found.opposite, -w)):
        assert abs(cosine - max(searched(gain, bias, target, rng), 0.0)) < 1e-6


def test_both_cones_the_inside_and_the_side_without_outputs_are_met():
    """The four ways to the nearest output: each in the search above, or here."""
    gain, bias = np.ones(3), np.array([2.0, 2.0, 2.0])
    # A circle of radius √3 about (2, 2, 2), whose axis is at 2√3: the half angle has tangent 1/2.
    edge = np.arctan(0.5)
    axis, across = np.ones(3) / np.sqrt(3), np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    for angle, expected in ((0.0, edge), (0.2, edge - 0.2), (0.9, 0.9 - edge), (1.5, 1.5 - edge)):
        found = reach(gain, bias, EPSILON, np.cos(angle) * axis + np.sin(angle) * across)
        assert abs(found.cosine - np.cos(expected)) < 1e-12
        assert found.excluded == (angle > edge)
        assert abs(found.opposite - max(np.cos(np.pi - angle - edge), 0.0)) < 1e-12
    backwards = reach(gain, bias, EPSILON, -axis)
    assert backwards.excluded and backwards.cosine == 0.0 and backwards.factor < 0


@pytest.mark.parametrize("kind", [plain, without_bias, balanced, one_silent, two_silent])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_an_output_is_not_excluded_and_its_variance_is_found(kind, size):
    rng = np.random.default_rng(5)
    gain, bias = kind(rng, 6)
    y = size * rng.normal(size=6)
    z = layer_norm(gain, bias, y)
    found = reach(gain, bias, EPSILON, 7.0 * z, inputs=np.stack([y, 2 * y]))
    assert not found.excluded and abs(found.seen - np.var(y)) < 1e-12
    assert found.silent == {"one_silent": 1, "two_silent": 2}.get(kind.__name__, 0)
    # Of the inputs with that output the least one is told; only two zero gains leave a choice.
    # Without a bias, or with a balanced one, every multiple has an input, and zero the least.
    if kind in (without_bias, balanced):
        assert found.variance <= np.var(y) * (1 + 1e-9)
    elif kind is two_silent:
        assert found.variance < np.var(y)
    else:
        assert abs(found.factor - np.linalg.norm(z)) < 1e-9
        assert abs(found.variance / np.var(y) - 1) < 1e-8
        assert abs(found.mean_square - np.var(y) / (np.var(y) + EPSILON)) < 1e-9


@pytest.mark.parametrize("kind", [plain, one_silent])
def test_what_no_input_has_is_excluded_on_either_side_of_the_bound(kind):
    rng = np.random.default_rng(8)
    gain, bias = kind(rng, 6)
    u = rng.normal(size=6)
    u -= u.mean()
    for square, excluded in ((0.999999, False), (1.000001, True)):
        z = gain * u * np.sqrt(6 * square) / np.linalg.norm(u) + bias
        found = reach(gain, bias, EPSILON, z)
        assert found.excluded == excluded and abs(found.mean_square - square) < 1e-9
        assert (found.variance is None) == excluded and 1 - 1e-9 < found.cosine < 1
    opposite = reach(gain, bias, EPSILON, -(gain * u / 10 + bias))
    assert opposite.excluded and opposite.variance is None
    assert opposite.factor is None if kind is one_silent else opposite.factor < 0


def test_entries_that_are_nearly_constant_are_lost():
    """As in minilm: two gains are nothing, and one is 1e-9 of the others, with one sign for ever.

    It is not lost on that side, since the two free entries can take all of |u| and leave little.
    """
    gain = np.array([1e-33, 1.0, -2e-33, 1e-9, 0.7, 0.9, -1.2])
    bias = np.array([1e-32, 0.1, 0.0, -1e-7, 0.2, -0.1, 0.1])
    w = np.random.default_rng(2).normal(size=7)
    w /= np.linalg.norm(w)
    least, most = np.linalg.norm(w[[1, 4, 5, 6]]), np.linalg.norm(w[[1, 3, 4, 5, 6]])
    assert most - least > 0.1
    for sign in (1, -1):
        found = reach(gain, bias, 1e-12, sign * w)
        assert found.excluded and found.silent == 2
        expected = (least, most) if sign * w[3] > 0 else (most, least)
        np.testing.assert_allclose((found.cosine, found.opposite), expected, atol=1e-6)


def test_equations_that_contradict_each_other():
    gain, bias = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    silent = reach(gain, bias, EPSILON, np.array([1.0, 2.0, 0.0]))
    assert silent.excluded and silent.factor is None and silent.silent_share == 0.0
    parallel = reach(np.ones(3), np.ones(3), EPSILON, np.array([1.0, -1.0, 0.0]))
    assert parallel.excluded and parallel.factor is None
    # Of u = (√(3/2), -√(3/2), 0) and b: two parts in three of |z|² = 6 lie in the plane.
    assert abs(parallel.cosine - np.sqrt(3.0) / np.sqrt(6.0)) < 1e-12


def test_norms_that_are_none():
    with pytest.raises(RequestError, match=r"gain of shape \(3,\) and a bias of shape \(2,\)"):
        reach(np.ones(3), np.ones(2), EPSILON, np.ones(3))
    with pytest.raises(RequestError, match="and be finite"):
        reach(np.array([1.0, np.inf]), np.ones(2), EPSILON, np.ones(2))
    with pytest.raises(RequestError, match="gives its bias whatever"):
        reach(np.zeros(3), np.ones(3), EPSILON, np.ones(3))
    with pytest.raises(RequestError, match="epsilon is -1"):
        reach(np.ones(3), np.ones(3), -1.0, np.ones(3))
    with pytest.raises(RequestError, match="the direction is zero"):
        reach(np.ones(3), np.ones(3), EPSILON, np.zeros(3))

"""Rotary positions: rotations that make logits depend on differences of positions only."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria, stability
from pmt.attention import Rotary
from pmt.dynamics import MultiHead, head_attention
from pmt.errors import RequestError
from pmt.models.rotary import RotaryFrequencies
from tests.tolerance import assert_close

N, K = 5, 6
FREQUENCIES = np.array([0.9, 0.2])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_planes_are_turned_as_complex_numbers():
    """Coordinates p and p + 2 of six are one plane; the last two stay."""
    x = draw(3, N, K)
    turned = np.asarray(Rotary(jnp.asarray(FREQUENCIES)).turn(jnp.asarray(x)))
    angle = np.arange(N)[:, None] * FREQUENCIES
    plane = (x[..., :2] + 1j * x[..., 2:4]) * np.exp(1j * angle)
    assert_close(turned[..., :2], plane.real)
    assert_close(turned[..., 2:4], plane.imag)
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])


def test_logits_depend_on_the_difference_of_positions():
    rotary = Rotary(jnp.asarray(FREQUENCIES))
    q, k = (np.broadcast_to(draw(1, 1, K, seed=s), (1, N, K)) for s in (1, 2))
    logits = (
        np.asarray(rotary.turn(jnp.asarray(q)))[0] @ np.asarray(rotary.turn(jnp.asarray(k)))[0].T
    )
    for offset in range(1 - N, N):
        along = np.diagonal(logits, offset)
        assert_close(along, np.full_like(along, along[0]), scale=np.abs(logits).max(), size=N * K)
    assert np.ptp(logits) > 0.1


@pytest.mark.parametrize(
    "scaling", [("default",), ("linear", 4.0), ("llama3", 8.0, 1.0, 4.0, 64.0)]
)
def test_frequencies(scaling):
    values = RotaryFrequencies(8, 100.0, scaling).values()
    plain = 100.0 ** (-np.arange(8) / 8)
    assert np.all(np.diff(values) < 0)
    if scaling[0] == "default":
        np.testing.assert_allclose(values, plain, rtol=1e-15)
    if scaling[0] == "linear":
        np.testing.assert_allclose(values, plain / 4, rtol=1e-15)
    if scaling[0] == "llama3":
        turns = 64.0 * plain / (2 * np.pi)
        np.testing.assert_allclose(values[turns > 4], plain[turns > 4], rtol=1e-15)
        np.testing.assert_allclose(values[turns < 1], plain[turns < 1] / 8, rtol=1e-15)
        between = (turns > 1) & (turns < 4)
        assert between.any() and (turns > 4).any() and (turns < 1).any()
        assert np.all((values[between] > plain[between] / 8) & (values[between] < plain[between]))


@pytest.fixture(scope="module")
def system():
    d = 4
    f = np.diag([1.0, 0.5, 0.2, -0.3])
    return MultiHead(
        query=draw(1, K, d, seed=3),
        key=draw(1, K, d, seed=4),
        value=f[None],
        output=np.eye(d)[None],
        alpha=0.3,
        scale=0.4,
        mask="causal",
        rotary=Rotary(jnp.asarray(FREQUENCIES)),
    )


def test_consensus_with_positions_has_the_spectrum_of_its_attention_matrix(system):
    """II.6 of the theory: (1 + alpha mu lam_l) / (1 + alpha lam_1), mu in spec A, any positions."""
    v = np.eye(4)[0]
    x = jnp.asarray(np.broadcast_to(v, (N, 4)).copy())
    np.testing.assert_allclose(system(x), x, atol=1e-15)
    found = np.linalg.eigvals(np.asarray(stability.jacobian.intrinsic(system, x)))
    weights = np.linalg.eigvals(np.asarray(head_attention(system, x))[0])
    expected = [(1 + 0.3 * mu * lam) / 1.3 for mu in weights for lam in (0.5, 0.2, -0.3)]
    # A causal attention matrix is triangular and far from normal.
    assert_close(np.sort(found.real), np.sort(np.real(expected)), size=N * 4, conditioning=100.0)
    plain = replace(system, rotary=None)
    assert np.abs(head_attention(plain, x) - head_attention(system, x)).max() > 0.01


def test_the_closed_forms_refuse_positions_and_the_verdict_is_dense(system):
    v, signs = jnp.eye(4)[0], jnp.ones(N)
    with pytest.raises(RequestError, match="without biases and rotary positions"):
        stability.jacobian.signed_consensus(system, v, signs)
    point = equilibria.consensus(replace(system, rotary=None), index=0, tokens=N)
    answer = stability.analyze(system, point.x)
    assert answer.method == "dense" and answer.verdict == "stable"


def test_positions_are_part_of_what_transformations_see(system):
    turned = jax.tree.map(lambda leaf: leaf, system)
    x = jnp.asarray(draw(N, 4, seed=5))
    np.testing.assert_array_equal(
        jax.jit(lambda s, y: s(y))(turned, x), jax.jit(lambda s, y: s(y))(system, x)
    )
    gradient = jax.grad(lambda s: jnp.sum(s(x)[:, 0]))(system).rotary.frequencies
    assert np.abs(gradient).min() > 0

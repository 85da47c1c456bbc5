"""The points of Lemmas 1 and 8: existence conditions, and what the point is where they fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria, sphere
from pmt.dynamics import LayerStack, LocalWindow, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from tests.tolerance import assert_close


def diagonal(*entries, alpha=0.25, theta=None):
    value = jnp.diag(jnp.array(entries))
    if theta is None:
        return Oja(value, alpha=alpha)
    return SingleHead(value, theta * jnp.eye(len(entries)), alpha=alpha)


def symmetric(d, seed=0):
    a = np.random.default_rng(seed).normal(size=(d, d))
    return (a + a.T) / 2


@pytest.mark.float32
@pytest.mark.parametrize("mask", ["full", "causal", LocalWindow(2)])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_consensus_and_bipartite_are_fixed_at_every_eigenvector(mask, index):
    value = symmetric(4)
    alpha = 0.5 / np.abs(np.linalg.eigvalsh(value)).max()
    for system in (
        Oja(value, alpha=alpha, mask=mask),
        SingleHead(value, symmetric(4, 1), alpha=alpha, mask=mask),
    ):
        for point in (
            equilibria.consensus(system, index, 5, sign=-1),
            equilibria.bipartite(system, index, (3, 2)),
        ):
            assert point.status == "equilibrium", point.conditions
            assert point.exists and point.period == 1
            assert all(c.holds for c in point.conditions)
            assert_close(system(point.x), point.x, size=20)
            expected = np.sort(np.linalg.eigvalsh(value))[::-1][index]
            assert_close(point.eigenvalue, expected, size=16, dtype=system.value.dtype, scale=1.0)


@pytest.mark.parametrize(
    ("alpha", "status", "period"),
    [(0.3, "equilibrium", 1), (1 / 3, "undefined", None), (0.5, "2-cycle", 2)],
)
def test_consensus_at_a_negative_eigenvalue(alpha, status, period):
    """Lemma 3 corrected: 1 + alpha λ_k > 0, = 0, < 0 at λ = −3."""
    system = diagonal(1.0, -3.0, alpha=alpha)
    point = equilibria.consensus(system, 1, 2)
    assert (point.status, point.period) == (status, period)
    margin = {c.name: c.margin for c in point.conditions}["1 + alpha λ > 0"]
    assert_close(margin, 1 - 3 * alpha, scale=1.0, dtype=jnp.float64)
    if status == "2-cycle":
        assert_close(system(point.x), -point.x)
        assert point.residual < 1e-14


@pytest.mark.parametrize(
    ("alpha", "status"), [(1.9, "equilibrium"), (2.0, "undefined"), (2.1, "not fixed")]
)
def test_unbalanced_bipartite_exists_iff_the_bound_holds(alpha, status):
    """Lemma 1 corrected: alpha |λ| |n1 − n2| / n < 1; here (3, 1) at λ = 1, bound alpha = 2."""
    system = diagonal(1.0, 0.2, alpha=alpha)
    point = equilibria.bipartite(system, 0, (3, 1))
    assert point.status == status
    if status == "not fixed":
        # The single token jumps to the side of the others.
        assert_close(system(point.x), jnp.broadcast_to(point.x[0], (4, 2)))


def test_bipartite_under_a_causal_mask_depends_on_the_order_of_signs():
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.2])), 0.1 * jnp.eye(2), alpha=3.0, mask="causal")
    assert equilibria.bipartite(system, 0, signs=[1, -1, 1, -1]).status != (
        equilibria.bipartite(system, 0, signs=[1, 1, 1, -1]).status
    )


def test_several_heads_need_a_common_eigenvector_at_bipartite_points():
    heads = np.stack([np.diag([1.0, 0.3, -0.2]), np.diag([0.8, 0.1, 0.4])])
    query_key = np.stack([2 * np.eye(3), 1.5 * np.eye(3)])
    system = MultiHead.from_maps(heads, query_key, alpha=0.2)
    assert equilibria.bipartite(system, 0, (3, 2)).exists
    tilt = 0.1 * symmetric(3)
    apart = MultiHead.from_maps(heads + np.stack([tilt, -tilt]), query_key, alpha=0.2)
    assert_close(apart.layer_matrix, system.layer_matrix, size=8)
    assert equilibria.consensus(apart, 0, 5).exists
    point = equilibria.bipartite(apart, 0, (3, 2))
    assert point.status == "not fixed"
    assert {c.name: c.status for c in point.conditions}["direction"] == "fails"


@pytest.mark.parametrize("tokens", [2, 3, 5, 8])
def test_polygons_of_oja_have_zero_mean_and_are_fixed(tokens):
    system = Oja(symmetric(4), alpha=0.3)
    point = equilibria.polygonal(system, tokens)
    assert point.exists
    assert_close(point.x.sum(0), np.zeros(4), scale=float(tokens))
    assert_close(sphere.norm(point.x), jnp.ones(tokens), size=4)


def test_polygonal_point_of_a_single_head_needs_an_isotropic_direction():
    """Lemma 8.3 corrected: Σ x_j = 0 and x_iᵀ B x_j = 0; none if B's symmetric part is definite."""
    value = jnp.array([[1.0, 0.5], [0.5, -0.5]])
    system = SingleHead(value, jnp.array([[1.0, 2.0], [0.0, -3.0]]), alpha=0.25)
    point = equilibria.polygonal(system, 4)
    assert point.exists
    assert_close(point.x[0] @ system.query_key @ point.x[0], 0.0, scale=3.0, dtype=jnp.float64)
    means = equilibria.attended_means(system, point.x)
    assert_close(means, jnp.zeros_like(means), scale=1.0)
    with pytest.raises(RequestError, match="is definite"):
        equilibria.polygonal(dataclasses.replace(system, query_key=jnp.eye(2)), 4)


def test_zero_sum_alone_is_not_polygonal_for_softmax():
    """The triangle of Lemma 8 with a generic B moves: the condition says which test fails."""
    system = SingleHead(symmetric(3), symmetric(3, 5), alpha=0.3)
    point = equilibria.polygonal(system, 3, directions=np.eye(3)[:2])
    assert point.status == "not fixed"
    assert {c.name: c.status for c in point.conditions}["attended means"] == "fails"


def test_polygonal_points_do_not_exist_under_a_causal_mask():
    point = equilibria.polygonal(Oja(symmetric(3), alpha=0.3, mask="causal"), 3)
    assert {c.name: c.status for c in point.conditions}["attended means"] == "fails"


def test_clustering_example_of_the_theory():
    """II.10: V = diag(−1.0007, 1.5111), angles 106.086 and −60.876 degrees, radius .948."""
    system = SingleHead(
        jnp.diag(jnp.array([-1.0007, 1.5111])),
        jnp.array([[13.795, 6.484], [2.167, 1.241]]),
        alpha=0.2,
    )
    angles = jnp.deg2rad(jnp.array([106.086, -60.876]))
    guess = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    rough = equilibria.clustering(system, guess, [0, 1])
    assert rough.status == "not fixed"
    found = equilibria.newton(system, guess)
    point = equilibria.clustering(system, found.x, [0, 1])
    assert point.exists
    # The example is printed to three decimals of a degree and four of V.
    assert np.abs(found.x - guess).max() < 1e-3
    strength = np.asarray(jnp.sum(found.x * system.update(found.x), axis=-1))
    np.testing.assert_allclose(strength, [0.227, -0.169], atol=1e-3)


def test_one_cluster_off_the_eigenvectors_is_not_fixed():
    """Remark 6 corrected: a 1-clustering off the eigenvectors does not exist."""
    system = diagonal(1.0, 0.5, theta=1.0)
    p = sphere.normalize(jnp.array([[1.0, 1.0]]))
    assert equilibria.clustering(system, p, [0, 0, 0]).status == "not fixed"


def test_complex_eigenvalues_and_stacks_have_no_consensus():
    """Fault 53."""
    turning = Oja(jnp.array([[0.0, -1.0], [1.0, 0.0]]))
    with pytest.raises(RequestError, match="eigenvalue 0 of the layer matrix is complex"):
        equilibria.consensus(turning, 0, 3)
    weights = jnp.ones((1, 2, 3))
    stack = LayerStack.from_layers([MultiHead(weights, weights, weights, jnp.ones((1, 3, 2)))])
    with pytest.raises(RequestError, match="a LayerStack has no equilibria"):
        equilibria.consensus(stack, 0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: equilibria.consensus(s, 2, 3), "index is 2; the layer matrix has 2"),
        (lambda s: equilibria.consensus(s, 0, 0), "tokens is 0"),
        (lambda s: equilibria.consensus(s, 0, 2, sign=0), "sign is 0; it must be 1 or -1"),
        (lambda s: equilibria.bipartite(s, 0, (3, 0)), "both groups need at least one token"),
        (lambda s: equilibria.bipartite(s, 0, signs=[1, 1]), "1 and -1 that holds both"),
        (lambda s: equilibria.polygonal(s, 3, directions=np.eye(2)[:1]), "need an even number"),
        (lambda s: equilibria.polygonal(s, 4, directions=np.ones((2, 2))), "orthonormal rows"),
        (lambda s: equilibria.clustering(s, jnp.eye(2), [0, 0]), "must use every centre"),
    ],
)
def test_bad_requests_are_refused(call, message):
    with pytest.raises(RequestError) as caught:
        call(diagonal(1.0, 0.5))
    assert message in str(caught.value)


def test_single_token_and_one_dimension():
    """Faults 65 and 66."""
    assert equilibria.consensus(diagonal(1.0, 0.5), 0, 1).exists
    line = Oja(jnp.array([[0.5]]), alpha=0.3)
    assert equilibria.consensus(line, 0, 3).exists
    assert equilibria.bipartite(line, 0, (2, 1)).exists


@pytest.mark.float32
def test_newton_finds_unstable_points_and_reports_what_it_found():
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.4, -0.5])), jnp.eye(3), alpha=0.3)
    wanted = equilibria.bipartite(system, 1, (2, 1)).x
    noise = 0.05 * jax.random.normal(jax.random.key(0), (4, 3, 3))
    runs = equilibria.newton(system, sphere.normalize(wanted[None] + noise))
    assert (np.asarray(runs.result) == 1).all()
    assert_close(runs.x, jnp.broadcast_to(wanted, (4, 3, 3)), size=9, conditioning=20.0)


def test_newton_says_two_cycle_and_budget():
    cycle = diagonal(1.0, -3.0, alpha=0.5)
    near = sphere.normalize(jnp.array([[0.1, 1.0], [0.05, 1.0]]))
    assert equilibria.newton(cycle, near).result == 2
    system = SingleHead(symmetric(3), symmetric(3, 2), alpha=0.3)
    start = sphere.uniform(jax.random.key(0), (4, 3))
    assert equilibria.newton(system, start, max_iterations=1).result == 3

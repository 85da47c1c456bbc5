"""Krylov multipliers beside the dense ones, and where they must not claim anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.dynamics import Oja, SingleHead, run_to_equilibrium, tangent_jacobian
from pmt.errors import RequestError
from pmt.stability import conditions, matrix_free
from pmt.stability.family import family_spectra
from pmt.stability.matrix_free import leading_multipliers
from pmt.stability.spectrum import bipartite_spectrum, consensus_spectrum

N, D = 12, 8


@pytest.fixture(scope="module")
def settled():
    """A fixed point of no closed form: large logits, so that clusters form."""
    rng = np.random.default_rng(3)
    value = rng.standard_normal((D, D))
    system = SingleHead(
        jnp.asarray((value + value.T) / 8), jnp.asarray(4 * rng.standard_normal((D, D))), alpha=0.3
    )
    x0 = rng.standard_normal((N, D))
    run = run_to_equilibrium(
        system, x0 / np.linalg.norm(x0, axis=1, keepdims=True), max_steps=20_000
    )
    assert int(run.result) == 1
    return system, run.x, np.asarray(jax.jit(tangent_jacobian)(system, run.x))


def sorted_by_modulus(values):
    return values[np.argsort(-np.abs(values), kind="stable")]


def test_the_leading_multipliers_are_the_dense_ones(settled):
    system, x, matrix = settled
    found = leading_multipliers(system, x, 6)
    dense = sorted_by_modulus(np.linalg.eigvals(matrix))
    assert found.method == "krylov" and found.converged.all()
    # Each is one of the dense ones, and the largest modulus is not missed.
    gaps = np.abs(found.values[:, None] - dense[None]).min(axis=1)
    assert (gaps <= found.errors + 1e-12).all() and (found.errors < 1e-9).all()
    assert abs(found.spectral_radius - abs(dense[0])) < 1e-10
    assert found.verdict == ("stable" if abs(dense[0]) < 1 else "unstable")
    assert found.residuals.max() < 1e-10
    whole = leading_multipliers(system, x, 6, dense=1000)
    assert whole.method == "dense"
    np.testing.assert_allclose(np.abs(whole.values), np.abs(dense[:6]), rtol=0, atol=1e-10)
    assert whole.verdict == found.verdict


def oja(transverse, n, alpha=0.5):
    """(system, x): λ_1 = 1 and the given block on v_1^⊥; consensus at v_1, n tokens."""
    d = 1 + len(transverse)
    value = np.zeros((d, d))
    value[0, 0], value[1:, 1:] = 1.0, transverse
    x = np.zeros((n, d))
    x[:, 0] = 1.0
    return Oja(jnp.asarray(value), alpha=alpha), jnp.asarray(x)


@pytest.mark.parametrize("beyond", [-1e-9, 1e-9])
def test_a_defective_multiplier_next_to_the_circle_is_not_decided(beyond):
    """A Jordan block at λ_1 + beyond: rounding moves its multipliers by the root of eps."""
    block = (1.0 + beyond) * np.eye(2) + np.array([[0.0, 1.0], [0.0, 0.0]])
    found = leading_multipliers(*oja(block, 40))
    assert found.verdict == "undecided"
    # With four tokens LAPACK answers, and only the condition number warns.
    few = leading_multipliers(*oja(block, 4))
    assert (few.method, few.verdict) == ("dense", "undecided")
    # Without the Jordan block the same distance is decided.
    simple = leading_multipliers(*oja(np.diag([1.0 + beyond, 0.2]), 40))
    assert simple.verdict == ("stable" if beyond < 0 else "unstable")


@pytest.mark.long
def test_many_multipliers_of_one_modulus_are_not_decided_in_few_products():
    """All of 100 transverse multipliers lie on a circle of radius 1.01: no Krylov space of 24."""
    angle = np.random.default_rng(0).uniform(0, np.pi, 50)
    block = np.zeros((100, 100))
    for k, turn in enumerate(angle):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        block[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = (1.5 * 1.01 * rotation - np.eye(2)) / 0.5
    system, x = oja(block, 1)
    found = leading_multipliers(system, x, max_products=60)
    assert found.verdict == "undecided"
    assert not found.converged.any()
    assert leading_multipliers(system, x, dense=100).verdict == "unstable"


def test_a_state_that_is_not_fixed_is_refused():
    system, x = oja(np.diag([0.5, 0.2]), 4)
    with pytest.raises(RequestError, match="multipliers belong to fixed points"):
        leading_multipliers(system, sphere.normalize(x + 0.1))
    with pytest.raises(RequestError, match="krylov is 3"):
        leading_multipliers(system, x, 2, krylov=3)
    # A small step moves every state little.
    slow, at_v1 = oja(np.diag([-1.0, 0.2]), 4, alpha=1e-7)
    moving = np.tile([np.cos(0.17), np.sin(0.17), 0.0], (4, 1))
    with pytest.raises(RequestError, match="of the step"):
        leading_multipliers(slow, moving)
    assert leading_multipliers(slow, at_v1).verdict == "stable"


def test_a_multiplier_of_unknown_error_beside_the_largest_is_not_decided():
    pairs = matrix_free._Pairs(np.array([0.9999 + 0j]), np.ones((1, 1)), True)
    for second, verdict in ((0.99989, "undecided"), (0.5, "stable")):
        found = matrix_free._answer(
            np.array([0.9999, second]), np.zeros(2), np.array([1.0, np.inf]), 1e-14, pairs, pairs,
            1, 0.0,
        )  # fmt: skip
        assert found.verdict == verdict


def family(count, n, d, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(count, d, d))
    values, vectors = np.linalg.eigh((raw + raw.swapaxes(1, 2)) / 2)
    system = SingleHead(
        jnp.asarray((raw + raw.swapaxes(1, 2)) / 2),
        jnp.asarray(rng.normal(size=(count, d, d))),
        alpha=jnp.asarray(0.5 / np.abs(values).max(axis=1)),
        scale=jnp.full(count, 1.0),
    )
    return system, jnp.asarray(vectors[:, :, -1]), values


def test_a_family_is_every_system_by_itself_and_the_exact_criterion():
    systems, v, values = family(500, 5, 4)
    signs = jnp.array([1.0, 1.0, 1.0, -1.0, -1.0])
    found = family_spectra(systems, v, signs, symmetric=True, chunk=64, keep=True)
    assert found.spectral_radius.shape == (500,)
    theta = np.einsum("sa,sab,sb->s", v, systems.query_key, v)
    margin = jax.jit(jax.vmap(lambda a, b, t: conditions.exact_bipartite_margin(a, b, t, 3, 2)))(
        jnp.asarray(values[:, -1]), jnp.asarray(values[:, :-1]), jnp.asarray(theta)
    )
    decided = np.abs(found.spectral_radius - 1) > 1e-12
    stable = np.asarray(margin) > 0
    assert 20 < stable.sum() < 480
    np.testing.assert_array_equal((found.spectral_radius < 1)[decided], stable[decided])
    one = jax.tree.map(lambda leaf: leaf[17], systems)
    alone = np.asarray(jax.jit(bipartite_spectrum)(one, v[17], signs))
    assert abs(np.abs(alone).max() - found.spectral_radius[17]) < 1e-12
    with pytest.raises(RequestError, match="signs"):
        family_spectra(systems, v, jnp.zeros(5))
    nothing = jax.tree.map(lambda leaf: leaf[:0], systems)
    with pytest.raises(RequestError, match="the family is empty"):
        family_spectra(nothing, v[:0], jnp.ones(5))
    np.testing.assert_allclose(np.sort(found.multipliers[17]), np.sort(alone.real), atol=1e-12)


@pytest.mark.long
def test_a_family_at_consensus():
    systems, v, _ = family(65, 5, 4)
    found = family_spectra(systems, v, jnp.ones(5), symmetric=True, chunk=64)
    one = jax.tree.map(lambda leaf: leaf[64], systems)
    alone = np.asarray(jax.jit(consensus_spectrum, static_argnums=2)(one, v[64], 5))
    assert abs(np.abs(alone).max() - found.spectral_radius[64]) < 1e-12
    points = Oja(jnp.ones((3, 1, 1)), alpha=jnp.ones(3))
    assert (family_spectra(points, jnp.ones((3, 1)), jnp.ones(2)).spectral_radius == 0).all()

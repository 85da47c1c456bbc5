"""The numbers of theory.md, reproduced: what the witnesses claim, and where random starts end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.dynamics import SingleHead, run_to_equilibrium
from pmt.equilibria import bipartite
from pmt.stability import analyze
from theory import instances, measurements, oracles, witnesses


def numbers(explicit):
    case = {name: jnp.asarray(value) for name, value in explicit.case.items()}
    return explicit.numbers(explicit.shape, case)


@pytest.mark.parametrize(
    ("explicit", "expected"),
    [
        (witnesses.TWO_CYCLE, [3.0, 2.0]),
        (witnesses.PRINCIPAL_BEYOND_BOUND, [-2.03 / 2.01, 1 / 2.01]),
        (witnesses.CYCLE_BEYOND_BOUND, [3 / 5, 1 / 5]),
        (witnesses.POLYGONAL, [0.75, 0.75]),
    ],
)
def test_multipliers(explicit, expected):
    # A defective pair would come out wrong by the root of eps; these are not.
    np.testing.assert_allclose(numbers(explicit)["multipliers"], expected, rtol=0, atol=1e-12)


def test_theorem_2_the_antipodal_set_attracts_an_eighth_of_all_pairs():
    found = numbers(witnesses.OJA_PAIR)
    np.testing.assert_allclose(found["multipliers"], [1.0, 0.875], rtol=0, atol=1e-12)
    # theory.md: 12.5 to 13.1 % of 20,000; three standard errors of 2,000 are 2.3 %.
    assert 0.105 < found["antipodal"] < 0.151
    assert found["unresolved"] == 0


@pytest.mark.long
def test_theorem_2_the_share_of_antipodal_pairs_to_half_a_percent():
    share = measurements.oja_pair_basin(-0.5, alpha=0.25, starts=20_000, seed=1)
    assert 0.120 < share < 0.136


@pytest.mark.parametrize(
    ("mu", "expected"), [(0.1, 0.034), (0.5, 0.127), (0.9, 0.183), (2.0, 0.266)]
)
def test_the_small_step_basin_is_the_closed_form(mu, expected):
    assert oracles.small_step_pair_basin(mu) == pytest.approx(expected, abs=6e-4)


def test_small_perturbations_of_the_pair_all_become_antipodal_again():
    case = {name: jnp.asarray(value) for name, value in witnesses.OJA_PAIR.case.items()}
    system = instances.oja(witnesses.OJA_PAIR.shape, case)
    w = jax.random.normal(jax.random.key(0), (500, 2, 2))
    w = sphere.tangent_projection(jnp.broadcast_to(case["x"], w.shape), w)
    x = jnp.broadcast_to(case["x"], w.shape)
    starts = sphere.retract(x, 0.1 * w / sphere.norm(w)[..., None])
    ends = run_to_equilibrium(system, starts, max_steps=3000).x
    assert float(jnp.max(sphere.norm(ends[:, 0] + ends[:, 1]))) < 1e-10


@pytest.mark.parametrize(
    ("split", "expected"), [((1, 1), 0.8434), ((3, 2), 0.8443), ((2, 1), 0.8461)]
)
def test_remark_10_a_negative_eigenvalue_can_be_stable(split, expected):
    system = SingleHead(jnp.diag(jnp.array([1.0, -2.0])), jnp.diag(jnp.array([0.0, -2.0])), 0.25)
    found = analyze(system, bipartite(system, index=1, split=split))
    assert found.verdict == "stable"
    assert found.spectral_radius == pytest.approx(expected, abs=5e-5)


def test_remark_10_nearly_all_random_starts_end_there():
    system = SingleHead(jnp.diag(jnp.array([1.0, -2.0])), jnp.diag(jnp.array([0.0, -2.0])), 0.25)
    v = jnp.array([1.0, 0.0])
    found = measurements.endings(system, v, 6, starts=2000, seed=3)
    # theory.md: 98.6 % of 5,000.
    assert 0.978 < found["antipodal"] < 0.994


@pytest.mark.parametrize(
    ("theta", "low", "high"), [(0.5, 0.0, 0.0), (2.0, 0.55, 0.62), (20.0, 0.90, 0.945)]
)
def test_bipartite_basins_grow_with_the_logits(theta, low, high):
    """D.4.2: 0, 58.5 and 92.3 % of random starts, V = diag(1, .5, -.3), Q'K = theta v_1 v_1'."""
    v = jnp.array([1.0, 0.0, 0.0])
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5, -0.3])), theta * v[:, None] * v[None, :], 0.2)
    assert low <= measurements.endings(system, v, 6, starts=1500, seed=4)["antipodal"] <= high


def test_theorem_3_is_not_necessary():
    found = numbers(witnesses.NOT_NECESSARY)["multipliers"]
    assert np.max(np.abs(found)) < 1
    case = witnesses.NOT_NECESSARY.case
    n1, e = 1, np.exp(0.804)
    gamma = 2 * n1 * e / (n1 * e + 5 / e) - 1
    assert 1 / (1 + 0.036 * case["eigenvalues"][0] * gamma) > 1


def test_theorem_1_fails_where_each_token_attends_only_to_the_other():
    explicit = witnesses.SWAPPED_ATTENTION
    value, alpha = explicit.case["heads"][0], float(explicit.case["alpha"])
    step = oracles.single_head(value, np.zeros((2, 2)), alpha, "others")
    found = oracles.intrinsic_spectrum(step, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert np.max(np.abs(found)) == pytest.approx(1.0198, abs=1e-4)

"""Theory II.4: thresholds, the exact criterion and the causal one, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from pmt import sphere
from pmt.dynamics import SingleHead, run_to_equilibrium
from pmt.stability import conditions
from theory import measurements, oracles, oracles_softmax


@pytest.mark.parametrize(
    ("split", "expected"),
    [((1, 1), [0.549, 1.472, 1.832, 2.647]), ((3, 1), [0.911, 1.745, 2.095, 2.904])],
)
def test_the_thresholds_of_theta(split, expected):
    """lambda_2/lambda_1 = .5, .9, .95, .99, balanced and 3:1; Psi is pmt's, the root NumPy's."""
    r = split[0] / split[1] + split[1] / split[0]
    for ratio, wanted in zip([0.5, 0.9, 0.95, 0.99], expected, strict=True):

        def excess(theta, ratio=ratio):
            return (np.cosh(2 * theta) - r / 2) / np.sinh(2 * theta) - ratio

        root = brentq(excess, 1e-3, 10)
        assert root == pytest.approx(wanted, abs=6e-4)
        assert float(conditions.psi(root, *map(float, split))) == pytest.approx(ratio, abs=1e-12)
        for theta, stable in ((root - 0.005, False), (root + 0.005, True)):
            eigenvalues = np.array([1.0, ratio])
            found = oracles.bipartite_multipliers(eigenvalues, 0, 0.25, theta, *split)
            assert (np.max(np.abs(found)) < 1) == stable
            assert oracles.bipartite_stable(eigenvalues, 0, theta, *split) == stable


def test_balanced_the_threshold_is_the_hyperbolic_tangent():
    theta = np.linspace(0.1, 4, 7)
    np.testing.assert_allclose(conditions.psi(jnp.asarray(theta), 2.0, 2.0), np.tanh(theta))


def campaign(count, seed):
    """Mismatches of the closed form with the multipliers, and stable points at k = 1, d, else."""
    rng = np.random.default_rng(seed)
    mismatches, stable = 0, {"first": 0, "last": 0, "between": 0}
    for _ in range(count):
        d = int(rng.integers(2, 6))
        eigenvalues = np.sort(rng.normal(size=d) + rng.choice([-0.5, 0.0, 0.5]))[::-1]
        if eigenvalues[0] <= 0.02:
            eigenvalues = eigenvalues + 0.02 - eigenvalues[0]
        n1, n2 = (int(n) for n in rng.integers(1, 6, size=2))
        k, theta = int(rng.choice([0, d - 1, rng.integers(d)])), 2 * rng.normal()
        alpha = rng.uniform(0.02, 0.98) / np.abs(eigenvalues).max()
        found = oracles.bipartite_multipliers(eigenvalues, k, alpha, theta, n1, n2)
        radius = np.max(np.abs(found))
        claimed = oracles.bipartite_stable(eigenvalues, k, theta, n1, n2)
        mismatches += (radius < 1) != claimed and abs(radius - 1) > 1e-12
        place = "first" if k == 0 else "last" if k == d - 1 else "between"
        stable[place] += bool(radius < 1)
    return mismatches, stable


def test_the_closed_form_makes_no_mistake():
    mismatches, stable = campaign(2500, 0)
    assert mismatches == 0 and stable["between"] == 0
    assert stable["first"] > 200 and stable["last"] > 50


@pytest.mark.long
def test_nor_on_forty_thousand_instances():
    mismatches, stable = campaign(40_000, 1)
    assert mismatches == 0 and stable["between"] == 0


def causal_campaign(count, seed):
    rng, mismatches, stable = np.random.default_rng(seed), 0, 0
    for _ in range(count):
        d, n = int(rng.integers(2, 5)), int(rng.integers(2, 7))
        eigenvalues = np.sort(rng.normal(size=d))[::-1]
        eigenvalues = eigenvalues / np.abs(eigenvalues).max()
        if eigenvalues[0] <= 0.02 or eigenvalues[0] - eigenvalues[1] < 1e-6:
            continue
        theta, signs = 2 * rng.normal(), rng.choice([-1.0, 1.0], size=n)
        alpha = rng.uniform(0.02, 0.98)
        found = oracles_softmax.causal_bipartite_multipliers(eigenvalues, theta, signs, alpha)
        radius = np.max(np.abs(found))
        claimed = oracles_softmax.causal_bipartite_stable(eigenvalues, theta, signs)
        mismatches += (radius < 1) != claimed and abs(radius - 1) > 1e-12
        stable += claimed
    return mismatches, stable


def test_the_causal_criterion_makes_no_mistake():
    mismatches, stable = causal_campaign(2500, 2)
    assert mismatches == 0 and stable > 100


@pytest.mark.long
def test_nor_does_the_causal_one_on_twenty_thousand():
    assert causal_campaign(20_000, 3)[0] == 0


def test_the_causal_closed_form_is_the_spectrum():
    eigenvalues, theta, signs = np.array([1.0, 0.4, -0.7]), 0.8, np.array([1.0, -1.0, -1.0, 1.0])
    step = oracles.single_head(np.diag(eigenvalues), theta * np.eye(3), 0.4, "causal")
    x = signs[:, None] * np.eye(3)[0]
    found = np.sort(oracles.intrinsic_spectrum(step, x).real)
    claimed = oracles_softmax.causal_bipartite_multipliers(eigenvalues, theta, signs, 0.4)
    np.testing.assert_allclose(found, claimed, atol=1e-9)


@pytest.mark.long
def test_more_random_runs_end_antipodal_under_a_causal_mask():
    """theory.md, d = 3: 33 to 38 % of random runs causal, 22 to 32 % full."""
    shares = {}
    for mask in ("full", "causal"):
        found = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            loose = rng.normal(size=(3, 3))
            value = (loose + loose.T) / 2
            value = value / np.abs(np.linalg.eigvalsh(value)).max()
            if np.linalg.eigvalsh(value)[-1] < 0.02:
                continue
            top = np.linalg.eigh(value)[1][:, -1]
            system = SingleHead(value, 1.5 * rng.normal(size=(3, 3)), 0.3, mask=mask)
            ended = measurements.endings(system, jnp.asarray(top), 5, starts=64, seed=seed)
            found.append(ended["antipodal"])
        shares[mask] = np.mean(found)
    assert shares["causal"] > shares["full"]
    assert 0.1 < shares["full"] < 0.45


def test_a_stable_bipartite_point_attracts_what_is_near():
    """theta = .6 > .549 at lambda_2/lambda_1 = 1/2, (1, 1): small perturbations return."""
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5])), jnp.diag(jnp.array([0.6, 0.0])), 0.4)
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    starts = sphere.normalize(x[None] + 0.05 * jax.random.normal(jax.random.key(0), (50, 2, 2)))
    ends = run_to_equilibrium(system, starts, max_steps=5000).x
    np.testing.assert_allclose(ends, np.broadcast_to(x, ends.shape), atol=1e-9)

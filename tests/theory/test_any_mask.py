"""II.6 and D.4.3: consensus for any mask and any layer matrix, and the rates."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory import any_step, oracles, oracles_softmax
from theory.any_step import ROTATING_AWAY


@pytest.mark.parametrize("mask", ["full", "causal", "others"])
def test_the_multipliers_of_an_asymmetric_matrix(mask):
    rng = np.random.default_rng(5)
    v = np.array([0.6, 0.8, 0.0])
    loose = rng.normal(size=(3, 3))
    matrix = loose + np.outer(0.7 * v - loose @ v, v)
    weights = oracles.visible(4, mask).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    claimed = oracles_softmax.any_mask_multipliers(matrix, 0.7, weights, 0.3)
    step = oracles.single_head(matrix, rng.normal(size=(3, 3)), 0.3, mask)
    x = np.tile(v, (4, 1))
    np.testing.assert_allclose(step(x), x, atol=1e-14)
    found = oracles.intrinsic_spectrum(step, x)
    assert len(found) == len(claimed) == 8
    for power in range(1, 5):
        np.testing.assert_allclose(np.sum(found**power), np.sum(claimed**power), rtol=1e-9)


@pytest.mark.parametrize(("alpha", "attracts"), [(0.05, True), (0.06, False), (0.07, False)])
def test_the_principal_eigenvector_attracts_only_below_the_bound(alpha, attracts):
    """theory.md: F = (1) + (.9, -2; 2, .9): alpha = .05 -> v_1, .06 and .07 rotate."""
    matrix = ROTATING_AWAY.case["value"]
    assert 2 * (1 - 0.9) / (0.9**2 + 4 - 1) == pytest.approx(0.0525, abs=5e-5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    step = oracles.oja(matrix, alpha)
    for _ in range(30_000):
        x = step(x)
        if abs(np.abs(x[:, 0]).min() - 1) < 1e-12 or np.abs(x[:, 0]).max() < 1e-12:
            break
    aligned = np.abs(x[:, 0])
    assert (aligned.min() > 0.9) == attracts and (aligned.max() < 0.1) == (not attracts)
    radius = max(abs(1 + alpha * (0.9 + 2j)), 1) / (1 + alpha)
    assert (radius < 1) == attracts


def test_a_mask_with_the_eigenvalue_minus_one_destabilises_the_principal_eigenvector():
    for alpha in (0.001, 0.01, 0.1, 0.5):
        step = oracles.single_head(np.diag([1.0, -3.0]), np.zeros((2, 2)), alpha, "others")
        found = oracles.intrinsic_spectrum(step, np.array([[1.0, 0.0], [1.0, 0.0]]))
        assert np.max(np.abs(found)) == pytest.approx((1 + 3 * alpha) / (1 + alpha), abs=1e-9)


def decay(values):
    """Mean factor a step over the second half."""
    half = len(values) // 2
    return (values[-1] / values[half]) ** (1 / (len(values) - 1 - half))


def test_spread_is_fast_and_alignment_slow():
    """theory.md: measured .671 against .667, and .98333 against .98333.

    1/(1 + alpha lambda_1) = 2/3 and (1 + alpha lambda_2)/(1 + alpha lambda_1) = .98333 are those
    of alpha = .5, lambda = (1, .95).
    """
    step = oracles.single_head(np.diag([1.0, 0.95]), 0.3 * np.eye(2), 0.5)
    angle = np.array([0.02, -0.01, 0.015, 0.03])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    spread, away = [], []
    for _ in range(24):
        spread.append(np.linalg.norm(x - x.mean(axis=0)))
        away.append(abs(x.mean(axis=0)[1]))
        x = step(x)
    assert decay(spread) == pytest.approx(2 / 3, abs=5e-3)
    assert decay(away) == pytest.approx(1.475 / 1.5, abs=5e-4)


def test_case_2_rotates_in_its_plane_with_two_transversal_rates():
    """alpha = 1, lambda_1 = 1 +- .5 i, lambda_3 = .68: |1 + .68|/|2 + .5i| and 1/|2 + .5 i|."""
    matrix = np.array([[1.0, -0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.68]])
    step = oracles.single_head(matrix, 0.2 * np.eye(3), 1.0)
    rng = np.random.default_rng(1)
    x = np.array([1.0, 0.0, 0.0]) + 1e-3 * rng.normal(size=(4, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    first = x[0].copy()
    spread, out = [], []
    for _ in range(16):
        spread.append(np.linalg.norm(x - x.mean(axis=0)))
        out.append(abs(x.mean(axis=0)[2]))
        x = step(x)
    size = abs(2 + 0.5j)
    assert decay(out) == pytest.approx(1.68 / size, abs=2e-3)
    assert decay(spread) == pytest.approx(1 / size, abs=2e-2)
    # It rotates: after one step by the argument of 1 + alpha lambda_1.
    turned = step(np.tile(first, (2, 1)))[0]
    angle = np.arctan2(turned[1], turned[0]) - np.arctan2(first[1], first[0])
    assert angle == pytest.approx(np.arctan2(0.5, 2.0), abs=1e-3)


def test_the_witness_tells_its_multipliers():
    case = {name: jnp.asarray(value) for name, value in ROTATING_AWAY.case.items()}
    found = ROTATING_AWAY.numbers(ROTATING_AWAY.shape, case)
    largest = max(np.hypot(*z) for z in found["multipliers"])
    assert largest == pytest.approx(abs(1 + 0.06 * (0.9 + 2j)) / 1.06, abs=1e-9)
    assert found["bound"] == pytest.approx(0.0525, abs=5e-5)
    assert any_step.section_d_4_3().paper is not None

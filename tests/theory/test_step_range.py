"""The largest step for a given number of tokens, against a plain search that knows no mechanism."""

import numpy as np
import pytest
from scipy.optimize import minimize

from theory import oja_step_range


def fall(angles, values, alpha):
    """The change of w in one step, relative to the mean squared step; negative where w falls."""
    x = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    mean = x.mean(axis=-2, keepdims=True)
    y = x + alpha * values * mean
    moved = y / np.linalg.norm(y, axis=-1, keepdims=True)
    after = moved.mean(axis=-2, keepdims=True)
    change = ((after**2 - mean**2) * values).sum(axis=(-2, -1))
    return change / (((moved - x) ** 2).sum(axis=-1).mean(axis=-1) + 1e-9) / abs(values[1])


def deepest(n, ratio, step, starts=12):
    """The lowest of searches from the best one of every 500 random states."""
    values = np.array([1.0, -ratio])
    states = np.random.default_rng(1).uniform(0.0, 2.0 * np.pi, (starts, 500, n))
    best = np.argmin(fall(states, values, step / ratio), axis=1)
    begin = states[np.arange(starts), best]
    return min(minimize(fall, state, (values, step / ratio), "BFGS").fun for state in begin)


@pytest.mark.parametrize(("n", "ratio"), [(2, 0.5), (3, 1.0)])
def test_a_search_finds_w_falling_above_the_threshold_and_not_below(n, ratio):
    threshold = oja_step_range.threshold(n, ratio)
    assert deepest(n, ratio, threshold + 0.01) < -1e-3
    assert deepest(n, ratio, threshold - 0.005) > -1e-6


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_threshold_between_its_bounds(n):
    ratios = [1e-3, 0.2, 1.0, 5.0, 1e3]
    found = np.array([oja_step_range.threshold(n, ratio) for ratio in ratios])
    assert np.all(np.diff(found) < 0)
    assert found[2] == pytest.approx(np.sqrt(n / (n - 1)), rel=1e-9)
    assert oja_step_range.lower(n) < found[-1] < oja_step_range.lower(n) + 1e-3
    assert oja_step_range.upper(n) - 1e-3 < found[0] < oja_step_range.upper(n)


def test_where_the_tokens_are_cancelled():
    n, steps, p, hair = 4, (0.7, 1.2), np.array([0.6, -0.8]), 1e-6
    one, last, q = oja_step_range.cancelled_tokens(n, steps, p, hair)
    x = np.array([[np.cos(t), np.sin(t)] for t in (one, one, one, last)])
    y = x + np.array([steps[0], -steps[1]]) * x.mean(axis=0)
    assert y[0] == pytest.approx(hair * p, abs=20 * hair**2)
    assert y[3] / np.linalg.norm(y[3]) == pytest.approx(q, abs=20 * hair)

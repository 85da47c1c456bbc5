"""Exponents fitted to measured times."""

import numpy as np
import pytest

from benchmarks._fit import power_law


def test_an_exact_power_law_is_found_without_an_error():
    x = np.array([8, 16, 64, 100])
    found = power_law(x, 3e-6 * x**2.5)
    assert found.exponent == pytest.approx(2.5, abs=1e-12)
    assert found.constant == pytest.approx(3e-6)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_the_standard_error_is_the_scatter_of_fitted_exponents():
    rng = np.random.default_rng(0)
    x = np.array([32.0, 64.0, 128.0, 256.0, 512.0])
    fits = [power_law(x, x**3 * np.exp(0.2 * rng.normal(size=5))) for _ in range(2000)]
    spread = np.std([fit.exponent for fit in fits])
    told = np.sqrt(np.mean([fit.standard_error**2 for fit in fits]))
    assert np.mean([fit.exponent for fit in fits]) == pytest.approx(3.0, abs=0.01)
    assert told == pytest.approx(spread, rel=0.1)


def test_two_points_have_no_scatter_to_tell_an_error_from():
    found = power_law([1, 2], [1.0, 8.0])
    assert found.exponent == pytest.approx(3.0)
    assert found.standard_error is None


@pytest.mark.parametrize(("x", "t"), [([1], [1.0]), ([2, 2], [1.0, 2.0]), ([1, 2], [0.0, 1.0])])
def test_points_without_a_power_law_are_refused(x, t):
    with pytest.raises(ValueError, match="two or more positive points"):
        power_law(x, t)

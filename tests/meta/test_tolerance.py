"""The tolerance helper: it accepts what rounding does and nothing more."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close, tolerance


def test_follows_each_of_its_three_factors():
    base = tolerance(np.float64)
    assert base == 16 * np.finfo(np.float64).eps
    assert tolerance(np.float64, size=10) == 10 * base
    assert tolerance(np.float64, conditioning=1e3) == 1e3 * base
    assert tolerance(np.float32) / base == np.finfo(np.float32).eps / np.finfo(np.float64).eps
    assert tolerance(np.complex128) == base


@pytest.mark.parametrize("conditioning", [0.5, 0.0, -1.0, np.nan, np.inf])
def test_refuses_a_conditioning_that_is_none(conditioning):
    with pytest.raises(ValueError, match="at least 1"):
        tolerance(np.float64, conditioning=conditioning)


def test_refuses_a_tolerance_that_tests_nothing():
    with pytest.raises(ValueError, match="tests nothing"):
        tolerance(np.float32, size=100, conditioning=1e6)


def test_accepts_a_matrix_product_in_either_precision():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 40, 40))
    exact = left @ right
    assert_close(left.astype(np.float32) @ right.astype(np.float32), exact, size=40)
    assert_close(np.einsum("ij,jk->ik", left, right), exact, size=40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sees_an_error_just_above_what_is_allowed(dtype):
    expected = np.linspace(1.0, 2.0, 5).astype(dtype)
    allowed = tolerance(dtype, size=5) * expected.max()
    below, above = expected.copy(), expected.copy()
    below[2] += dtype(0.8 * allowed)
    above[2] += dtype(1.2 * allowed)
    assert_close(below, expected)
    with pytest.raises(AssertionError, match=r"entry \(2,\).* 1 of 5 entries"):
        assert_close(above, expected)


def test_the_lower_of_two_precisions_decides_unless_it_is_given():
    expected = np.linspace(1.0, 2.0, 6)
    rounded = expected.astype(np.float32)
    assert_close(rounded, expected)
    assert_close(expected, rounded)
    with pytest.raises(AssertionError):
        assert_close(rounded, expected, dtype=np.float64)


def test_relative_to_the_largest_entry_or_to_each():
    expected = np.array([1.0, 1e-20])
    off = np.array([1.0, 2e-20])
    assert_close(off, expected)
    with pytest.raises(AssertionError):
        assert_close(off, expected, entrywise=True)


def test_zero_needs_a_scale():
    tiny = np.array([1e-16, 0.0])
    with pytest.raises(ValueError, match="give the scale"):
        assert_close(tiny, np.zeros(2))
    assert_close(tiny, np.zeros(2), scale=1.0)
    with pytest.raises(AssertionError):
        assert_close(tiny, np.zeros(2), scale=1e-3)


def test_shapes_are_not_broadcast():
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(np.ones(3), np.ones((1, 3)))
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(np.ones(3), 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_close_to_nothing(bad):
    with pytest.raises(AssertionError, match="not finite"):
        assert_close(np.array([1.0, bad]), np.array([1.0, bad]))


def test_complex_numbers_and_jax_arrays():
    expected = np.exp(1j * np.arange(4.0))
    assert_close(jnp.asarray(expected) * (1 + 1e-16), expected, dtype=jnp.zeros(1).dtype)
    with pytest.raises(AssertionError):
        assert_close(expected.conj(), expected)


def test_integers_have_no_precision_of_their_own():
    with pytest.raises(ValueError, match="exactly"):
        assert_close(np.arange(3), np.arange(3))


def test_nothing_equals_nothing():
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(np.zeros((0, 3)), np.zeros((3, 0)))

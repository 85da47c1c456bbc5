"""`pmt.linalg`: the pairs satisfy their equation, and their order is a rule."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from pmt.errors import RequestError
from pmt.linalg import eigenpairs, leading_basis, order_key

ORDERS = ["real", "skip", "modulus"]


def gaussian(seed, d):
    return np.random.default_rng(seed).normal(size=(d, d))


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 12), order=st.sampled_from(ORDERS))
def test_pairs_satisfy_their_equation_and_order(seed, d, order):
    f = gaussian(seed, d)
    pairs = eigenpairs(f, order, alpha=0.7)
    error = np.linalg.norm(f @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(error / np.linalg.norm(f), pairs.residuals, rtol=0.5, atol=1e-16)
    assert pairs.residuals.max() < 1e-14
    np.testing.assert_allclose(np.linalg.norm(pairs.vectors, axis=0), 1, rtol=1e-14)
    assert np.all(np.diff(order_key(pairs.values, order, 0.7)) < 1e-12)
    # All eigenvalues are there, each once: trace and determinant.
    np.testing.assert_allclose(pairs.values.sum(), np.trace(f), atol=1e-12)
    np.testing.assert_allclose(np.prod(pairs.values), np.linalg.det(f), rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 12))
def test_conjugates_stand_together_with_the_positive_imaginary_part_first(seed, d):
    pairs = eigenpairs(gaussian(seed, d))
    np.testing.assert_array_equal(pairs.values[pairs.partners], pairs.values.conj())
    np.testing.assert_array_equal(pairs.vectors[:, pairs.partners], pairs.vectors.conj())
    positive = np.flatnonzero(pairs.values.imag > 0)
    np.testing.assert_array_equal(pairs.partners[positive], positive + 1)
    assert np.all(pairs.vectors[:, pairs.is_real].imag == 0)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 10))
def test_conditions_are_those_of_the_left_eigenvectors(seed, d):
    f = gaussian(seed, d)
    pairs = eigenpairs(f)
    values, left, right = scipy.linalg.eig(f, left=True, right=True)
    wanted = 1 / np.abs(np.sum(left.conj() * right, axis=0))
    match = [int(np.argmin(np.abs(values - value))) for value in pairs.values]
    np.testing.assert_allclose(pairs.conditions, wanted[match], rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_order_does_not_depend_on_how_the_matrix_is_written(order):
    # Eigenvalues with ties in every key, in two bases and with rows permuted.
    block = scipy.linalg.block_diag(
        1.0, -1.0, [[0.6, 0.8], [-0.8, 0.6]], 0.5, 0.5, [[0, 1], [-1, 0]]
    )
    expected = eigenpairs(block, order).values
    for seed in range(20):
        basis = np.linalg.qr(gaussian(seed, 8))[0]
        values = eigenpairs(basis @ block @ basis.T, order).values
        np.testing.assert_allclose(values, expected, atol=1e-13)


def test_ties_go_to_the_larger_real_part_then_to_the_real_eigenvalue():
    f = scipy.linalg.block_diag([[0, 1], [-1, 0]], -1.0, 1.0)
    np.testing.assert_allclose(eigenpairs(f, "modulus").values, [1, 1j, -1j, -1], atol=1e-15)
    f = scipy.linalg.block_diag([[1, 2], [-2, 1]], 1.0)
    np.testing.assert_allclose(eigenpairs(f, "real").values, [1, 1 + 2j, 1 - 2j], atol=1e-15)


def test_order_skip_is_what_the_map_selects():
    # lam = 1 and 0.9 +- 2i; the pair wins for alpha > 0.0525.
    f = np.array([[1, 0, 0], [0, 0.9, -2], [0, 2, 0.9]])
    assert eigenpairs(f, "skip", alpha=0.05).values[0] == 1
    assert eigenpairs(f, "skip", alpha=0.06).values[0].imag > 0
    assert eigenpairs(f, "real").values[0] == 1


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 12))
def test_the_leading_direction_alone_is_that_of_all_pairs(seed, d):
    f = gaussian(seed, d)
    for order in ("real", "skip", "modulus"):
        pairs = eigenpairs(f, order, 0.7)
        basis = leading_basis(f, order, 0.7)
        if basis is None:
            # Rare: its eigenvalue is not sharp enough for inverse iteration.
            assert pairs.conditions[0] > 10
            continue
        assert basis.shape == (d, 1 if pairs.is_real[0] else 2)
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-14)
        # Both are directions of F up to rounding: what lies outside is a residual over a gap.
        v = pairs.vectors[:, 0]
        apart = np.abs(pairs.values - pairs.values[0])[basis.shape[1] :].min(initial=np.inf)
        bound = 1e-14 + 1e-12 * pairs.conditions[0] * np.linalg.norm(f) / apart
        assert np.linalg.norm(v - basis @ (basis.T @ v)) <= bound


def test_the_leading_direction_is_left_to_all_pairs_where_it_is_not_sharp():
    assert leading_basis(np.eye(4)) is None and leading_basis(np.zeros((3, 3))) is None
    with pytest.raises(RequestError, match="non-finite"):
        leading_basis([[np.nan, 1], [0, 1]])


def test_symmetric_input_gives_orthonormal_real_vectors_and_conditions_one():
    f = gaussian(0, 9)
    pairs = eigenpairs(f + f.T)
    assert pairs.is_real.all() and np.all(pairs.vectors.imag == 0)
    np.testing.assert_allclose(pairs.vectors.real.T @ pairs.vectors.real, np.eye(9), atol=1e-14)
    np.testing.assert_array_equal(pairs.conditions, 1)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 8))
def test_fault_63_sign_and_phase_are_fixed(seed, d):
    f = gaussian(seed, d)
    pairs = eigenpairs(f)
    largest = np.argmax(np.abs(pairs.vectors) > 0.999999 * np.abs(pairs.vectors).max(0), axis=0)
    entries = pairs.vectors[largest, np.arange(d)]
    assert np.all(entries.real > 0)
    np.testing.assert_allclose(entries.imag, 0, atol=1e-15)


def test_fault_50_defective_matrix_is_reported_by_its_condition():
    pairs = eigenpairs([[2.0, 1, 0], [0, 2, 0], [0, 0, -1]])
    np.testing.assert_allclose(pairs.values, [2, 2, -1])
    assert pairs.conditions[:2].min() > 1e12 and pairs.conditions[2] < 1.1
    assert pairs.residuals.max() < 1e-15


def test_fault_50_defective_matrix_in_a_general_basis():
    basis = gaussian(3, 5)
    jordan = np.diag([2.0, 2, 2, 0, 1]) + np.diag([1.0, 1, 0, 0], 1)
    pairs = eigenpairs(basis @ jordan @ np.linalg.inv(basis))
    # A triple Jordan block spreads by eps^(1/3): the pairs are exact for a nearby matrix only.
    assert np.abs(pairs.values[:3] - 2).max() < 1e-3
    assert pairs.conditions[:3].min() > 1e6 and pairs.residuals.max() < 1e-14


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fault_46_nonfinite_entry_is_named(bad):
    f = np.eye(3)
    f[1, 2] = bad
    with pytest.raises(RequestError, match=r"holds (nan|-?inf) at \(1, 2\), 1 non-finite"):
        eigenpairs(f)


@pytest.mark.parametrize("scale", [5e-320, 1e-300, 1e300])
def test_fault_56_denormal_and_huge_entries_scale(scale):
    f = np.array([[3.0, 1], [0, 2]])
    pairs = eigenpairs(f * scale)
    # A denormal holds few digits itself: the entries of f * scale are what counts.
    np.testing.assert_allclose(pairs.values.real, np.diag(f * scale), rtol=1e-15)
    assert pairs.residuals.max() < 1e-15


def test_zero_matrix_and_dimension_one_fault_66():
    zero = eigenpairs(np.zeros((3, 3)))
    assert np.all(zero.values == 0) and np.all(zero.residuals == 0)
    one = eigenpairs([[-2.0]])
    assert one.values == [-2] and one.vectors == [[1]] and one.conditions == [1]


def test_an_eigenvalue_that_overflows_is_refused():
    with pytest.raises(RequestError, match="overflows float64"):
        eigenpairs(np.full((2, 2), 1.7e308))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\); it must be square"),
        (np.zeros((0, 0)), "it must be square"),
        (np.eye(2) * 1j, "complex128; layer matrices are real"),
    ],
)
def test_refusals(matrix, message):
    with pytest.raises(RequestError, match=message):
        eigenpairs(matrix)


def test_fault_84_unknown_order_and_nonfinite_alpha():
    with pytest.raises(RequestError, match="'size'; it must be 'real', 'skip' or 'modulus'"):
        eigenpairs(np.eye(2), "size")
    with pytest.raises(RequestError, match="alpha is nan"):
        eigenpairs(np.eye(2), "skip", alpha=np.nan)

"""The leading direction by squaring: that of all eigenpairs, or none where that is in doubt."""

import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments.eigen_cache import Solver
from pmt.linalg import ORDERS, eigenpairs
from pmt.spectral import squaring
from pmt.spectral.squaring import basis_by_squaring

D = 80


def with_values(values, seed=0):
    """A matrix with these real eigenvalues and random eigenvectors, not orthogonal."""
    rng = np.random.default_rng(seed)
    v = np.linalg.qr(rng.normal(size=(D, D)))[0] + 0.3 * np.eye(D)
    return v @ np.diag(values) @ np.linalg.inv(v)


def projection(matrix, order, alpha):
    pairs = eigenpairs(matrix, order, alpha)
    v = pairs.vectors[:, 0]
    if pairs.values[0].imag == 0:
        return np.outer(v.real, v.real)
    q = np.linalg.qr(np.stack([v.real, v.imag], axis=1))[0]
    return q @ q.T


@pytest.mark.parametrize("alpha", [1.0, -0.5])
@pytest.mark.parametrize("order", ORDERS)
def test_the_direction_is_that_of_all_eigenpairs(order, alpha):
    found = []
    for seed in range(12):
        matrix = np.random.default_rng(seed).normal(size=(D, D)) / 8
        # Scaled by what float32 cannot hold; the step size with it.
        scale = 2.0 ** (400 * (seed % 3 - 1)) if order != "skip" else 1.0
        basis = basis_by_squaring(scale * matrix, order, alpha)
        if basis is not None:
            expected = projection(matrix, order, alpha)
            np.testing.assert_allclose(basis @ basis.T, expected, atol=1e-10)
            np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-13)
            found.append(basis.shape[1])
    assert len(found) >= 9 and {1, 2} == set(found)


def test_what_is_in_doubt_is_left_to_others():
    rest = np.linspace(0.9, -0.9, D - 1)
    assert basis_by_squaring(with_values([1.0, *rest])) is not None
    near = with_values([1.0, 1 - 1e-5, *rest[1:]])
    assert basis_by_squaring(near) is None
    opposite = with_values([-1.0, 1.0, *rest[1:]])
    assert basis_by_squaring(opposite, "modulus") is None
    jordan = np.eye(D) + np.diag(np.ones(D - 1), 1)
    symmetric = with_values([1.0, *rest])
    for matrix in (jordan, np.zeros((D, D)), symmetric + symmetric.T, np.eye(5)[::-1] + 1.0):
        assert basis_by_squaring(matrix) is None
    for seed in range(20):
        # Repeated; whatever rounding makes of it, a line or a pair, is not taken for an answer.
        double = with_values([1.0, 1.0, *rest[1:]], seed)
        assert basis_by_squaring(double) is None
    # The solver gives an answer to all of them.
    basis = Solver().basis(near, "real", 1.0)
    np.testing.assert_allclose(basis @ basis.T, projection(near, "real", 1.0), atol=1e-6)


def test_an_eigenpair_that_is_not_the_first_is_refused(monkeypatch):
    """As if the subspace had lost the first eigenvalue, the certificate has not."""
    rest = np.linspace(0.9, -0.9, D - 1)
    matrix = with_values([1.0, *rest])
    values, vectors = np.linalg.eig(matrix)
    order = np.argsort(-values.real)
    pair = complex(values[order[1]].real), vectors[:, order[1]].real
    assert basis_by_squaring(matrix) is not None
    monkeypatch.setattr(squaring, "_refined", lambda *arguments: pair)
    assert basis_by_squaring(matrix) is None


def test_bad_matrices_are_refused_in_one_sentence():
    with pytest.raises(RequestError, match="must be square"):
        basis_by_squaring(np.ones((3, 4)))
    with pytest.raises(RequestError, match="non-finite"):
        basis_by_squaring(np.full((D, D), np.nan))
    with pytest.raises(RequestError, match="the order is 'size'"):
        basis_by_squaring(np.eye(D), "size")

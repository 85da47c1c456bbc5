"""Eigenvalues of small host matrices with an estimate of how wrong each one can be."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class BoundedEigenvalues:
    """Eigenvalues and, for each, a radius within which the true one is expected.

    Attributes:
      values: complex, shape ``(m,)``.
      radius: non-negative, shape ``(m,)``; infinite where nothing is known.
    """

    values: np.ndarray
    radius: np.ndarray


def bounded_eigenvalues(matrix: np.ndarray, perturbation: float) -> BoundedEigenvalues:
    """LAPACK eigenvalues of a matrix known up to ``perturbation`` in the 2-norm.

    The radius is the condition number 1 / |yᴴ x| of each eigenvalue times the perturbation (with
    LAPACK's own backward error added), doubled for the terms of second order, and never more than
    Elsner's bound (2|M| + δ)^(1 − 1/m) δ^(1/m), which holds for every matrix. For a defective
    eigenvalue the condition number of the computed, split ones grows so that the radius is of the
    true order δ^(1/m).
    """
    matrix = np.asarray(matrix)
    m = matrix.shape[0]
    if m == 0:
        return BoundedEigenvalues(np.zeros(0, complex), np.zeros(0))
    matrix = matrix.astype(complex if np.iscomplexobj(matrix) else float)
    norm = np.linalg.norm(matrix, 2)
    delta = perturbation + (8 + m) * np.finfo(float).eps * norm
    if m == 1:
        return BoundedEigenvalues(matrix.reshape(1).astype(complex), np.array([delta]))
    values, left, right = scipy.linalg.eig(matrix, left=True, right=True)
    cosine = np.abs(np.sum(left.conj() * right, axis=0))
    with np.errstate(divide="ignore"):
        first_order = 2.0 * delta / cosine
    elsner = (2.0 * norm + delta) ** (1.0 - 1.0 / m) * delta ** (1.0 / m)
    return BoundedEigenvalues(values, np.minimum(first_order, elsner))


def strong_blocks(pattern: np.ndarray, width: int = 1) -> list[np.ndarray]:
    """The rows of the diagonal blocks of matrices that are zero outside ``pattern``.

    Ordering the tokens by the strongly connected components of the pattern makes each such matrix
    block triangular, so its spectrum is the union over the diagonal blocks. A causal pattern has
    blocks of one token: no eigenproblem, no Jordan block.

    Args:
      pattern: boolean ``(n, n)``, which token acts on which.
      width: size of the part of a matrix that belongs to one token; matrices are token-major.
    """
    _, labels = connected_components(pattern, directed=True, connection="strong")
    members = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return [(each[:, None] * width + np.arange(width)[None]).reshape(-1) for each in members]


def block_eigenvalues(
    matrix: np.ndarray, blocks: list[np.ndarray], perturbation: float
) -> BoundedEigenvalues:
    """Eigenvalues of a block triangular matrix from its diagonal blocks.

    Args:
      matrix: shape ``(m, m)``.
      blocks: the rows of each, from ``strong_blocks``.
      perturbation: uncertainty of the matrix in the 2-norm.
    """
    return concatenate([bounded_eigenvalues(matrix[np.ix_(b, b)], perturbation) for b in blocks])


def concatenate(parts: list[BoundedEigenvalues]) -> BoundedEigenvalues:
    """The union, multiplicities counted."""
    if not parts:
        return BoundedEigenvalues(np.zeros(0, complex), np.zeros(0))
    return BoundedEigenvalues(
        np.concatenate([p.values for p in parts]), np.concatenate([p.radius for p in parts])
    )

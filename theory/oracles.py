"""Slow transcriptions in plain NumPy, with loops, of the maps and what is said about them.

Shares no code with ``pmt``: tests compare the two. Columns are written as in the papers, so a token
is a vector x_i and a matrix acts on it from the left. Jacobians come from complex steps: the maps
are analytic, so that f(x + ih e)/ih has no cancellation and is exact to rounding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]


def visible(n: int, mask: str) -> np.ndarray:
    """Which tokens each token sees: full, causal, window (itself and the one before), others."""
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            seen[i, j] = {
                "full": True,
                "causal": j <= i,
                "window": j in (i, i - 1),
                "others": j != i,
            }[mask]
    return seen


def softmax_attention(x: np.ndarray, logits: np.ndarray, mask: str) -> np.ndarray:
    """a_ij = exp(x_iᵀ B x_j) / Σ_l exp(x_iᵀ B x_l), eq. (8); ``logits`` is B."""
    n = len(x)
    seen = visible(n, mask)
    weights = np.zeros((n, n), x.dtype)
    for i in range(n):
        for j in range(n):
            if seen[i, j]:
                weights[i, j] = np.exp(x[i] @ logits @ x[j])
        weights[i] = weights[i] / weights[i].sum()
    return weights


def multi_head(values: np.ndarray, logits: np.ndarray, alpha: float, mask: str = "full") -> Map:
    """Eq. (3): y_i = x_i + alpha Σ_h F_h Σ_j a^h_ij x_j, then y_i / |y_i|."""

    def step(x: np.ndarray) -> np.ndarray:
        moved = np.zeros_like(x)
        for value, logit in zip(values, logits, strict=True):
            weights = softmax_attention(x, logit, mask)
            for i in range(len(x)):
                for j in range(len(x)):
                    moved[i] = moved[i] + weights[i, j] * (value @ x[j])
        out = np.zeros_like(x)
        for i in range(len(x)):
            y = x[i] + alpha * moved[i]
            out[i] = y / np.sqrt(np.sum(y * y))
        return out

    return step


def single_head(value: np.ndarray, logits: np.ndarray, alpha: float, mask: str = "full") -> Map:
    """Eq. (8)."""
    return multi_head(value[None], logits[None], alpha, mask)


def oja(value: np.ndarray, alpha: float) -> Map:
    """Eq. (9): y_i = x_i + (alpha/n) Σ_j V x_j."""

    def step(x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        for i in range(len(x)):
            y = x[i].copy()
            for j in range(len(x)):
                y = y + alpha / len(x) * (value @ x[j])
            out[i] = y / np.sqrt(np.sum(y * y))
        return out

    return step


def jacobian(step: Map, x: np.ndarray) -> np.ndarray:
    """The (nd, nd) Jacobian, token-major, by complex steps."""
    size = 1e-30
    columns = []
    for index in range(x.size):
        moved = x.astype(complex).reshape(-1)
        moved[index] += 1j * size
        columns.append(step(moved.reshape(x.shape)).reshape(-1).imag / size)
    return np.stack(columns, axis=1)


def tangent_basis(x: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the tangent space of the product of spheres, as columns."""
    n, d = x.shape
    basis = np.zeros((n * d, n * (d - 1)))
    for i in range(n):
        # The right singular vectors that x_i annihilates.
        block = np.linalg.svd(x[i][None])[2][1:].T
        basis[i * d : (i + 1) * d, i * (d - 1) : (i + 1) * (d - 1)] = block
    return basis


def intrinsic_spectrum(step: Map, x: np.ndarray) -> np.ndarray:
    """Eigenvalues of the Jacobian on the tangent space, for f(x) = ±x."""
    basis = tangent_basis(x)
    return np.linalg.eigvals(basis.T @ jacobian(step, x) @ basis)


def consensus_multipliers(
    eigenvalues: np.ndarray, k: int, alpha: float, n: int, mask: str = "full"
) -> list[float]:
    """(1 + alpha μ λ_l)/|1 + alpha λ_k|, l ≠ k, μ in the spectrum of the uniform attention."""
    weights = visible(n, mask).astype(float)
    weights = weights / weights.sum(axis=1, keepdims=True)
    if mask in ("causal", "window"):
        spectrum = [weights[i, i] for i in range(n)]
    else:
        spectrum = list(np.linalg.eigvalsh(weights))
    found = []
    for index, other in enumerate(eigenvalues):
        if index != k:
            found += [(1 + alpha * mu * other) / abs(1 + alpha * eigenvalues[k]) for mu in spectrum]
    return sorted(found)


def bipartite_multipliers(
    eigenvalues: np.ndarray, k: int, alpha: float, theta: float, n1: int, n2: int
) -> list[float]:
    """Lemma 14, classes 2 and 3, from eqs. (13) and (14) as they stand."""
    e = np.exp(theta)
    p1, p2 = n1 * e / (n1 * e + n2 / e), n2 * e / (n2 * e + n1 / e)
    g1 = 1 + alpha * eigenvalues[k] * (2 * p1 - 1)
    g2 = 1 + alpha * eigenvalues[k] * (2 * p2 - 1)
    found = []
    for index, other in enumerate(eigenvalues):
        if index == k:
            continue
        step = alpha * other
        tau = (1 + step * p1) / g1 + (1 + step * p2) / g2
        delta = ((1 + step * p1) * (1 + step * p2) - step**2 * (1 - p1) * (1 - p2)) / (g1 * g2)
        root = np.sqrt(complex(tau**2 - 4 * delta)).real
        found += [(tau + root) / 2, (tau - root) / 2]
        found += [1 / g1] * (n1 - 1) + [1 / g2] * (n2 - 1)
    return sorted(found)


def bipartite_stable(eigenvalues: np.ndarray, k: int, theta: float, n1: int, n2: int) -> bool:
    """The exact criterion of theory II.4 for alpha < 1/|V|, eigenvalues decreasing, λ_1 > 0."""
    top, last = eigenvalues[0], eigenvalues[-1]
    r, ratio = n1 / n2 + n2 / n1, max(n1 / n2, n2 / n1)

    def psi(t: float) -> float:
        return (np.cosh(2 * t) - r / 2) / np.sinh(2 * t)

    if k == 0 and theta > 0:
        crowd = eigenvalues[1] >= 0 or min(n1, n2) < 2 or np.exp(2 * theta) > ratio
        return bool(eigenvalues[1] / top < psi(theta) and crowd)
    if k == len(eigenvalues) - 1 and last < 0 and last < eigenvalues[-2] and theta < 0:
        return bool(top / abs(last) < psi(-theta))
    return False


def small_step_pair_basin(mu: float, points: int = 20_000) -> float:
    """Theory II.3: the share of random pairs that end antipodal, V = diag(1, −mu), small steps.

    (2/π)² ∫ (π/2 − arcsin(h(φ)/h(φ*))) dφ from φ* to π/2, h = sin^{1/(1+μ)} cos^{μ/(1+μ)},
    tan φ* = μ^{-1/2}; midpoint rule.
    """
    start = np.arctan(mu**-0.5)
    width = (np.pi / 2 - start) / points
    phi = start + width * (np.arange(points) + 0.5)

    def h(angle: Any) -> Any:
        return np.sin(angle) ** (1 / (1 + mu)) * np.cos(angle) ** (mu / (1 + mu))

    inside = np.pi / 2 - np.arcsin(np.minimum(h(phi) / h(start), 1.0))
    return float((2 / np.pi) ** 2 * width * np.sum(inside))

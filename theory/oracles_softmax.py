"""Slow transcriptions in plain NumPy of what is said about equilibria of the softmax system.

Shares no code with ``pmt``: tests compare the two. Conventions as in ``oracles``.
"""

import numpy as np

from theory.oracles import softmax_attention


def pair_multipliers(value: np.ndarray, logits: np.ndarray, alpha: float, x: np.ndarray) -> list:
    """Theory II.7: n/2 tokens at x and n/2 at −x, xᵀBx = 0: (spectrum of one difference mode,

    of the mode 1 ⊗ w, of the mode s ⊗ w), each on x^⊥, from dense eigenvalues of d × d matrices.
    The normal direction, where each matrix is 1 by construction, is left out.
    """
    d = len(x)
    projector = np.eye(d) - np.outer(x, x)
    b = projector @ value @ x
    basis = np.linalg.svd(x[None])[2][1:].T
    parts = []
    for matrix in (
        np.outer(b, logits @ x),
        projector @ value @ projector + np.outer(b, logits @ x),
        np.outer(b, (logits + logits.T) @ x),
    ):
        parts.append(np.linalg.eigvals(np.eye(d - 1) + alpha * basis.T @ matrix @ basis))
    return parts


def causal_bipartite_stable(eigenvalues: np.ndarray, theta: float, signs: np.ndarray) -> bool:
    """Theory II.4, causal attention at v_1, alpha < 1/|V|: (p_i − λ_2/λ_1) e^{2θ} > q_i."""
    for i in range(len(signs)):
        same = sum(1 for j in range(i + 1) if signs[j] == signs[i])
        other = i + 1 - same
        if not (same - eigenvalues[1] / eigenvalues[0]) * np.exp(2 * theta) > other:
            return False
    return True


def causal_bipartite_multipliers(
    eigenvalues: np.ndarray, theta: float, signs: np.ndarray, alpha: float
) -> list[float]:
    """(1 + alpha λ_l a_ii)/(1 + alpha λ_1 γ_i), l >= 2, causal attention at v_1."""
    found = []
    for i in range(len(signs)):
        mass = [np.exp(theta * signs[i] * signs[j]) for j in range(i + 1)]
        own = mass[i] / sum(mass)
        gamma = sum(m * signs[i] * signs[j] for j, m in enumerate(mass)) / sum(mass)
        for other in eigenvalues[1:]:
            found.append((1 + alpha * other * own) / (1 + alpha * eigenvalues[0] * gamma))
    return sorted(found)


def commuting_multipliers(
    head_eigenvalues: np.ndarray, theta: np.ndarray, signs: np.ndarray, alpha: float
) -> np.ndarray:
    """Theory II.5: the union over l >= 2 of spec(D⁻¹(I + alpha Σ_h λ_l^h A_h)), v = u_1."""
    n = len(signs)
    weights = []
    for t in theta:
        mass = np.array([[np.exp(t * signs[i] * signs[j]) for j in range(n)] for i in range(n)])
        weights.append(mass / mass.sum(axis=1, keepdims=True))
    factors = np.ones(n)
    for values, matrix in zip(head_eigenvalues, weights, strict=True):
        factors += alpha * values[0] * signs * (matrix @ signs)
    found = []
    for index in range(1, head_eigenvalues.shape[1]):
        total = np.eye(n)
        for values, matrix in zip(head_eigenvalues, weights, strict=True):
            total = total + alpha * values[index] * matrix
        found.append(np.linalg.eigvals(total / factors[:, None]))
    return np.concatenate(found)


def any_mask_multipliers(
    matrix: np.ndarray, eigenvalue: float, weights: np.ndarray, alpha: float
) -> np.ndarray:
    """Theory II.6: (1 + alpha μ λ_l)/|1 + alpha λ_k|, λ_k left out once."""
    values = np.linalg.eigvals(matrix)
    others = np.delete(values, np.argmin(np.abs(values - eigenvalue)))
    mu = np.linalg.eigvals(weights)
    return (1 + alpha * mu[:, None] * others[None]).reshape(-1) / abs(1 + alpha * eigenvalue)


def balanced_step(heads: np.ndarray, logits: np.ndarray, alpha: float, v: np.ndarray) -> np.ndarray:
    """Theory II.5: v ↦ N(v + alpha Σ_h tanh(vᵀ B_h v) F_h v)."""
    y = v.astype(float)
    for head, logit in zip(heads, logits, strict=True):
        y = y + alpha * np.tanh(v @ logit @ v) * (head @ v)
    return y / np.sqrt(y @ y)


def clustering_residual(
    value: np.ndarray, logits: np.ndarray, alpha: float, x: np.ndarray
) -> tuple[np.ndarray, float]:
    """c_i = x_iᵀ V z_i, and |(A ⊗ V) x − (C ⊗ I) x| with the Kronecker products built."""
    weights = softmax_attention(x, logits, "full")
    c = np.array(
        [x[i] @ value @ sum(weights[i, j] * x[j] for j in range(len(x))) for i in range(len(x))]
    )
    big = np.kron(weights, value) - np.kron(np.diag(c), np.eye(x.shape[1]))
    del alpha
    return c, float(np.linalg.norm(big @ x.reshape(-1)))


def two_cycle_step(beta: float, alpha: float, angle: float) -> float:
    """The cascade of theory II.9 on antipodal pairs, as a map of the angle of the first token.

    v ↦ N(v + alpha tanh(vᵀ B v) V v) with V = [[1, .5], [.5, −.5]], B = −β [[0, 1], [1, 0]].
    """
    c, s = np.cos(angle), np.sin(angle)
    order = np.tanh(-2 * beta * c * s)
    return float(
        np.arctan2(s + alpha * order * (0.5 * c - 0.5 * s), c + alpha * order * (c + 0.5 * s))
    )

"""Slow transcriptions in plain NumPy, with loops, of what the main text and the Oja system claim.

Shares no code with ``pmt``, as ``theory.oracles``; tests compare the two. Tokens x_i are the rows
of ``x``, and a matrix acts on each of them from the left.
"""

from math import gamma, pi, sqrt

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, divided by their length."""
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True))


def multi_head_layer(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    output: np.ndarray,
    alpha: float,
    x: np.ndarray,
) -> np.ndarray:
    """Eq. (1) by loops over heads and tokens; Q_h, K_h, V_h are (k, d), O_h (d, k)."""
    out = np.zeros_like(x)
    for i in range(len(x)):
        moved = x[i].copy()
        for h in range(len(query)):
            logits = [
                (query[h] @ x[i]) @ (key[h] @ x[j]) / sqrt(len(query[h])) for j in range(len(x))
            ]
            weights = np.exp(logits) / np.sum(np.exp(logits))
            for j in range(len(x)):
                moved = moved + alpha * weights[j] * (output[h] @ (value[h] @ x[j]))
        out[i] = unit(moved)
    return out


def energy(value: np.ndarray, x: np.ndarray) -> float:
    """w = (1/n²) Σ_ij x_iᵀ V x_j."""
    total = 0.0
    for a in x:
        for b in x:
            total += a @ value @ b
    return total / len(x) ** 2


def two_group_matrix(rates: tuple[float, float], alpha: float, signs: np.ndarray) -> np.ndarray:
    """Lemma 5: D⁻¹ (I + (alpha λ_l/n) 11ᵀ), D_i = 1 + alpha λ_k s_i γ; ``rates`` = (λ_k, λ_l)."""
    n, mean = len(signs), float(np.mean(signs))
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            found[i, j] = (float(i == j) + alpha * rates[1] / n) / (
                1 + alpha * rates[0] * signs[i] * mean
            )
    return found


def polygonal_multipliers(value: np.ndarray, alpha: float, x: np.ndarray) -> np.ndarray:
    """Lemma 6: the eigenvalues of I + alpha P V, and 1, n(d − 1) in all, increasing."""
    n, d = x.shape
    projector = np.zeros((d, d))
    for token in x:
        projector += (np.eye(d) - np.outer(token, token)) / n
    moved = np.linalg.eigvals(np.eye(d) + alpha * projector @ value).real
    return np.sort(np.concatenate([moved, np.ones(n * (d - 1) - d)]))


def increment_law(matrix: np.ndarray, v: np.ndarray) -> float:
    """II.8: κ_d (λ_k − (tr F − λ_k)/(d − 1)), κ_d = E|c|(1 − c²) from Gamma functions."""
    d = len(v)
    chance = gamma(d / 2) / (sqrt(pi) * gamma((d + 1) / 2))
    own = float(v @ matrix @ v)
    return chance * (d - 1) / (d + 1) * (own - (np.trace(matrix) - own) / (d - 1))


def sampled_slope(
    matrix: np.ndarray, v: np.ndarray, n: int, *, samples: int, seed: int
) -> tuple[float, float]:
    """d/dalpha E|vᵀx_1⁺| at 0 with uniform attention over n tokens, and its standard error.

    d|vᵀx⁺| = sign(c) (vᵀFm − c x_1ᵀFm) at alpha = 0.
    """
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(samples, n, len(v))))
    moved = x.mean(axis=1) @ matrix.T
    c = x[:, 0] @ v
    slopes = np.sign(c) * (moved @ v - c * np.sum(x[:, 0] * moved, axis=1))
    return float(slopes.mean()), float(slopes.std() / sqrt(samples))


def statistics(
    matrix: np.ndarray, weights: np.ndarray, x: np.ndarray
) -> tuple[float, float, float]:
    """Δ_1, Δ̄ and P_1 of a layer x + Σ_j a_ij F x_j, over all eigenvectors of F.

    ``x`` is (prompts, n, d) and ``weights`` (prompts, n, n). Complex pairs by |P x|, counted twice;
    the principal one has the largest real part.
    """
    after = unit(x + np.einsum("pij,pjd,ed->pie", weights, x, matrix))
    values, vectors = np.linalg.eig(matrix)
    deltas, first = [], (-np.inf, 0.0, 0.0)
    for value, vector in zip(values, vectors.T, strict=True):
        columns = [vector.real] if value.imag == 0 else [vector.real, vector.imag]
        basis = np.linalg.qr(np.stack(columns, axis=1))[0]
        low, high = (np.sqrt(np.sum((state @ basis) ** 2, axis=-1)) for state in (x, after))
        deltas.append(float(np.mean(high - low)))
        if value.real > first[0]:
            first = (value.real, deltas[-1], float(np.mean(high > low)))
    return first[1], float(np.mean(deltas)), first[2]


def principal_alignment(
    matrices: np.ndarray, logits: np.ndarray, x: np.ndarray
) -> tuple[float, float, float]:
    """After all layers, mean |corr| of the tokens with three directions of a product.

    The principal eigenvector (by real part) of Π F and of Π (I + F), and the first left singular
    vector of Π (I + F); softmax attention with the layers' ``logits``.
    """
    d = x.shape[1]
    plain, skipped = np.eye(d), np.eye(d)
    for matrix, logit in zip(matrices, logits, strict=True):
        weights = np.exp(x @ logit @ x.T)
        weights = weights / weights.sum(axis=1, keepdims=True)
        x = unit(x + weights @ x @ matrix.T)
        plain, skipped = matrix @ plain, (np.eye(d) + matrix) @ skipped
        plain, skipped = plain / np.linalg.norm(plain), skipped / np.linalg.norm(skipped)

    def along(product: np.ndarray) -> float:
        values, vectors = np.linalg.eig(product)
        index = int(np.argmax(values.real))
        vector = vectors[:, index]
        columns = [vector.real] if values[index].imag == 0 else [vector.real, vector.imag]
        basis = np.linalg.qr(np.stack(columns, axis=1))[0]
        return float(np.mean(np.sqrt(np.sum((x @ basis) ** 2, axis=1))))

    left = np.linalg.svd(skipped)[0][:, 0]
    return along(plain), along(skipped), float(np.mean(np.abs(x @ left)))

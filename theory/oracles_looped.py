"""The looped transformer in plain NumPy, with loops, in the paper's columns.

Shares no code with ``pmt.looped``: tests compare the two.
"""

import numpy as np


def normalize_columns(e: np.ndarray, norm: str, gain: np.ndarray) -> np.ndarray:
    """Each column divided by its length; ``rms``, ``layer`` as they are usually written."""
    out = np.zeros_like(e)
    for j in range(e.shape[1]):
        column = e[:, j]
        if norm == "l2":
            out[:, j] = column / np.sqrt(np.sum(column**2))
        elif norm == "rms":
            out[:, j] = gain * column / np.sqrt(np.mean(column**2))
        elif norm == "layer":
            centred = column - np.mean(column)
            out[:, j] = gain * centred / np.sqrt(np.mean(centred**2))
        else:
            out[:, j] = column
    return out


def looped(
    x: np.ndarray,
    a: np.ndarray,
    value: np.ndarray,
    key: np.ndarray,
    gain: np.ndarray,
    loops: int,
    norm: str,
) -> np.ndarray:
    """y_L for X (d, n) and a (d,): E ← Norm(E + V E Eᵀ W E) from E = [[X, 0], [0, a]]."""
    d, n = x.shape
    e = np.zeros((2 * d, n + 1))
    e[:d, :n] = x
    e[d:, n] = a
    for _ in range(loops):
        e = normalize_columns(e + value @ (e @ (e.T @ (key @ e))), norm, gain)
    y = e[d:, n]
    return y / np.linalg.norm(y) if norm == "output" else y


def subspace_loss(y: np.ndarray, x: np.ndarray, rank: int = 1) -> float:
    """|y − P_Z y|², Z spanned by the left singular vectors of X that go with the largest values."""
    left = np.linalg.svd(x)[0][:, :rank]
    return float(np.sum((y - left @ (left.T @ y)) ** 2))


def power_steps(x: np.ndarray, a: np.ndarray, loops: int) -> np.ndarray:
    """(XXᵀ)^L a / |.|, as a matrix power."""
    y = np.linalg.matrix_power(x @ x.T, loops) @ a
    return y / np.linalg.norm(y)


def loss_gradient(
    x: np.ndarray, a: np.ndarray, value: np.ndarray, key: np.ndarray, loops: int, step: float = 1e-6
) -> list[np.ndarray]:
    """The gradient of ``subspace_loss`` in V and in W with the l2 norm, by central differences."""
    gain = np.ones(len(value))
    found = [np.zeros_like(value), np.zeros_like(key)]
    for which, gradient in enumerate(found):
        for i, j in np.ndindex(*gradient.shape):
            losses = []
            for sign in (1.0, -1.0):
                v, w = value.copy(), key.copy()
                (v, w)[which][i, j] += sign * step
                losses.append(subspace_loss(looped(x, a, v, w, gain, loops, "l2"), x))
            gradient[i, j] = (losses[0] - losses[1]) / (2.0 * step)
    return found

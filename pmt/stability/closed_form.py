"""Multipliers at signed consensus points with error radii, on the host, for every mask.

The same formulas as ``spectrum``, evaluated so that each multiplier comes with a radius: spectra of
masked attention are read off strongly connected blocks, several heads are reduced to groups.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import attention, linalg, sphere
from pmt.dynamics.systems import head_maps
from pmt.numerics import einsum, epsilon
from pmt.stability.eigenvalues import (
    BoundedEigenvalues,
    block_eigenvalues,
    bounded_eigenvalues,
    concatenate,
    strong_blocks,
)
from pmt.stability.jacobian import signed_attention, signed_factors
from pmt.stability.spectrum import transverse


def signed_multipliers(
    system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]
) -> BoundedEigenvalues:
    """All n(d − 1) multipliers at x_i = s_i v: theory II.4 and II.6, Lemmas 3 and 14.

    One effective head (single-head systems, and consensus with a common mask): eigenvalues λ_l of
    F on v^⊥, then one n × n problem per λ_l, which full attention solves by groups and causal
    attention by its diagonal. Several heads at a bipartite point: the same with blocks of d − 1.
    Cost d³ + n for full, d³ + n d for causal attention, d³ + d n³ for a general mask, and for
    several heads (2d)³ or n d³ instead.

    Args:
      system: an autonomous map without biases; v an eigenvector as ``jacobian.signed_consensus``
        requires.
      v: unit eigenvector.
      signs: ±1 for every token.
    """
    parts = {name: np.asarray(a, np.float64) for name, a in _parts(system, v, signs).items()}
    weights, blocks, factors = parts["weights"], parts["blocks"], parts["factors"]
    alpha = float(system.alpha)
    eps = max(epsilon(v.dtype), float(np.finfo(float).eps))
    full = isinstance(system.mask, attention.Full)
    groups = np.asarray(signs) > 0
    if np.abs(weights - weights[:1]).max() <= 8 * eps:
        others = _bounded_others(parts["reduced"], eps)
        others = _with_eigenpair_error(others, np.asarray(system.layer_matrix, np.float64), eps)
        return _one_head(alpha, others, weights[0], factors, groups, full, eps)
    if full:
        return _grouped_heads(alpha, blocks, weights, factors, groups, eps)
    size = blocks.shape[-1]
    matrix = alpha * np.einsum("hij,hef->iejf", weights, blocks)
    matrix = np.eye(len(factors) * size) + matrix.reshape(len(factors) * size, -1)
    matrix = matrix / np.repeat(factors, size)[:, None]
    error = float(8 * eps * len(blocks) * np.linalg.norm(matrix))
    return block_eigenvalues(matrix, strong_blocks(np.any(weights > 0, axis=0), size), error)


@jax.jit
def _parts(system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]) -> dict[str, Array]:
    value, _ = head_maps(system)
    n, basis = signs.shape[0], sphere.tangent_basis(v)
    weights = signed_attention(system, v, signs)
    return {
        "weights": jnp.broadcast_to(weights, (value.shape[0], n, n)),
        "factors": jnp.abs(signed_factors(system, v, signs)),
        "reduced": transverse(system.layer_matrix, v),
        "blocks": einsum("ae,hab,bf->hef", basis, value, basis),
    }


def _bounded_others(reduced: np.ndarray, eps: float) -> BoundedEigenvalues:
    size = np.linalg.norm(reduced)
    error = float(8 * eps * size)
    if np.abs(reduced - reduced.T).max(initial=0.0) <= error:
        values = np.linalg.eigvalsh((reduced + reduced.T) / 2).astype(complex)
        return BoundedEigenvalues(values, np.full(len(values), 2 * error))
    return bounded_eigenvalues(reduced, error)


def _with_eigenpair_error(
    others: BoundedEigenvalues, matrix: np.ndarray, eps: float
) -> BoundedEigenvalues:
    """Widens the radii by what rounding of F does to its own eigenvalues.

    v is an eigenvector of F + E with |E| about eps |F|. On v^⊥ alone a nearly defective pair looks
    harmless; its condition number belongs to F.
    """
    if np.array_equal(matrix, matrix.T) or not len(others.values):
        return others
    pairs = linalg.eigenpairs(matrix)
    nearest = np.abs(others.values[:, None] - pairs.values[None]).argmin(axis=1)
    size, d = float(np.linalg.norm(matrix)), len(matrix)
    delta = 8 * eps * size
    # Elsner's bound holds where the condition number is infinite.
    most = (2 * size + delta) ** (1 - 1 / d) * delta ** (1 / d)
    radius = np.minimum(pairs.conditions[nearest] * delta, most)
    return BoundedEigenvalues(others.values, np.maximum(others.radius, radius))


def _one_head(
    alpha: float,
    others: BoundedEigenvalues,
    weights: np.ndarray,
    factors: np.ndarray,
    groups: np.ndarray,
    full: bool,
    eps: float,
) -> BoundedEigenvalues:
    steps = alpha * others.values
    size = 1.0 + abs(alpha) * np.abs(others.values)
    if full:
        present = [g for g in (groups, ~groups) if g.any()]
        parts = [
            BoundedEigenvalues(np.full(count, 1.0 / g, complex), np.full(count, 8 * eps / g))
            for members in present
            for g, count in [(factors[members][0], (members.sum() - 1) * len(steps))]
        ]
        for step, radius, scale in zip(steps, others.radius, size, strict=True):
            mass = np.array([[weights[a][:, b][0].sum() for b in present] for a in present])
            small = np.eye(len(present)) + step * mass
            small = small / np.array([factors[a][0] for a in present])[:, None]
            slack = (abs(alpha) * radius + 8 * eps * scale) / factors.min()
            parts.append(_symmetrizable(small, slack))
        return concatenate(parts)
    if not np.triu(weights, 1).any():
        # Triangular, as with causal attention: the multipliers stand on the diagonal.
        own = np.diagonal(weights)
        values = (1.0 + steps[:, None] * own[None]) / factors[None]
        slack = abs(alpha) * others.radius[:, None] * own[None] + 8 * eps * size[:, None]
        radius = slack / factors[None] + 8 * eps * np.abs(values)
        return BoundedEigenvalues(values.reshape(-1), radius.reshape(-1))
    return _masked(alpha, others, weights, factors, eps)


def _masked(
    alpha: float,
    others: BoundedEigenvalues,
    weights: np.ndarray,
    factors: np.ndarray,
    eps: float,
) -> BoundedEigenvalues:
    """The spectra of G⁻¹(I + alpha λ_l A) for every λ_l: problems of size n, one for each."""
    # Conjugate λ_l have conjugate spectra, and equal ones the same: each is solved once.
    below = others.values.imag < 0
    chosen, which = np.unique(
        np.where(below, others.values.conj(), others.values), return_inverse=True
    )
    uncertain = np.zeros(len(chosen))
    np.maximum.at(uncertain, which, others.radius)
    blocks, norm = strong_blocks(weights > 0), np.linalg.norm(weights, 2)
    solved = []
    for value, radius in zip(chosen, uncertain, strict=True):
        # A real matrix is solved at a third of the cost.
        step = alpha * (value if value.imag else value.real)
        matrix = (np.eye(len(factors)) + step * weights) / factors[:, None]
        error = abs(alpha) * radius + 8 * eps * (1.0 + abs(step))
        solved.append(block_eigenvalues(matrix, blocks, error * norm / factors.min()))
    parts = [
        BoundedEigenvalues(found.values.conj() if lower else found.values, found.radius)
        for found, lower in ((solved[at], lower) for at, lower in zip(which, below, strict=True))
    ]
    return concatenate(parts)


def _symmetrizable(small: np.ndarray, slack: float) -> BoundedEigenvalues:
    """Eigenvalues of a 1 × 1 or a 2 × 2 matrix whose off-diagonal product is a square."""
    if len(small) == 1:
        return BoundedEigenvalues(small.reshape(1), np.array([slack]))
    # Diagonal scaling makes it symmetric (complex symmetric for complex λ), with the same
    # eigenvalues; real symmetric ones are perfectly conditioned.
    off = np.sqrt(small[0, 1] * small[1, 0] + 0j)
    balanced = np.array([[small[0, 0], off], [off, small[1, 1]]])
    if np.abs(balanced.imag).max() == 0.0:
        values = np.linalg.eigvalsh(balanced.real).astype(complex)
        return BoundedEigenvalues(values, np.full(2, 2 * slack))
    return bounded_eigenvalues(balanced, 2 * slack)


def _grouped_heads(
    alpha: float,
    blocks: np.ndarray,
    weights: np.ndarray,
    factors: np.ndarray,
    groups: np.ndarray,
    eps: float,
) -> BoundedEigenvalues:
    """Full attention, several heads: differences within a group, and the two group means."""
    size = blocks.shape[-1]
    present = [g for g in (groups, ~groups) if g.any()]
    parts = [
        BoundedEigenvalues(np.full(count, 1.0 / g, complex), np.full(count, 8 * eps / g))
        for members in present
        for g, count in [(factors[members][0], (members.sum() - 1) * size)]
    ]
    rows = []
    for a, members in enumerate(present):
        first = np.flatnonzero(members)[0]
        row = [
            np.einsum("h,hef->ef", alpha * weights[:, first][:, other].sum(axis=-1), blocks)
            + (np.eye(size) if a == b else 0.0)
            for b, other in enumerate(present)
        ]
        rows.append(np.concatenate(row, axis=1) / factors[first])
    matrix = np.concatenate(rows, axis=0)
    error = float(8 * eps * len(weights) * np.linalg.norm(matrix))
    parts.append(bounded_eigenvalues(matrix, error))
    return concatenate(parts)

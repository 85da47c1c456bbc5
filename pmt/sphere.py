"""The unit sphere S^(d-1) and its n-fold product, where tokens live.

Tokens are rows: ``x`` has shape ``(n, d)`` and every row has length one. The functions act on the
last axis and broadcast over any leading ones.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from pmt.errors import RequestError


def _scaled(
    y: Float[Array, "*batch d"],
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
    """``y`` divided by its largest entry, that entry, and the norm of the quotient.

    The scaling keeps |y|² from overflowing or vanishing. A vector whose largest entry is below
    the smallest normal number counts as zero: devices flush it to zero anyway. One above
    ``scale_of`` is divided by that instead.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(y), axis=-1, keepdims=True))
    nonzero = ~(largest < jnp.finfo(y.dtype).tiny)
    scale = jnp.where(nonzero, scale_of(largest), jnp.ones_like(largest))
    quotient = jnp.where(nonzero, y / scale, jnp.zeros_like(y))
    square = jnp.sum(quotient * quotient, axis=-1, keepdims=True)
    root = jnp.sqrt(jnp.where(nonzero, square, jnp.ones_like(square)))
    return quotient, jnp.where(nonzero, scale, jnp.zeros_like(scale)), root


def scale_of(largest: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What to divide a vector by before its squares are summed: its largest |entry|, or less.

    At most 2^(0.6 e) where e is the exponent of the dtype's largest number. Compilers divide by
    multiplying with the reciprocal, which devices flush to zero above 2^(e - 2). The squares of
    what is left are below 2^(0.8 e), and products with the reciprocal keep all their digits.
    """
    most = 2.0 ** int(0.6 * jnp.finfo(largest.dtype).maxexp)
    return jnp.minimum(largest, jnp.asarray(most, largest.dtype))


def norm(y: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Euclidean norm |y| of the last axis, free of overflow, with gradient 0 at y = 0.

    The gradient elsewhere is y / |y|. At zero the norm is not differentiable; 0 is the
    subgradient of least length, so that no NaN enters a derivative.
    """
    _, scale, root = _scaled(y)
    return (scale * root)[..., 0]


def normalize(y: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """y / |y| for every token; a zero token stays zero, with gradient 0.

    A zero result is outside the sphere and marks a cancellation: the drivers in ``pmt.dynamics``
    report it as ``Outcome.CANCELLED`` instead of going on.
    """
    quotient, _, root = _scaled(y)
    return quotient / root


def tangent_projection(
    x: Float[Array, "*batch d"], w: Float[Array, "*batch d"]
) -> Float[Array, "*batch d"]:
    """Π_x w = w − x (xᵀ w): the part of ``w`` in the tangent space of the sphere at ``x``."""
    return w - x * jnp.sum(x * w, axis=-1, keepdims=True)


def tangent_basis(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d d_1"]:
    """An orthonormal basis of the tangent space x^⊥, as the d − 1 columns of a matrix.

    The last d − 1 columns of the Householder reflection that maps the first axis to ∓x. It is the
    same for ``x`` and ``−x``, so that a Jacobian along the 2-cycle {x, −x} is written in one
    basis. For d = 1 the result has no columns.
    """
    d = x.shape[-1]
    first = jnp.where(x[..., :1] < 0, -jnp.ones_like(x[..., :1]), jnp.ones_like(x[..., :1]))
    axis = jnp.zeros_like(x).at[..., :1].set(first)
    w = x + axis
    square = jnp.sum(w * w, axis=-1)[..., None, None]
    identity = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype), (*x.shape, d))
    return (identity - 2.0 * w[..., :, None] * w[..., None, :] / square)[..., 1:]


def transport(
    x: Float[Array, "*batch d"], y: Float[Array, "*batch d"], basis: Float[Array, "*batch d m"]
) -> Float[Array, "*batch d m"]:
    """Carries tangent vectors (columns) at x to y along the great circle from ±x, the nearer one.

    With a = sign(xᵀy) x, every w ⟂ x goes to w − (a + y) (yᵀ w) / (1 + aᵀ y): the rotation that
    takes a to y. It changes nothing for y = ±x and is smooth there, which a basis chosen anew at y
    is not.
    """
    inner = jnp.sum(x * y, axis=-1, keepdims=True)
    a = jnp.where(inner < 0, -x, x)
    across = jnp.sum(y[..., :, None] * basis, axis=-2, keepdims=True)
    return basis - (a + y)[..., :, None] * across / (1.0 + jnp.abs(inner))[..., None]


def retract(x: Float[Array, "*batch d"], w: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """normalize(x + w): moves along ``w`` and returns to the sphere (first order exact)."""
    return normalize(x + w)


def distance(x: Float[Array, "*batch d"], y: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Geodesic distance in radians, in [0, π], accurate near 0 and near π.

    2 atan2(|x − y|, |x + y|): the arc cosine of xᵀy loses half the digits at both ends.
    """
    return 2.0 * jnp.arctan2(norm(x - y), norm(x + y))


def uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype | type | None = None
) -> Float[Array, "..."]:
    """Tokens drawn uniformly from the sphere: standard normal, then normalised.

    Args:
      key: explicit random key.
      shape: ``(..., d)``.
      dtype: floating dtype; JAX's default float if None.
    """
    return normalize(jax.random.normal(key, shape, dtype or jnp.result_type(float)))


def intertoken_distance(
    x: Float[Array, "*batch n d"], reduction: Literal["mean", "max"] = "mean"
) -> Float[Array, "*batch"]:
    """Mean (or maximum) over pairs i < j of the chord |x_i − x_j|, in [0, 2].

    Zero iff the tokens are at consensus. With one token there are no pairs, and it is 0.
    The mean is the reading of Fig. 6(a), arXiv 2605.25619, that the project uses.
    """
    if reduction not in ("mean", "max"):
        raise RequestError(f"reduction is {reduction!r}; it must be 'mean' or 'max'")
    n = x.shape[-2]
    if n == 1:
        return jnp.zeros(x.shape[:-2], x.dtype)
    i, j = jnp.triu_indices(n, k=1)
    chords = norm(x[..., i, :] - x[..., j, :])
    return jnp.max(chords, axis=-1) if reduction == "max" else jnp.mean(chords, axis=-1)

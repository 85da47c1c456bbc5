"""Eigendirections as arrays: orthonormal bases of lines and invariant planes."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float, Int

from pmt.linalg import Eigenpairs


@register_dataclass
@dataclass(frozen=True)
class Directions:
    """Lines and planes in R^d. A plane takes two neighbouring entries, each other's partner.

    So each eigenvalue has one entry, and a conjugate pair counts twice in a mean over entries.

    Attributes:
      basis: (d, p). Unit columns; those of a plane are orthonormal.
      partner: (p,). The index of the other column of the plane; of the column itself for a line.
      planar: (p,). Whether the column belongs to a plane.
    """

    basis: Float[Array, "d p"]
    partner: Int[Array, "p"]
    planar: Bool[Array, "p"]


def as_directions(basis: np.ndarray, dtype: Any) -> Directions:
    """One line, from a basis ``(d, 1)``, or one plane, from an orthonormal basis ``(d, 2)``."""
    width = basis.shape[1]
    return Directions(
        basis=jnp.asarray(basis, dtype),
        partner=jnp.arange(width)[::-1],
        planar=jnp.full(width, width == 2),
    )


def all_directions(pairs: Eigenpairs, dtype: Any) -> Directions:
    """The lines of all real eigenvalues and the planes of all conjugate pairs, in their order.

    The plane of a pair is span{Re v, Im v}, with an orthonormal basis from QR.
    """
    # One direction in a row until the end: the arrays are large.
    vectors = pairs.vectors.T
    basis = np.array(vectors.real, order="C")
    first = np.flatnonzero(pairs.values.imag > 0)
    if len(first):
        v = vectors[first]
        planes = np.linalg.qr(np.stack([v.real, v.imag], axis=-1))[0]
        basis[first], basis[first + 1] = planes[..., 0], planes[..., 1]
    return Directions(
        basis=jnp.asarray(basis.T, dtype),
        partner=jnp.asarray(pairs.partners),
        planar=jnp.asarray(~pairs.is_real),
    )

"""The linearised map in tangent coordinates: what acts on small perturbations on the sphere."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum


def tangent_jacobian(system: Any, x: Float[Array, "n d"]) -> Float[Array, "n_d_1 n_d_1"]:
    """The intrinsic Jacobian B'ᵀ Df(x) B, by forward-mode autodiff.

    B is the block-diagonal matrix of the orthonormal bases ``sphere.tangent_basis`` at x, and B'
    the same carried to f(x) (``sphere.transport``). At an equilibrium B' = B, and the eigenvalues
    are the multipliers that decide stability; at a point with f(x) = −x they are the multipliers
    of one step of the 2-cycle {x, −x}. Elsewhere the matrix is the differential from the tangent
    space at x to the one at f(x).

    Args:
      system: any map ``x -> x_next``.
      x: tokens on the sphere.

    Returns:
      A matrix of size n(d − 1), token-major; empty for d = 1.
    """
    basis = sphere.tangent_basis(x)
    return jacobian_between(system, x, basis, sphere.transport(x, system(x), basis))


def jacobian_between(
    system: Any,
    x: Float[Array, "n d"],
    domain: Float[Array, "n d d_1"],
    image: Float[Array, "n d d_1"],
) -> Float[Array, "n_d_1 n_d_1"]:
    """imageᵀ Df(x) domain, for given bases at every token."""
    n, d = x.shape

    def in_coordinates(xi: Float[Array, "n d_1"]) -> Float[Array, "n d_1"]:
        moved = sphere.retract(x, einsum("nde,ne->nd", domain, xi))
        return einsum("nde,nd->ne", image, system(moved))

    size = n * (d - 1)
    zero = jnp.zeros((n, d - 1), x.dtype)
    return jax.jacfwd(in_coordinates)(zero).reshape(size, size)

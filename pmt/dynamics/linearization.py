"""The linearised map in tangent coordinates: what acts on small perturbations on the sphere."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum


def tangent_jacobian(system: Any, x: Float[Array, "n d"]) -> Float[Array, "n_d_1 n_d_1"]:
    """B(f(x))ᵀ Df(x) B(x): the intrinsic Jacobian, by forward-mode autodiff.

    B is the block-diagonal matrix of the orthonormal bases ``sphere.tangent_basis``. At an
    equilibrium its eigenvalues are the multipliers that decide stability; at a point with
    f(x) = −x they are the multipliers of one step of the 2-cycle {x, −x}. Elsewhere it is the
    differential from the tangent space at x to the one at f(x).

    Args:
      system: any map ``x -> x_next``.
      x: tokens on the sphere.

    Returns:
      A matrix of size n(d − 1), token-major; empty for d = 1.
    """
    n, d = x.shape
    domain = sphere.tangent_basis(x)
    image = sphere.tangent_basis(system(x))

    def in_coordinates(xi: Float[Array, "n d_1"]) -> Float[Array, "n d_1"]:
        moved = sphere.retract(x, einsum("nde,ne->nd", domain, xi))
        return einsum("nde,nd->ne", image, system(moved))

    size = n * (d - 1)
    zero = jnp.zeros((n, d - 1), x.dtype)
    return jax.jacfwd(in_coordinates)(zero).reshape(size, size)

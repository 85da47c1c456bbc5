"""Bounds on a spectral radius without an eigensolver: pure JAX, differentiable, any real matrix.

With k = 2^s, (|tr Mᵏ| / m)^(1/k) <= ρ(M) <= |Mᵏ|^(1/k) in the Frobenius norm. Both bounds tend to
the radius, and both are certain; a general eigensolver is neither differentiable nor quick.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pmt.numerics import einsum
from theory.margin import Margin, rounding

SQUARINGS = 14
"""k = 16384: the bounds of a normal matrix of size 10 are 1.5e-4 apart."""


def radius_bounds(
    matrix: Float[Array, "m m"], squarings: int = SQUARINGS
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(lower, upper) with lower <= ρ(M) <= upper, up to rounding."""
    tiny = jnp.finfo(matrix.dtype).tiny

    def squared(_step: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log_scale = carry
        product = einsum("ab,bc->ac", power, power)
        size = jnp.sqrt(jnp.sum(product**2) + tiny)
        return product / size, 2.0 * log_scale + jnp.log(size)

    size = jnp.sqrt(jnp.sum(matrix**2) + tiny)
    start = (matrix / size, jnp.log(size))
    power, log_scale = lax.fori_loop(0, squarings, squared, start)
    exponent = 2.0**squarings
    trace = jnp.abs(jnp.trace(power)) / matrix.shape[0]
    lower = jnp.exp((log_scale + jnp.log(trace + tiny)) / exponent)
    return lower, jnp.exp(log_scale / exponent)


def stable(matrix: Float[Array, "m m"], *, conditioning: Any = 1.0) -> Margin:
    """ρ(M) < 1: 1 − upper where that is positive, (1 − lower) / lower where negative, else 0."""
    lower, upper = radius_bounds(matrix)
    outside = (1.0 - lower) / jnp.maximum(1.0, lower)
    value = jnp.where(upper < 1.0, 1.0 - upper, jnp.where(lower > 1.0, outside, 0.0))
    return Margin(value, rounding(matrix.shape[0], conditioning**2))


def unstable(matrix: Float[Array, "m m"], *, conditioning: Any = 1.0) -> Margin:
    """ρ(M) > 1, the contrary of ``stable``."""
    margin = stable(matrix, conditioning=conditioning)
    return Margin(-margin.value, margin.tolerance)


def without(matrix: Float[Array, "m m"], direction: Float[Array, " m"]) -> Float[Array, "m m"]:
    """M with a known eigenvector taken out: the rest of the spectrum, and 0.

    In the basis (w, w^⊥) M is block triangular if M w = μ w, so (I − wwᵀ) M (I − wwᵀ) has the
    eigenvalues of M besides μ.
    """
    unit = direction / jnp.sqrt(jnp.sum(direction**2))
    projector = jnp.eye(unit.shape[0]) - unit[:, None] * unit[None, :]
    return einsum("ab,bc,cd->ad", projector, matrix, projector)

"""How an equilibrium moves with the system: the implicit function theorem on the sphere."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from pmt import sphere
from pmt.dynamics.linearization import tangent_jacobian
from pmt.dynamics.outcome import Outcome
from pmt.numerics import einsum


@register_dataclass
@dataclass(frozen=True)
class ImplicitDerivative:
    """The derivative of an equilibrium along a direction in the space of systems.

    Attributes:
      tangent: dx, shape ``(n, d)``, tangent to the sphere at every token; NaN where singular.
      reciprocal_condition: σ_min / σ_max of I − J on the tangent space, in [0, 1].
      result: ``Outcome.DONE``, or ``SINGULAR`` where I − J is singular to working precision.
    """

    tangent: Float[Array, "n d"]
    reciprocal_condition: Float[Array, ""]
    result: Int[Array, ""]


def implicit_derivative(
    system: Any, x: Float[Array, "n d"], system_tangent: Any
) -> ImplicitDerivative:
    """dx = (I − J)⁻¹ (∂f/∂system) · system_tangent on the tangent space at an equilibrium x.

    J is the intrinsic Jacobian. I − J is singular on a continuum of equilibria (polygonal points,
    neutral rotations) and at bifurcations with multiplier 1; there the result says ``SINGULAR``.

    Args:
      system: an autonomous map with f(x) = x.
      x: the equilibrium.
      system_tangent: a pytree like ``system`` (``float0`` for its boolean and integer leaves).
    """
    basis = sphere.tangent_basis(x)
    jacobian = tangent_jacobian(system, x)
    matrix = jnp.eye(jacobian.shape[0], dtype=x.dtype) - jacobian
    _, forcing = jax.jvp(lambda s: s(x), (system,), (system_tangent,))
    rhs = einsum("nde,nd->ne", basis, forcing).reshape(-1)
    if matrix.size == 0:
        one = jnp.ones((), x.dtype)
        return ImplicitDerivative(jnp.zeros_like(x), one, jnp.int32(Outcome.DONE))
    sigma = jax.lax.stop_gradient(jnp.linalg.svd(matrix, compute_uv=False))
    rcond = sigma[-1] / jnp.maximum(sigma[0], jnp.finfo(x.dtype).tiny)
    singular = ~(rcond > 64 * matrix.shape[0] * jnp.finfo(x.dtype).eps)
    regular = jnp.where(singular, jnp.eye(matrix.shape[0], dtype=x.dtype), matrix)
    coordinates = jnp.linalg.solve(regular, rhs).reshape(basis.shape[0], -1)
    tangent = einsum("nde,ne->nd", basis, coordinates)
    return ImplicitDerivative(
        # A factor, not a choice: reverse mode would turn an unchosen NaN into a plausible zero.
        tangent=tangent * jnp.where(singular, jnp.nan, 1.0).astype(x.dtype),
        reciprocal_condition=rcond,
        result=jnp.where(singular, Outcome.SINGULAR, Outcome.DONE).astype(jnp.int32),
    )

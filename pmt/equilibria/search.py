"""Newton's method on the product of spheres: equilibria of any kind, stable or not."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from pmt import sphere
from pmt.dynamics.linearization import jacobian_between
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, einsum, epsilon


@register_dataclass
@dataclass(frozen=True)
class NewtonRun:
    """What ``newton`` returns; a leading ``batch`` axis if the guess had one.

    Attributes:
      x: the last state, shape ``(n, d)``.
      residual: max_i |f(x)_i − x_i|.
      iterations: Newton steps made.
      result: ``Outcome.CONVERGED``; ``TWO_CYCLE`` if f(x) = −x was reached; ``BUDGET_ENDED``.
    """

    x: Float[Array, "*batch n d"]
    residual: Float[Array, "*batch"]
    iterations: Int[Array, "*batch"]
    result: Int[Array, "*batch"]


def newton(
    system: Any,
    guess: Float[AnyArray, "*batch n d"],
    *,
    max_iterations: int = 50,
    tolerance: float | None = None,
) -> NewtonRun:
    """Solves B(x)ᵀ f(x) = 0, that is f(x)_i parallel to x_i, in tangent coordinates.

    Each step solves (C − J) ξ = B(x)ᵀ f(x), C = diag(x_i·f(x)_i), which is I − J at an equilibrium,
    in the least-squares sense (so that continua of equilibria do no harm), moves to
    normalize(x + t B ξ), and halves t until the residual falls. Newton finds equilibria whether
    stable or not; where f(x)_i = −x_i for all tokens the result says ``TWO_CYCLE``, and where it
    happens for some ``BUDGET_ENDED``.

    Args:
      system: an autonomous map.
      guess: unit tokens ``(n, d)`` or ``(batch, n, d)``.
      max_iterations: budget, at least 1.
      tolerance: on the residual; 64 eps sqrt(nd) if None.

    Raises:
      RequestError: as ``simulate``; a budget below 1.
    """
    guess = jnp.asarray(guess)
    check_system(system, guess.shape[-2] if guess.ndim >= 2 else None)
    check_tokens(guess, system)
    if max_iterations < 1:
        raise RequestError(f"max_iterations is {max_iterations}; it must be at least 1")
    if tolerance is None:
        tolerance = 64 * epsilon(guess.dtype) * (guess.shape[-1] * guess.shape[-2]) ** 0.5
    bound = jnp.asarray(tolerance, guess.dtype)
    run = partial(_newton, max_iterations=max_iterations)
    return run(system, guess, bound)


@partial(jax.jit, static_argnames="max_iterations")
def _newton(
    system: Any, x0: Float[Array, "*batch n d"], tolerance: Float[Array, ""], *, max_iterations: int
) -> NewtonRun:
    if x0.ndim == 3:
        one = partial(_newton, max_iterations=max_iterations)
        return jax.vmap(one, in_axes=(None, 0, None))(system, x0, tolerance)

    def across(x: Float[Array, "n d"]) -> Float[Array, "n d_1"]:
        return einsum("nde,nd->ne", sphere.tangent_basis(x), system(x))

    def size(x: Float[Array, "n d"]) -> Float[Array, ""]:
        return jnp.max(sphere.norm(across(x))) if x.shape[-1] > 1 else jnp.zeros((), x.dtype)

    def body(carry: Any) -> Any:
        x, previous, count, _ = carry
        basis = sphere.tangent_basis(x)
        jacobian = jacobian_between(system, x, basis, basis)
        facing = jnp.repeat(jnp.sum(x * system(x), axis=-1), x.shape[-1] - 1)
        matrix = jnp.diag(facing) - jacobian
        cutoff = 1e3 * matrix.shape[0] * epsilon(x.dtype)
        step = jnp.linalg.lstsq(matrix, across(x).reshape(-1), rcond=cutoff)[0]
        direction = einsum("nde,ne->nd", basis, step.reshape(x.shape[0], -1))
        scales = 0.5 ** jnp.arange(12, dtype=x.dtype)
        candidates = jax.vmap(lambda t: sphere.retract(x, t * direction))(scales)
        sizes = jax.vmap(size)(candidates)
        falls = sizes < previous
        pick = jnp.where(jnp.any(falls), jnp.argmax(falls), jnp.argmin(sizes))
        better = sizes[pick] < previous
        moved = jnp.where(better, candidates[pick], x)
        return moved, jnp.where(better, sizes[pick], previous), count + 1, ~better

    def going_on(carry: Any) -> Any:
        _, residual, count, stuck = carry
        return (residual > 0.01 * tolerance) & (count < max_iterations) & ~stuck

    start = (x0, size(x0), jnp.int32(0), jnp.zeros((), bool))
    x, _, count, _ = lax.while_loop(going_on, body, start)
    image = system(x)
    residual = jnp.max(sphere.norm(image - x))
    flipped = jnp.max(sphere.norm(image + x))
    result = jnp.where(
        residual <= tolerance,
        Outcome.CONVERGED,
        jnp.where(flipped <= tolerance, Outcome.TWO_CYCLE, Outcome.BUDGET_ENDED),
    )
    return NewtonRun(x=x, residual=residual, iterations=count, result=result.astype(jnp.int32))

"""Runs of a fixed number of steps, and margins about where they end.

Loops of a fixed length compile in a fraction of the time that a run to equilibrium takes. What is
not settled by their end counts as undecided, never as a violation.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pmt import sphere
from theory.convergence import distance_from_principal
from theory.margin import Margin

_ARRIVED = 1e-3
_AWAY = 0.1
_PUSH = 1e-3
_AT_REST = 1e-10
_SURE = 1e-6


def after(system: Any, x: Float[Array, "n d"], steps: int) -> Float[Array, "n d"]:
    """x(steps) from x(0) = ``x``."""
    return lax.fori_loop(0, steps, lambda _, state: system(state), x)


def movement(system: Any, x: Float[Array, "n d"]) -> Float[Array, ""]:
    """max_i |f(x)_i − x_i|."""
    return jnp.max(sphere.norm(system(x) - x))


def ends_at(
    system: Any, x: Float[Array, "n d"], w: Float[Array, "n d"], v: Float[Array, " d"], steps: int
) -> Margin:
    """The run from ``x`` ends with all tokens at v, or all at −v.

    Holds where it comes within 1e-3 of them. Violated where it rests elsewhere, and again after a
    push of 1e-3 along ``w``. Otherwise undecided.
    """
    first = after(system, x, steps)
    second = after(system, sphere.retract(first, _PUSH * w), steps)
    reached = distance_from_principal(first, v)
    finally_at = jnp.minimum(reached, distance_from_principal(second, v))
    resting = jnp.maximum(movement(system, first), movement(system, second)) < _AT_REST
    value = jnp.where(resting & (finally_at > _AWAY), -finally_at / 2.0, 0.0)
    value = jnp.where(finally_at < _ARRIVED, 1.0 - finally_at, value)
    return Margin(value, jnp.full_like(value, _SURE))


def comes_to_rest(system: Any, x: Float[Array, "n d"], steps: int) -> Margin:
    """The last step of the run from ``x`` is shorter than 1e-3.

    Violated where it is longer than 0.1 and so is the one in the middle of the run. A slow passage
    of a saddle point is undecided.
    """
    half = after(system, x, steps // 2)
    now = movement(system, after(system, half, steps - steps // 2))
    moving = jnp.minimum(now, movement(system, half)) > _AWAY
    value = jnp.where(now < _ARRIVED, 1.0 - now, jnp.where(moving, -now, 0.0))
    return Margin(value, jnp.full_like(value, _SURE))

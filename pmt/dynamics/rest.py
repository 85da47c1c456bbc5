"""How a run is seen to have come to rest: one rule, for one start and for many side by side."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pmt.dynamics.outcome import Outcome

Carry = dict[str, Any]
"""``x`` and ``ahead``, the states before and after the last step, ``residual`` between them, and
``seen``, ``steps`` and ``result``: how often it returned after two steps, steps made, and its
``Outcome``. The first two have the layout of the caller, the rest its batch axes."""


def begin(
    x: Array,
    ahead: Array,
    residual: Float[Array, "*batch"],
    code: Int[Array, "*batch"],
    tolerance: Float[Array, ""],
) -> Carry:
    """Before the first step, ``ahead`` = f(x) being known with its ``code``."""
    none = jnp.zeros(code.shape, jnp.int32)
    first = jnp.where(residual <= tolerance, Outcome.CONVERGED, Outcome.BUDGET_ENDED)
    return {
        "x": x,
        "ahead": ahead,
        "residual": residual,
        "seen": none,
        "steps": none,
        "result": jnp.where(code == Outcome.DONE, first, code).astype(jnp.int32),
    }


def going_on(carry: Carry, max_steps: Int[Array, ""]) -> Bool[Array, "*batch"]:
    """Whether there is a next step."""
    running: Array = (carry["result"] == Outcome.BUDGET_ENDED) & (carry["steps"] < max_steps)
    return running


def following(
    carry: Carry,
    beyond: Array,
    residual: Float[Array, "*batch"],
    cycle_residual: Float[Array, "*batch"],
    code: Int[Array, "*batch"],
    tolerance: Float[Array, ""],
) -> Carry:
    """After one more step.

    Args:
      beyond: f(ahead), with its ``code``.
      residual: largest distance of a token between ``beyond`` and ``ahead``.
      cycle_residual: between ``beyond`` and ``x``. Twice in a row within the tolerance, while
        the state itself still moves by more than its root, is a 2-cycle.
      tolerance: of both.
    """
    returns = (cycle_residual <= tolerance) & (carry["residual"] > jnp.sqrt(tolerance))
    seen = jnp.where(returns, carry["seen"] + 1, 0)
    result = jnp.where(
        residual <= tolerance,
        Outcome.CONVERGED,
        jnp.where(seen >= 2, Outcome.TWO_CYCLE, Outcome.BUDGET_ENDED),
    )
    return {
        "x": carry["ahead"],
        "ahead": beyond,
        "residual": residual,
        "seen": seen,
        "steps": carry["steps"] + 1,
        "result": jnp.where(code == Outcome.DONE, result, code).astype(jnp.int32),
    }

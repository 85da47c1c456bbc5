"""What a map does where it does not settle: periods of cycles, the largest Lyapunov exponent.

``run_to_equilibrium`` recognises fixed points and 2-cycles. Large steps and logits give longer
cycles and chaos (theory II.9), which these functions tell apart.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pmt import sphere
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.simulate import _checked_step, check_tokens
from pmt.dynamics.systems import LayerStack, check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon, require_count


@register_dataclass
@dataclass(frozen=True)
class PeriodRun:
    """What ``detect_period`` returns; a leading ``batch`` axis if x0 had one.

    Attributes:
      x: the state after the transient, shape ``(n, d)``: a point of the cycle if there is one.
      period: the smallest p with |f^p(x) − x| within the tolerance; 0 if none was found.
      residuals: max_i |f^p(x)_i − x_i| for p = 1, ..., max_period.
      result: ``DONE`` where a period was found, ``BUDGET_ENDED`` where the state does not return
        or its period cannot be told, ``CANCELLED`` or ``NONFINITE``.
    """

    x: Float[Array, "*batch n d"]
    period: Int[Array, "*batch"]
    residuals: Float[Array, "*batch p"]
    result: Int[Array, "*batch"]


@register_dataclass
@dataclass(frozen=True)
class LyapunovRun:
    """What ``largest_lyapunov_exponent`` returns; a leading ``batch`` axis if x0 had one.

    Attributes:
      exponent: growth of an infinitesimal perturbation per step, in nats; −inf where it vanishes
        in finitely many steps (and for d = 1, where there is none).
      standard_error: of the mean over blocks of steps, as if blocks were independent.
      drift: |mean of the second half − mean of the first|: how far it is from having converged.
      x: the last state, shape ``(n, d)``.
      result: ``DONE``, ``CANCELLED`` or ``NONFINITE``; the exponent is NaN unless it is ``DONE``.
    """

    exponent: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]
    drift: Float[Array, "*batch"]
    x: Float[Array, "*batch n d"]
    result: Int[Array, "*batch"]


def detect_period(
    system: Any,
    x0: Float[AnyArray, "*batch n d"],
    *,
    transient: int = 4000,
    max_period: int = 64,
    tolerance: float | None = None,
) -> PeriodRun:
    """The period of the cycle that a start ends in: the smallest p with f^p(x) = x.

    Makes ``transient`` steps, then compares x with f(x), ..., f^max_period(x). Period 1 is an
    equilibrium. A period p is only reported if every shorter return |f^q(x) − x|, q < p, is larger
    than the square root of the tolerance: near a multiplier of −1 a state that still converges
    almost returns every second step, and is not taken for a 2-cycle. What has not settled after
    the transient, longer cycles, quasi-periodic motion and chaos come out as period 0 and
    ``BUDGET_ENDED``: ask ``largest_lyapunov_exponent`` which of them it is.

    Args:
      system: an autonomous map.
      x0: unit tokens ``(n, d)`` or ``(batch, n, d)``.
      transient: steps made first, at least 0.
      max_period: the longest period looked for, at least 1.
      tolerance: on the return |f^p(x) − x|; 1e4 eps sqrt(d) of the dtype if None.

    Raises:
      RequestError: a ``LayerStack``, a bad number, or as for ``simulate``.
    """
    x0 = _checked(system, x0)
    require_count("transient", transient, 0)
    require_count("max_period", max_period, 1)
    if tolerance is None:
        tolerance = 1e4 * epsilon(x0.dtype) * x0.shape[-1] ** 0.5
    if not 0 < tolerance < 1:
        raise RequestError(f"tolerance is {tolerance!r}; it must lie strictly between 0 and 1")
    bound = jnp.asarray(tolerance, x0.dtype)
    return _period(system, x0, bound, transient=int(transient), max_period=int(max_period))


@partial(jax.jit, static_argnames=("transient", "max_period"))
def _period(
    system: Any,
    x0: Float[Array, "*batch n d"],
    tolerance: Float[Array, ""],
    *,
    transient: int,
    max_period: int,
) -> PeriodRun:
    if x0.ndim == 3:
        one = partial(_period, transient=transient, max_period=max_period)
        return jax.vmap(one, in_axes=(None, 0, None))(system, x0, tolerance)
    x, code = _advance(system, x0, transient)

    def body(carry: Any, _: None) -> Any:
        state, code = carry
        moved, code = _guarded_step(system, state, code)
        return (moved, code), jnp.max(sphere.norm(moved - x))

    (_, code), residuals = lax.scan(body, (x, code), length=max_period)
    returned = residuals <= tolerance
    first = jnp.argmax(returned)
    shorter = jnp.arange(max_period) < first
    clear = jnp.all(jnp.where(shorter, residuals > jnp.sqrt(tolerance), True))
    found = jnp.any(returned) & clear & (code == Outcome.DONE)
    missing = jnp.where(code == Outcome.DONE, Outcome.BUDGET_ENDED, code)
    return PeriodRun(
        x=x,
        period=jnp.where(found, first + 1, 0).astype(jnp.int32),
        residuals=residuals,
        result=jnp.where(found, Outcome.DONE, missing).astype(jnp.int32),
    )


def largest_lyapunov_exponent(
    system: Any,
    x0: Float[AnyArray, "*batch n d"],
    *,
    transient: int = 1000,
    steps: int = 4000,
    blocks: int = 16,
    key: PRNGKeyArray | None = None,
) -> LyapunovRun:
    """λ = lim (1/T) Σ_t log |Df(x(t)) w(t)| with w(t + 1) = Df(x(t)) w(t) / |Df(x(t)) w(t)|.

    One tangent vector w on the product of spheres follows the linearised map and is normalised at
    every step, so that it turns into the direction that grows fastest. Positive: chaos; 0: a
    neutral direction (quasi-periodic motion, or a continuum of equilibria); negative: a stable
    cycle. At an equilibrium it is the logarithm of the spectral radius of the intrinsic Jacobian.
    The transient is made by w too. The limit is reached like 1/T where it is simple; the errors
    say how far a finite T got.

    Args:
      system: an autonomous map.
      x0: unit tokens ``(n, d)`` or ``(batch, n, d)``.
      transient: steps that are made but not counted, at least 0.
      steps: steps that are counted, at least two for every block; a remainder is made and not
        counted.
      blocks: number of means that the standard error is taken from, even and at least 2.
      key: for the first direction of w; key 0 if None.

    Raises:
      RequestError: a ``LayerStack``, a bad number, or as for ``simulate``.
    """
    x0 = _checked(system, x0)
    require_count("transient", transient, 0)
    require_count("blocks", blocks, 2)
    if blocks % 2:
        raise RequestError(f"blocks is {blocks}; it must be even, since halves are compared")
    require_count("steps", steps, 2 * blocks)
    key = jax.random.key(0) if key is None else key
    run = partial(_lyapunov, transient=int(transient), steps=int(steps), blocks=int(blocks))
    return run(system, x0, key)


@partial(jax.jit, static_argnames=("transient", "steps", "blocks"))
def _lyapunov(
    system: Any,
    x0: Float[Array, "*batch n d"],
    key: PRNGKeyArray,
    *,
    transient: int,
    steps: int,
    blocks: int,
) -> LyapunovRun:
    if x0.ndim == 3:
        one = partial(_lyapunov, transient=transient, steps=steps, blocks=blocks)
        return jax.vmap(one, in_axes=(None, 0, None))(system, x0, key)

    def body(carry: Any, _: None) -> Any:
        x, w, code = carry
        moved, code_after = _guarded_step(system, x, code)
        image = sphere.tangent_projection(moved, jax.jvp(system, (x,), (w,))[1])
        growth = jnp.sqrt(jnp.sum(image**2))
        # What vanished has no direction any more: keep the old one, and count −inf.
        turned = jnp.where(growth > 0, image / jnp.where(growth > 0, growth, 1.0), w)
        alive = code_after == Outcome.DONE
        following = (moved, jnp.where(alive, turned, w), code_after)
        return following, jnp.log(growth)

    w = sphere.tangent_projection(x0, jax.random.normal(key, x0.shape, x0.dtype))
    length = jnp.sqrt(jnp.sum(w**2))
    start = (x0, w / jnp.where(length > 0, length, 1.0), jnp.int32(Outcome.DONE))
    carry, _ = lax.scan(body, start, length=transient)

    def block(carry: Any, _: None) -> Any:
        carry, logs = lax.scan(body, carry, length=steps // blocks)
        return carry, jnp.mean(logs)

    (x, _, code), means = lax.scan(block, carry, length=blocks)
    exponent = jnp.mean(means)
    halves = means.reshape(2, -1).mean(axis=1)
    spread = jnp.sqrt(jnp.sum((means - exponent) ** 2) / (blocks * (blocks - 1)))
    finite = jnp.isfinite(exponent)
    valid = jnp.where(code == Outcome.DONE, 1.0, jnp.nan).astype(x0.dtype)
    return LyapunovRun(
        exponent=exponent * valid,
        standard_error=jnp.where(finite, spread, 0.0) * valid,
        drift=jnp.where(finite, jnp.abs(halves[1] - halves[0]), 0.0) * valid,
        x=x,
        result=code,
    )


def _advance(system: Any, x0: Float[Array, "n d"], steps: int) -> tuple[Array, Array]:
    def body(carry: Any, _: None) -> Any:
        return _guarded_step(system, *carry), None

    return lax.scan(body, (x0, jnp.int32(Outcome.DONE)), length=steps)[0]


def _guarded_step(
    system: Any, x: Float[Array, "n d"], code: Int[Array, ""]
) -> tuple[Float[Array, "n d"], Int[Array, ""]]:
    """One step, unless the run has ended before: then the state stays and so does the code."""
    moved, new = _checked_step(system, x)
    alive = code == Outcome.DONE
    return jnp.where(alive, moved, x), jnp.where(alive, new, code)


def _checked(system: Any, x0: Any) -> Float[Array, "*batch n d"]:
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack changes with every step and has no cycles; "
            "take one layer with system.layer(index)"
        )
    x0 = jnp.asarray(x0)
    check_system(system, x0.shape[-2] if x0.ndim >= 2 else None)
    check_tokens(x0, system)
    return x0

"""Running a map: trajectories and runs to equilibrium, single or batched.

Inside ``jit``, ``vmap`` and ``grad`` the drivers are ordinary functions of arrays: to run a family
of systems, ``jax.vmap(lambda s, x: simulate(s, x, steps))(systems, x0)``. Values are checked at
the boundary only, where they are concrete. Many starts of a small system run in chunks on a CPU
(``pmt.dynamics.chunked``), many times faster, when called outside of these transformations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from pmt import sphere
from pmt.dynamics import chunked, rest
from pmt.dynamics.implicit import implicit_derivative
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.systems import LayerStack, check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon, is_concrete, require_count, require_finite

Observable = Callable[[Any, Array], Array]


def step_length(system: Any, x: Float[Array, "n d"]) -> Float[Array, ""]:
    """max_i |f(x)_i − x_i|: how far the next step moves; 0 exactly at an equilibrium."""
    return jnp.max(sphere.norm(system(x) - x))


def spread(system: Any, x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean intertoken distance, zero iff consensus (``sphere.intertoken_distance``)."""
    del system
    return sphere.intertoken_distance(x)


OBSERVABLES: Mapping[str, Observable] = {
    "intertoken_distance": spread,
    "step_length": step_length,
}


@register_dataclass
@dataclass(frozen=True)
class Simulation:
    """What ``simulate`` returns; every field has a leading ``batch`` axis if x0 had one.

    Attributes:
      x: the path ``(steps + 1, n, d)``, x0 first, or the last state ``(n, d)``.
      observables: name -> values at x(0), ..., x(steps), shape ``(steps + 1, ...)``.
      result: ``Outcome.DONE``, ``CANCELLED`` or ``NONFINITE``.
      stopped_at: number of steps made before the run was stopped; ``steps`` if it was not.
    """

    x: Float[Array, "*shape"]
    observables: dict[str, Array]
    result: Int[Array, "*batch"]
    stopped_at: Int[Array, "*batch"]


@register_dataclass
@dataclass(frozen=True)
class EquilibriumRun:
    """What ``run_to_equilibrium`` returns; a leading ``batch`` axis if x0 had one.

    Attributes:
      x: the last state, shape ``(n, d)``. Differentiable in the system's arrays where the result
        is ``CONVERGED`` and I − J is regular; its derivative is NaN elsewhere.
      residual: max_i |f(x)_i − x_i|.
      cycle_residual: max_i |f(f(x))_i − x_i|.
      steps: steps made.
      result: ``CONVERGED``, ``TWO_CYCLE``, ``BUDGET_ENDED``, ``CANCELLED`` or ``NONFINITE``.
    """

    x: Float[Array, "*batch n d"]
    residual: Float[Array, "*batch"]
    cycle_residual: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]
    result: Int[Array, "*batch"]


def check_tokens(x: Any, system: Any) -> None:
    """Refuse an initial state that is not made of unit tokens of the system's dimension.

    Raises:
      RequestError: wrong rank, dimension or dtype, a non-finite entry, a zero or non-unit token.
    """
    weights = system.layers.query if isinstance(system, LayerStack) else _first_weight(system)
    if x.ndim not in (2, 3):
        raise RequestError(
            f"x0 has shape {tuple(x.shape)}; expected (n, d), or (batch, n, d) for many starts"
        )
    if x.shape[-2] < 1 or x.shape[-1] != weights.shape[-1]:
        raise RequestError(
            f"x0 has shape {tuple(x.shape)} but the system acts on tokens of dimension "
            f"d = {weights.shape[-1]}; expected at least one token and a last axis of that length"
        )
    if x.dtype != weights.dtype:
        raise RequestError(
            f"x0 is {x.dtype} but the system is {weights.dtype}; convert one of them"
        )
    if not is_concrete(x) or _certainly_unit(x):
        return
    require_finite("x0", x)
    norms = np.linalg.norm(np.asarray(x, np.float64), axis=-1)
    off = np.abs(norms - 1.0)
    if off.size and off.max() > 64 * x.shape[-1] * epsilon(x.dtype):
        where = tuple(int(i) for i in np.unravel_index(off.argmax(), off.shape))
        raise RequestError(
            f"the token at {where} of x0 has norm {norms[where]:.6g}; tokens are unit vectors: "
            "replace zero tokens and pass x0 through pmt.sphere.normalize"
        )


def _certainly_unit(x: Any) -> bool:
    """Whether one cheap pass finds finite tokens of unit length; False decides nothing."""
    if x.dtype.itemsize not in (4, 8):
        return False
    array = np.asarray(x)
    squares = np.einsum("...c,...c->...", array, array)
    # |x|² is twice as far from 1 as |x|: the pass is stricter than what is refused.
    return bool(np.all(np.abs(squares - 1.0) <= 32 * x.shape[-1] * epsilon(x.dtype)))


def _first_weight(system: Any) -> Any:
    return system.query if hasattr(system, "query") else system.value


def _checked_step(
    system: Any, x: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Int[Array, ""]]:
    """f(x) and DONE, or x unchanged and the code that says why there is no next state."""
    y = system.unnormalized(x)
    lengths = sphere.norm(y)
    # A sum whose terms cancel to a few roundings has no direction left to normalise.
    floor = 8 * jnp.finfo(x.dtype).eps * (1.0 + jnp.max(jnp.abs(y - x), axis=-1))
    finite = jnp.all(jnp.isfinite(y))
    cancelled = jnp.any(lengths <= floor)
    code = jnp.where(
        finite, jnp.where(cancelled, Outcome.CANCELLED, Outcome.DONE), Outcome.NONFINITE
    )
    moved = jnp.where(code == Outcome.DONE, sphere.normalize(y), x)
    return moved, code.astype(jnp.int32)


def simulate(
    system: Any,
    x0: Float[AnyArray, "*batch n d"],
    steps: int | None = None,
    *,
    keep: Literal["path", "last"] = "path",
    observables: Mapping[str, Observable] | None = None,
) -> Simulation:
    """x(t+1) = f(x(t)) for ``steps`` steps, with observables along the way.

    A ``LayerStack`` moves through its layers (at most ``depth`` steps, all by default). If a
    token's update cancels to zero or a number overflows, the run stays at its last valid state
    and says so in ``result``; it never goes on with NaN. The path is differentiable in both modes.

    Args:
      system: ``Oja``, ``SingleHead``, ``MultiHead`` or ``LayerStack``.
      x0: unit tokens ``(n, d)``, or ``(batch, n, d)`` for independent starts.
      steps: number of steps, at least 0; may be left out for a ``LayerStack`` only.
      keep: ``"path"`` for all states, ``"last"`` to save memory.
      observables: name -> function of ``(system, x)``, called at every state with the layer that
        acts next; ``OBSERVABLES`` if None. Pass the same function objects again to avoid
        compiling again.

    Raises:
      RequestError: see ``check_system`` and ``check_tokens``; negative or missing ``steps``.
    """
    x0 = jnp.asarray(x0)
    check_system(system, x0.shape[-2] if x0.ndim >= 2 else None)
    check_tokens(x0, system)
    if keep not in ("path", "last"):
        raise RequestError(f"keep is {keep!r}; it must be 'path' or 'last'")
    steps = _check_steps(system, steps)
    chosen = OBSERVABLES if observables is None else observables
    named = tuple(chosen.items())
    formulation = chunked.choose_formulation(system, x0)
    if formulation is not None:
        many = chunked.simulate_many(formulation, system, x0, steps, keep, named)
        if many is not None:
            return Simulation(*many)
    return _simulate(system, x0, steps=steps, keep=keep, observables=named)


def _check_steps(system: Any, steps: int | None) -> int:
    if isinstance(system, LayerStack):
        steps = system.depth if steps is None else steps
        if not 0 <= steps <= system.depth:
            raise RequestError(
                f"steps is {steps} but the stack has {system.depth} layers; choose 0 to "
                f"{system.depth}, or repeat one layer with system.layer(index)"
            )
    return require_count("steps", steps, 0)


@partial(jax.jit, static_argnames=("steps", "keep", "observables"))
def _simulate(
    system: Any,
    x0: Float[Array, "*batch n d"],
    *,
    steps: int,
    keep: str,
    observables: tuple[tuple[str, Observable], ...],
) -> Simulation:
    if x0.ndim == 3:
        one = partial(_simulate, steps=steps, keep=keep, observables=observables)
        return jax.vmap(one, in_axes=(None, 0))(system, x0)
    stack = isinstance(system, LayerStack)
    layers = jax.tree.map(lambda leaf: leaf[:steps], system.layers) if stack else None

    def observe(map_: Any, x: Float[Array, "n d"]) -> dict[str, Array]:
        return {name: jnp.asarray(function(map_, x)) for name, function in observables}

    def body(carry: Any, layer: Any) -> Any:
        x, code, made = carry
        map_ = layer if stack else system
        moved, new = _checked_step(map_, x)
        alive = code == Outcome.DONE
        following = (
            jnp.where(alive, moved, x),
            jnp.where(alive, new, code),
            made + (alive & (new == Outcome.DONE)).astype(jnp.int32),
        )
        return following, (observe(map_, x), x if keep == "path" else None)

    start = (x0, jnp.int32(Outcome.DONE), jnp.int32(0))
    (last, code, made), (seen, path) = lax.scan(body, start, layers, length=steps)
    final = observe(system.layer(-1) if stack else system, last)
    seen = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), seen, final)
    x = jnp.concatenate([path, last[None]]) if keep == "path" else last
    return Simulation(x=x, observables=seen, result=code, stopped_at=made)


def run_to_equilibrium(
    system: Any,
    x0: Float[AnyArray, "*batch n d"],
    *,
    max_steps: int = 10_000,
    tolerance: float | None = None,
) -> EquilibriumRun:
    """Iterates until the residual max_i |f(x)_i − x_i| is at most ``tolerance``.

    A 2-cycle is reported when f(f(x)) returns to x within the tolerance while f(x) stays farther
    than its square root, twice in a row: a slowly converging oscillation is therefore not taken
    for a cycle, and a cycle smaller than that ends as ``BUDGET_ENDED``. Longer cycles and chaos
    end as ``BUDGET_ENDED``. A start exactly on an unstable equilibrium stays there and counts as
    converged, in 0 steps: ask ``pmt.stability`` about it. A small residual bounds the distance to
    the equilibrium only up to 1 / (1 − rate).

    Derivatives of ``x`` in the system's arrays are those of the equilibrium (implicit function
    theorem, ``implicit_derivative``), not of the iteration; the derivative in x0 is zero.

    Args:
      system: an autonomous map: ``Oja``, ``SingleHead`` or ``MultiHead``.
      x0: unit tokens ``(n, d)`` or ``(batch, n, d)``.
      max_steps: budget, at least 0.
      tolerance: 16 eps sqrt(d) of the dtype if None.

    Raises:
      RequestError: a ``LayerStack``, a bad budget or tolerance, or as for ``simulate``.
    """
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack changes with every step and has no equilibrium; "
            "take one layer with system.layer(index)"
        )
    x0 = jnp.asarray(x0)
    check_system(system, x0.shape[-2] if x0.ndim >= 2 else None)
    check_tokens(x0, system)
    require_count("max_steps", max_steps, 0)
    if tolerance is None:
        tolerance = 16 * epsilon(x0.dtype) * x0.shape[-1] ** 0.5
    if not 0 < tolerance < 1:
        raise RequestError(f"tolerance is {tolerance!r}; it must lie strictly between 0 and 1")
    limits = jnp.asarray(tolerance, x0.dtype), jnp.int32(max_steps)
    formulation = chunked.choose_formulation(system, x0)
    if formulation is not None:
        return EquilibriumRun(**chunked.run_many(formulation, system, x0, *limits))
    return _run(system, x0, *limits)


@jax.jit
def _run(
    system: Any,
    x0: Float[Array, "*batch n d"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> EquilibriumRun:
    if x0.ndim == 3:
        return jax.vmap(_run, in_axes=(None, 0, None, None))(system, x0, tolerance, max_steps)
    fixed_system, start = lax.stop_gradient((system, x0))

    def advance(x: Float[Array, "n d"]) -> tuple[Array, Array, Array]:
        moved, code = _checked_step(fixed_system, x)
        return moved, jnp.max(sphere.norm(moved - x)), code

    def body(carry: Any) -> Any:
        beyond, residual, code = advance(carry["ahead"])
        cycle_residual = jnp.max(sphere.norm(beyond - carry["x"]))
        return rest.following(carry, beyond, residual, cycle_residual, code, tolerance)

    carry = lax.while_loop(
        lambda carry: rest.going_on(carry, max_steps),
        body,
        rest.begin(start, *advance(start), tolerance),
    )
    beyond = advance(carry["ahead"])[0]
    return EquilibriumRun(
        x=_with_implicit_derivative(system, carry["x"], carry["result"]),
        residual=carry["residual"],
        cycle_residual=jnp.max(sphere.norm(beyond - carry["x"])),
        steps=carry["steps"],
        result=carry["result"],
    )


@jax.custom_jvp
def _with_implicit_derivative(
    system: Any, x: Float[Array, "n d"], result: Int[Array, ""]
) -> Float[Array, "n d"]:
    del system, result
    return x


@_with_implicit_derivative.defjvp
def _implicit_rule(primals: Any, tangents: Any) -> Any:
    system, x, result = primals
    answer = implicit_derivative(system, x, tangents[0])
    valid = (result == Outcome.CONVERGED) & (answer.result == Outcome.DONE)
    # A factor, not a choice: reverse mode would turn an unchosen NaN into a plausible zero.
    return x, answer.tangent * jnp.where(valid, 1.0, jnp.nan).astype(x.dtype)

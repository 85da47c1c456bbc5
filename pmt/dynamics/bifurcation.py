"""Bifurcation diagrams: what a family of maps ends in, as its parameter changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from pmt.dynamics.cycles import detect_period, largest_lyapunov_exponent
from pmt.dynamics.simulate import simulate
from pmt.errors import RequestError
from pmt.numerics import AnyArray


@register_dataclass
@dataclass(frozen=True)
class Bifurcation:
    """What ``bifurcation`` returns: one entry for each value of the parameter.

    Attributes:
      parameter: its values, increasing or not.
      states: successive states on the attractor, shape ``(values, samples, n, d)``.
      period: the period found there, 0 where there is none (``detect_period``).
      exponent: the largest Lyapunov exponent, in nats a step.
      standard_error: of the exponent.
      result: of the exponent's run: ``DONE``, ``CANCELLED`` or ``NONFINITE``.
    """

    parameter: Float[Array, " values"]
    states: Float[Array, "values samples n d"]
    period: Int[Array, " values"]
    exponent: Float[Array, " values"]
    standard_error: Float[Array, " values"]
    result: Int[Array, " values"]


def bifurcation(
    family: Callable[[Any], Any],
    parameter: Float[AnyArray, " values"],
    x0: Float[AnyArray, "n d"],
    *,
    transient: int = 2000,
    samples: int = 64,
    steps: int = 4000,
) -> Bifurcation:
    """Runs every map of a family from one start and records what it ends in.

    Args:
      family: parameter -> an autonomous map, pure, so that it can be mapped over the values.
      parameter: the values.
      x0: unit tokens ``(n, d)``, the same start for every value.
      transient: steps made before anything is recorded.
      samples: states recorded, and the longest period looked for.
      steps: steps that the exponent is averaged over.

    Raises:
      RequestError: no value of the parameter, or as for ``detect_period``.
    """
    values, x0 = jnp.asarray(parameter), jnp.asarray(x0)
    if values.ndim != 1 or values.size == 0:
        raise RequestError(
            f"parameter has shape {tuple(values.shape)}; expected a list of at least one value"
        )

    def one(value: Float[Array, ""]) -> tuple[Array, ...]:
        system = family(value)
        cycle = detect_period(system, x0, transient=transient, max_period=samples)
        path = simulate(system, cycle.x, samples - 1, observables={}).x
        found = largest_lyapunov_exponent(system, cycle.x, transient=transient, steps=steps)
        return path, cycle.period, found.exponent, found.standard_error, found.result

    return Bifurcation(values, *jax.jit(jax.vmap(one))(values))

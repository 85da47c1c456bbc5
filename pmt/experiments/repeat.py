"""One layer applied again and again: the shared-weight experiment.

Eqs. (2) and (3) of arXiv 2605.25619. Near consensus on the dominant eigendirection the theory gives
a rate: the distance of the tokens from it shrinks by |1 + alpha lam_2| / |1 + alpha lam_1| a step.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Outcome, simulate
from pmt.errors import RequestError
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.layer_by_layer import Layered, prepare_layer
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import check_order
from pmt.numerics import einsum, epsilon
from pmt.spectral import Spectrum, as_directions, chance, layer_matrix, rho

# A rate is fitted where the distance is small enough for the linear theory, and large enough to
# be more than rounding.
_LINEAR = 0.05
_ROUNDINGS = 1e3
_FEWEST_POINTS = 8


@dataclass(frozen=True)
class RepeatConfig:
    """Which layer (from 1), how often, from which tokens; otherwise as ``AnalysisConfig``."""

    layer: int
    steps: int = 200
    order: str = "real"
    alpha: float = 1.0
    prompts: int = 100
    tokens: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_order(self.order, self.alpha)
        if self.steps < 1:
            raise RequestError(f"steps is {self.steps}; it must be at least 1")


@dataclass(frozen=True)
class Rate:
    """A factor per step.

    Attributes:
      theory: from the spectrum; None where the theory does not apply.
      measured: fitted to the run's tail; None where it has no long enough linear part.
    """

    theory: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over theory, where there are both."""
        if self.theory is None or self.measured is None or self.theory == 0:
            return None
        return self.measured / self.theory


@dataclass(frozen=True)
class Repetition:
    """The result; arrays have one entry for every state x(0), ..., x(steps).

    Attributes:
      config, principal: what was run; ``principal`` in the order asked for.
      attracting: whether it is the direction that the map selects near consensus, the one with
        the largest |1 + alpha lam|, with 1 + alpha lam > 0 if real. Where not, alignment with it
        need not grow, and the rate of theory is None.
      rho, rho_se: mean alignment with the principal direction, standard error over prompts (None
        for one prompt).
      misalignment: mean of |x - P x|, accurate also where rho is 1 up to rounding.
      intertoken_distance: mean over pairs and prompts.
      chance: alignment of uniform tokens.
      rate: of the misalignment.
    """

    config: RepeatConfig
    principal: Spectrum
    attracting: bool
    rho: np.ndarray
    rho_se: np.ndarray | None
    misalignment: np.ndarray
    intertoken_distance: np.ndarray
    chance: float
    rate: Rate


def repeat_layer(
    layers: Layered, config: RepeatConfig, *, tokens: Any = None, solver: Solver | None = None
) -> Repetition:
    """Apply one layer ``steps`` times to tokens, and watch them align; no other one is read.

    Args:
      layers: their dtype is that of the run, their step size is replaced.
      config: see there.
      tokens: ``(prompts, n, d)``; they are normalised. Random ones if None.
      solver: solves the layer's eigenproblem; one that keeps none if None.

    Raises:
      RequestError: no such layer, tokens that cannot be used, or a token that cancels to zero.
    """
    if not 1 <= config.layer <= layers.depth:
        raise RequestError(
            f"there is no layer {config.layer}; the model has layers 1 to {layers.depth}"
        )
    layer = prepare_layer(layers.layer(config.layer - 1), config.alpha)
    dtype, d = layer.query.dtype, layer.query.shape[-1]
    if tokens is None:
        tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
    x = prepare_tokens(tokens, d, dtype)
    matrix = layer_matrix(layer)
    own = (solver or Solver()).principal(matrix, config.order, config.alpha).spectrum
    directions = as_directions(own.basis, dtype)

    def alignment(system: Any, state: Float[Array, "n d"]) -> Float[Array, "n"]:
        del system
        return rho(state, directions)[:, 0]

    def misalignment(system: Any, state: Float[Array, "n d"]) -> Float[Array, "n"]:
        del system
        along = einsum("nd,dp->np", state, directions.basis)
        return sphere.norm(state - einsum("np,dp->nd", along, directions.basis))

    def spread(system: Any, state: Float[Array, "n d"]) -> Float[Array, ""]:
        del system
        return sphere.intertoken_distance(state)

    run = simulate(
        layer,
        x,
        config.steps,
        keep="last",
        observables={"rho": alignment, "misalignment": misalignment, "spread": spread},
    )
    _require_done(run.result, run.stopped_at)
    seen = {name: np.asarray(value, np.float64) for name, value in run.observables.items()}
    attracting, rate = _rate_of_theory(own, config.alpha)
    off = seen["misalignment"].mean(axis=(0, 2))
    return Repetition(
        config=config,
        principal=own,
        attracting=attracting,
        rho=seen["rho"].mean(axis=(0, 2)),
        rho_se=_standard_errors(seen["rho"].mean(axis=2)),
        misalignment=off,
        intertoken_distance=seen["spread"].mean(axis=0),
        chance=chance(d, own.dimension),
        rate=Rate(rate if layer.is_plain else None, fitted_rate(off, dtype)),
    )


def fitted_rate(values: np.ndarray, dtype: Any) -> float | None:
    """The factor per step of a decaying positive sequence, from a straight line through its log.

    Fitted to the last stretch below ``0.05`` and above a thousand roundings; None where that has
    fewer than 8 points.
    """
    linear = (values < _LINEAR) & (values > _ROUNDINGS * epsilon(dtype))
    after_start = np.flatnonzero(~linear & (values >= _LINEAR))
    start = 0 if len(after_start) == 0 else int(after_start[-1]) + 1
    stretch = values[start:][linear[start:]]
    if len(stretch) < _FEWEST_POINTS or not linear[start : start + len(stretch)].all():
        return None
    # The first half still holds what decays faster.
    tail = np.log(stretch[len(stretch) // 2 :])
    return float(np.exp(np.polyfit(np.arange(len(tail)), tail, 1)[0]))


def _rate_of_theory(own: Spectrum, alpha: float) -> tuple[bool, float | None]:
    factors = 1 + alpha * own.values
    first, others = factors[0], np.abs(factors[own.dimension :])
    # A real factor below zero makes a 2-cycle, not an equilibrium.
    fixed = bool(first.imag != 0 or first.real > 0)
    if len(others) == 0:
        return fixed, None
    attracting = fixed and bool(np.max(others) < abs(first))
    return attracting, float(np.max(others) / abs(first)) if attracting else None


def _standard_errors(means: np.ndarray) -> np.ndarray | None:
    return means.std(axis=0, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else None


def _require_done(result: jax.Array, stopped_at: jax.Array) -> None:
    failed = np.flatnonzero(np.asarray(result) != Outcome.DONE)
    if len(failed):
        first = int(failed[0])
        raise RequestError(
            f"after {int(jnp.asarray(stopped_at)[first])} steps, in prompt {first} (counted from "
            f"0), {Outcome(int(result[first])).message} ({len(failed)} of {len(result)} prompts); "
            "choose another alpha or other tokens"
        )

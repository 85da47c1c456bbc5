"""Figure 1 of arXiv 2606.00605: what training makes of V and W, and how v and w grow.

The full matrices are trained and, beside them, the two-scalar dynamics are integrated from the
same start with the same learning rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import jax
import numpy as np

from pmt import looped
from pmt.experiments.loop_saddle import WayDown, way_down
from pmt.looped import Exponent, ScalarPath, TrainConfig, Training

SCHEMA = "pmt.loop-train/1"

# The paper's settings, and one that takes seconds: smaller, shorter, in larger steps of record.
FIGURE_1 = TrainConfig()
FIGURE_1_QUICK = TrainConfig(
    d=4, n=8, loops=4, batch=128, train=1024, test=256, epochs=240, every=4, draw="fresh"
)

# Samples from which L' of the two-scalar dynamics is tabulated, at least.
_SPECTRA = 10_000

# Scores beyond which an entry is further from the manifold than noise explains.
_SCORE = 3.0


@dataclass(frozen=True)
class LoopFigure1:
    """The result.

    Attributes:
      training: of the full matrices.
      scalars: the two-scalar dynamics on the population, recorded at the same steps; None where
        the run does not start on the manifold or its norm leaves it.
      exponents: for every seed those of v and w; None where they could not be fitted.
      scalar_exponents: of the two-scalar dynamics.
      limit_loss, limit_error: L_inf over the population, and its standard error.
      down: how the loss falls beside the manifold, on the test set of the first seed; None where
        the run does not start on the manifold, did not stay finite, or its norm is not l2.
    """

    training: Training
    scalars: ScalarPath | None
    exponents: tuple[tuple[Exponent, Exponent] | None, ...]
    scalar_exponents: tuple[Exponent, Exponent] | None
    limit_loss: float | None
    limit_error: float | None
    down: WayDown | None


def loop_figure_1(
    config: TrainConfig = FIGURE_1,
    *,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> LoopFigure1:
    """Train the full matrices, integrate the two scalars, fit the exponents.

    Args, Raises: as ``pmt.looped.train``.
    """
    training = looped.train(config, checkpoint=checkpoint, resume=resume, advance=advance)
    scalars = limit = error = None
    if config.confined:
        scalars, limit, error = two_scalars(config)
    paths = [
        (training.history["v"][:, seed], training.history["w"][:, seed])
        for seed in range(config.seeds)
    ]
    return LoopFigure1(
        training,
        scalars,
        tuple(_exponents(training.steps, *path) for path in paths),
        None if scalars is None else _exponents(scalars.steps, scalars.v, scalars.w),
        limit,
        error,
        _down(training),
    )


def _down(training: Training) -> WayDown | None:
    config, last = training.config, {n: v[-1] for n, v in training.history.items()}
    rho = float(last["v"][0] * last["w"][0])
    usual = config.confined and config.norm == "l2" and config.test > 1
    if not (usual and training.finite[0] and rho > 0):
        return None
    given = jax.tree.map(lambda part: part[0], looped.test_set(config))
    return way_down(config, rho, given)


def two_scalars(config: TrainConfig) -> tuple[ScalarPath | None, float, float]:
    """The two-scalar dynamics of a config on the population, and the loss they tend to.

    The path is None where it leaves every tabulated ρ (a learning rate that is too large).
    """
    key = jax.random.key(config.seed + 2**20)
    count = max(_SPECTRA, config.train)
    found = _spectra(key, count, config.n, config.d, config.dtype)
    table = looped.slope(
        looped.Spectra(found[0], found[1], 1),
        loops=config.loops,
        norm=config.norm,
        objective=config.objective,
    )
    try:
        path = looped.integrate(
            table,
            d=config.d,
            v=config.v,
            w=config.w,
            rate=config.rate,
            steps=config.steps,
            every=config.every * config.steps_per_epoch,
        )
    except ValueError:
        path = None
    return path, float(table.loss[-1]), float(table.loss_error[-1])


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _spectra(key: Any, count: int, n: int, d: int, dtype: str) -> tuple[Any, Any]:
    found = looped.spectra(looped.uniform_samples(key, count, n, d, np.dtype(dtype)))
    return found.eigenvalues, found.coefficients


def _exponents(steps: np.ndarray, v: np.ndarray, w: np.ndarray) -> tuple[Exponent, Exponent] | None:
    try:
        return looped.fitted_exponent(steps, v), looped.fitted_exponent(steps, w)
    except ValueError:
        return None


def training_json(result: LoopFigure1) -> dict[str, Any]:
    """The object that ``pmt loop train --json`` writes: schema ``pmt.loop-train/1``.

    Lists have one row a record and one number a seed; what is not finite is null.
    """
    training, scalars = result.training, result.scalars
    scores = np.abs(training.walk_scores).T
    # Of a run that did not stay finite there are none.
    moved = [each[np.isfinite(each)] if np.isfinite(each).any() else each[:1] for each in scores]
    return {
        "schema": SCHEMA,
        "config": training.config.document(),
        "seconds": training.seconds,
        "steps": training.steps.tolist(),
        "history": {name: finite(values) for name, values in training.history.items()},
        "power_method": {
            "loss": finite(training.power_loss),
            "truth_angle": finite(training.power_angle),
        },
        "limit_loss": None
        if result.limit_loss is None
        else {"value": result.limit_loss, "se": result.limit_error},
        "off_manifold": {
            "score_rms": finite([np.sqrt(np.mean(each**2)) for each in moved]),
            "score_largest": finite([np.max(each) for each in moved]),
            "share_within_3": finite([np.mean(each <= _SCORE) for each in moved]),
        },
        "exponents": [_exponent_json(pair) for pair in result.exponents],
        "two_scalars": None
        if scalars is None
        else {
            "steps": scalars.steps.tolist(),
            "v": scalars.v.tolist(),
            "w": scalars.w.tolist(),
            "loss": scalars.loss.tolist(),
            "v_error": scalars.v_error.tolist(),
            "w_error": scalars.w_error.tolist(),
            "exponents": _exponent_json(result.scalar_exponents),
        },
        "way_down": None if result.down is None else result.down.document(),
        "value": training.weights.value.tolist() if np.all(training.finite) else None,
        "key": training.weights.key.tolist() if np.all(training.finite) else None,
    }


def finite(values: Any) -> Any:
    """Nested lists of numbers with None for what is not finite, which JSON cannot hold."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return float(array) if np.isfinite(array) else None
    return [finite(part) for part in array]


def _exponent_json(pair: tuple[Exponent, Exponent] | None) -> dict[str, Any] | None:
    return None if pair is None else {"v": pair[0].document(), "w": pair[1].document()}


def shorter(config: TrainConfig, epochs: int) -> TrainConfig:
    """The same run with fewer epochs, recorded a hundred times or as often as it divides."""
    every = max(k for k in range(1, max(1, epochs // 100) + 1) if epochs % k == 0)
    return replace(config, epochs=epochs, every=every)

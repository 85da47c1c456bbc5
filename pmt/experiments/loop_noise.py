"""How near descent comes to the power method: what the noise of its gradient and few samples cost.

The population gradient keeps the weights on the manifold, where the angle to the L-step power
iterate shrinks as 1/ρ. The gradient of a batch does not, and neither does that of a fixed training
set: both move the weights off it, by an amount that falls with the square root of the number of
samples. Two series of runs of equally many steps measure this: fresh samples in growing batches,
and descent on all of a fixed set of growing size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from pmt import looped
from pmt.experiments.loop_figure_1 import finite
from pmt.looped import TrainConfig, Training

SCHEMA = "pmt.loop-noise/1"

# The angle that the samples are extrapolated to, radians.
ASKED = 1e-2


@dataclass(frozen=True)
class NoiseConfig:
    """The runs.

    Attributes:
      training: what is common; draw, batch and the number of training samples are replaced.
      samples: of a batch, and of a training set.
      steps: of every run.
      draws: ``fresh`` samples in every batch, all of a ``fixed`` set, or both.
    """

    training: TrainConfig = TrainConfig(epochs=10, every=1)
    samples: tuple[int, ...] = (128, 512, 2048)
    steps: int = 2_000
    draws: tuple[str, ...] = ("fresh", "fixed")

    @property
    def epochs(self) -> int:
        """Of all runs together."""
        return sum(_run(self, draw, count).epochs for draw in self.draws for count in self.samples)


NOISE_STUDY = NoiseConfig()
NOISE_QUICK = NoiseConfig(
    TrainConfig(d=4, n=8, loops=4, epochs=10, every=1, test=500, seeds=2),
    samples=(32, 128, 512),
    steps=500,
)


@dataclass(frozen=True)
class Series:
    """Runs with a growing number of samples; arrays have shape ``(samples, seeds)``.

    Attributes:
      draw: ``fresh`` or ``fixed``.
      samples: of a batch or of the training set.
      angle: mean angle from the model to the L-step power iterate over the test set at the end.
      manifold_angle: the same for the nearest point of the manifold: what is left without noise.
      rho: v w of that point.
      slope, slope_error: of log sqrt(angle² − manifold_angle²) against log samples, with its
        standard error; −1/2 where the excess is noise. NaN where it cannot be fitted.
        Runs no worse than the manifold's own angle are left out.
      needed: samples at which the fitted excess is ``ASKED``; NaN where the slope is not negative
        by two standard errors.
    """

    draw: str
    samples: tuple[int, ...]
    angle: np.ndarray
    manifold_angle: np.ndarray
    rho: np.ndarray
    slope: float
    slope_error: float
    needed: float

    @property
    def finite(self) -> bool:
        """Whether every run stayed finite."""
        return bool(np.isfinite(self.angle).all())

    @property
    def excess(self) -> np.ndarray:
        """sqrt(angle² − manifold_angle²), NaN where the angle is the smaller one."""
        square = self.angle**2 - self.manifold_angle**2
        return np.sqrt(np.where(square > 0, square, np.nan))


@dataclass(frozen=True)
class LoopNoise:
    """The result: a series for every draw."""

    config: NoiseConfig
    series: tuple[Series, ...]


def loop_noise(
    config: NoiseConfig = NOISE_STUDY, *, advance: Callable[[int], None] = lambda _: None
) -> LoopNoise:
    """Run every series; ``advance`` gets 1 after every epoch."""
    found = []
    for draw in config.draws:
        runs = [
            looped.train(_run(config, draw, count), advance=advance) for count in config.samples
        ]
        angle = np.array([run.history["algorithm_angle"][-1] for run in runs], np.float64)
        floor = np.array([_manifold_angle(run) for run in runs])
        rho = np.array([run.history["v"][-1] * run.history["w"][-1] for run in runs], np.float64)
        empty = Series(draw, config.samples, angle, floor, rho, np.nan, np.nan, np.nan)
        slope, error, needed = _law(config.samples, empty.excess)
        found.append(replace(empty, slope=slope, slope_error=error, needed=needed))
    return LoopNoise(config, tuple(found))


def _run(config: NoiseConfig, draw: str, count: int) -> TrainConfig:
    """``steps`` steps in ``epochs`` epochs, recorded at the end."""
    each = max(1, config.steps // config.training.epochs)
    if draw == "fresh":
        changed = {"draw": "fresh", "batch": count, "train": count * each}
        return replace(config.training, every=config.training.epochs, **changed)  # type: ignore[arg-type]
    # Descent on the whole set makes one step an epoch.
    steps = each * config.training.epochs
    return replace(config.training, batch=count, train=count, epochs=steps, every=steps)


def _manifold_angle(run: Training) -> np.ndarray:
    """Mean angle to the power iterate over the test set, of the nearest point of the manifold."""
    config, test = run.config, looped.test_set(run.config)
    v, w = run.history["v"][-1], run.history["w"][-1]
    found = []
    for seed in range(config.seeds):
        samples = jax.tree.map(lambda part, at=seed: part[at], test)
        y = looped.reduced(samples.data, samples.query, float(v[seed] * w[seed]), config.loops)
        exact = looped.power_iterate(samples.data, samples.query, config.loops)
        found.append(float(np.mean(looped.angle_to_line(y, exact))))
    return np.array(found)


def _law(samples: tuple[int, ...], excess: np.ndarray) -> tuple[float, float, float]:
    """Slope of log excess against log samples, its standard error, samples needed for ``ASKED``."""
    x = np.log(np.repeat(np.array(samples, np.float64), excess.shape[1]))
    y = np.log(excess.reshape(-1))
    kept = np.isfinite(y)
    if kept.sum() < 3 or np.ptp(x[kept]) == 0:
        return np.nan, np.nan, np.nan
    (slope, level), covariance = np.polyfit(x[kept], y[kept], 1, cov="unscaled")
    rest = y[kept] - slope * x[kept] - level
    error = np.sqrt(covariance[0, 0] * np.sum(rest**2) / (kept.sum() - 2))
    # A slope that may not fall reaches nothing.
    falls = slope + 2.0 * error < 0
    needed = np.exp((np.log(ASKED) - level) / slope) if falls else np.nan
    return float(slope), float(error), float(needed)


def noise_json(result: LoopNoise) -> dict[str, Any]:
    """The object that ``pmt loop compare --study noise --json`` writes."""
    config = result.config
    return {
        "schema": SCHEMA,
        "config": {
            "training": config.training.document(),
            "samples": list(config.samples),
            "steps": config.steps,
        },
        "asked": ASKED,
        "series": [
            {
                "draw": one.draw,
                "samples": list(one.samples),
                "angle": finite(one.angle),
                "manifold_angle": finite(one.manifold_angle),
                "rho": finite(one.rho),
                "slope": finite(one.slope),
                "slope_se": finite(one.slope_error),
                "samples_for_asked": finite(one.needed),
            }
            for one in result.series
        ],
    }

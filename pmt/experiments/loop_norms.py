"""Which part of normalisation matters: every norm at equal tuning, from both kinds of start.

All are trained for the scale-free loss sin²(y_L, Z), since the paper's |y - P_Z y|² can be made
small by a gain or by shrinking y. Every norm gets the same grid of learning rates, and the rate
with the least training loss is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmt import looped
from pmt.experiments.loop_figure_1 import finite
from pmt.looped import NORMS, TrainConfig, Training
from pmt.looped.norms import Norm
from pmt.looped.start import Start

SCHEMA = "pmt.loop-norms/1"


@dataclass(frozen=True)
class NormsConfig:
    """The runs: every norm, start and learning rate.

    Attributes:
      training: what is common; norm, start and rate are replaced.
      norms, starts, rates: to be combined.
    """

    training: TrainConfig = TrainConfig(objective="sine", seeds=3, epochs=200, every=10)
    norms: tuple[Norm, ...] = NORMS
    starts: tuple[Start, ...] = ("structured", "unstructured")
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)

    @property
    def epochs(self) -> int:
        """Of all runs together."""
        return len(self.norms) * len(self.starts) * len(self.rates) * self.training.epochs


NORMS_STUDY = NormsConfig()
NORMS_QUICK = NormsConfig(
    TrainConfig(
        d=4,
        n=8,
        loops=3,
        objective="sine",
        draw="fresh",
        train=1024,
        test=256,
        epochs=60,
        every=60,
        seeds=2,
    ),
    rates=(0.03, 0.1, 0.3),
)


@dataclass(frozen=True)
class Row:
    """One norm from one start at its best learning rate; arrays have one number a seed.

    Attributes:
      norm, start, rate: which.
      train_loss, test_loss: sin² at the end.
      power_loss: of the L-step power method on the same test set.
      algorithm_angle, truth_angle: mean angles over the test set at the end.
      off_share: Frobenius norm of V and W off the manifold over that of all of V and W.
      rho: v w of the nearest point of the manifold.
      edge: whether the best rate is the smallest or largest of the grid.
    """

    norm: Norm
    start: Start
    rate: float
    train_loss: np.ndarray
    test_loss: np.ndarray
    power_loss: np.ndarray
    algorithm_angle: np.ndarray
    truth_angle: np.ndarray
    off_share: np.ndarray
    rho: np.ndarray
    edge: bool


@dataclass(frozen=True)
class LoopNorms:
    """The result: a row for every start and norm, and the training losses of all rates."""

    config: NormsConfig
    rows: tuple[Row, ...]
    losses: dict[str, list[float | None]]


def loop_norms(
    config: NormsConfig = NORMS_STUDY, *, advance: Callable[[int], None] = lambda _: None
) -> LoopNorms:
    """Train every norm from every start at every rate; ``advance`` gets 1 after every epoch."""
    rows, losses = [], {}
    for start in config.starts:
        for norm in config.norms:
            runs = [
                looped.train(
                    replace(config.training, norm=norm, start=start, rate=rate), advance=advance
                )
                for rate in config.rates
            ]
            found = [float(run.history["train_loss"][-1].mean()) for run in runs]
            losses[f"{start} {norm}"] = finite(found)
            best = int(np.argmin([loss if np.isfinite(loss) else np.inf for loss in found]))
            rows.append(_row(runs[best], best in (0, len(runs) - 1)))
    return LoopNorms(config, tuple(rows), losses)


def _row(run: Training, edge: bool) -> Row:
    last = {name: values[-1] for name, values in run.history.items()}
    whole = sum(np.sum(np.square(part), axis=(-2, -1)) for part in run.weights[:2])
    return Row(
        run.config.norm,
        run.config.start,
        run.config.rate,
        last["train_loss"],
        last["test_loss"],
        run.power_loss,
        last["algorithm_angle"],
        last["truth_angle"],
        np.sqrt((last["off_value"] ** 2 + last["off_key"] ** 2) / whole),
        last["v"] * last["w"],
        edge,
    )


def norms_json(result: LoopNorms) -> dict[str, Any]:
    """The object that ``pmt loop compare --study norms --json`` writes."""
    config = result.config
    return {
        "schema": SCHEMA,
        "config": {
            "training": config.training.document(),
            "norms": list(config.norms),
            "starts": list(config.starts),
            "rates": list(config.rates),
        },
        "losses": result.losses,
        "rows": [
            {
                name: finite(value) if isinstance(value, np.ndarray) else value
                for name, value in vars(row).items()
            }
            for row in result.rows
        ],
    }

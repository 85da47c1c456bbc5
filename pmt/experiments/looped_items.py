"""Figures 1 and 2 of arXiv 2606.00605, the second paper, as items: see ``pmt loop``."""

from dataclasses import replace
from typing import Any

import numpy as np

from pmt.experiments.loop_figure_1 import LoopFigure1, loop_figure_1, training_json
from pmt.experiments.loop_figure_2 import (
    LoopFigure2,
    Repeated,
    comparison_json,
    loop_figure_2,
)
from pmt.looped import ScalarPath, TrainConfig, Training


def pieces(config: Any, given: Any) -> int:
    """What the calls of ``given.progress`` add up to: epochs, for every norm."""
    del given
    if isinstance(config, TrainConfig):
        return config.epochs
    return config.training.epochs * len(config.norms)


def run_figure_1(config: TrainConfig, given: Any) -> LoopFigure1:
    """Train the full matrices beside the two-scalar dynamics; from a checkpoint if there is one."""
    checkpoint = None if given.folder is None else given.folder / "checkpoint.npz"
    return loop_figure_1(
        replace(config, seed=given.seed),
        checkpoint=checkpoint,
        resume=checkpoint is not None and checkpoint.exists(),
        advance=given.progress,
    )


def run_figure_2(config: Any, given: Any) -> LoopFigure2:
    """Train one layer with every norm and apply it again and again; from checkpoints likewise."""
    training = replace(config.training, seed=given.seed)
    return loop_figure_2(
        replace(config, training=training),
        folder=given.folder,
        resume=given.folder is not None,
        advance=given.progress,
    )


def record(result: LoopFigure1 | LoopFigure2) -> dict[str, Any]:
    """As ``pmt loop --json`` has it, without the seconds it took, which no second run repeats."""
    if isinstance(result, LoopFigure1):
        found = training_json(result)
        del found["seconds"]
        return found
    found = comparison_json(result)
    for norm in found["norms"].values():
        del norm["seconds"]
    return found


def tables(result: LoopFigure1 | LoopFigure2) -> dict[str, list[dict[str, Any]]]:
    """The CSV files, one row for every seed at every step, loop or entry.

    Of figure 1: the training, the two-scalar dynamics beside it, and the matrices it ends with. Of
    figure 2: the training for every norm, and the trained layer applied again and again, on the
    test set and on data from outside. What is not finite is left empty.
    """
    if isinstance(result, LoopFigure1):
        found = {"training": _training(result.training), "weights": _weights(result.training)}
        return found | ({} if result.scalars is None else {"two-scalars": _scalars(result.scalars)})
    sets = {"test": result.repeated, **result.outside}
    return {
        "training": [
            {"norm": norm, **row}
            for norm, done in result.trainings.items()
            for row in _training(done)
        ],
        "repeated": [
            {"data": data, "norm": norm, **row}
            for data, by_norm in sets.items()
            for norm, one in by_norm.items()
            for row in _loops(one, result if data == "test" else None)
        ],
        "contraction": [
            {
                "data": data,
                "norm": norm,
                "seed": seed,
                "measured": _cell(one.factor[seed]),
                "on_manifold": _cell(one.manifold_factor[seed]),
                "predicted": _cell(one.predicted[seed]),
                "power_method": _cell(one.power[seed]),
                "effective_rank": _cell(one.rank[seed]),
            }
            for data, by_norm in sets.items()
            for norm, one in by_norm.items()
            for seed in range(len(one.factor))
        ],
    }


def _training(done: Training) -> list[dict[str, Any]]:
    return [
        {
            "step": int(step),
            "seed": seed,
            **{name: _cell(values[row, seed]) for name, values in done.history.items()},
        }
        for row, step in enumerate(done.steps)
        for seed in range(len(done.finite))
    ]


def _weights(done: Training) -> list[dict[str, Any]]:
    return [
        {"matrix": name, "seed": seed, "row": row, "column": column, "entry": _cell(entry)}
        for name, stack in (("W", done.weights.key), ("V", done.weights.value))
        for (seed, row, column), entry in np.ndenumerate(np.asarray(stack))
    ]


def _scalars(path: ScalarPath) -> list[dict[str, Any]]:
    names = ("steps", "v", "w", "loss", "v_error", "w_error")
    columns = [np.asarray(getattr(path, name)).tolist() for name in names]
    return [dict(zip(("step", *names[1:]), row, strict=True)) for row in zip(*columns, strict=True)]


def _loops(one: Repeated, whole: LoopFigure2 | None) -> list[dict[str, Any]]:
    shown = {
        "truth_angle": one.truth_angle,
        "algorithm_angle": one.algorithm_angle,
        "manifold_truth_angle": one.manifold_truth_angle,
    }
    if whole is not None:
        shown["power_truth_angle"] = whole.power_truth_angle
    first = len(one.truth_angle) - len(one.predicted_truth_angle)
    return [
        {
            "loops": loop + 1,
            "seed": seed,
            **{name: _cell(values[loop, seed]) for name, values in shown.items()},
            "predicted_truth_angle": ""
            if loop < first
            else _cell(one.predicted_truth_angle[loop - first, seed]),
        }
        for loop in range(len(one.truth_angle))
        for seed in range(one.truth_angle.shape[1])
    ]


def _cell(value: Any) -> float | str:
    return float(value) if np.isfinite(value) else ""


def sentences(result: LoopFigure1 | LoopFigure2) -> list[str]:
    """What there is to say about it."""
    if isinstance(result, LoopFigure1):
        done = result.training
        finite = int(done.finite.sum())
        found = [f"{finite} of {len(done.finite)} trainings stayed finite"]
        if finite:
            loss, power = (values[done.finite] for values in (_last(done), done.power_loss))
            found.append(
                f"test loss {loss.mean():.4f}{_spread(loss)}; {done.config.loops} steps of the "
                f"power method have {power.mean():.4f} on the same samples"
            )
        return found
    found = []
    for name, done in result.trainings.items():
        one, kept = result.repeated[name], done.finite
        line = f"norm {name}: {int(kept.sum())} of {len(kept)} trainings stayed finite"
        if kept.any():
            factor, power = one.factor[kept], one.power[kept]
            line += (
                f"; contraction per loop {factor.mean():.4f}{_spread(factor)}, "
                f"{power.mean():.4f} for the power method"
            )
        found.append(line)
    return found


def _last(done: Training) -> np.ndarray:
    return np.asarray(done.history["test_loss"][-1], np.float64)


def _spread(values: np.ndarray) -> str:
    """The range over seeds, in brackets."""
    return "" if len(values) < 2 else f" ({values.min():.4f} to {values.max():.4f} over seeds)"

"""Figures 1 and 2 of arXiv 2606.00605, the second paper, as items: see ``pmt loop``."""

from dataclasses import replace
from typing import Any

from pmt.experiments.loop_figure_1 import LoopFigure1, loop_figure_1, training_json
from pmt.experiments.loop_figure_2 import LoopFigure2, comparison_json, loop_figure_2
from pmt.looped import TrainConfig


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
    """As ``pmt loop --json`` has it."""
    return training_json(result) if isinstance(result, LoopFigure1) else comparison_json(result)


def tables(result: Any) -> dict[str, list[dict[str, Any]]]:
    """None: ``result.json`` holds the series."""
    del result
    return {}


def sentences(result: LoopFigure1 | LoopFigure2) -> list[str]:
    """What there is to say about it."""
    if isinstance(result, LoopFigure1):
        finite = int(result.training.finite.sum())
        return [f"{finite} of {len(result.training.finite)} trainings stayed finite"]
    return [
        f"norm {name}: {int(done.finite.sum())} of {len(done.finite)} trainings stayed finite"
        for name, done in result.trainings.items()
    ]

"""The looped transformer: what training makes of V and W, and its gaps from algorithm and truth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from pmt.experiments.loop_figure_1 import LoopFigure1
from pmt.experiments.loop_figure_2 import LoopFigure2
from pmt.experiments.loop_norms import LoopNorms
from pmt.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    styled,
)

_NORM_COLORS = {"l2": BLUE, "none": VERMILION, "rms": GREEN, "layer": PURPLE, "output": ORANGE}
_NORM_NAMES = {
    "l2": "l2 (the paper's)",
    "none": "none",
    "rms": "RMSNorm with gain",
    "layer": "LayerNorm",
    "output": "output only",
}
_DASHES = (0, (4, 2))
_DOTS = (0, (1, 1.5))


def loop_training(result: LoopFigure1, seed: int = 0) -> Figure:
    """Heat maps of W and V after training, growth of w and v, and distances from the manifold.

    Lines are means over seeds and bands go from the least to the largest seed; the heat maps are
    those of one seed.
    """
    training = result.training
    with styled():
        figure = new_figure(PAGE, 4.6)
        axes = figure.subplots(2, 3)
        _heat_map(figure, axes[0, 0], np.asarray(training.weights.key[seed]), "W after training")
        _heat_map(figure, axes[1, 0], np.asarray(training.weights.value[seed]), "V after training")
        _growth(axes[0, 1], result)
        _off_manifold(axes[1, 1], result)
        _losses(axes[0, 2], result)
        _angles(axes[1, 2], result)
    return figure


def _heat_map(figure: Figure, axis: Axes, matrix: np.ndarray, title: str) -> None:
    largest = float(np.nanmax(np.abs(matrix))) or 1.0
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest)
    half = matrix.shape[0] / 2 - 0.5
    axis.axhline(half, color=BLACK, lw=0.5)
    axis.axvline(half, color=BLACK, lw=0.5)
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(visible=False)
    bar = figure.colorbar(image, ax=axis, shrink=0.85)
    bar.outline.set_visible(False)


def _band(
    axis: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str | None = None
) -> None:
    """The mean over the last axis, and the range of the seeds behind it."""
    if values.shape[1] > 1:
        axis.fill_between(x, values.min(1), values.max(1), color=color, alpha=0.2, lw=0)
    axis.plot(x, values.mean(1), color=color, label=label)


def _growth(axis: Axes, result: LoopFigure1) -> None:
    training, scalars = result.training, result.scalars
    steps = training.steps[1:]
    for name, color in (("w", BLUE), ("v", ORANGE)):
        _band(axis, steps, training.history[name][1:], color, name)
    if scalars is not None:
        axis.plot(
            scalars.steps[1:], scalars.w[1:], color=BLACK, ls=_DASHES, lw=0.9, label="two scalars"
        )
    end = float(training.history["w"][-1].mean())
    if end > 0 and np.isfinite(end):
        late = steps[steps >= 0.02 * steps[-1]]
        axis.plot(
            late, 1.15 * end * (late / late[-1]) ** 0.25, color=GREY, ls=_DOTS, label="$t^{1/4}$"
        )
    if np.all(training.history["w"] > 0) and np.all(training.history["v"] > 0):
        axis.set(xscale="log", yscale="log")
        low, high = _limits([training.history["w"][1:], training.history["v"][1:]])
        axis.set_ylim(low, high * 1.3)
        axis.set_yticks([t for t in (0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high * 1.3])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    axis.set(xlabel="step t", title="growth of w and v")
    axis.legend()


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    joined = np.concatenate([part.ravel() for part in values])
    joined = joined[np.isfinite(joined)]
    return 0.9 * float(joined.min()), 1.1 * float(joined.max())


def _off_manifold(axis: Axes, result: LoopFigure1) -> None:
    training = result.training
    for name, color in (("key", BLUE), ("value", ORANGE)):
        symbol = {"key": "W", "value": "V"}[name]
        _band(axis, training.steps, training.history[f"off_{name}"], color, f"{symbol}, measured")
        axis.plot(
            training.steps,
            training.history[f"walk_{name}"].mean(1),
            color=color,
            ls=_DASHES,
            lw=0.9,
            label=f"{symbol}, walk of the noise",
        )
    # Room for the legend above all lines.
    axis.set(xlabel="step t", title="distance from the manifold")
    axis.set_ylim(0, 1.6 * axis.get_ylim()[1])
    axis.legend()


def _losses(axis: Axes, result: LoopFigure1) -> None:
    training = result.training
    _band(axis, training.steps, training.history["train_loss"], SKY, "train")
    _band(axis, training.steps, training.history["test_loss"], BLUE, "test")
    if result.scalars is not None:
        axis.plot(
            result.scalars.steps,
            result.scalars.loss,
            color=BLACK,
            ls=_DASHES,
            lw=0.9,
            label="two scalars",
        )
    axis.axhline(
        float(training.power_loss.mean()), color=GREY, ls=_DOTS, label="power method (test)"
    )
    axis.set(xlabel="step t", title="loss", ylim=(0, None))
    axis.legend()


def _angles(axis: Axes, result: LoopFigure1) -> None:
    training = result.training
    degrees = 180.0 / np.pi
    _band(
        axis,
        training.steps,
        degrees * training.history["algorithm_angle"],
        VERMILION,
        "model to algorithm",
    )
    _band(axis, training.steps, degrees * training.history["truth_angle"], PURPLE, "model to truth")
    axis.axhline(
        degrees * float(training.power_angle.mean()),
        color=GREY,
        ls=_DOTS,
        label="algorithm to truth",
    )
    axis.set(xlabel="step t", title="mean test angle (degrees)", ylim=(0, None))
    axis.legend()


def loop_comparison(result: LoopFigure2) -> Figure:
    """Loss of one layer with and without Norm, and the angles when it is applied L times.

    Left: train (dotted) and test loss. Middle: model to algorithm. Right: model to truth, with the
    algorithm's own gap from the truth. Dashed: the nearest point of the manifold. Grey: from there,
    every sample's own predicted contraction, λ_{r+1}/λ_1 with Norm and R* at γ* without; and, on
    the left, the plateau of a layer without Norm whose blocks split the space in two halves.
    """
    with styled():
        figure = new_figure(PAGE, 2.9)
        left, middle, right = figure.subplots(1, 3)
        loops = np.arange(1, result.config.most_loops + 1)
        for norm, done in result.trainings.items():
            color, one = _NORM_COLORS[norm], result.repeated[norm]
            shown = done.steps[1:]
            left.plot(shown, done.history["train_loss"][1:].mean(1), color=color, ls=_DOTS)
            _band(left, shown, done.history["test_loss"][1:], color, _NORM_NAMES[norm])
            _band(middle, loops, _degrees(one.algorithm_angle), color)
            _band(right, loops, _degrees(one.truth_angle), color)
            right.plot(loops, _degrees(one.manifold_truth_angle).mean(1), color=color, ls=_DASHES)
        power = _degrees(result.power_truth_angle).mean(1)
        right.plot(loops, power, color=BLACK, ls=_DOTS)
        for one in result.repeated.values():
            expected = _degrees(one.predicted_truth_angle).mean(1)
            right.plot(loops[-len(expected) :], expected, color=GREY, lw=3.0, alpha=0.4)
        if "none" in result.trainings:
            left.axhline(result.plateaus.split[0], color=GREY, lw=3.0, alpha=0.4)
        left.set(xlabel="step", title="loss of one layer", xscale="log", yscale="log")
        middle.set(xlabel="loops L", title="model to algorithm (degrees)", yscale="log")
        right.set(xlabel="loops L", title="to the truth (degrees)", yscale="log")
        right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        for axis in (left, middle, right):
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        figure.legend(
            handles=_handles(result),
            loc="outside upper center",
            ncols=6,
            columnspacing=1.0,
            handlelength=1.6,
        )
    return figure


def _degrees(angles: np.ndarray) -> np.ndarray:
    return np.asarray(angles * (180.0 / np.pi))


def _handles(result: LoopFigure2) -> list[Line2D]:
    lines = [
        Line2D([], [], color=_NORM_COLORS[norm], label=f"Norm: {_NORM_NAMES[norm]}")
        for norm in result.trainings
    ]
    return [
        *lines,
        Line2D([], [], color=GREY, ls=_DOTS, label="training set"),
        Line2D([], [], color=GREY, ls=_DASHES, label="on the manifold"),
        Line2D([], [], color=BLACK, ls=_DOTS, label="power method"),
        Line2D([], [], color=GREY, lw=3.0, alpha=0.4, label="predicted"),
    ]


def loop_norms(result: LoopNorms) -> Figure:
    """For every norm and start at its best learning rate: the loss, and the gap from the algorithm.

    A point a seed. The line is the L-step power method's loss on the same test sets.
    """
    with styled():
        figure = new_figure(PAGE, 2.6)
        left, middle, right = figure.subplots(1, 3)
        norms = list(result.config.norms)
        markers = dict(zip(result.config.starts, "os", strict=False))
        shift = dict(zip(result.config.starts, (-0.15, 0.15), strict=False))
        for row in result.rows:
            at = norms.index(row.norm) + shift[row.start]
            for axis, values in (
                (left, row.test_loss),
                (middle, _degrees(row.algorithm_angle)),
                (right, row.off_share),
            ):
                axis.plot(
                    np.full(len(values), at),
                    values,
                    markers[row.start],
                    color=_NORM_COLORS[row.norm],
                    mfc="none" if row.start == "unstructured" else None,
                )
        power = float(np.mean([row.power_loss.mean() for row in result.rows]))
        left.axhline(power, color=BLACK, ls=_DOTS, lw=1.0)
        left.set(title="sin² to the truth (test)", ylim=(0, None))
        middle.set(title="model to algorithm (degrees)", ylim=(0, None))
        right.set(title="share of V, W off the manifold", ylim=(0, 1.02))
        for axis in (left, middle, right):
            axis.set_xticks(range(len(norms)), norms)
            axis.set_xlim(-0.5, len(norms) - 0.5)
        handles = [
            Line2D([], [], marker="o", ls="", color=GREY, label="block-structured start"),
            Line2D([], [], marker="s", ls="", color=GREY, mfc="none", label="unstructured start"),
            Line2D([], [], color=BLACK, ls=_DOTS, label="L-step power method"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure

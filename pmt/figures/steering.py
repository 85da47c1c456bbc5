"""A steered model in one figure: the panels over layers, dose and response, and what it costs."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from pmt.experiments.collateral import Cost
from pmt.experiments.steer import Steering
from pmt.experiments.steered_panels import Panel
from pmt.figures.style import (
    AVERAGE,
    BLACK,
    BLUE,
    CHANCE,
    DASHED,
    GREEN,
    PAGE,
    PRINCIPAL,
    new_figure,
    styled,
)
from pmt.spectral import chance


def steering(result: Steering) -> Figure:
    """Above: alignment, its increment and the share of increases over layers, with and without the
    edit, for the target and for each layer's principal direction, filled with and open without the
    edit, and the mean over all eigendirections. Below: alignment against the strength, predicted
    (line, with its stated error; in full mode before the feed-forward block) and measured (points),
    beside activation addition; and the cost of both on plain text, at equal alignment.
    """
    with styled():
        rows = 1 + bool(result.curve is not None or result.costs)
        figure = new_figure(PAGE, 2.7 * rows)
        above, *below = list(figure.subfigures(rows, 1, squeeze=False).flat)
        _panels(above, result)
        for part in below:
            _doses(part, result)
    return figure


def _panels(figure: SubFigure, result: Steering) -> None:
    left, middle, right = figure.subplots(1, 3)
    index = np.array([panel.index for panel in result.base])
    level = chance(len(result.target))
    left.axhline(level, color=CHANCE, lw=0.9, ls=DASHED, label="chance of a line")
    middle.axhline(0, color=CHANCE, lw=0.9, ls=DASHED)
    right.axhline(0.5, color=CHANCE, lw=0.9, ls=DASHED)
    # Most unedited ones coincide with the steered: open, smaller and on top of these.
    series: tuple[tuple[str, str, str, float, Sequence[Panel], str], ...] = (
        ("mean over all eigendirections, steered", AVERAGE, "-", 4, result.steered, "average"),
        ("principal, steered", PRINCIPAL, "s-", 7, result.steered, "principal"),
        ("target, steered", GREEN, "o-", 5.5, result.steered, "target"),
        ("principal, unedited", PRINCIPAL, "s--", 4.5, result.base, "principal"),
        ("target, unedited", GREEN, "o--", 4, result.base, "target"),
    )
    for label, color, style, size, panels, part in series:
        found = [getattr(panel, part) for panel in panels]
        if any(each is None for each in found):
            continue
        face = "white" if "--" in style else color
        for axis, name in ((left, "rho_after"), (middle, "delta_rho"), (right, "p_increase")):
            values = [getattr(each, name) for each in found]
            # A marker at the edge of the axis is drawn whole.
            axis.plot(
                index, values, style, color=color, label=label, ms=size, mfc=face, clip_on=False
            )
    left.set(ylabel="alignment ρ after the layer", ylim=(0, 1.03))
    middle.set(ylabel="increment Δρ")
    right.set(ylabel="share P of increases", ylim=(-0.02, 1.02))
    for axis in (left, middle, right):
        axis.set_xlabel("layer")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.06)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, handlelength=2.4)


def _doses(figure: SubFigure, result: Steering) -> None:
    axes = list(np.atleast_1d(figure.subplots(1, 1 + 2 * bool(result.costs))))
    if result.curve is not None:
        _curve(axes.pop(0), result)
    else:
        _full_mode_doses(axes.pop(0), result)
    if not result.costs:
        _legend(figure)
        return
    chosen, none, *compared = result.costs
    decoder = none.kl is not None
    quantities: tuple[tuple[str, Callable[[Cost], float | None]], ...] = (
        (
            ("KL of the next token (nats)", lambda cost: cost.kl),
            ("perplexity", lambda cost: cost.perplexity),
        )
        if decoder
        else (
            ("change of similarities", lambda cost: cost.similarity_change),
            ("rank correlation of similarities", lambda cost: cost.similarity_rank),
        )
    )
    for axis, (label, value) in zip(axes, quantities, strict=True):
        for name, color, marker, method in (
            ("edit, measured", GREEN, "o-", "edit"),
            ("activation addition", BLUE, "D-", "addition"),
        ):
            points = [
                (cost.alignment, value(cost))
                for cost in (none, *compared)
                if cost.method in (method, "none") and value(cost) is not None
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker, color=color, label=name)
        last = value(chosen)
        if last is not None:
            point = [chosen.alignment], [last]
            axis.plot(*point, "*", color=BLACK, ms=9, label="this edit", clip_on=False)
        axis.set(xlabel="alignment ρ in full mode, on text", ylabel=label, xlim=(0, 1))
        if label == "perplexity" and none.perplexity is None:
            axis.set_yticks([])
            axis.annotate(
                "no token follows another", (0.5, 0.5), xycoords="axes fraction", ha="center"
            )
        elif label == "perplexity":
            axis.set_yscale("log")
            low, high = axis.get_ylim()
            if high < 10 * low:
                # Within a decade powers of ten are no labels.
                axis.yaxis.set_major_locator(MaxNLocator(4))
                axis.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
                axis.yaxis.set_minor_locator(NullLocator())
    _legend(figure)


def _full_mode_doses(axis: Axes, result: Steering) -> None:
    """The doses at which the cost was measured, and what is left of them behind the FFN."""
    _, _, *compared = result.costs
    response, largest = result.edit.response, abs(result.edit.strength)
    for name, color, marker, method in (
        ("edit, measured", GREEN, "o", "edit"),
        ("activation addition", BLUE, "D-", "addition"),
    ):
        points = [(abs(cost.dose), cost.alignment) for cost in compared if cost.method == method]
        if points:
            axis.plot(*zip(*points, strict=True), marker, color=color, label=name)
    doses = [abs(cost.dose) for cost in compared if cost.method == "edit" and cost.dose]
    if response is not None and doses:
        c = np.geomspace(min(doses) / 2, 2 * max(*doses, largest), 100)
        sign = -1 if result.edit.strength < 0 else 1
        predicted = [response.alignment(sign * each) for each in c]
        axis.plot(c, predicted, ls=DASHED, color=GREEN, label="edit, predicted before the FFN")
    if largest:
        axis.plot([largest], [result.after], "*", color=BLACK, ms=9, label="this edit")
    axis.set(xscale="log", ylim=(0, 1.03), xlabel="strength |c|, or s")
    axis.set_ylabel("mean ρ, full mode, on text")


def _legend(figure: SubFigure) -> None:
    """One for the row: a line and points of one colour are one method."""
    found: dict[str, Artist] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= {label: handle for label, handle in zip(labels, handles, strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=4)


def _curve(axis: Axes, result: Steering) -> None:
    curve = result.curve
    if curve is None:
        return
    shown = curve.c != 0
    c = np.abs(curve.c[shown])
    low = np.clip(curve.predicted - curve.error, 0, 1)[shown]
    high = np.clip(curve.predicted + curve.error, 0, 1)[shown]
    axis.fill_between(c, low, high, color=GREEN, alpha=0.2, lw=0)
    axis.plot(c, curve.predicted[shown], color=GREEN, label="edit, predicted")
    axis.plot(c, curve.measured[shown], "o", color=GREEN, label="edit, measured")
    axis.plot(curve.s[1:], curve.addition[1:], "D-", color=BLUE, label="activation addition")
    if result.edit.strength:
        axis.plot(
            [abs(result.edit.strength)], [result.after], "*", color=BLACK, ms=9, label="this edit"
        )
    axis.set(
        xscale="log", ylim=(0, 1.03), xlabel="strength |c|, or s", ylabel="mean ρ, stripped mode"
    )

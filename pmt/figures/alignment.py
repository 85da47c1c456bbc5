"""Alignment of the tokens with every layer's eigendirections, and their distances."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from pmt.experiments import Analysis
from pmt.experiments.contrast import mean_chance
from pmt.figures.style import (
    AVERAGE,
    BLUE,
    CHANCE,
    COLUMN,
    DASHED,
    DOTTED,
    NULLS,
    PAGE,
    PRINCIPAL,
    new_figure,
    styled,
)

_LINE, _PLANE, _MIXED = "o", "s", "D"
# Beyond so many layers markers and error bars of all series would cover each other.
_SPARSE = 20
# Labels of a layer axis, at most.
_TICKS = 7


class _Series(NamedTuple):
    color: str
    values: Sequence[float]
    errors: Sequence[float | None] | None = None
    dimensions: Sequence[int | None] | None = None
    # To the side, so that error bars do not hide each other.
    shift: float = 0.0


def alignment_panels(analysis: Analysis) -> Figure:
    """Three panels over layers: alignment after the layer, its increment, share of increases.

    Principal direction against the mean over all eigendirections, chance of both, and the null
    models; error bars are one standard error over prompts, and those of a null's mean one over
    prompts and draws in quadrature. Circles are lines and squares are planes, whose chance level is
    π/2 times larger; diamonds are nulls whose draws are some of each. Where only the leading
    eigenpairs are known there is no mean over all directions. Of more than 20 layers the markers
    are small and those of the principal direction only, and standard errors are shaded.
    """
    layers = analysis.layers
    index = np.array([layer.index for layer in layers])
    own = [layer.alignment for layer in layers]
    average = [layer.average for layer in layers if layer.average is not None]
    sizes = [layer.principal.dimension for layer in layers]
    dense = len(layers) > _SPARSE
    with styled():
        figure = new_figure(PAGE, 2.9)
        left, middle, right = figure.subplots(1, 3)
        # One level a layer, since a plane's is higher than a line's.
        left.hlines([a.chance for a in layers], index - 0.4, index + 0.4, CHANCE, DASHED, lw=0.9)
        if average:
            mixed = [mean_chance(layer.principal.values) for layer in layers]
            left.plot(index, mixed, color=AVERAGE, lw=0.9, ls=DOTTED)
        middle.axhline(0, color=CHANCE, lw=0.9, ls=DASHED)
        right.axhline(0.5, color=CHANCE, lw=0.9, ls=DASHED)
        for name, shift in zip(layers[0].null, (-0.12, 0.12), strict=False):
            null = [layer.null[name] for layer in layers]
            color, errors = NULLS[name][1], [n.se for n in null]
            dimensions = None if dense else [n.dimension for n in null]
            shift = 0.0 if dense else shift
            series = _Series(color, [n.delta_rho for n in null], errors, dimensions, shift)
            _draw(middle, index, series)
            series = _Series(color, [n.p_increase for n in null], None, dimensions, shift)
            _draw(right, index, series)
        panels: tuple[tuple[Axes, list[float], list[float], list[float | None] | None], ...] = (
            (
                left,
                [a.rho_after for a in average],
                [a.rho_after for a in own],
                [a.rho_after_se for a in own],
            ),
            (
                middle,
                [a.delta_rho for a in average],
                [a.delta_rho for a in own],
                [a.delta_rho_se for a in own],
            ),
            (right, [a.p_increase for a in average], [a.p_increase for a in own], None),
        )
        for axis, means, values, se in panels:
            if means:
                _draw(axis, index, _Series(AVERAGE, means))
            _draw(axis, index, _Series(PRINCIPAL, values, se, sizes))
        left.set(ylabel="alignment ρ after the layer", ylim=(0, None))
        middle.set(ylabel="increment Δρ")
        right.set(ylabel="share P of increases")
        for axis in (left, middle, right):
            _layer_axis(axis, 1, len(layers))
        figure.legend(
            handles=_handles(analysis), loc="outside upper center", ncols=5, handlelength=1.8
        )
    return figure


def token_distance(analysis: Analysis) -> Figure:
    """Mean distance between tokens, before the first layer (0) and after each: 0 is consensus."""
    index = [0, *(layer.index for layer in analysis.layers)]
    values = [
        analysis.initial_distance,
        *(layer.intertoken_distance for layer in analysis.layers),
    ]
    with styled():
        figure = new_figure(COLUMN, 2.2)
        axis = figure.subplots()
        size = 2 if len(index) > _SPARSE else 4
        axis.plot(index, values, "o-", color=BLUE, ms=size, label="tokens")
        # Two independent uniform tokens are at about this distance, exactly so for large d.
        axis.axhline(np.sqrt(2), color=CHANCE, lw=0.9, ls=DASHED)
        axis.annotate(
            "orthogonal tokens, √2",
            (1, np.sqrt(2)),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color=CHANCE,
        )
        axis.set(ylabel="mean intertoken distance", ylim=(0, 1.6))
        _layer_axis(axis, 0, len(analysis.layers))
    return figure


def _draw(axis: Axes, index: np.ndarray, series: _Series) -> None:
    at, dense = index + series.shift, len(index) > _SPARSE
    axis.plot(at, series.values, color=series.color, lw=0.9 if dense else 1.3)
    if series.dimensions is not None:
        edge, size = (0.0, 2.2) if dense else (0.5, 5.0)
        for x, value, dimension in zip(at, series.values, series.dimensions, strict=True):
            marker = {1: _LINE, 2: _PLANE, None: _MIXED}[dimension]
            axis.plot([x], [value], marker, color=series.color, mec="white", mew=edge, ms=size)
    if series.errors is None or None in series.errors:
        return
    errors = np.array([float(error or 0) for error in series.errors])
    if dense:
        low, high = np.asarray(series.values) - errors, np.asarray(series.values) + errors
        axis.fill_between(at, low, high, color=series.color, alpha=0.25, lw=0)
        return
    axis.errorbar(
        at,
        series.values,
        yerr=errors,
        fmt="none",
        ecolor=series.color,
        elinewidth=0.9,
        capsize=1.5,
    )


def _layer_axis(axis: Axes, first: int, last: int) -> None:
    """Labels at the first layer and at round numbers; none at a layer that there is not."""
    axis.set_xlabel("layer")
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, last) if last <= _TICKS * s)
    ticks = [tick for tick in range(step, last + 1, step) if tick - first >= step / 2]
    axis.xaxis.set_major_locator(FixedLocator([first, *ticks]))
    # The level of chance is drawn as far as 0.4 to either side of a layer.
    margin = max(0.05 * (last - first), 0.45)
    axis.set_xlim(first - margin, last + margin)


def _handles(analysis: Analysis) -> list[Line2D]:
    layers = analysis.layers
    shown = [("principal direction", PRINCIPAL)]
    shown += [NULLS[name] for name in NULLS if name in layers[0].null]
    whole = all(layer.average is not None for layer in layers)
    shown += [("mean over all eigendirections", AVERAGE)] if whole else []
    dimensions: set[int | None] = {layer.principal.dimension for layer in layers}
    if len(layers) <= _SPARSE:
        dimensions |= {null.dimension for layer in layers for null in layer.null.values()}
    marks = ((1, _LINE, "line"), (2, _PLANE, "plane"), (None, _MIXED, "draws of both kinds"))
    return [
        *(Line2D([], [], color=color, label=label) for label, color in shown),
        Line2D([], [], color=CHANCE, lw=0.9, ls=DASHED, label="chance"),
        *(
            [Line2D([], [], color=AVERAGE, lw=0.9, ls=DOTTED, label="chance of that mean")]
            if whole
            else []
        ),
        *(
            Line2D([], [], marker=mark, ls="", color=CHANCE, label=label)
            for dimension, mark, label in marks
            if dimension in dimensions
        ),
    ]

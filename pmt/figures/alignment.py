"""Alignment of the tokens with every layer's eigendirections, and their distances."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from pmt.experiments import Analysis, LayerAnalysis
from pmt.experiments.analysis import NullAlignment
from pmt.experiments.contrast import mean_chance
from pmt.figures.style import (
    AVERAGE,
    BLUE,
    CHANCE,
    COLUMN,
    DASHED,
    DOTTED,
    NULLS,
    PRINCIPAL,
    new_figure,
    panel_figure,
    styled,
)

_LINE, _PLANE, _MIXED = "o", "s", "D"
# Beyond so many layers markers and error bars of all series would cover each other.
_SPARSE = 20
# Opacity of the shades that take the place of error bars.
_SHADE = 0.25
# What is drawn over layers: by its name in an `Alignment` and an `Average`, with its label.
QUANTITIES = (
    ("rho_after", "alignment ρ after the layer"),
    ("delta_rho", "increment Δρ"),
    ("p_increase", "share P of increases"),
)
# The same of a null model, with its standard error.
_OfNull = Callable[[NullAlignment], tuple[float, float | None]]
_OF_NULLS: tuple[_OfNull, ...] = (
    lambda null: (null.after.rho, null.after.se),
    lambda null: (null.delta_rho, null.se),
    lambda null: (null.p_increase, None),
)
# Labels of a layer axis, at most.
_TICKS = 7


class _Series(NamedTuple):
    color: str
    values: Sequence[float]
    errors: Sequence[float | None] | None = None
    dimensions: Sequence[int | None] | None = None
    # To the side, so that error bars do not hide each other.
    shift: float = 0.0


def alignment_panels(analysis: Analysis, *, column: bool = False) -> Figure:
    """Three panels over layers: alignment after the layer, its increment, share of increases.

    Principal direction against the mean over all eigendirections, chance of both, and the null
    models; error bars are one standard error over prompts, and those of a null's mean one over
    prompts and draws in quadrature. Circles are lines and squares are planes, whose chance level is
    π/2 times larger; diamonds are nulls whose draws are some of each. Where only the leading
    eigenpairs are known there is no mean over all directions. Of more than 20 layers the markers
    are small and those of the principal direction only, and standard errors are shaded.

    Args:
      analysis: of a model.
      column: the panels stand one above the other, in a figure of a text column's width.
    """
    with styled():
        figure, axes = panel_figure(3, 2.9, column=column, sharex=column)
        draw_layers(axes, analysis.layers)
        axes[0].set_ylim(0, None)
        for axis in axes[:-1] if column else ():
            axis.set_xlabel("")
        figure.legend(
            handles=layer_handles([analysis]),
            loc="outside upper center",
            ncols=2 if column else 5,
            handlelength=1.8,
        )
    return figure


def draw_layers(axes: Sequence[Axes], layers: Sequence[LayerAnalysis]) -> None:
    """Those three panels; their legend is ``layer_handles``.

    That the first begins at 0 is left to say when all is drawn that has its scale.
    """
    index = np.array([layer.index for layer in layers])
    sizes = [layer.principal.dimension for layer in layers]
    left, middle, right = axes
    # One level a layer, since a plane's is higher than a line's.
    left.hlines([a.chance for a in layers], index - 0.4, index + 0.4, CHANCE, DASHED, lw=0.9)
    if all(layer.average is not None for layer in layers):
        mixed = [mean_chance(layer.principal.values) for layer in layers]
        left.plot(index, mixed, color=AVERAGE, lw=0.9, ls=DOTTED)
    middle.axhline(0, color=CHANCE, lw=0.9, ls=DASHED)
    right.axhline(0.5, color=CHANCE, lw=0.9, ls=DASHED)
    for axis, (name, _), of_null in zip(axes, QUANTITIES, _OF_NULLS, strict=True):
        for null, shift in zip(layers[0].null, (-0.12, 0.12), strict=False):
            _draw(axis, index, _null_series(layers, null, of_null, shift))
        average = [getattr(layer.average, name) for layer in layers if layer.average is not None]
        if average:
            _draw(axis, index, _Series(AVERAGE, average))
        own = [getattr(layer.alignment, name) for layer in layers]
        se = [getattr(layer.alignment, f"{name}_se", None) for layer in layers]
        _draw(axis, index, _Series(PRINCIPAL, own, se, sizes))
    for axis, (_, label) in zip(axes, QUANTITIES, strict=True):
        axis.set_ylabel(label)
        layer_axis(axis, 1, len(layers))


def _null_series(
    layers: Sequence[LayerAnalysis], name: str, of_null: _OfNull, shift: float
) -> _Series:
    found = [of_null(layer.null[name]) for layer in layers]
    dense = len(layers) > _SPARSE
    return _Series(
        NULLS[name][1],
        [value for value, _ in found],
        [error for _, error in found],
        None if dense else [layer.null[name].dimension for layer in layers],
        0.0 if dense else shift,
    )


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
        layer_axis(axis, 0, len(analysis.layers))
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
        axis.fill_between(at, low, high, color=series.color, alpha=_SHADE, lw=0)
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


def layer_axis(axis: Axes, first: int, last: int) -> None:
    """An axis of layers: labels at the first and at round numbers, none where there is no layer."""
    axis.set_xlabel("layer")
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, last) if last <= _TICKS * s)
    ticks = [tick for tick in range(step, last + 1, step) if tick - first >= step / 2]
    axis.xaxis.set_major_locator(FixedLocator([first, *ticks]))
    # The level of chance is drawn as far as 0.4 to either side of a layer.
    margin = max(0.05 * (last - first), 0.45)
    axis.set_xlim(first - margin, last + margin)


def error_handles(shown: bool, *, shaded: bool = False) -> list[Artist]:
    """What the legend has of error bars, or of the shades that stand for them."""
    label = "± standard error"
    if shaded:
        return [Patch(color=CHANCE, alpha=_SHADE, lw=0, label=label)] if shown else []
    bar = Line2D([], [], color=CHANCE, marker="|", ls="", ms=8, mew=0.9, label=label)
    return [bar] if shown else []


def layer_handles(analyses: Sequence[Analysis]) -> list[Artist]:
    """The legend of ``draw_layers``, for all of these analyses of the same null models."""
    layers = [layer for analysis in analyses for layer in analysis.layers]
    shown = [("principal direction", PRINCIPAL)]
    shown += [NULLS[name] for name in NULLS if name in layers[0].null]
    whole = all(layer.average is not None for layer in layers)
    shown += [("mean over all eigendirections", AVERAGE)] if whole else []
    dimensions: set[int | None] = {layer.principal.dimension for layer in layers}
    if len(analyses[0].layers) <= _SPARSE:
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
        *error_handles(
            any(layer.alignment.delta_rho_se is not None for layer in layers),
            shaded=len(analyses[0].layers) > _SPARSE,
        ),
    ]

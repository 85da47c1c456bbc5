"""Tokens against the cumulative products of the layer matrices."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pmt.experiments.cumulative_products import Against, CumulativeProducts
from pmt.figures.alignment import error_handles
from pmt.figures.style import (
    AVERAGE,
    BLUE,
    CHANCE,
    COLUMN,
    DASHED,
    NULLS,
    PAGE,
    PRINCIPAL,
    new_figure,
    styled,
)

_PANELS = (
    ("plain", "product of F: principal eigenvector"),
    ("plain_singular", "product of F: left singular vector"),
    ("skip", "product of I + αF: principal eigenvector"),
    ("skip_singular", "product of I + αF: left singular vector"),
)


def cumulative_products(result: CumulativeProducts, *, column: bool = False) -> Figure:
    """rho of the states after every layer with four directions of the products up to it, with the
    null models and the mean over all eigendirections of the product. Each is divided by its own
    chance level, since some are lines and some, the squares, are planes; error bars are one
    standard error.
    """
    index = np.array([layer.index for layer in result.layers])
    with styled():
        figure = new_figure(*((COLUMN, 7.6) if column else (PAGE, 4.5)))
        grid = (4, 1) if column else (2, 2)
        axes = figure.subplots(*grid, sharex=True, sharey=True, squeeze=False)
        for axis, (name, title) in zip(axes.flat, _PANELS, strict=True):
            _panel(axis, index, [getattr(layer, name) for layer in result.layers], name)
            axis.set_title(title, pad=4)
        # Common to all, and so not before all are drawn.
        axes[0, 0].set_ylim(0, None)
        for row in axes:
            row[0].set_ylabel("ρ after the layer / chance")
        for axis in axes[-1]:
            axis.set_xlabel("layer")
        planes = any(getattr(r, n).dimension == 2 for r in result.layers for n, _ in _PANELS)
        errors = result.layers[0].plain.se is not None
        handles = [*_handles(planes), *error_handles(errors)]
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if column else 4)
    return figure


def _panel(axis: Axes, index: np.ndarray, found: list[Against], name: str) -> None:
    axis.axhline(1, color=CHANCE, ls=DASHED, lw=0.9)
    if found[0].average is not None:
        average, level = np.array([(o.average, o.average_chance) for o in found], float).T
        axis.plot(index, average / level, ".-", color=AVERAGE, lw=1.0)
    for null, shift in zip(found[0].null, (-0.12, 0.12), strict=True):
        here = [each.null[null] for each in found]
        axis.errorbar(
            index + shift,
            [each.ratio for each in here],
            yerr=[each.ratio_se or 0.0 for each in here],
            fmt=".-",
            color=NULLS[null][1],
            lw=1.0,
            elinewidth=0.8,
            capsize=1.5,
        )
    color = BLUE if "singular" in name else PRINCIPAL
    values = np.array([each.rho / each.chance for each in found])
    errors = [(each.se or 0.0) / each.chance for each in found]
    axis.errorbar(index, values, yerr=errors, color=color, elinewidth=0.9, capsize=1.5)
    planes = np.array([each.dimension == 2 for each in found])
    for marker, chosen in (("o", ~planes), ("s", planes)):
        axis.plot(index[chosen], values[chosen], marker, color=color, ms=4.5, mec="white", mew=0.5)
    axis.margins(x=0.06)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _handles(planes: bool) -> list[Line2D]:
    shown = [
        Line2D([], [], color=PRINCIPAL, marker="o", mec="white", label="principal eigenvector"),
        Line2D([], [], color=BLUE, marker="o", mec="white", label="left singular vector"),
        *(Line2D([], [], color=color, marker=".", label=label) for label, color in NULLS.values()),
        Line2D([], [], color=CHANCE, lw=0.9, ls=DASHED, label="chance"),
        Line2D([], [], color=AVERAGE, marker=".", label="mean over all eigendirections"),
    ]
    if planes:
        shown.append(Line2D([], [], color=CHANCE, ls="", marker="s", label="plane"))
    return shown

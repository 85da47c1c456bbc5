"""Alignment over layers of a model with a steered layer, and of the same model without."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmt.experiments.steered_layers import STATES, SteeredRun
from pmt.figures.alignment import QUANTITIES, draw_layers, layer_handles
from pmt.figures.style import COLUMN, DASHED, GREEN, PAGE, new_figure, styled
from pmt.spectral import chance


def steered_layers(result: SteeredRun, *, column: bool = False) -> Figure:
    """The three panels of ``alignment_panels``, above without and below with the edit; in a figure
    of a column's width, on the left and on the right.

    Every panel has a scale of its own. In green the alignment with the target, and on the left the
    chance of its line.
    """
    level = chance(len(result.steering.target))
    with styled():
        figure = new_figure(*((COLUMN, 6.2) if column else (PAGE, 4.6)))
        axes = (
            figure.subplots(3, 2, sharex=True).T if column else figure.subplots(2, 3, sharex=True)
        )
        for row, state, name in zip(axes, STATES, ("unedited", _edited(result)), strict=True):
            layers = result.layers(state)
            index = np.array([layer.index for layer, _ in layers])
            row[0].axhline(level, color=GREEN, lw=0.9, ls=DASHED)
            for axis, (quantity, _) in zip(row, QUANTITIES, strict=True):
                values = [getattr(target, quantity) for _, target in layers]
                axis.plot(index, values, "^-", color=GREEN, ms=4, mec="white", mew=0.4, zorder=2.5)
            draw_layers(list(row), [layer for layer, _ in layers])
            row[0].set_ylim(0, None)
            row[0 if column else 1].set_title(name)
        for axis in axes[:, :-1].flat if column else axes[0]:
            axis.set_xlabel("")
        for axis in axes[1] if column else ():
            axis.set_ylabel("")
        handles = [
            Line2D([], [], color=GREEN, marker="^", ms=4, label="target"),
            Line2D([], [], color=GREEN, lw=0.9, ls=DASHED, label="chance of the target"),
            *layer_handles([result.unedited, result.steered]),
        ]
        figure.legend(
            handles=handles, loc="outside upper center", ncols=2 if column else 4, handlelength=1.8
        )
    return figure


def _edited(result: SteeredRun) -> str:
    first, *others = result.edited
    if not others:
        return f"layer {first} steered"
    if len(result.edited) == len(result.unedited.layers):
        return "all layers steered"
    return f"layers {', '.join(map(str, result.edited))} steered"

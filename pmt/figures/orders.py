"""Alignment over layers with the principal direction of every order."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pmt.experiments.contrast import mean_chance
from pmt.experiments.orders import Orders
from pmt.figures.style import (
    AVERAGE,
    BLUE,
    CHANCE,
    DASHED,
    GREEN,
    PAGE,
    PRINCIPAL,
    new_figure,
    styled,
)

_SHOWN = {
    "real": ("by Re λ", PRINCIPAL, "o-", 6.0),
    "skip": ("by |1 + αλ|", BLUE, "s--", 4.5),
    "modulus": ("by |λ|", GREEN, "^:", 3.5),
}


def orders(result: Orders) -> Figure:
    """Left rho over its chance after every layer, middle the increment, right the share of
    increases; one line an order, smaller marks above larger ones where they agree. The mean over
    all eigendirections is black, on the left over a chance level of its own.
    """
    with styled():
        figure = new_figure(PAGE, 2.6)
        left, middle, right = figure.subplots(1, 3)
        for name, (label, color, form, size) in _SHOWN.items():
            layers = result.analyses[name].layers
            index = np.array([layer.index for layer in layers])
            own = [layer.alignment for layer in layers]
            ratios = [a.rho_after / layer.chance for a, layer in zip(own, layers, strict=True)]
            how = {"color": color, "ms": size, "mec": "white", "mew": 0.4}
            left.plot(index, ratios, form, label=label, **how)
            middle.plot(index, [a.delta_rho for a in own], form, **how)
            right.plot(index, [a.p_increase for a in own], form, **how)
        average = [layer.average for layer in layers if layer.average is not None]
        levels = [mean_chance(layer.principal.values) for layer in layers]
        ratios = [a.rho_after / level for a, level in zip(average, levels, strict=True)]
        left.plot(index, ratios, color=AVERAGE, label="mean over all eigendirections")
        middle.plot(index, [a.delta_rho for a in average], color=AVERAGE)
        right.plot(index, [a.p_increase for a in average], color=AVERAGE)
        for axis, level in ((left, 1.0), (middle, 0.0), (right, 0.5)):
            named = {"label": "chance"} if axis is left else {}
            axis.axhline(level, color=CHANCE, lw=0.9, ls=DASHED, **named)
            axis.set_xlabel("layer")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(ylabel="ρ after the layer / chance", ylim=(0, None))
        middle.set_ylabel("increment Δρ")
        right.set_ylabel("share P of increases")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure

"""Tokens against the cumulative products of the layer matrices."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pmt.experiments.cumulative_products import CumulativeProducts
from pmt.figures.style import BLACK, BLUE, GREY, PAGE, VERMILION, new_figure, styled

_PANELS = (
    ("plain", "product of F, eigenvector"),
    ("skip", "product of I + αF, eigenvector"),
    ("singular", "product of I + αF, singular vector"),
)


def cumulative_products(result: CumulativeProducts) -> Figure:
    """rho of the states after every layer with three directions of the products up to it, with
    the mean over all eigendirections of the product, and chance; error bars are one standard error
    over prompts, squares are planes.
    """
    index = np.array([layer.index for layer in result.layers])
    with styled():
        figure = new_figure(PAGE, 2.6)
        axes = figure.subplots(1, 3, sharey=True)
        for axis, (name, title) in zip(axes, _PANELS, strict=True):
            found = [getattr(layer, name) for layer in result.layers]
            chance = [each.chance for each in found]
            axis.hlines(chance, index - 0.4, index + 0.4, GREY, (0, (4, 2)), lw=0.9)
            if found[0].average is not None:
                axis.plot(index, [each.average for each in found], ".-", color=BLACK, lw=1.0)
            color = BLUE if name == "singular" else VERMILION
            values = np.array([each.rho for each in found])
            axis.errorbar(
                index, values, yerr=[each.se or 0.0 for each in found], color=color, elinewidth=0.9
            )
            planes = np.array([each.dimension == 2 for each in found])
            for marker, chosen in (("o", ~planes), ("s", planes)):
                axis.plot(
                    index[chosen], values[chosen], marker, color=color, ms=4.5, mec="white", mew=0.5
                )
            axis.set_title(title, pad=4)
            axis.set_xlabel("layer")
            axis.margins(x=0.06)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        # Common to all, and so not before all are drawn.
        axes[0].set_ylim(0, None)
        axes[0].set_ylabel("alignment ρ after the layer")
        handles = [
            Line2D([], [], color=VERMILION, label="principal direction"),
            Line2D([], [], color=BLUE, label="singular vector"),
            Line2D([], [], color=BLACK, marker=".", label="mean over all eigendirections"),
            Line2D([], [], color=GREY, lw=0.9, ls=(0, (4, 2)), label="chance"),
            Line2D([], [], color=GREY, ls="", marker="o", label="line"),
            Line2D([], [], color=GREY, ls="", marker="s", label="plane"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure

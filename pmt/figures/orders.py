"""Alignment over layers with the principal direction of every order."""

from matplotlib.figure import Figure

from pmt.experiments.orders import Orders
from pmt.figures.alignment import draw_layers, layer_handles
from pmt.figures.style import PAGE, new_figure, styled

_TITLES = {"real": "by Re λ", "skip": "by |1 + αλ|", "modulus": "by |λ|"}


def orders(result: Orders) -> Figure:
    """The three panels of ``alignment_panels`` below each other, one column an order.

    Panels of a row have a common scale. Where the orders agree on a layer, so do their points.
    """
    with styled():
        figure = new_figure(PAGE, 6.2)
        axes = figure.subplots(3, len(result.analyses), sharex=True, sharey="row", squeeze=False)
        for column, (order, analysis) in enumerate(result.analyses.items()):
            draw_layers(list(axes[:, column]), analysis.layers)
            axes[0, column].set_title(_TITLES[order])
        axes[0, 0].set_ylim(0, None)
        for axis in axes.flat:
            axis.label_outer()
        figure.legend(
            handles=layer_handles(list(result.analyses.values())),
            loc="outside upper center",
            ncols=5,
            handlelength=1.8,
        )
    return figure

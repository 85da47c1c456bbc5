"""What the noise of the gradient and few samples cost a looped transformer."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmt.experiments.loop_noise import LoopNoise
from pmt.figures.style import BLACK, BLUE, GREY, PAGE, VERMILION, new_figure, styled

_NAMES = {"fresh": "fresh samples in every batch", "fixed": "all of a fixed training set"}
_COLORS = {"fresh": BLUE, "fixed": VERMILION}
_MARKERS = {"fresh": "o", "fixed": "s"}


def loop_noise(result: LoopNoise) -> Figure:
    """The angle to the power iterate against the number of samples, a point a seed.

    Open marks are the nearest points of the manifold, the line falls with the square root.
    """
    with styled():
        figure = new_figure(PAGE * 0.6, 2.8)
        axis = figure.subplots()
        for one in result.series:
            x = np.repeat(np.array(one.samples, float), one.angle.shape[1])
            mark, color = _MARKERS[one.draw], _COLORS[one.draw]
            axis.plot(x, one.angle.reshape(-1), mark, color=color)
            axis.plot(x, one.manifold_angle.reshape(-1), mark, color=color, mfc="none", alpha=0.6)
        first = result.series[0]
        x = np.array([first.samples[0], first.samples[-1]], float)
        level = float(np.nanmean(first.angle[0]))
        axis.plot(x, level * (x / x[0]) ** -0.5, color=GREY, ls=(0, (4, 2)), lw=1.0)
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="samples of a batch, or of the set",
            ylabel="model to algorithm (radians)",
        )
        handles = [
            Line2D([], [], marker=_MARKERS[name], ls="", color=_COLORS[name], label=text)
            for name, text in _NAMES.items()
        ]
        handles += [
            Line2D([], [], marker="o", ls="", color=BLACK, mfc="none", label="on the manifold"),
            Line2D([], [], color=GREY, ls=(0, (4, 2)), label="slope −1/2"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure

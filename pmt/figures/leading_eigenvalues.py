"""The leading eigenvalues of every layer matrix."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pmt.experiments.leading_eigenvalues import LeadingEigenvalues, relative_gap
from pmt.figures.style import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    panel_figure,
    styled,
)

_COLORS = (VERMILION, BLUE, GREEN, PURPLE, SKY)


def leading_eigenvalues(result: LeadingEigenvalues, *, column: bool = False) -> Figure:
    """Left the real parts of the first eigenvalues over layers, squares where they are one of a
    conjugate pair, with the radius |F| / √d of a Gaussian matrix's spectrum; right the relative gap
    (Re λ₁ - Re λ₂) / |λ₁|, λ₃ for λ₂ if a pair leads.
    """
    shown = min(result.config.shown, len(result.layers[0].values), len(_COLORS))
    index = np.arange(1, len(result.layers) + 1)
    values = np.array([own.values[:shown] for own in result.layers])
    gaps = [relative_gap(own) for own in result.layers]
    with styled():
        figure, (left, right) = panel_figure(2, 2.6, column=column)
        for k in reversed(range(shown)):
            value, color = values[:, k], _COLORS[k]
            # To the side, so that a pair and what comes close to it do not hide each other.
            at = index + 0.09 * (k - (shown - 1) / 2)
            left.plot(at, value.real, color=color, lw=0.9, alpha=0.8)
            for marker, chosen in (("o", value.imag == 0), ("s", value.imag != 0)):
                left.plot(
                    at[chosen],
                    value.real[chosen],
                    marker,
                    color=color,
                    ms=4,
                    mec="white",
                    mew=0.4,
                )
        left.plot(index, result.radii, color=ORANGE, lw=1.0, ls=DASHED)
        left.set(ylabel="Re λ", xlabel="layer")
        known = [(i, gap) for i, gap in zip(index, gaps, strict=True) if gap is not None]
        if known:
            layers, heights = zip(*known, strict=True)
            right.bar(layers, heights, color=VERMILION, width=0.6)
        right.set(ylabel="relative gap of λ₁", xlabel="layer")
        for axis in (left, right):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = [
            Line2D([], [], color=color, marker=".", label=f"$\\lambda_{k + 1}$")
            for k, color in enumerate(_COLORS[:shown])
        ]
        handles += [
            Line2D([], [], ls="", marker=marker, color=GREY, label=label)
            for marker, label in (("o", "real"), ("s", "complex"))
        ]
        handles.append(
            Line2D([], [], color=ORANGE, lw=1.0, ls=DASHED, label="radius of a Gaussian matrix")
        )
        figure.legend(
            handles=handles, loc="outside upper center", ncols=3 if column else len(handles)
        )
    return figure

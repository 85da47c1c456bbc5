"""The spectrum of every layer matrix in the complex plane."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmt.experiments import Analysis, LayerAnalysis
from pmt.figures.level_circle import level_circle
from pmt.figures.style import BLACK, BLUE, DOTTED, PAGE, VERMILION, new_figure, styled

# From so many layers on there are so many columns. Beyond, panels would be too small to be read.
_COLUMNS = ((1, 3), (16, 4), (31, 6))
# Height of a panel over its width, at most; a spectrum that is higher gets a wider axis.
_TALLEST = 1.3


def spectra(analysis: Analysis) -> Figure:
    """One panel a layer, on common axes.

    The principal eigenvalue (with its conjugate) is marked. The circle holds all lam with
    |1 + alpha lam| = |1 + alpha lam_1|: where an eigenvalue lies outside of it, the layer with its
    skip connection amplifies that direction more than the principal one. Where only the leading
    eigenvalues are known, these are drawn, and the legend says so.
    """
    layers = analysis.layers
    most = [columns for least, columns in _COLUMNS if len(layers) >= least][-1]
    columns = min(most, len(layers))
    rows = -(-len(layers) // columns)
    low, high, top = _limits(layers)
    panel, narrow = PAGE / most, most > _COLUMNS[0][1]
    with styled():
        # Titles of narrow panels have two lines.
        height = rows * (panel * 0.85 * 2 * top / (high - low) + (0.42 if narrow else 0.35)) + 0.55
        figure = new_figure(panel * columns + 0.2, max(height, 2.2))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, layer in zip(axes.flat, layers, strict=False):
            reach = max(abs(low), abs(high), top)
            _panel(axis, layer, analysis.config.alpha, reach, narrow=narrow)
            axis.set(xlim=(low, high), ylim=(-top, top), aspect="equal")
        for axis in axes.flat[len(layers) :]:
            axis.set_axis_off()
        figure.supxlabel("Re λ", fontsize=8)
        figure.supylabel("Im λ", fontsize=8)
        figure.legend(handles=_handles(layers), loc="outside upper center", ncols=3)
    return figure


def _panel(axis: Axes, layer: LayerAnalysis, alpha: float, reach: float, *, narrow: bool) -> None:
    values = layer.principal.values
    leading = values[: layer.principal.dimension]
    rest = values[layer.principal.dimension :]
    level_circle(axis, leading[0], alpha, reach, color=BLACK, lw=0.9, ls=DOTTED)
    whole = layer.principal.complete
    axis.plot(rest.real, rest.imag, ".", color=BLUE, ms=2.5 if whole else 5, mew=0, alpha=0.7)
    axis.plot(leading.real, leading.imag, "o", color=VERMILION, ms=5, mec="white", mew=0.6)
    outside = int(np.sum(np.abs(1 + alpha * rest) > np.abs(1 + alpha * leading[0]) * (1 + 1e-12)))
    text = f"layer {layer.index}, Case {layer.principal.case}"
    least = "" if whole else "at least "
    apart = "\n" if narrow else " "
    title = text if outside == 0 else f"{text},{apart}{least}{outside} outside"
    axis.set_title(title, pad=3, fontsize=7 if narrow else None)


def _limits(layers: tuple[LayerAnalysis, ...]) -> tuple[float, float, float]:
    values = np.concatenate([layer.principal.values for layer in layers])
    low, high, top = values.real.min(), values.real.max(), np.abs(values.imag).max()
    # All real, all imaginary or all one number: still a panel with some width and height.
    width = max(high - low, 2.1 * top / _TALLEST, 0.1 * max(abs(low), abs(high))) or 1.0
    top = max(top, 0.2 * width)
    margin = 0.06 * max(width, 2 * top) + (width - (high - low)) / 2
    return float(low - margin), float(high + margin), float(1.12 * top)


def _handles(layers: tuple[LayerAnalysis, ...]) -> list[Line2D]:
    whole = all(layer.principal.complete for layer in layers)
    others = "other eigenvalues of F" if whole else "others that were asked for"
    return [
        Line2D([], [], marker="o", ls="", color=VERMILION, mec="white", label="principal λ₁"),
        Line2D([], [], marker=".", ls="", color=BLUE, label=others),
        Line2D([], [], color=BLACK, lw=0.9, ls=DOTTED, label="|1 + αλ| = |1 + αλ₁|"),
    ]

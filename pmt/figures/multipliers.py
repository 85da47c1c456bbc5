"""The multipliers of a point in the complex plane, against the unit circle."""

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from pmt.figures.style import BLUE, PAGE, VERMILION, new_figure, styled


def multiplier_figure(eigenvalues: Any, title: str = "") -> Figure:
    """Left the multipliers in the complex plane, right their moduli: above 1 is unstable.

    Args:
      eigenvalues: complex, (m,).
      title: what the point is.
    """
    values = np.asarray(eigenvalues, complex)
    with styled():
        figure = new_figure(PAGE, 3.3)
        left, right = figure.subplots(1, 2)
        draw_multipliers(left, values)
        draw_moduli(right, values)
        if title:
            figure.suptitle("\n".join(wrap(title, 100)), fontsize="medium")
    return figure


def draw_moduli(ax: Any, values: np.ndarray) -> None:
    """The moduli in decreasing order against 1, where distances that a circle hides are seen."""
    moduli = np.sort(np.abs(values))[::-1]
    rank = np.arange(1, len(moduli) + 1)
    ax.axhline(1.0, color="0.3", lw=1.0)
    for outside, color, marker in ((False, BLUE, "o"), (True, VERMILION, "D")):
        chosen = (moduli > 1.0) == outside
        ax.plot(rank[chosen], moduli[chosen], marker, color=color, ms=3.2, zorder=3)
    ax.set(xlabel="rank", ylabel="modulus")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(0.5, max(len(moduli), 2) + 0.5)


def draw_multipliers(ax: Any, values: np.ndarray) -> None:
    """All multipliers in the complex plane, with the unit circle."""
    reach = 1.15 * max(1.0, float(np.abs(values).max(initial=0.0)))
    ax.grid(visible=False)
    ax.add_patch(Circle((0, 0), 1, facecolor="0.96", edgecolor="0.3", linewidth=1.0, zorder=0))
    ax.axhline(0, color="0.8", lw=0.7, zorder=0.5)
    ax.axvline(0, color="0.8", lw=0.7, zorder=0.5)
    for outside, color, marker, label in (
        (False, BLUE, "o", "modulus at most 1"),
        (True, VERMILION, "D", "above 1"),
    ):
        chosen = values[(np.abs(values) > 1.0) == outside]
        if chosen.size:
            ax.scatter(
                chosen.real,
                chosen.imag,
                s=20,
                marker=marker,
                facecolor=color,
                edgecolor="white",
                linewidth=0.6,
                alpha=0.85,
                label=label,
                zorder=3,
            )
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    # The same marks both ways, whatever the reach.
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel="real part", ylabel="imaginary part")
    if values.size:
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, borderaxespad=0.0)

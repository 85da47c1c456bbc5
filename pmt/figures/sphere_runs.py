"""Runs on the sphere in R³: paths, and alignment with the principal eigenvector."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pmt.experiments.sphere_runs import SphereRun, SphereRuns
from pmt.figures.sphere import draw_sphere
from pmt.figures.style import BLACK, GREY, PAGE, new_figure, styled
from pmt.figures.trajectory import token_colors


def sphere_runs(result: SphereRuns) -> Figure:
    """One row a run: left the tokens on the sphere with the eigenvectors, right their correlation
    with v_1 over steps, with its sign; the mean of its modulus is dotted, chance is dashed.
    """
    with styled():
        figure = new_figure(PAGE, 2.75 * len(result.runs))
        axes = figure.subplots(len(result.runs), 2, squeeze=False, width_ratios=(1, 1.35))
        for number, (run, (left, right)) in enumerate(zip(result.runs, axes, strict=True)):
            _row(left, right, run)
            left.set_title(f"({chr(ord('a') + number)}) {run.name}", loc="left")
        axes[0, 1].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
        axes[-1, 1].set_xlabel("step")
    return figure


def _row(left: Any, right: Any, run: SphereRun) -> None:
    n = run.path.shape[1]
    colors = token_colors(n)
    labels = [f"$v_{index + 1}$" for index in range(run.axes.shape[1])]
    draw_sphere(left, run.path, colors, run.axes, labels)
    steps = np.arange(len(run.path))
    for token, color in enumerate(colors):
        right.plot(steps, run.alignment[:, token], color=color, lw=1.0, alpha=0.8)
    mean = np.abs(run.alignment).mean(axis=1)
    right.plot(steps, mean, color=BLACK, lw=1.8, ls=(0, (1, 1)), label="mean modulus")
    for sign in (1, -1):
        label = "chance, of the modulus" if sign == 1 else None
        right.axhline(sign * run.chance, color=GREY, lw=0.9, ls=(0, (4, 2)), label=label)
    right.set(ylabel="correlation with $v_1$", ylim=(-1.06, 1.06), xlim=(0, steps[-1]))
    right.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    place = "" if run.verdict is None else f"the bipartite point is {run.verdict}; "
    right.text(
        0.98,
        0.06,
        f"{place}ends at {run.end}",
        transform=right.transAxes,
        ha="right",
        fontsize="small",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )

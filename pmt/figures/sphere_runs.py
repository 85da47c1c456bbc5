"""Runs on the sphere in R³: paths, and alignment with the principal eigenvector."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pmt.experiments.sphere_runs import SphereRun, SphereRuns
from pmt.figures.sphere import draw_sphere
from pmt.figures.style import BLACK, CHANCE, DASHED, PAGE, new_figure, styled
from pmt.figures.trajectory import token_colors


def sphere_runs(result: SphereRuns) -> Figure:
    """One row a run: left the tokens on the sphere with the eigenvectors, right their correlation
    with v_1 over steps, with its sign; the mean of its modulus is dotted, chance is dashed. Steps
    at which nothing moves any more are left out.
    """
    with styled():
        figure = new_figure(PAGE, 2.75 * len(result.runs) + 0.2)
        axes = figure.subplots(len(result.runs), 2, squeeze=False, width_ratios=(1, 1.35))
        for number, (run, (left, right)) in enumerate(zip(result.runs, axes, strict=True)):
            _row(left, right, run)
            left.set_title(f"({chr(ord('a') + number)}) {run.name}", loc="left")
        axes[-1, 1].set_xlabel("step")
        figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


def _row(left: Any, right: Any, run: SphereRun) -> None:
    n = run.path.shape[1]
    colors = token_colors(n)
    labels = [f"$v_{index + 1}$" for index in range(run.axes.shape[1])]
    draw_sphere(left, run.path, colors, run.axes, labels)
    last = min(len(run.path) - 1, max(10, round(1.25 * run.settled)))
    steps, along = np.arange(last + 1), run.alignment[: last + 1]
    for token, color in enumerate(colors):
        label = "one token" if token == 0 else None
        right.plot(steps, along[:, token], color=color, lw=1.0, alpha=0.8, label=label)
    mean = np.abs(along).mean(axis=1)
    right.plot(steps, mean, color=BLACK, lw=1.8, ls=(0, (1, 1)), label="mean of |correlation|")
    for sign in (1, -1):
        label = "chance of |correlation|" if sign == 1 else None
        right.axhline(sign * run.chance, color=CHANCE, lw=0.9, ls=DASHED, label=label)
    right.set(ylabel="correlation with $v_1$", ylim=(-1.06, 1.06), xlim=(0, last))
    right.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    place = "" if run.verdict is None else f"the bipartite point is {run.verdict}; "
    right.set_title(f"{place}the tokens end {run.ending}", loc="right")

"""One run of a system: where its tokens go, how they align, and how far apart they are."""

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pmt.figures.sphere import draw_sphere
from pmt.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    styled,
)

# More tokens than this are not told apart by eye; the first ones are drawn.
_DRAWN = 60
# An angle in one step that no line should suggest a way for, in degrees.
_JUMP = 90
# Distances below this are rounding.
_ROUNDING = 1e-17
# For few tokens; told apart with any colour vision.
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, GREY)


@dataclass(frozen=True)
class Trajectory:
    """What a figure of a run is made from. Arrays are NumPy, float.

    Attributes:
      steps: (r,). The steps at which the run was recorded, 0 first.
      path: (r, n, d). The tokens there.
      axes: (d, m). Real eigenvectors of the layer matrix, unit columns.
      labels: One for each column of ``axes``.
      plane: (d, 2). Orthonormal basis of the plane of the leading complex pair, or None.
      alignment: (r, n). rho of every token with the principal direction.
      alignment_label: What ``alignment`` is, for the axis.
      others: Label and alignment (r, n) with further directions.
      chance: rho of a token that knows nothing of the direction.
      distance: (r,). Mean intertoken distance.
    """

    steps: np.ndarray
    path: np.ndarray
    axes: np.ndarray
    labels: list[str]
    plane: np.ndarray | None
    alignment: np.ndarray
    alignment_label: str
    others: dict[str, np.ndarray]
    chance: float
    distance: np.ndarray


def trajectory_figure(run: Trajectory, title: str = "") -> Figure:
    """Left the sphere (d = 3) or the angles (d = 2), right alignment and distance over steps."""
    with styled():
        return _draw(run, title)


def _draw(run: Trajectory, title: str) -> Figure:
    n, d = run.path.shape[1:]
    colors = token_colors(min(n, _DRAWN))
    pictured = d in (2, 3)
    figure = new_figure(PAGE if pictured else 0.6 * PAGE, 3.4)
    grid = figure.add_gridspec(2, 2 if pictured else 1)
    if pictured:
        ax = figure.add_subplot(grid[:, 0])
        drawn = run.path[:, : len(colors)]
        if d == 3:
            draw_sphere(ax, drawn, colors, run.axes, run.labels, run.plane)
        else:
            draw_angles(ax, run.steps, drawn, colors, run.axes, run.labels)
    upper = figure.add_subplot(grid[0, -1])
    lower = figure.add_subplot(grid[1, -1], sharex=upper)
    upper.tick_params(labelbottom=False)
    draw_alignment(upper, run, colors)
    draw_distance(lower, run.steps, run.distance, n)
    lower.set_xlabel("step")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if title:
        width = figure.get_figwidth() * 16
        figure.suptitle("\n".join(wrap(title, int(width))), fontsize="medium")
    return figure


def token_colors(n: int) -> list[Any]:
    """One colour for each token: named ones for few, a perceptually even scale for many."""
    if n <= len(_COLORS):
        return list(_COLORS[:n])
    return list(colormaps["viridis"](np.linspace(0.0, 0.9, n)))


def draw_angles(
    ax: Any,
    steps: np.ndarray,
    path: np.ndarray,
    colors: list[Any],
    axes: np.ndarray,
    labels: list[str],
) -> None:
    """The angle of every token on the circle over steps, with the eigenvectors as lines.

    Args:
      ax: matplotlib axes.
      steps: (r,).
      path: (r, n, 2).
      colors: one for each token.
      axes: (2, m), unit columns.
      labels: one for each column.
    """
    seam = _seam(axes)
    degrees = _angles(path, seam)
    for token, color in enumerate(colors):
        angle = degrees[:, token]
        # A token that jumps is drawn as points, and so is one that passes the seam.
        jump = np.flatnonzero(np.abs(np.diff(angle)) > _JUMP) + 1
        broken = np.insert(steps.astype(float), jump, np.nan), np.insert(angle, jump, np.nan)
        marker = "." if jump.size > 2 else None
        ax.plot(*broken, marker=marker, color=color, ms=2.5, zorder=3)
        ax.plot(steps[0], angle[0], "o", mfc="white", mec=color, ms=4.5, zorder=4, clip_on=False)
        ax.plot(steps[-1], angle[-1], "o", color=color, ms=5.5, zorder=5, clip_on=False)
    for column, label in zip(axes.T, labels, strict=True):
        for sign, text, style in ((1, label, "-"), (-1, f"$-${label}", (0, (4, 3)))):
            at = float(_angles(sign * column[None], seam)[0])
            ax.axhline(at, color=GREY, lw=0.8, ls=style, zorder=1)
            ax.annotate(
                text,
                (1.01, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
                annotation_clip=False,
            )
    ax.set(xlabel="step", ylabel="angle of token (degrees)", ylim=(seam, seam + 360))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_yticks(np.arange(np.ceil(seam / 90) * 90, seam + 361, 90))


def _angles(points: np.ndarray, seam: float) -> np.ndarray:
    """Angles of points in the plane in degrees, from ``seam`` up to 360 degrees more."""
    degrees = np.degrees(np.arctan2(points[..., 1], points[..., 0]))
    return seam + np.mod(degrees - seam, 360.0)


def _seam(axes: np.ndarray) -> float:
    """Where to cut the circle open: in (-180, 0], as far from every axis as can be."""
    candidates = np.arange(-179.0, 1.0)
    if not axes.shape[1]:
        return -180.0
    lines = np.degrees(np.arctan2(axes[1], axes[0]))
    # Axes have two ends, so that what counts is the angle between lines, at most 90 degrees.
    apart = np.abs(np.mod(candidates[:, None] - lines + 90.0, 180.0) - 90.0).min(axis=1)
    return float(candidates[int(np.argmax(apart))])


def draw_alignment(ax: Any, run: Trajectory, colors: list[Any]) -> None:
    """rho of every token, their mean, and the chance level."""
    steps = run.steps
    shown = run.alignment[:, : len(colors)]
    lines = [np.column_stack([steps, shown[:, token]]) for token in range(shown.shape[1])]
    ax.add_collection(LineCollection(lines, colors=colors, linewidths=1.0, alpha=0.75))
    if len(steps) == 1:
        ax.scatter(np.zeros(shown.shape[1]), shown[0], s=14, c=colors, clip_on=False, zorder=3)
    ax.plot(steps, run.alignment.mean(axis=1), color=BLACK, lw=1.8, ls=(0, (1, 1)), label="mean")
    for label, values in run.others.items():
        ax.plot(steps, values.mean(axis=1), color="0.35", lw=1.3, ls="-.", label=f"mean {label}")
    ax.axhline(run.chance, color=GREY, lw=0.9, ls=(0, (4, 2)), label="chance", zorder=1)
    ax.set(ylabel=run.alignment_label, ylim=(-0.03, 1.03))
    ax.set_xlim(0, max(int(steps[-1]), 1))
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98),
        ncols=4,
        borderaxespad=0.0,
        handlelength=2.4,
    )


def draw_distance(ax: Any, steps: np.ndarray, distance: np.ndarray, n: int) -> None:
    """Mean intertoken distance over steps, logarithmic where it falls by orders of magnitude."""
    ax.set_ylabel("intertoken distance")
    if n == 1:
        ax.text(0.5, 0.5, "one token: no distance", transform=ax.transAxes, ha="center")
        ax.set_yticks([])
        return
    positive = distance[distance > _ROUNDING]
    if positive.size and positive.min() < 1e-2 * positive.max():
        ax.set_yscale("log")
        distance = np.where(distance > _ROUNDING, distance, np.nan)
    else:
        ax.set_ylim(0, 1.08 * float(positive.max()) if positive.size else 1.0)
    ax.plot(steps, distance, color=BLACK, lw=1.4, marker="o" if len(steps) == 1 else None)

"""What makes the failure of a statement visible: runs from next to a point, curves, numbers.

Each function takes arrays and draws what it is given; nothing here knows which statement it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pmt.errors import RequestError
from pmt.figures.multipliers import draw_multipliers
from pmt.figures.sphere import draw_sphere
from pmt.figures.style import BLACK, BLUE, GREY, PAGE, SKY, VERMILION, new_figure, styled
from pmt.figures.trajectory import token_colors

# Distances below this are rounding.
_ROUNDING = 1e-17
# An angle in one step, in radians, that no line should suggest a way for.
_JUMP = np.pi / 2
# Paths on the sphere hide each other sooner than those on the circle, where time has its own axis.
_ON_SPHERE = 8
# More tokens than this have no legend.
_NAMED = 7
_HALO = [withStroke(linewidth=2.0, foreground="white")]


@dataclass(frozen=True)
class Runs:
    """Runs of one system from many starts, next to a point where there is one.

    Attributes:
      path: (starts, steps + 1, n, d). Unit tokens, finite.
      point: (n, d). The point next to which they start, or None.
      distance: (starts, steps + 1). What the right panel shows, >= 0.
      distance_label: its name.
      axes: (d, m). Real eigenvectors of the layer matrix, unit columns; m may be 0.
      labels: one for each column of ``axes``.
      multipliers: complex, (m,), of the linearised map at the point; None where it is not at rest.
      at_point: (steps + 1,). The same distance for the run that starts at the point, or None.
      spread: (starts, steps + 1). The largest distance between two tokens, or None; drawn where
        there are no multipliers.
    """

    path: np.ndarray
    point: np.ndarray | None
    distance: np.ndarray
    distance_label: str
    axes: np.ndarray
    labels: list[str]
    multipliers: np.ndarray | None = None
    at_point: np.ndarray | None = None
    spread: np.ndarray | None = None


def runs_figure(runs: Runs) -> Figure:
    """Left the tokens on the circle (d = 2) or sphere (d = 3), right what becomes of the runs.

    On the circle time runs outward: the inner circle is the start, the outer one the end. Upper
    right the distance, logarithmic where there are multipliers; lower right the multipliers, or
    else the spread of the tokens, or nothing where neither is given. In other dimensions there is
    no left panel.

    Raises:
      RequestError: no starts or no tokens.
    """
    starts, _, n, d = runs.path.shape
    if not starts or not n:
        raise RequestError(
            f"the path has shape {runs.path.shape}; expected (starts, steps + 1, n, d) with at "
            "least one start and one token"
        )
    colors = token_colors(n)
    with styled():
        pictured = d in (2, 3)
        figure = new_figure(PAGE if pictured else 0.6 * PAGE, 3.9)
        both = runs.multipliers is not None or runs.spread is not None
        grid = figure.add_gridspec(2 if both else 1, 2 if pictured else 1)
        if pictured:
            ax = figure.add_subplot(grid[:, 0])
            draw = _draw_circle if d == 2 else _draw_ball
            draw(ax, runs, colors)
            if n <= _NAMED:
                _name_tokens(ax, colors)
        _draw_distance(figure.add_subplot(grid[0, -1]), runs)
        if runs.multipliers is not None:
            draw_multipliers(figure.add_subplot(grid[1, -1]), np.asarray(runs.multipliers, complex))
        elif runs.spread is not None:
            ax = figure.add_subplot(grid[1, -1])
            _draw_lines(ax, runs.spread, BLUE)
            ax.set(xlabel="step", ylabel="widest two tokens", ylim=(-0.05, 2.05))
    return figure


def curve_figure(
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    level: float | None = None,
    level_label: str = "",
    band: tuple[np.ndarray, np.ndarray] | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Curves over one parameter against a level that they do, or do not, cross.

    Args:
      x: (m,), increasing.
      curves: label -> values (m,); where not finite there is a gap. At most seven.
      xlabel, ylabel: of the axes.
      level: drawn across, with its label.
      level_label: of the level.
      band: lower and upper ends of an interval, (m,) each, shaded.
      logarithmic: whether the parameter's axis is; then x > 0.

    Raises:
      RequestError: no curves or a curve of another length.
    """
    if not curves or any(len(values) != len(x) for values in curves.values()):
        lengths = {name: len(values) for name, values in curves.items()}
        raise RequestError(f"the curves have lengths {lengths}; expected at least one, of {len(x)}")
    with styled():
        figure = new_figure(PAGE, 3.0)
        ax = figure.subplots()
        marker = "o" if len(x) < 20 else None
        for (label, values), color in zip(curves.items(), token_colors(len(curves)), strict=True):
            ax.plot(x, values, color=color, marker=marker, label=label)
        if band is not None:
            ax.fill_between(x, *band, color=SKY, alpha=0.35, lw=0, label="interval")
        if level is not None:
            ax.axhline(level, color=BLACK, lw=1.0, ls=(0, (4, 2)), label=level_label)
        if logarithmic:
            ax.set_xscale("log")
        ax.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def bars_figure(groups: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> Figure:
    """Numbers as bars with their values beside them, one panel for each group, each to its scale.

    Args:
      groups: title, a label for each bar, and the values (m,), finite, m >= 1.

    Raises:
      RequestError: no group, an empty one, or labels that do not match.
    """
    if not groups or any(len(values) == 0 or len(values) != len(n) for _, n, values in groups):
        sizes = [(title, len(names), len(values)) for title, names, values in groups]
        raise RequestError(
            f"the groups of bars have (title, labels, values) {sizes}; expected at least one "
            "group, each with as many labels as values and at least one"
        )
    heights = [len(values) + 1.2 for _, _, values in groups]
    with styled():
        figure = new_figure(0.75 * PAGE, 0.35 + 0.24 * sum(heights))
        panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (title, names, given) in zip(panels, groups, strict=True):
            values = np.asarray(given, np.float64)
            rows = np.arange(len(values))
            ax.barh(rows, values, height=0.6, color=[BLUE if v >= 0 else VERMILION for v in values])
            for row, value in zip(rows, values, strict=True):
                ax.annotate(
                    f"{value:.4g}",
                    (value, row),
                    xytext=(4 if value >= 0 else -4, 0),
                    textcoords="offset points",
                    ha="left" if value >= 0 else "right",
                    va="center",
                    fontsize="small",
                )
            ax.axvline(0.0, color=BLACK, lw=0.8)
            ax.set_yticks(rows, [shorten(name, 60, placeholder=" ...") for name in names])
            ax.set_title(shorten(title, 90, placeholder=" ..."), loc="left")
            ax.invert_yaxis()
            ax.margins(x=0.2)
            ax.grid(visible=False, axis="y")
    return figure


def plane_figure(
    directions: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Directions as arrows from the centre of the unit circle, and sets of points in the plane.

    Args:
      directions: label -> vector (2,).
      points: label -> (m, 2); drawn as dots.

    Raises:
      RequestError: neither directions nor points.
    """
    points = {} if points is None else points
    if not directions and not points:
        raise RequestError("there is nothing to draw; expected directions or points in the plane")
    turn = np.linspace(0, 2 * np.pi, 241)
    with styled():
        figure = new_figure(0.62 * PAGE, 3.4)
        ax = figure.subplots()
        ax.plot(np.cos(turn), np.sin(turn), color=GREY, lw=0.9, zorder=1)
        for (label, cloud), color in zip(points.items(), (SKY, BLACK, GREY), strict=False):
            ax.plot(*np.asarray(cloud).T, "o", color=color, ms=3.5, mew=0, label=label, zorder=2)
        for (label, vector), color in zip(
            directions.items(), token_colors(max(1, len(directions))), strict=False
        ):
            tip = np.asarray(vector, np.float64)
            ax.annotate(
                "",
                xy=tuple(tip),
                xytext=(0, 0),
                arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.6},
                zorder=4,
            )
            ax.plot([], [], color=color, lw=1.6, label=label)
        reach = max(
            [
                1.15,
                *(1.1 * float(np.abs(v).max()) for v in (*directions.values(), *points.values())),
            ]
        )
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.set(xlabel="first coordinate", ylabel="second coordinate")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return figure


def _name_tokens(ax: Any, colors: list[Any]) -> None:
    handles = [Line2D([], [], color=c, marker="o", ms=4, lw=1.4) for c in colors]
    names = [f"token {i + 1}" for i in range(len(colors))]
    ax.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=min(4, len(colors)),
        borderaxespad=0.2,
    )


def _draw_ball(ax: Any, runs: Runs, colors: list[Any]) -> None:
    shown = runs.path[:_ON_SPHERE]
    starts, moments, n, _ = shown.shape
    path = shown.transpose(1, 0, 2, 3).reshape(moments, starts * n, 3)
    draw_sphere(ax, path, colors * starts, runs.axes, runs.labels)


def _draw_circle(ax: Any, runs: Runs, colors: list[Any]) -> None:
    """Angle is angle; the radius grows with the step, logarithmically, from 1 to 2."""
    moments = runs.path.shape[1]
    radius = _radii(moments)
    turn = np.linspace(0, 2 * np.pi, 241)
    for step in _rings(moments):
        ax.plot(*(radius[step] * np.array([np.cos(turn), np.sin(turn)])), color="0.8", lw=0.7)
        ax.annotate(
            f"{step}",
            (0.38 * radius[step], 0.92 * radius[step]),
            fontsize=6,
            color="0.35",
            ha="center",
            va="center",
            path_effects=_HALO,
            zorder=7,
        )
    for column, label in zip(runs.axes.T, runs.labels, strict=True):
        for sign, style, text in ((1, "-", label), (-1, (0, (3, 3)), f"$-${label}")):
            end = sign * column
            ax.plot(*np.outer(end, [0.0, 2.1]), color="0.55", lw=0.8, ls=style, zorder=1)
            ax.text(*(2.3 * end), text, ha="center", va="center")
    for token, color in enumerate(colors):
        pieces = [
            piece for run in runs.path[:, :, token] for piece in _spiral(run, radius) if len(piece)
        ]
        lines = [piece for piece in pieces if len(piece) > 1]
        ax.add_collection(LineCollection(lines, colors=[color], linewidths=0.7, alpha=0.55))
        dots = np.concatenate([piece for piece in pieces if len(piece) == 1] or [np.empty((0, 2))])
        ax.plot(*dots.T, ".", color=color, ms=2.2, mew=0, zorder=3)
        ends = runs.path[:, -1, token] * radius[-1]
        ax.plot(*ends.T, "o", color=color, ms=3.5, mec="white", mew=0.3, zorder=5)
    if runs.point is not None:
        ax.plot(
            *runs.point.T, "D", mfc="white", mec=BLACK, ms=5, mew=1.0, zorder=6, label="the point"
        )
    ax.text(
        0,
        0,
        "start inside,\nend outside",
        ha="center",
        va="center",
        fontsize=6,
        color="0.35",
        path_effects=_HALO,
    )
    ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    ax.set_axis_off()


def _radii(moments: int) -> np.ndarray:
    return 1 + np.log1p(np.arange(moments)) / np.log1p(max(moments - 1, 1))


def _rings(moments: int) -> list[int]:
    return [step for step in (0, 10) if 4 * step < moments - 1] + [moments - 1]


def _spiral(run: np.ndarray, radius: np.ndarray) -> list[np.ndarray]:
    """One token's way in the plane, in pieces between jumps: (m, 2) each, single points too."""
    angle = np.unwrap(np.arctan2(run[:, 1], run[:, 0]))
    jumps = np.flatnonzero(np.abs(np.diff(angle)) > _JUMP) + 1
    pieces = []
    for part in np.split(np.arange(len(run)), jumps):
        # Between steps along the circle, and not across it.
        fine = np.linspace(part[0], part[-1], 4 * (len(part) - 1) + 1)
        a, r = np.interp(fine, part, angle[part]), np.interp(fine, part, radius[part])
        pieces.append(np.stack([r * np.cos(a), r * np.sin(a)], axis=1))
    return pieces


def _draw_distance(ax: Any, runs: Runs) -> None:
    """Distances over steps; logarithmic where rates are what there is to see."""
    seen = [runs.distance, *([] if runs.at_point is None else [runs.at_point[None]])]
    everything = np.concatenate(seen)
    positive = everything[everything > _ROUNDING]
    rates = runs.multipliers is not None and positive.size > 0
    logarithmic = bool(rates and positive.min() < 0.1 * positive.max())
    # Rounding to zero would end a line on a logarithmic axis.
    floor = max(_ROUNDING, float(positive.min())) if logarithmic else 0.0
    _draw_lines(ax, np.maximum(runs.distance, floor), BLUE)
    handles, names = [Line2D([], [], color=BLUE, lw=0.9)], [f"{len(runs.distance)} starts"]
    if runs.at_point is not None:
        values = np.maximum(runs.at_point, floor)
        ax.plot(values, color=VERMILION, lw=1.2, ls=(0, (3, 1)), zorder=3)
        handles.append(Line2D([], [], color=VERMILION, lw=1.2, ls=(0, (3, 1))))
        names.append("from the point itself")
    if logarithmic:
        ax.set_yscale("log")
        ax.set_ylim(floor / 2, positive.max() * 2)
    else:
        ax.set_ylim(0, 1.1 * float(positive.max()) if positive.size else 1.0)
    ax.set(xlabel="step", ylabel=runs.distance_label)
    ax.legend(
        handles, names, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1
    )


def _draw_lines(ax: Any, values: np.ndarray, color: str) -> None:
    """One thin line for each row, over steps."""
    steps = np.arange(values.shape[1])
    lines = [np.column_stack([steps, row]) for row in values]
    ax.add_collection(LineCollection(lines, colors=[color], linewidths=0.6, alpha=0.45))
    ax.set_xlim(0, max(len(steps) - 1, 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

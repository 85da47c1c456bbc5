"""Paths of tokens on the unit sphere of R³, seen from far away (orthographic projection)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

# How opaque lines are on the near and on the far side.
_NEAR, _FAR = 0.95, 0.22
# A chord longer than this in one step is a jump: most of the way to the antipode.
_JUMP = 1.8
# How far axes reach out of the ball.
_REACH = 1.16
_GRID = "0.72"
_AXIS = "0.15"
_HALO = [withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class View:
    """An orthonormal frame: what is right, up, and towards the eye.

    Attributes:
      frame: (3, 3), rows right, up, towards.
    """

    frame: np.ndarray

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates on the page ``(..., 2)`` and the depth ``(...)``, positive on the near side.

        The depth of a point on the sphere is xᵀ(towards).
        """
        turned = points @ self.frame.T
        return turned[..., :2], turned[..., 2]


def choose_view(path: np.ndarray, axes: np.ndarray) -> View:
    """A view in which little of the paths is hidden and the axes can be told apart.

    Of 400 directions spread evenly over the sphere the one with the best sum of: the fraction of
    the paths on the near side, the distance on the page between the nearest two tips of axes, and
    the length on the page of the shortest axis. The first axis points up.

    Args:
      path: (..., 3), unit vectors.
      axes: (3, m), unit columns; m may be 0.
    """
    k = np.arange(400) + 0.5
    height = 1 - 2 * k / 400
    angle = np.pi * (1 + 5**0.5) * k
    wide = np.sqrt(1 - height**2)
    towards = np.stack([wide * np.cos(angle), wide * np.sin(angle), height], axis=1)
    points = path.reshape(-1, 3)
    points = points[:: max(1, len(points) // 2000)]
    score = np.mean(points @ towards.T > -0.05, axis=0)
    tips = np.concatenate([axes, -axes], axis=1).T
    if len(tips):
        flat = tips[None] - np.einsum("pd,td->pt", towards, tips)[..., None] * towards[:, None]
        apart = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)
        apart += 2 * np.eye(len(tips))
        lengths = np.linalg.norm(flat, axis=-1)
        # The first axis in front of the sphere, so that where tokens gather is seen.
        front = np.abs(towards @ axes[:, 0]) > 0.2
        score = (
            score + 0.8 * np.min(apart, axis=(1, 2)) + 0.4 * np.min(lengths, axis=1) + 0.2 * front
        )
    near = towards[int(np.argmax(score))]
    first = axes[:, 0] if axes.shape[1] else np.array([0.0, 0.0, 1.0])
    up = first - near * (near @ first)
    up = up / np.linalg.norm(up)
    return View(np.stack([np.cross(up, near), up, near]))


def draw_ball(
    ax: Any, view: View, axes: np.ndarray, labels: list[str], plane: np.ndarray | None = None
) -> None:
    """Draws the sphere and the axes through it, without tokens; arguments as in ``draw_sphere``."""
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set(xlim=(-1.27, 1.27), ylim=(-1.27, 1.27))
    ax.add_patch(Circle((0, 0), 1, facecolor="0.97", edgecolor="0.45", linewidth=0.9, zorder=0))
    _draw_grid(ax, view)
    if plane is not None:
        turn = np.linspace(0, 2 * np.pi, 241)
        circle = np.cos(turn)[:, None] * plane[:, 0] + np.sin(turn)[:, None] * plane[:, 1]
        _draw_line(ax, view, circle, _AXIS, 0.9, zorder=2.0)
    _draw_axes(ax, view, axes, labels)


def draw_sphere(
    ax: Any,
    path: np.ndarray,
    colors: list[Any],
    axes: np.ndarray,
    labels: list[str],
    plane: np.ndarray | None = None,
    view: View | None = None,
) -> View:
    """Draws the sphere, the axes through it, and every token's path with its start and its end.

    Args:
      ax: matplotlib axes, emptied of frame and ticks.
      path: (steps + 1, n, 3), unit vectors.
      colors: one for each token.
      axes: (3, m), unit columns: directions drawn through the sphere.
      labels: one for each column of ``axes``, set at its positive end.
      plane: (3, 2), orthonormal columns: a plane whose great circle is drawn, or None.
      view: where from; chosen by ``choose_view`` if None.
    """
    view = choose_view(path, axes if axes.shape[1] else np.zeros((3, 0))) if view is None else view
    draw_ball(ax, view, axes, labels, plane)
    draw_paths(ax, view, path, colors)
    draw_points(ax, view, path[0], colors, filled=False)
    draw_points(ax, view, path[-1], colors, filled=True)
    for face, y, text in (("white", -1.07, "start"), ("0.3", -1.2, "end")):
        ax.scatter(-1.2, y, s=14, facecolor=face, edgecolor="0.3")
        ax.text(-1.12, y, text, va="center", fontsize="small")
    return view


def draw_paths(ax: Any, view: View, path: np.ndarray, colors: list[Any]) -> list[Any]:
    """Every token's way over the sphere; ``path`` is ``(steps + 1, n, 3)``. What was drawn."""
    ways = [
        (_arcs(stretch), color)
        for token, color in enumerate(colors)
        for stretch in _stretches(path[:, token])
    ]
    return _draw_lines(ax, view, ways, 1.2, zorder=4.0)


def _stretches(points: np.ndarray) -> list[np.ndarray]:
    """The path cut where a token jumps to the other side, which no line on the sphere shows."""
    jumps = np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) > _JUMP) + 1
    return np.split(points, jumps)


def _arcs(points: np.ndarray) -> np.ndarray:
    """Points on the great circles between successive points, so that long steps bend too."""
    start, way = points[:-1], np.diff(points, axis=0)
    counts = np.maximum(np.ceil(np.linalg.norm(way, axis=1) / 0.05).astype(int), 1)
    segment = np.repeat(np.arange(len(start)), counts)
    share = (np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)) / np.repeat(
        counts, counts
    )
    between = start[segment] + share[:, None] * way[segment]
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    return np.concatenate([between, points[-1:]])


def _draw_line(
    ax: Any, view: View, points: np.ndarray, color: Any, width: float, zorder: float
) -> None:
    _draw_lines(ax, view, [(points, color)], width, zorder)


def _draw_lines(
    ax: Any, view: View, lines: list[tuple[np.ndarray, Any]], width: float, zorder: float
) -> list[Any]:
    """Lines over the sphere, each through points ``(m, 3)``, faint on its far side; as drawn."""
    sides: dict[bool, list[tuple[np.ndarray, Any]]] = {False: [], True: []}
    for points, color in lines:
        flat, depth = view.project(points)
        near = (depth[:-1] + depth[1:]) >= 0
        # One line for each stretch on a side: separate segments would show at their overlaps.
        cuts = [*(np.flatnonzero(np.diff(near)) + 1), len(near)]
        for start, end in zip([0, *cuts], cuts, strict=False):
            if end > start:
                sides[bool(near[start])].append((flat[start : end + 1], color))
    return [
        ax.add_collection(
            LineCollection(
                [points for points, _ in sides[side]],
                colors=[to_rgba(color, opacity) for _, color in sides[side]],
                linewidths=width,
                capstyle="butt",
                joinstyle="round",
                zorder=level,
            )
        )
        for side, opacity, level in ((False, _FAR, zorder - 2.5), (True, _NEAR, zorder))
        if sides[side]
    ]


def _draw_grid(ax: Any, view: View) -> None:
    """Parallels and meridians every 30 degrees about the direction that is up on the page."""
    turn = np.linspace(0, 2 * np.pi, 181)
    pole = np.array([0.0, np.cos(0.35), np.sin(0.35)]) @ view.frame
    side = view.frame[0]
    front = np.cross(pole, side)
    for latitude in np.radians([-60, -30, 0, 30, 60]):
        ring = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * front
        _draw_line(ax, view, np.cos(latitude) * ring + np.sin(latitude) * pole, _GRID, 0.45, 1.0)
    for longitude in np.radians(np.arange(0, 180, 30)):
        equator = np.cos(longitude) * side + np.sin(longitude) * front
        ring = np.cos(turn)[:, None] * equator + np.sin(turn)[:, None] * pole
        _draw_line(ax, view, ring, _GRID, 0.45, 1.0)


def _draw_axes(ax: Any, view: View, axes: np.ndarray, labels: list[str]) -> None:
    for column, label in zip(axes.T, labels, strict=True):
        for sign, style in ((1.0, "-"), (-1.0, (0, (2, 2)))):
            tip, depth = view.project(sign * column)
            # Inside the ball an axis only shows through.
            ax.plot([0, tip[0]], [0, tip[1]], color=_AXIS, lw=0.8, ls=style, alpha=0.3, zorder=1)
            # Beyond its tip it is seen, on the far side only where it comes out behind the disc.
            start = tip if depth >= 0 else tip / max(float(np.linalg.norm(tip)), 1e-9)
            outer = tip * _REACH
            if depth >= 0 or np.linalg.norm(outer) > 1:
                line = np.stack([start, outer], axis=1)
                ax.plot(*line, color=_AXIS, lw=1.0, ls=style, zorder=3 if depth >= 0 else 0.5)
        tip, depth = view.project(column)
        place = tip * (_REACH + 0.09 / max(float(np.linalg.norm(tip)), 0.35))
        ax.text(
            *place,
            label,
            ha="center",
            va="center",
            color=_AXIS if depth >= 0 else "0.45",
            path_effects=_HALO,
            zorder=9,
        )


def draw_points(
    ax: Any, view: View, points: np.ndarray, colors: list[Any], *, filled: bool
) -> list[Any]:
    """Tokens ``(n, 3)``, faint on the far side: full ones, or smaller open ones. What was drawn."""
    flat, depth = view.project(points)
    drawn = []
    for side, opacity, level in ((False, 0.35, 1.8), (True, 1.0, 7 if filled else 6)):
        there = np.flatnonzero((depth >= 0) == side)
        own = [to_rgba(colors[token], opacity) for token in there]
        white = [to_rgba("white", opacity)] * len(there)
        dots = ax.scatter(
            *flat[there].T,
            s=24 if filled else 13,
            facecolors=own if filled else white,
            edgecolors=white if filled else own,
            linewidths=0.5 if filled else 0.9,
            zorder=level,
        )
        drawn.append(dots)
    return drawn

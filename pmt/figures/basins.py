"""Basins of attraction: fractions, maps of the sphere, slices, phase diagrams, escape radii."""

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from pmt.figures.style import (
    BLACK,
    BLUE,
    COLUMN,
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
from pmt.stability.basin import Basins
from pmt.stability.basin_map import SliceMap, SphereMap
from pmt.stability.escape import Escape
from pmt.stability.phase import PhaseDiagram

# Consensus at +v and −v, then whatever else there is in the order of its share.
_CONSENSUS = (BLUE, SKY)
_OTHERS = (VERMILION, ORANGE, GREEN, PURPLE, "#F0E442", "#8C564B", "#B5CF6B", "#9C9EDE")
# What is no basin.
_NOTHING = {"unresolved": GREY, "undefined": "#BFBFBF", "non-finite": "#BFBFBF"}


def fraction_bars(found: Basins, title: str = "") -> Figure:
    """One bar an attractor with its confidence interval, and its stability in words."""
    with styled():
        count = len(found.attractors)
        figure = new_figure(PAGE * 0.75, 0.75 + 0.26 * count)
        ax = figure.subplots()
        shares = [a.share for a in found.attractors]
        place = np.arange(count)
        values = np.array([share.fraction for share in shares])
        ends = np.array([[s.fraction - s.low, s.high - s.fraction] for s in shares]).T
        ax.barh(
            place,
            values,
            xerr=np.maximum(ends, 0.0),
            color=attractor_colors(found.attractors),
            height=0.7,
            error_kw={"lw": 0.9, "capsize": 2},
        )
        for k, attractor in enumerate(found.attractors):
            words = f" {attractor.share.fraction:.4f}"
            words += f", {attractor.verdict}" if attractor.verdict else ""
            ax.text(attractor.share.high, k, words, va="center", fontsize="small")
        ax.set_yticks(place, [a.name for a in found.attractors])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.28 * max(float(max(s.high for s in shares)), 1e-3))
        ax.set_xlabel(
            f"fraction of {found.samples:,} initial conditions, "
            f"{100 * found.confidence:.4g}% intervals"
        )
        ax.grid(axis="y", visible=False)
        ax.set_title(title, loc="left")
    return figure


def sphere_basins(found: SphereMap, title: str = "") -> Figure:
    """The two hemispheres in equal-area discs; the other tokens and the eigenvectors are marked."""
    with styled():
        figure = new_figure(PAGE, 3.55)
        axes = figure.subplots(1, 2)
        for side, ax in enumerate(axes):
            ax.imshow(
                _image(found.label[side], attractor_colors(found.attractors)),
                origin="lower",
                extent=(-(2**0.5), 2**0.5, -(2**0.5), 2**0.5),
                interpolation="nearest",
            )
            ax.add_patch(Circle((0, 0), 2**0.5, fill=False, edgecolor="0.4", linewidth=0.8))
            ax.set_axis_off()
            ax.set_aspect("equal")
            ax.set(xlim=(-1.46, 1.46), ylim=(-1.46, 1.46))
            for k, axis in enumerate(found.axes.T):
                for sign, text in ((1, ""), (-1, "-")):
                    _mark(ax, sign * axis, found, side, f"${text}v_{k + 1}$", "+")
            for token in found.others:
                _mark(ax, token, found, side, "", "o")
        axes[0].set_title(title, loc="left")
        legend = _legend(found.attractors)
        if len(found.others):
            legend.append(
                Line2D([], [], ls="", marker="o", mfc="white", mec=BLACK, label="other tokens")
            )
        figure.legend(handles=legend, loc="outside lower center", ncols=min(4, len(legend)))
    return figure


def slice_basins(found: SliceMap, title: str = "", labels: tuple[str, str] = ("a", "b")) -> Figure:
    """The slice through the state space, its centre marked."""
    with styled():
        figure = new_figure(COLUMN * 1.1, COLUMN * 1.35)
        ax = figure.subplots()
        size = found.extent
        ax.imshow(
            _image(found.label, attractor_colors(found.attractors)),
            origin="lower",
            extent=(-size, size, -size, size),
            interpolation="nearest",
        )
        ax.plot(0, 0, "+", color=BLACK, ms=7)
        ax.grid(visible=False)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        ax.set_title(title, loc="left")
        legend = _legend(found.attractors)
        figure.legend(handles=legend, loc="outside lower center", ncols=2)
    return figure


def phase_figure(found: PhaseDiagram) -> Figure:
    """Verdict of the spectrum, and, where runs were made, the share that ends bipartite.

    The theory's boundary λ_2/λ_1 = Ψ(θ) is drawn over both.
    """
    with styled():
        panels = 1 if found.fraction is None else 2
        figure = new_figure(COLUMN * 1.05 * panels, 2.7)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        n1, n2 = found.split
        stable = ListedColormap(["#F2D9C9", "#CFE3F1"])
        cells = (_edges(found.theta, True), _edges(found.ratio))
        axes[0].pcolormesh(*cells, found.stable, cmap=stable, vmin=0, vmax=1)
        axes[0].set_title(f"bipartite {n1}+{n2}: largest multiplier", loc="left")
        if found.fraction is not None:
            drawn = axes[1].pcolormesh(*cells, found.fraction, vmin=0, vmax=1, cmap="viridis")
            figure.colorbar(drawn, ax=axes[1], label="fraction of runs")
            axes[1].set_title(f"runs that end bipartite ({found.samples} a cell)", loc="left")
        for ax in axes:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            _boundary(ax, found, on_dark=ax is not axes[0])
            ax.set(
                xlabel=r"logit scale $\theta_1$",
                xlim=_edges(found.theta, True)[[0, -1]],
                ylim=_edges(found.ratio)[[0, -1]],
            )
            ax.grid(visible=False)
        axes[0].set_ylabel(r"$\lambda_2/\lambda_1$")
        handles = [
            Patch(color=stable(1), label="stable, below 1"),
            Patch(color=stable(0), label="unstable"),
            Line2D([], [], color=BLACK, label=r"$\Psi(\theta_1)$"),
        ]
        axes[0].legend(handles=handles, loc="lower right", frameon=True, framealpha=0.9)
    return figure


def escape_figure(found: Escape, title: str = "") -> Figure:
    """The fraction of directions along which the point is lost within a radius.

    The band lies between counting the last radius that returned and the first that did not.
    """
    with styled():
        figure = new_figure(COLUMN, 2.4)
        ax = figure.subplots()
        count = len(found.kept)
        grid = np.linspace(0, found.reach, 400)
        early = np.searchsorted(np.sort(found.kept), grid, side="right") / count
        reached = np.where(np.isfinite(found.lost), found.lost, np.inf)
        late = np.searchsorted(np.sort(reached), grid, side="right") / count
        # A direction never lost counts at no radius.
        never = np.isinf(reached) & ~found.doubtful
        early = np.minimum(early, 1.0 - never.mean())
        ax.fill_between(grid, late, early, color=SKY, alpha=0.6, lw=0, step="post")
        ax.step(grid, late, color=BLUE, where="post")
        for p, radius in found.quantiles:
            if np.isfinite(radius):
                ax.plot(radius, p, "o", color=VERMILION)
        ax.set(
            xlabel="geodesic distance of the push",
            ylabel=f"lost, of {count} directions",
            xlim=(0, found.reach),
            ylim=(0, 1.02),
        )
        ax.set_title(title, loc="left")
    return figure


def attractor_colors(attractors: Any) -> list[str]:
    """One colour an attractor: consensus blue, grey where nothing was reached."""
    others = iter(_OTHERS * (1 + len(attractors) // len(_OTHERS)))
    colors = []
    for attractor in attractors:
        if attractor.kind in _NOTHING:
            colors.append(_NOTHING[attractor.kind])
        elif attractor.kind == "consensus" and attractor.index == 0:
            colors.append(_CONSENSUS[0 if attractor.split[0] else 1])
        else:
            colors.append(next(others))
    return colors


def _image(label: np.ndarray, colors: list[str]) -> np.ndarray:
    """RGBA of an array of numbers of attractors, transparent where there is none."""
    table = np.array([(*to_rgb(color), 1.0) for color in colors] + [(1.0, 1.0, 1.0, 0.0)])
    return table[label]


def _legend(attractors: Any) -> list[Any]:
    colors = attractor_colors(attractors)
    return [
        Patch(color=color, label=f"{each.name}: {each.share.fraction:.1%}")
        for each, color in zip(attractors, colors, strict=True)
    ]


def _mark(ax: Any, point: np.ndarray, found: SphereMap, side: int, text: str, marker: str) -> None:
    """A point of the sphere in the disc that it lies in."""
    right, up, towards = found.frame @ point
    if (towards >= 0) != (side == 0):
        return
    across = right if side == 0 else -right
    stretch = np.sqrt(2.0 / (1.0 + abs(towards)))
    x, y = across * stretch, up * stretch
    face = "white" if marker == "o" else BLACK
    ax.plot(x, y, marker, color=face, mec=BLACK, ms=5, mew=0.9)
    if text:
        inward = -0.1 if x > 1.1 else 0.17 if x < -1.1 else 0.1
        ax.text(x + inward, y + 0.1, text, ha="center", va="center", color=BLACK)


def _boundary(ax: Any, found: PhaseDiagram, on_dark: bool) -> None:
    from pmt.stability.conditions import psi

    edges = _edges(found.theta, True)
    theta = np.geomspace(edges[0], edges[-1], 300)
    value = np.asarray(psi(theta, *found.split))
    # Below zero the criterion for unbalanced splits is another one.
    ax.plot(theta, np.where(value >= 0, value, np.nan), color="white" if on_dark else BLACK, lw=1.5)


def _edges(centres: np.ndarray, geometric: bool = False) -> np.ndarray:
    """Edges of the cells around increasing centres."""
    places = np.log(centres) if geometric else centres
    if len(places) == 1:
        edges = np.array([places[0] - 0.5, places[0] + 0.5])
    else:
        middle = (places[1:] + places[:-1]) / 2
        edges = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return np.exp(edges) if geometric else edges

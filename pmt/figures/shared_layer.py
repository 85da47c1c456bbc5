"""One layer repeated: where the tokens end, how they get there, and how far apart they are."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pmt.experiments.contrast import judge
from pmt.experiments.shared_layer import SharedRun
from pmt.figures.level_circle import level_circle
from pmt.figures.style import (
    AVERAGE,
    BLACK,
    BLUE,
    CHANCE,
    COLUMN,
    DASHED,
    DOTTED,
    NULLS,
    PRINCIPAL,
    SKY,
    new_figure,
    panel_figure,
    styled,
)

_CHANCE: dict[str, Any] = {"color": CHANCE, "lw": 0.9, "ls": DASHED}
_CIRCLE: dict[str, Any] = {"color": BLACK, "lw": 0.9, "ls": DOTTED}
_DEPTH: dict[str, Any] = {"color": "0.4", "lw": 0.8, "ls": ":"}
_MEAN = (0, (5, 1, 1, 1))
# A rim that lifts a line off the tokens and off other lines.
_RIM = [withStroke(linewidth=2.4, foreground="white", alpha=0.8)]
# Null models are told apart by their dashes too.
_DASHES = {"gaussian": (0, (4, 1)), "rotated": (0, (1.5, 1))}
# Single tokens that are drawn; more make the file large and the band no clearer.
_DRAWN = 1000
# From so few draws a 95 % band is wider than anything there is to see: 12.7 standard errors for
# two, 3.2 for four. Below that the draws themselves are shown.
_BAND_DRAWS = 4
_BAND = 0.3


def final_alignment(result: SharedRun, *, column: bool = False) -> Figure:
    """Left the spectrum of the layer matrix, middle the correlation of the last states with v_1
    with its sign, right with the plane of v_1 and v_2; beside the tokens those of the null models,
    all draws together, with their own v_1 and plane (of the Gaussian one v_2 is not known), and the
    density of uniform tokens, which is chance. Vertical lines are the mean of ρ over all
    eigendirections, and its chance.
    """
    gaussian, rotated = (result.null[name] for name in NULLS)
    with styled():
        figure, (left, middle, right) = panel_figure(3, 2.6, column=column)
        _spectrum(left, result)
        d = len(result.spectrum.values)
        grid = np.linspace(-1, 1, 801)[1:-1]
        bounds = (-1.0, 1.0)
        _histogram(middle, result.signed, (gaussian.signed, rotated.signed), bounds)
        # Densities of vᵀx and of |P x| for a token uniform on S^(d-1), up to their constants.
        _uniform(middle, grid, (d - 3) / 2 * np.log1p(-(grid**2)))
        _means(middle, result)
        what = "Re $v_1$" if result.spectrum.dimension == 2 else "$v_1$"
        middle.set(xlabel=f"correlation with {what}", ylabel="density of tokens")
        if result.plane is None:
            right.set_axis_off()
            right.text(0.5, 0.5, "no second real eigenvector", ha="center")
        else:
            _histogram(right, result.plane[-1], (None, rotated.plane), (0.0, 1.0))
            grid = np.linspace(0, 1, 401)[1:-1]
            _uniform(right, grid, np.log(grid) + (d - 4) / 2 * np.log1p(-(grid**2)))
            _means(right, result)
            right.set(xlabel="ρ with the plane of $v_1$, $v_2$", ylabel="density of tokens")
        figure.suptitle(f"{_name(result)}, Case {result.spectrum.case}", fontsize="medium")
        handles = [
            _line("principal $λ_1$", PRINCIPAL, 0.0, "", marker="o", mec="white"),
            _line("|1 + αλ| = |1 + α$λ_1$|", *_CIRCLE.values()),
            Patch(color=SKY, label="tokens"),
            *(_line(label, color, 1.2, "-") for label, color in NULLS.values()),
            _line("uniform tokens (chance)", *_CHANCE.values()),
            _line("mean over all eigendirections", AVERAGE, 1.2, _MEAN),
            _line("chance of that mean", AVERAGE, 0.9, DOTTED),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if column else 4)
    return figure


def consensus(result: SharedRun) -> Figure:
    """Distance between tokens over steps: every prompt, their mean, and that of the null models. 0
    is consensus.
    """
    steps = np.arange(result.steps + 1)
    with styled():
        figure = new_figure(COLUMN, 2.4)
        axis = figure.subplots()
        axis.plot(steps, result.distance, color=SKY, lw=0.5, alpha=0.35)
        axis.plot([], [], color=SKY, lw=1.0, label="one prompt")
        axis.plot(steps, result.distance.mean(axis=1), color=BLUE, lw=1.8, label="mean of prompts")
        for name, null in result.null.items():
            label, color = NULLS[name]
            axis.plot(steps, null.distance, color=color, lw=1.2, ls=_DASHES[name], label=label)
        axis.set(ylabel="mean intertoken distance", ylim=(0, None))
        axis.set_title(_name(result), loc="left")
        _steps(axis, result)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def correlations(result: SharedRun, *, column: bool = False) -> Figure:
    """Three panels over steps: rho with v_1, with v_2 and with their plane. Every token is a thin
    line, the mean is thick; beside them chance and, with the principal direction, the mean over
    all eigendirections with its own chance, and both null models: dashed their mean, and the band
    in which one more draw would lie (95 %), or every draw where there are fewer than four, or a
    single prompt.
    """
    steps, own = np.arange(result.steps + 1), result.spectrum
    panels = [("Re $v_1$" if own.dimension == 2 else "$v_1$", result.first, result.chances[0])]
    if result.second is not None:
        second = "the direction across in its plane" if own.dimension == 2 else "$v_2$"
        panels.append((second, result.second, result.chances[0]))
    if result.plane is not None and result.chances[1] is not None:
        panels.append(("the plane of both", result.plane, result.chances[1]))
    led = 2 if own.dimension == 2 else 0
    with styled():
        figure, axes = panel_figure(len(panels), 2.6, column=column, sharey=True, sharex=column)
        for number, (axis, (name, values, chance)) in enumerate(zip(axes, panels, strict=True)):
            tokens = values.reshape(len(steps), -1)[:, :_DRAWN]
            # A thousand opaque lines are one area, with nothing to be seen in it.
            faint = float(np.clip(15 / tokens.shape[1], 0.06, 0.5))
            axis.plot(steps, tokens, color=SKY, lw=0.3, alpha=faint, rasterized=True, zorder=1.6)
            axis.axhline(chance, **_CHANCE, zorder=2.4, path_effects=_RIM)
            if number == led:
                _nulls(axis, steps, result)
                axis.plot(steps, result.average, color=AVERAGE, lw=1.2, ls=_MEAN, zorder=2.6)
                axis.axhline(result.chances[3], color=AVERAGE, lw=0.9, ls=DOTTED, zorder=2.5)
            axis.plot(steps, values.mean(axis=(1, 2)), color=PRINCIPAL, lw=1.8, zorder=3)
            axis.set_title(f"with {name}")
            axis.set(ylim=(0, 1.02))
            _steps(axis, result)
        for axis in axes:
            axis.set_ylabel("alignment ρ")
            axis.label_outer(remove_inner_ticks=False)
        figure.suptitle(f"{_name(result)}, Case {own.case}", fontsize="medium")
        handles: list[Any] = [
            _line("one token", SKY, 0.8, "-"),
            _line("mean of tokens", PRINCIPAL, 1.8, "-"),
            *(_line(label, color, 1.4, _DASHES[name]) for name, (label, color) in NULLS.items()),
            # In a text column the wide labels share one column of the legend.
            *_depth_handles(result),
            *_spread_handles(result),
            _line("chance", *_CHANCE.values()),
            _line("mean over all eigendirections", AVERAGE, 1.2, _MEAN),
            _line("chance of that mean", AVERAGE, 0.9, DOTTED),
        ]
        first = [each[0] if isinstance(each, tuple) else each for each in handles]
        figure.legend(
            handles,
            [str(each.get_label()) for each in first],
            loc="outside lower center",
            ncols=2 if column else 4,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
        )
    return figure


def _nulls(axis: Axes, steps: np.ndarray, result: SharedRun) -> None:
    for name, (_, color) in NULLS.items():
        found = [result.under(name, int(step)) for step in steps]
        mean = np.array([each.rho for each in found])
        draws = result.null[name].rho.mean(axis=(2, 3))
        if _has_band(result):
            judged = [judge(0.0, 0.0, each.se, each.sd, each.draws) for each in found]
            # Where one more draw of the null would lie, in 95 % of cases.
            half = np.array([(one.threshold or 0.0) * (one.error or 0.0) for one in judged])
            low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
            axis.fill_between(steps, low, high, color=color, alpha=_BAND, lw=0, zorder=2)
            for edge in (low, high):
                axis.plot(steps, edge, color=color, lw=0.7, zorder=2.1)
        elif len(draws) > 1:
            axis.plot(steps, draws.T, color=color, lw=0.7, zorder=2.2)
        # Above the mean of the tokens, which would hide it where both are equal.
        style: dict[str, Any] = {"lw": 1.4, "ls": _DASHES[name], "path_effects": _RIM}
        axis.plot(steps, mean, color=color, zorder=3.5, **style)


def _has_band(result: SharedRun) -> bool:
    """Whether the null models have draws enough for a band, and prompts for their errors."""
    runs = [null.rho for null in result.null.values()]
    return min(len(rho) for rho in runs) >= _BAND_DRAWS and min(rho.shape[2] for rho in runs) > 1


def _spread_handles(result: SharedRun) -> list[Any]:
    """Legend of the band of the null models, or of their draws."""
    draws = {len(null.rho) for null in result.null.values()}
    colors = [color for _, color in NULLS.values()]
    if _has_band(result):
        label = "one more draw of a null (95 %)"
        return [tuple(Patch(color=color, alpha=_BAND, lw=0, label=label) for color in colors)]
    if max(draws) > 1:
        label = f"each of {max(draws)} null draws"
        return [tuple(_line(label, color, 0.7, "-") for color in colors)]
    return []


def _line(label: str, color: str, width: float, style: Any, **more: Any) -> Line2D:
    return Line2D([], [], color=color, lw=width, ls=style, label=label, **more)


def _name(result: SharedRun) -> str:
    what = "shared layer" if result.shared else f"layer {result.layer}"
    return f"{what}, applied {result.steps} times"


def _steps(axis: Axes, result: SharedRun) -> None:
    axis.set(xlabel="step", xlim=(0, result.steps))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if result.steps > result.depth:
        axis.axvline(result.depth, **_DEPTH)


def _depth_handles(result: SharedRun) -> list[Line2D]:
    """Of the upright line at as many steps as the model has layers."""
    if result.steps <= result.depth:
        return []
    mark = {"marker": "|", "ms": 8, "mew": 0.8}
    return [_line("model's depth", _DEPTH["color"], 0.0, "", **mark)]


def _spectrum(axis: Axes, result: SharedRun) -> None:
    values, dimension = result.spectrum.values, result.spectrum.dimension
    reach = 1.15 * max(float(np.abs(values).max()), 1e-12)
    level_circle(axis, values[0], result.spectrum.alpha, reach, **_CIRCLE)
    axis.plot(values.real, values.imag, ".", color=BLUE, ms=3, mew=0, alpha=0.8)
    leading = values[:dimension]
    axis.plot(leading.real, leading.imag, "o", color=PRINCIPAL, ms=5, mec="white", mew=0.6)
    axis.set(xlabel="Re λ", ylabel="Im λ")
    # Limits that are not fixed, since matplotlib says so where it widens fixed ones.
    axis.set_xlim(-reach, reach, auto=True)
    axis.set_ylim(-reach, reach, auto=True)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_title("eigenvalues of F")


def _histogram(
    axis: Axes,
    values: np.ndarray,
    nulls: tuple[np.ndarray | None, ...],
    bounds: tuple[float, float],
) -> None:
    bins = np.linspace(*bounds, 41).tolist()
    # Padding is masked, which a histogram would not notice.
    tokens = np.ma.compressed(values)
    axis.hist(tokens, bins=bins, density=True, color=SKY, edgecolor="white", lw=0.2)
    for null, (_, color) in zip(nulls, NULLS.values(), strict=True):
        if null is not None:
            drawn = np.ma.compressed(null)
            axis.hist(drawn, bins=bins, density=True, histtype="step", color=color, lw=1.2)
    axis.set(xlim=bounds)


def _means(axis: Axes, result: SharedRun) -> None:
    # Short, since many tokens are near them.
    for value, width, style in (
        (result.average[-1], 1.2, _MEAN),
        (result.chances[3], 0.9, DOTTED),
    ):
        axis.axvline(value, ymax=0.5, color=AVERAGE, lw=width, ls=style, zorder=3)


def _uniform(axis: Axes, grid: np.ndarray, log_density: np.ndarray) -> None:
    density = np.exp(log_density - log_density.max())
    density /= np.sum((density[1:] + density[:-1]) / 2 * np.diff(grid))
    top = axis.get_ylim()[1]
    axis.plot(grid, density, **_CHANCE)
    # High and narrow in many dimensions; what the tokens do is to be seen.
    peak = float(density.max())
    axis.set_ylim(0, min(max(top, 1.05 * peak), 2.5 * top))
    if peak > 2.5 * top:
        axis.annotate(
            f"chance up to {peak:.3g}",
            (0.97, 0.92),
            xycoords="axes fraction",
            ha="right",
            bbox={"fc": "white", "ec": "none", "pad": 1},
            fontsize=7,
            color=CHANCE,
        )

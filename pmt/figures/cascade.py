"""A bifurcation diagram with the largest Lyapunov exponent below it."""

import numpy as np
from matplotlib.figure import Figure

from pmt.dynamics import Bifurcation
from pmt.errors import RequestError
from pmt.figures.style import BLACK, BLUE, COLUMN, GREY, VERMILION, new_figure, styled


def cascade(
    found: Bifurcation,
    *,
    token: int = 0,
    parameter: str = "parameter",
    critical: float | None = None,
) -> Figure:
    """The angle of a token on the attractor against the parameter, and the exponent below.

    Values of the parameter at which the exponent is above zero by more than two standard errors
    are chaotic; both panels show them in the second colour. Values whose run failed are left out.

    Args:
      found: what ``pmt.dynamics.bifurcation`` returned for tokens in the plane, d = 2.
      token: the token that is drawn.
      parameter: what the horizontal axis says.
      critical: a value to mark with a dashed line, for instance where a multiplier crosses −1.

    Raises:
      RequestError: tokens that are not in the plane, or no such token.
    """
    states = np.asarray(found.states, np.float64)
    if states.shape[-1] != 2 or not 0 <= token < states.shape[-2]:
        raise RequestError(
            f"the states have {states.shape[-2]} tokens in dimension {states.shape[-1]} and token "
            f"{token} is asked for; expected a token that there is, in dimension 2"
        )
    value = np.asarray(found.parameter, np.float64)
    exponent = np.asarray(found.exponent, np.float64)
    error = np.asarray(found.standard_error, np.float64)
    usable = np.isfinite(exponent)
    chaotic = usable & (exponent > 2 * error) & (np.asarray(found.period) == 0)
    angle = np.degrees(np.arctan2(states[:, :, token, 1], states[:, :, token, 0]))
    with styled():
        figure = new_figure(2 * COLUMN * 0.72, 3.6)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for chosen, color, label in (
            (usable & ~chaotic, BLUE, "equilibrium or cycle"),
            (chaotic, VERMILION, "chaotic"),
        ):
            if chosen.any():
                across = np.repeat(value[chosen], angle.shape[1])
                points = angle[chosen].ravel()
                top.plot(across, points, ".", color=color, ms=1.2, mew=0, rasterized=True)
                bottom.plot(value[chosen], exponent[chosen], ".", color=color, ms=2.5, label=label)
        bottom.errorbar(
            value[usable], exponent[usable], 2 * error[usable], fmt="none", ecolor=GREY, lw=0.5
        )
        bottom.axhline(0.0, color=BLACK, lw=0.7)
        if critical is not None:
            for axis in (top, bottom):
                axis.axvline(critical, color=GREY, lw=0.9, ls=(0, (4, 2)), zorder=0)
            top.annotate(
                f"flip at {critical:g}",
                (critical, 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                va="bottom",
                fontsize=7,
            )
        top.set_ylabel(f"angle of token {token + 1} (degrees)")
        bottom.set_ylabel("largest exponent\n(nats a step)")
        bottom.set_xlabel(parameter)
        # Superstable cycles have exponents of any size below zero.
        lowest = max(float(np.min(exponent[usable], initial=-0.1)), -1.5)
        highest = float(np.max(exponent[usable] + 2 * error[usable], initial=0.1))
        bottom.set_ylim(1.1 * lowest, max(0.1, 1.2 * highest))
        figure.legend(*bottom.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure

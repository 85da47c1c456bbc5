"""One layer applied again and again: alignment over steps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmt.experiments import Repetition
from pmt.figures.style import BLACK, BLUE, GREY, VERMILION, panel_figure, styled


def repetition(result: Repetition, *, column: bool = False) -> Figure:
    """Left: alignment with the layer's principal direction; right: how fast the rest decays.

    The dashed line on the right has the slope that the theory predicts near consensus,
    |1 + alpha lam_2| / |1 + alpha lam_1| a step, through the last point that is not rounding.
    """
    steps = np.arange(len(result.rho))
    with styled():
        figure, (left, right) = panel_figure(2, 2.7, column=column)
        left.axhline(result.chance, color=GREY, lw=0.9, ls=(0, (4, 2)), label="chance")
        if result.rho_se is not None:
            low = np.maximum(result.rho - 2 * result.rho_se, 0)
            high = np.minimum(result.rho + 2 * result.rho_se, 1)
            left.fill_between(
                steps, low, high, color=VERMILION, alpha=0.2, lw=0, label="± 2 standard errors"
            )
        what = "plane" if result.principal.dimension == 2 else "line"
        left.plot(
            steps,
            result.rho,
            color=VERMILION,
            label=f"mean ρ, principal {what} of layer {result.config.layer}",
        )
        left.set(ylabel="alignment, ρ", xlabel="step", ylim=(0, 1.05), xlim=(0, steps[-1]))
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
        _decay(right, f"from the principal {what}", VERMILION, result.misalignment, steps)
        _decay(right, "between tokens", BLUE, result.intertoken_distance, steps)
        _predicted(right, result)
        right.set(yscale="log", ylabel="mean distance", xlabel="step", xlim=(0, steps[-1]))
        # Above the curves, which may go anywhere.
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _decay(axis: Axes, label: str, color: str, values: np.ndarray, steps: np.ndarray) -> None:
    positive = values > 0
    axis.plot(steps[positive], values[positive], color=color, label=label)


def _predicted(axis: Axes, result: Repetition) -> None:
    rate, values = result.rate.theory, result.misalignment
    # Roundings end the decay: the line goes through a point well above where it ends.
    usable = np.flatnonzero((values < 0.3) & (values > 30 * values.min()))
    if rate is None or len(usable) == 0:
        return
    anchor = int(usable[-1])
    steps = np.arange(int(usable[0]), len(values))
    axis.plot(
        steps,
        values[anchor] * rate ** (steps - anchor),
        color=BLACK,
        lw=0.9,
        ls=(0, (4, 2)),
        label=f"theory: ×{rate:.4f} a step",
    )

"""Fitting growth exponents: w ∝ t^p as a slope in the log-log plane, with a confidence interval."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pmt.errors import RequestError

_BLOCKS = 6
_FEWEST = 3


@dataclass(frozen=True)
class Exponent:
    """A fitted exponent.

    Attributes:
      value: slope of log y against log t.
      half_width: of its 95 % confidence interval.
      first, last: the steps between which it was fitted.
    """

    value: float
    half_width: float
    first: int
    last: int

    def document(self) -> dict[str, float | int]:
        """As a JSON object."""
        return vars(self).copy()


def fitted_exponent(steps: np.ndarray, values: np.ndarray, *, late: float = 0.1) -> Exponent:
    """The exponent of growth between ``late`` times the last step and the last step.

    The stretch is cut into 6 blocks of equal length in log t, each gets its own slope, and the
    interval is Student's for their mean. Neighbouring values of a path depend on each other, so
    that the residuals of one straight line would promise far too much; the slopes of blocks also
    show a curve that is no power law.

    Args:
      steps: increasing, shape ``(records,)``.
      values: positive, same shape.
      late: start of the stretch, as a share of the last step.

    Raises:
      RequestError: too few records in the stretch, or values that are not positive.
    """
    chosen = steps >= max(1.0, late * steps[-1])
    t, y = np.asarray(steps[chosen], float), np.asarray(values[chosen], float)
    if len(t) < _FEWEST * _BLOCKS:
        raise RequestError(
            f"{len(t)} records after step {late * steps[-1]:g} are too few to fit an exponent; "
            f"{_FEWEST * _BLOCKS} are needed: record more often"
        )
    if not np.all(np.isfinite(y)) or np.any(y <= 0):
        raise RequestError("an exponent of growth can only be fitted to finite positive values")
    log_t, log_y = np.log(t), np.log(y)
    edges = np.linspace(log_t[0], log_t[-1], _BLOCKS + 1)
    block = np.clip(np.searchsorted(edges, log_t, side="right") - 1, 0, _BLOCKS - 1)
    slopes = np.array(
        [
            np.polyfit(log_t[block == index], log_y[block == index], 1)[0]
            for index in range(_BLOCKS)
            if np.sum(block == index) >= 2
        ]
    )
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    quantile = float(stdtrit(len(slopes) - 1, 0.975))
    first, last = int(t[0]), int(t[-1])
    return Exponent(float(slopes.mean()), float(quantile * error), first, last)

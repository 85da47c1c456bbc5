"""The exponent of a power law in measured times, with its standard error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Power(NamedTuple):
    """t = constant · x^exponent, by least squares on logarithms.

    Attributes:
      exponent, constant: of the fit.
      standard_error: of the exponent, from the scatter of the points about the line; None for two
        points, which have none.
    """

    exponent: float
    constant: float
    standard_error: float | None


def power_law(x: Sequence[float], seconds: Sequence[float]) -> Power:
    """Fits the points; each of them counts the same, whatever its time.

    Raises:
      ValueError: fewer than two different x, or anything not above zero.
    """
    given = np.array([x, seconds], np.float64)
    if given.shape[1] < 2 or np.unique(given[0]).size < 2 or not (given > 0).all():
        message = f"a power law needs two or more positive points, got {given.T.tolist()}"
        raise ValueError(message)
    logs, times = np.log(given)
    centred = logs - logs.mean()
    spread = float(centred @ centred)
    exponent = float(centred @ times) / spread
    left = times - times.mean() - exponent * centred
    freedom = len(times) - 2
    error = float(np.sqrt(left @ left / freedom / spread)) if freedom else None
    return Power(exponent, float(np.exp(times.mean() - exponent * logs.mean())), error)

"""Binomial confidence intervals of a fraction."""

import numpy as np
from scipy.special import betaincinv, ndtri

from pmt.errors import RequestError

# A plain string in signatures, since a wrong one is a request like any other and ends in one
# sentence.
Method = str
METHODS = ("wilson", "clopper-pearson")


def binomial_interval(
    count: int, total: int, confidence: float = 0.95, method: Method = "wilson"
) -> tuple[float, float]:
    """Two-sided interval for a probability, after ``count`` hits in ``total`` independent trials.

    ``"wilson"``: the p with (p − p̂)² ≤ z² p (1 − p) / total, p̂ = count / total and z the normal
    quantile of (1 + confidence) / 2; its coverage is near ``confidence`` on average.
    ``"clopper-pearson"``: exact tails, covers at least with ``confidence``, and is wider. Neither
    has zero width at p̂ = 0 or 1.

    Raises:
      RequestError: counts that do not fit, a confidence outside (0, 1), an unknown method.
    """
    if not (total >= 1 and 0 <= count <= total):
        raise RequestError(
            f"count is {count} and total is {total}; expected 0 <= count <= total and total >= 1"
        )
    if not 0 < confidence < 1:
        raise RequestError(f"confidence is {confidence!r}; it must lie strictly between 0 and 1")
    if method == "wilson":
        share, z = count / total, float(ndtri(0.5 + confidence / 2))
        center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
        half = np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
        half *= z / (1 + z**2 / total)
        # At 0 and 1 an end is exact, but for rounding.
        low = 0.0 if count == 0 else float(center - half)
        return low, 1.0 if count == total else float(center + half)
    if method == "clopper-pearson":
        tail = (1 - confidence) / 2
        low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
        high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
        return low, high
    raise RequestError(f"the interval is {method!r}; it must be one of {', '.join(METHODS)}")


def difference_interval(
    count: int, total: int, other: int, other_total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Newcombe's interval for p_1 − p_2 from two independent samples.

    From the Wilson limits (l_i, u_i) of both fractions p̂_i: p̂_1 − p̂_2 minus
    sqrt((p̂_1 − l_1)² + (u_2 − p̂_2)²), plus sqrt((u_1 − p̂_1)² + (p̂_2 − l_2)²) (R. G. Newcombe,
    Statistics in Medicine 17, 1998, method 10).

    Raises:
      RequestError: as for ``binomial_interval``.
    """
    low, high = binomial_interval(count, total, confidence)
    other_low, other_high = binomial_interval(other, other_total, confidence)
    first, second = count / total, other / other_total
    below = np.hypot(first - low, other_high - second)
    above = np.hypot(high - first, second - other_low)
    return float(first - second - below), float(first - second + above)

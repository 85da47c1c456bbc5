"""Which directions an affine layer norm can give at all: decided exactly, without its inputs.

The norm maps y to z = g u + b (entry by entry) with u = (y - mean y) / sqrt(v + epsilon), v the
variance of y. So sum(u) = 0 and |u|² = d v / (v + epsilon) < d, and every such u belongs to some y.
A direction w is in its range if s w = g u + b for some s > 0, that is for u = (s w - b) / g:

- one linear equation, s sum(w / g) = sum(b / g), which fixes s unless both sums are zero,
- one quadratic inequality, q(s) = |u|² / d < 1; the input then has variance epsilon q / (1 - q).

Where g_i = 0 the equation s w_i = b_i takes the place of the linear one, and u_i is free.

The inputs of real models have v far above epsilon, so q is nearly 1: what they reach is a surface
of dimension d - 2, and how near it comes to w is a well-posed problem of its own (`Reach.cosine`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pmt.errors import RequestError
from pmt.steering.design import unit

_EPS = float(np.finfo(np.float64).eps)
# A gain below this part of the largest one moves its entry by less than it is rounded.
_NO_GAIN = 2.0**-50
# Of an interval of multipliers: to the last bit, or far below the square of any gain that counts.
_HALVINGS = 400
_BARELY = 2.0**-200


@dataclass(frozen=True)
class Reach:
    """How near the range of a norm comes to a direction w.

    Attributes:
      excluded: True if w is certainly not in the range, whatever the norm is given: w as it was
        given, to the last bit, so that an output that was rounded may be excluded, with a cosine of
        1. False says that the norm by itself does not forbid it.
      factor: the s with s w = g u + b, sum(u) = 0; negative where the norm reaches -w at most. None
        where there is none, or, with zero gains, none that is positive.
      mean_square: q = |u|² / d at that s: at 1 and above, w is not in the range.
      variance: of the input that the norm takes to s w, epsilon q / (1 - q), if q < 1 and s > 0.
        With two zero gains, of that variance or any larger one.
      epsilon: the norm's own.
      seen: the least variance of the inputs that were given to compare with, or None.
      silent: how many gains count as zero.
      silent_share: the length of w in their entries, |w| being 1.
      cosine: the largest cos(z, w) over the norm's outputs z for inputs of variance far above
        epsilon (|u|² = d). Where w is excluded, it is the supremum for inputs of any variance. 0 if
        no output is on w's side.
      opposite: the same for -w, so that the largest |cos| is the larger of the two.
    """

    excluded: bool
    factor: float | None
    mean_square: float | None
    variance: float | None
    epsilon: float
    seen: float | None
    silent: int
    silent_share: float
    cosine: float
    opposite: float


def reach(
    gain: np.ndarray,
    bias: np.ndarray,
    epsilon: float,
    direction: np.ndarray,
    *,
    inputs: np.ndarray | None = None,
) -> Reach:
    """Decide whether a layer norm has a direction in its range, and how near it comes to it.

    ``excluded`` is claimed only where rounding in float64 cannot have decided: the sums carry an
    error of d eps times the sums of the moduli, and q one of 4 eps of its terms'. ``epsilon`` plays
    no part in it. A gain below 2^-50 of the largest is taken for zero, with what it can add,
    |g_i| √d, in the tolerance of its equation.

    Args:
      gain, bias: ``(d,)``, g and b, d at least 2.
      epsilon: the norm's, not negative.
      direction: ``(d,)``. w, of any length but zero.
      inputs: ``(some, d)``. Of the norm, to compare their variances with the one that is needed.

    Raises:
      RequestError: a direction that is none; a gain or bias of another shape, or that is not
        finite; no gain but zeros; a negative epsilon.
    """
    g, b = (np.asarray(each, np.float64) for each in (gain, bias))
    d = g.size
    if g.shape != (d,) or b.shape != (d,) or d < 2 or not np.isfinite([g, b]).all():
        raise RequestError(
            f"the norm has a gain of shape {g.shape} and a bias of shape {b.shape}; both must have "
            "the shape (d,) with d at least 2, and be finite"
        )
    if not g.any():
        raise RequestError(
            "the norm's gain is zero, so that it gives its bias whatever it is given"
        )
    if not epsilon >= 0:
        raise RequestError(f"the norm's epsilon is {epsilon}; it must not be negative")
    w = unit("the direction", direction, d)
    factor, square, allowed = _preimage_of_norm(g, b, w)
    variance = None
    if allowed and square is not None and square < 1:
        variance = float(epsilon * square / (1 - square))
    silent = _without_gain(g)
    shell = _Shell(np.where(silent, 0.0, g), b)
    return Reach(
        excluded=not allowed,
        factor=factor,
        mean_square=square,
        variance=variance,
        epsilon=float(epsilon),
        seen=None if inputs is None else float(np.var(np.asarray(inputs, np.float64), -1).min()),
        silent=int(silent.sum()),
        silent_share=float(np.linalg.norm(w[silent])),
        cosine=shell.nearest(w),
        opposite=shell.nearest(-w),
    )


def _without_gain(g: np.ndarray) -> np.ndarray:
    size = np.abs(g)
    return size <= _NO_GAIN * size.max()


def _preimage_of_norm(
    g: np.ndarray, b: np.ndarray, w: np.ndarray
) -> tuple[float | None, float | None, bool]:
    """s, q(s), and whether s > 0 and q(s) < 1 are possible within rounding."""
    d, silent = len(g), _without_gain(g)
    p, c = w[~silent] / g[~silent], b[~silent] / g[~silent]
    if silent.any():
        # |g_i u_i| <= |g_i| √d for whatever the norm is given.
        slopes, values = w[silent], b[silent]
        loose = np.abs(g[silent]) * np.sqrt(d) + 4 * _EPS * np.abs(values)
        looser = 4 * _EPS * np.abs(slopes)
        # The free entries of u balance the others, and do so with the least length when equal.
        p, c = (np.append(each, each.sum() / np.sqrt(silent.sum())) for each in (p, c))
    else:
        slopes, values = np.array([p.sum()]), np.array([c.sum()])
        loose, looser = (d * _EPS * np.array([np.abs(each).sum()]) for each in (c, p))
    low, high = _interval(slopes, values, loose, looser)
    terms = np.array([p @ p, p @ c, c @ c])
    if low <= high:
        least = terms[1] / terms[0] if terms[0] > 0 else low
        s = float(np.clip(least, low, high))
        q = _mean_square(terms, s, d)
        rounding = 4 * _EPS * float(terms[0] * s * s + 2 * abs(terms[1]) * s + terms[2])
        if q - rounding < 1 or silent.any():
            return s, q, q - rounding < 1
    elif silent.any():
        return None, None, False
    # One equation, which has one solution unless its slope is zero.
    if abs(slopes[0]) <= looser[0]:
        return None, None, False
    s = float(values[0] / slopes[0])
    return s, _mean_square(terms, s, d), False


def _mean_square(terms: np.ndarray, s: float, d: int) -> float:
    return max(float(terms[0] * s * s - 2 * terms[1] * s + terms[2]) / d, 0.0)


def _interval(
    slopes: np.ndarray, values: np.ndarray, loose: np.ndarray, looser: np.ndarray
) -> tuple[float, float]:
    """The s > 0 with |s slope - value| <= loose + s looser for all entries."""
    low, high = float(np.finfo(np.float64).tiny), np.inf
    # s times the first is at most the second.
    for slope, most in zip(
        [*(slopes - looser), *(-slopes - looser)],
        [*(values + loose), *(loose - values)],
        strict=True,
    ):
        if slope > 0:
            high = min(high, most / slope)
        elif slope < 0:
            low = max(low, most / slope)
        elif most < 0:
            high = -np.inf
    return float(low), float(high)


class _Shell:
    """The outputs z = g u + b with sum(u) = 0, |u|² = d, and the rays through them.

    The multiples x z are M (u, x) with M = [G, b], x² d = |u|², a quadric. So the nearest of them
    to w minimises |M (u, x) - w|² + mu (|u|² - d x²): for a given mu a linear system, diagonal
    but for three rows. Where MᵀM + mu diag(1, -d) is positive semidefinite its minimum is a lower
    bound, concave in mu, and the largest of these is the squared distance itself, by the S-lemma:
    the largest |cos|, on one side of w or the other. The quadric has two halves, x > 0 and x < 0.
    Their convex hulls are cones; the nearest point of the other one has a larger mu.
    """

    def __init__(self, g: np.ndarray, b: np.ndarray) -> None:
        # Cosines are the same for all scales of z.
        scale = float(np.abs(g).max())
        self._g, self._b, self._d = g / scale, b / scale, len(g)
        square = self._g**2
        self._k = int(np.argmin(square))
        self._others = np.delete(square, self._k)
        self._smallest = float(square[self._k])
        self._low, self._high = self._range()

    def nearest(self, w: np.ndarray) -> float:
        """The largest cos(z, w), or 0 if none is positive."""
        mu = self._root(w, self._low, self._high)
        # The sign of x is the same from there on; at the end itself it may be lost in rounding.
        if mu == self._high or self._at((mu + self._high) / 2, w).tilt >= 0:
            return self._at(mu, w).cosine
        across = self._g * w
        most = np.sqrt(self._d) * np.linalg.norm(across - across.mean()) + self._b @ w
        if most <= 0:
            return 0.0
        return self._at(self._beyond(w), w).cosine

    def _at(self, mu: float, w: np.ndarray) -> "_Point":
        along, aside = self._solve(mu, self._g * w), self._solve(mu, self._g * self._b)
        return _Point(
            held=float((self._g * w) @ along),
            tilt=float((self._b - self._g * aside) @ w),
            curvature=self._curvature(mu, aside),
            along=along,
            aside=aside,
            d=self._d,
        )

    def _solve(self, mu: float, r: np.ndarray) -> np.ndarray:
        """The u with sum 0 for which (G² + mu) u - r is constant; u_k is eliminated."""
        e, small = self._others + mu, self._smallest + mu
        part = (np.delete(r, self._k) - r[self._k]) / e
        total = part.sum() / (1 + small * (1 / e).sum())
        rest = part - small * total / e
        return np.insert(rest, self._k, -rest.sum())

    def _curvature(self, mu: float, aside: np.ndarray) -> float:
        # |b|² - (G b)ᵀ aside - mu d, as squares: nothing cancels where gains are nearly zero.
        left = self._b - self._g * aside
        return float(left @ left + mu * (aside @ aside - self._d))

    def _semidefinite(self, mu: float) -> bool:
        e, small = self._others + mu, self._smallest + mu
        if e.min() <= 0 or 1 + small * (1 / e).sum() <= 0:
            return False
        return self._curvature(mu, self._solve(mu, self._g * self._b)) >= 0

    def _range(self) -> tuple[float, float]:
        """The interval of mu with a positive semidefinite matrix, which has 0 in it."""
        # With two zero gains the system at 0 is singular, and a limit.
        inside = _BARELY if self._others.min() == 0 else 0.0
        low = -float(self._others.min())
        high = float(self._b @ self._b) / self._d + 2 * _EPS
        return _last(self._semidefinite, inside, low), _last(self._semidefinite, inside, high)

    def _root(self, w: np.ndarray, low: float, high: float) -> float:
        """Where the point is on the quadric: what says so falls with mu."""

        def outside(mu: float) -> bool:
            return self._at(mu, w).outside > 0

        if not outside(low):
            return low
        return high if outside(high) else _last(outside, low, high)

    def _beyond(self, w: np.ndarray) -> float:
        """The mu of the nearest point with x > 0, if that with x < 0 is nearer."""

        def inside(mu: float) -> bool:
            point = self._at(mu, w)
            return point.curvature >= 0 or (point.tilt < 0 and point.outside < 0)

        far = 2 * self._high + _EPS
        while inside(far) and far < 1 / _EPS:
            far *= 2
        return _last(inside, self._high, far)


def _last(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last number from ``inside``, where the condition holds, to ``outside``."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            break
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


@dataclass(frozen=True)
class _Point:
    """The minimum for one mu: x = tilt / curvature, u = along - x aside, cos² = wᵀ M (u, x)."""

    held: float
    tilt: float
    curvature: float
    along: np.ndarray
    aside: np.ndarray
    d: int

    @property
    def outside(self) -> float:
        """|u|² - d x², times the square of the curvature, which may be zero."""
        u = self.curvature * self.along - self.tilt * self.aside
        return float(u @ u - self.d * self.tilt**2)

    @property
    def cosine(self) -> float:
        more = self.tilt**2 / self.curvature if self.tilt and self.curvature else 0.0
        return float(np.sqrt(np.clip(self.held + more, 0.0, 1.0)))

"""Where are the eigenvalues of a ball matrix? Proved from its powers, without any eigenvalue.

For every matrix J of size N in the ball matrix, and m = 2^k by repeated squaring:

- stable: |J^m| < 1 in the row-sum or the column-sum norm. Then ρ(J)^m = ρ(J^m) ≤ |J^m| < 1.
- unstable: |e_s(J^m)| > binom(N, s), with e_s the elementary symmetric polynomial of the
  eigenvalues of J^m, up to sign a coefficient of its characteristic polynomial; e_1 is the trace.
  If all eigenvalues had modulus at most 1, so would each of the binom(N, s) products in its sum.

Neither minds multiple or defective eigenvalues. Both are complete: if ρ(J) < 1 the norms tend to
zero; if s > 0 eigenvalues lie outside the closed disk, |e_s(J^m)| grows as the m-th power of their
product. So what remains open has an eigenvalue on the unit circle or too near for the precision.
"""

from dataclasses import dataclass
from math import comb
from typing import Any, Literal

from theory.certify import balls

Method = Literal["norm of a power", "coefficient of a power"]

MOST_SQUARINGS = 128
"""A multiplier closer to the circle than about 2^-128 is not looked at any more closely."""

# The characteristic polynomial costs some forty products and the trace nothing, so it waits for
# powers that grow.
_EVERY = 4
_LARGE = 4


@dataclass(frozen=True)
class Location:
    """What a power of the matrix proves.

    Attributes:
      verdict: ``stable``, ``unstable``, or None if neither is proved.
      method: by which criterion.
      squarings: k, with m = 2^k.
      order: s in e_s; 0 for the norm.
      bound: an upper bound of |J^m| (below 1), or a lower bound of |e_s| / binom(N, s) (above 1);
        if nothing is proved the last upper bound of |J^m|.
    """

    verdict: Literal["stable", "unstable"] | None
    method: Method
    squarings: int
    order: int
    bound: float


def locate(jacobian: Any, precision: int) -> Location:
    """Squares the matrix until a criterion holds, or the balls have grown too large to go on."""
    power = jacobian
    norm = balls.power_norm(power)
    for squarings in range(min(precision, MOST_SQUARINGS) + 1):
        norm = balls.power_norm(power)
        if balls.above(norm) < 1:
            return Location("stable", "norm of a power", squarings, 0, balls.above(norm))
        all_of_them = squarings % _EVERY == _EVERY - 1 and norm > _LARGE * power.nrows()
        orders = range(1, power.nrows() + 1) if all_of_them else (1,)
        for order, ratio in coefficients(power, orders):
            if balls.below(ratio) > 1:
                bound = balls.below(ratio)
                return Location("unstable", "coefficient of a power", squarings, order, bound)
        unknown = balls.radius_norm(power)
        if not unknown * 4 < 1 and not unknown * 4 < norm:
            break
        power = power * power
    return Location(None, "norm of a power", squarings, 0, balls.above(norm))


def holds(jacobian: Any, found: Location) -> Location | None:
    """The one criterion again, without the search; None if it does not hold."""
    power = jacobian
    for _ in range(found.squarings):
        power = power * power
    if found.method == "norm of a power":
        norm = balls.power_norm(power)
        verdict, bound = "stable", balls.above(norm)
        proved = bound < 1
    else:
        ((_, ratio),) = coefficients(power, (found.order,))
        verdict, bound = "unstable", balls.below(ratio)
        proved = bound > 1
    if not proved or verdict != found.verdict:
        return None
    return Location(found.verdict, found.method, found.squarings, found.order, bound)


def coefficients(power: Any, orders: Any) -> list[tuple[int, Any]]:
    """(s, |e_s| / binom(N, s)) for each order s; the trace alone needs no polynomial."""
    size = power.nrows()
    if tuple(orders) == (1,):
        return [(1, abs(power.trace()) / size)] if size else []
    polynomial = power.charpoly()
    return [(s, abs(polynomial[size - s]) / comb(size, s)) for s in orders]

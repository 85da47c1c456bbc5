"""Is there exactly one equilibrium next to given tokens? Proved by a contraction on a box.

For F(u) = u − φ(u) and any real matrix C put T(u) = u − C F(u). On the box U = c + [−r, r]^m, which
is convex, |T(u) − T(v)|_∞ ≤ q |u − v|_∞ with q = max |I − C F'|_∞ over F' in a ball matrix that
contains F'(U) (mean value theorem in integral form). If |C F(c)|_∞ + q r < r and q < 1, T maps U
into its interior and contracts, so it has exactly one fixed point there (Banach), and C is
invertible because C F' is; so F has exactly one zero in U. This is Krawczyk's test for a cube.
"""

from dataclasses import dataclass
from typing import Any

from theory.certify import balls
from theory.certify.chart import ChartMap, Value

NEWTON_STEPS = 12
INFLATIONS = 5


@dataclass(frozen=True)
class Box:
    """A box of the chart in which exactly one equilibrium was proved to lie.

    Attributes:
      centre: exact column.
      radius: r as a float, exactly the one that was used.
      value: the map over the box; its derivative contains the Jacobian at the equilibrium.
      contraction: an upper bound of q.
    """

    centre: Any
    radius: float
    value: Value
    contraction: float


def enclose(chart_map: ChartMap, precision: int, reach: float) -> Box | str:
    """Newton's method from the given tokens, then the proof; or the sentence that says what failed.

    Newton's steps prove nothing and need not: they only choose c. They stop where a step leaves
    ``reach``, in the sup norm of the chart.
    """
    flint, size = balls.flint(), chart_map.size
    centre = balls.zeros(size, 1)
    noise = flint.arb(2) ** (-(3 * precision) // 4)
    previous = None
    for _ in range(NEWTON_STEPS):
        value = chart_map(centre)
        failure = _not_facing(value)
        if failure:
            return failure
        inverse = _approximate_inverse(value)
        if inverse is None:
            return _SINGULAR.format(precision=precision)
        step = balls.midpoint(inverse * (centre - value.image))
        length = balls.row_norm(step) if size else flint.arb(0)
        centre = balls.midpoint(centre - step)
        if not balls.row_norm(centre) <= 2 * reach:
            return _TOO_FAR.format(reach=reach)
        if length <= noise or (previous is not None and length >= previous):
            break
        previous = length
    value = chart_map(centre)
    inverse = _approximate_inverse(value)
    if inverse is None:
        return _SINGULAR.format(precision=precision)
    defect = balls.row_norm(inverse * (centre - value.image))
    radius = balls.above(4 * defect + flint.arb(2) ** (16 - precision))
    failure = _SINGULAR.format(precision=precision)
    for _ in range(INFLATIONS):
        found = prove(chart_map, centre, radius, inverse)
        if isinstance(found, Box):
            return found
        failure, radius = found, 16 * radius
    return failure


def prove(chart_map: ChartMap, centre: Any, radius: float, inverse: Any | None = None) -> Box | str:
    """The contraction test on one box, with C the approximate inverse of F'(c) unless given."""
    at_centre = chart_map(centre)
    if inverse is None:
        inverse = _approximate_inverse(at_centre)
    if inverse is None:
        return _SINGULAR.format(precision=balls.flint().ctx.prec)
    edge = balls.zeros(chart_map.size, 1)
    for i in range(chart_map.size):
        edge[i, 0] = balls.flint().arb(0, radius)
    over = chart_map(centre + edge)
    failure = _not_facing(over)
    if failure:
        return failure
    one = balls.identity(chart_map.size)
    contraction = balls.row_norm(one - inverse * (one - over.derivative))
    defect = balls.row_norm(inverse * (centre - at_centre.image))
    if contraction < 1 and defect + contraction * radius < radius:
        return Box(centre, radius, over, balls.above(contraction))
    return (
        f"no isolated equilibrium could be proved: on the box of radius {radius:.1g} the Newton "
        f"operator has the factor {balls.above(contraction):.3g} and moves the centre by "
        f"{balls.above(defect):.1g} (a multiplier at 1, or a continuum of equilibria)"
    )


def distance(box: Box, tokens: Any) -> float:
    """An upper bound of max_i |x*_i − x_i| between the equilibrium and the given tokens."""
    difference = box.value.tokens - balls.matrix(tokens)
    longest = 0.0
    for row in difference.tolist():
        square = balls.flint().arb(0)
        for each in row:
            square = (square + each.abs_upper() ** 2).upper()
        longest = max(longest, balls.above(square.sqrt()))
    return longest


def _approximate_inverse(value: Value) -> Any | None:
    size = value.derivative.nrows()
    inverse = balls.invert(balls.midpoint(balls.identity(size) - value.derivative))
    return None if inverse is None else balls.midpoint(inverse)


def _not_facing(value: Value) -> str | None:
    if all(each > 0 for each in value.facing):
        return None
    if all(each < 0 for each in value.facing):
        return (
            "every token goes to the other side of the sphere: half of a 2-cycle at best, and no "
            "equilibrium"
        )
    return "the image of a token could not be proved to lie on the token's side of the sphere"


_SINGULAR = (
    "no isolated equilibrium could be proved: I - J is singular to {precision} bits (a multiplier "
    "at 1, or a continuum of equilibria)"
)
_TOO_FAR = (
    "no isolated equilibrium was found within {reach:g} of the tokens: refine them with "
    "run_to_equilibrium or newton, unless they belong to a continuum of equilibria"
)

"""A verdict with its proof: an equilibrium exists next to the given tokens, and is (un)stable."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from pmt.dynamics.simulate import check_tokens
from pmt.equilibria import Equilibrium
from pmt.errors import RequestError
from pmt.numerics import AnyArray
from theory.certify import balls, existence, multipliers
from theory.certify.chart import ChartMap, check_request

PRECISIONS = (64, 128, 256, 512, 1024)
"""Bits that are tried one after another."""

REACH = {8: 1e-6, 4: 1e-3}
"""How far from the given tokens the equilibrium may lie by default, by the bytes of a number."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What ``certify`` returns. ``verify`` proves it again from these fields alone.

    Attributes:
      status: ``proved``, or ``undecided`` with the reason.
      verdict: ``stable``: all n(d − 1) multipliers inside the unit circle, so the equilibrium is
        asymptotically stable; ``unstable``: one outside, so it is unstable in the sense of
        Lyapunov; None if undecided.
      exists: whether it is proved that exactly one equilibrium lies in the box.
      distance: an upper bound of max_i |x*_i − x_i| from the given tokens; None without a box.
      radius: half the side of the box, in the coordinates of the chart; None without one.
      contraction: an upper bound of the factor of the Newton operator on it; None without one.
      precision: bits of the arithmetic in which the proof succeeded, or of the last one tried.
      method: ``norm of a power``: |J^m| < 1; ``coefficient of a power``: a coefficient of the
        characteristic polynomial of J^m larger than one inside the disk allows; None if undecided.
      power: m, a power of 2; None if undecided.
      order: which coefficient, 1 being the trace; None for a norm.
      bound: an upper bound of |J^m|, below 1, or a lower bound of the coefficient's modulus over
        the largest possible one, above 1; None if undecided.
      reason: what failed; None if proved.
      system, tokens, basis: the exact input: the map, and p_i (n, d) and B_i (n, d, d − 1) of the
        chart.
      centre: the centre of the box, n(d − 1) pairs (a, e), each number being a 2^e.
    """

    status: Literal["proved", "undecided"]
    verdict: Literal["stable", "unstable"] | None
    exists: bool
    distance: float | None
    radius: float | None
    contraction: float | None
    precision: int
    method: multipliers.Method | None
    power: int | None
    order: int | None
    bound: float | None
    reason: str | None
    system: Any
    tokens: np.ndarray
    basis: np.ndarray
    centre: tuple[tuple[int, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the system."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        del known["system"]
        # As text, because readers of JSON round long integers.
        known["centre"] = [[str(mantissa), exponent] for mantissa, exponent in self.centre]
        return known | {"tokens": self.tokens, "basis": self.basis}


def certify(
    system: Any,
    point: Equilibrium | Float[AnyArray, "..."],
    *,
    reach: float | None = None,
    precisions: tuple[int, ...] = PRECISIONS,
) -> Certificate:
    """Proves in ball arithmetic what kind of equilibrium lies next to the given tokens.

    The floats in the system and in the tokens are exact numbers here: nothing is known about the
    real numbers that they may have been rounded from. First a contraction on a box proves that
    exactly one equilibrium lies in it, and then powers of the Jacobian over the box that all its
    multipliers lie inside the unit circle or that one lies outside (``existence``,
    ``multipliers``). Points that are not isolated, and multipliers on the unit circle, are
    undecided in every precision. A 2-cycle {x, −x} is no equilibrium.

    The cost grows as (n(d − 1))³.

    Args:
      system: ``Oja``, ``SingleHead`` or ``MultiHead``, any mask, biases too.
      point: an ``Equilibrium`` or unit tokens ``(n, d)``.
      reach: the largest distance allowed between the equilibrium and the tokens; if None 1e-6,
        and 1e-3 for tokens in single precision.
      precisions: bits to try, in this order.

    Raises:
      RequestError: python-flint is missing; rotary positions; a ``LayerStack``; several systems;
        tokens that are not unit vectors of the system's dimension and dtype; a reach that is not
        in (0, 1), no precision, or one outside 64 to 1024 bits.
    """
    flint = balls.flint()
    given = point.x if isinstance(point, Equilibrium) else point
    if reach is None:
        reach = REACH.get(np.asarray(given).dtype.itemsize, 1e-2)
    _check(system, given, reach, precisions)
    tokens = np.asarray(given).astype(np.float64)
    found = Certificate(
        status="undecided",
        verdict=None,
        exists=False,
        distance=None,
        radius=None,
        contraction=None,
        precision=0,
        method=None,
        power=None,
        order=None,
        bound=None,
        reason=None,
        system=system,
        tokens=tokens,
        basis=_tangent_basis(tokens),
        centre=(),
    )
    for precision in precisions:
        with flint.ctx.workprec(precision):
            found, settled = _attempt(replace(found, precision=precision), reach)
        if settled:
            break
    return found


def verify(certificate: Certificate) -> bool:
    """Proves a certificate again: the box, the power and the criterion that it names, no search.

    False if anything that the certificate claims does not follow, or if it claims nothing.

    Raises:
      RequestError: as ``certify``.
    """
    c = certificate
    claimed = (c.radius, c.distance, c.contraction, c.power, c.bound)
    if c.status != "proved" or c.method is None or any(each is None for each in claimed):
        return False
    radius, power = c.radius or 0.0, c.power or 0
    size = c.basis.shape[0] * c.basis.shape[2]
    if radius <= 0 or power < 1 or power & (power - 1) or len(c.centre) != size:
        return False
    check_request(c.system, c.tokens)
    with balls.flint().ctx.workprec(c.precision):
        try:
            chart = ChartMap(c.system, c.tokens, c.basis)
        except ValueError:
            # No chart at all: a basis that was changed.
            return False
        box = existence.prove(chart, balls.from_integers(c.centre), radius)
        if not isinstance(box, existence.Box):
            return False
        location = multipliers.Location(
            c.verdict, c.method, power.bit_length() - 1, c.order or 0, c.bound or 0.0
        )
        again = multipliers.holds(box.value.derivative, location)
        if again is None or existence.distance(box, c.tokens) > (c.distance or 0.0):
            return False
        weaker = (
            again.bound <= location.bound
            if again.verdict == "stable"
            else (again.bound >= location.bound)
        )
        return weaker and box.contraction <= (c.contraction or 0.0)


def _attempt(before: Certificate, reach: float) -> tuple[Certificate, bool]:
    """One precision: what could be proved in it, and whether more bits would be of no use."""
    chart = ChartMap(before.system, before.tokens, before.basis)
    box = existence.enclose(chart, before.precision, reach)
    if isinstance(box, str):
        # What a lower precision proved stays proved, but it led to no verdict.
        return (before if before.exists else replace(before, reason=box)), False
    distance = existence.distance(box, before.tokens)
    if not distance <= reach:
        reason = (
            f"the equilibrium lies {distance:.2g} from the tokens, farther than {reach:g}; refine "
            "them with run_to_equilibrium or newton"
        )
        return replace(before, reason=reason), False
    found = multipliers.locate(box.value.derivative, before.precision)
    proved = found.verdict is not None
    known = replace(
        before,
        exists=True,
        distance=distance,
        radius=box.radius,
        contraction=box.contraction,
        centre=balls.as_integers(box.centre),
    )
    if not proved:
        reason = (
            f"the equilibrium exists, but with {before.precision} bits no power up to "
            f"2^{found.squarings} shows on which side of the unit circle the largest multiplier "
            f"lies (|J^m| <= {found.bound:.3g} for the last one)"
        )
        return replace(known, reason=reason), found.squarings == multipliers.MOST_SQUARINGS
    proof = replace(
        known,
        status="proved",
        verdict=found.verdict,
        method=found.method,
        power=2**found.squarings,
        order=found.order or None,
        bound=found.bound,
        reason=None,
    )
    return proof, True


def _check(system: Any, given: Any, reach: float, precisions: tuple[int, ...]) -> None:
    if np.ndim(given) != 2:
        message = f"the point has shape {tuple(np.shape(given))}; a certificate is for (n, d)"
        raise RequestError(message)
    check_request(system, given)
    check_tokens(given, system)
    if not 0.0 < reach < 1.0:
        message = f"reach is {reach}; it must lie between 0 and 1, the radius of the sphere"
        raise RequestError(message)
    if not precisions or min(precisions) < 64 or max(precisions) > 1024:
        message = f"precisions is {precisions}; it must name numbers of bits from 64 to 1024"
        raise RequestError(message)


def _tangent_basis(tokens: np.ndarray) -> np.ndarray:
    """Tangent to rounding, (n, d, d − 1): the Householder columns of ``sphere.tangent_basis``.

    On the host, so that it is float64 whatever JAX is set to.
    """
    w = tokens.copy()
    w[:, 0] += np.where(tokens[:, 0] < 0, -1.0, 1.0)
    square = np.sum(w * w, axis=1)[:, None, None]
    return (np.eye(tokens.shape[1]) - 2.0 * w[:, :, None] * w[:, None, :] / square)[:, :, 1:]

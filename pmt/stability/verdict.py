"""Is an equilibrium stable? A verdict with its margin, its tolerance and how it was reached."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.condition import Condition
from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import MultiHead, head_maps
from pmt.equilibria import Classification, Equilibrium, classify
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon
from pmt.stability import jacobian
from pmt.stability.closed_form import signed_multipliers
from pmt.stability.eigenvalues import BoundedEigenvalues, bounded_eigenvalues
from pmt.stability.theorems import theorem_conditions

Verdict = Literal["stable", "unstable", "marginal", "undecided"]

AFFORDABLE = 1024
"""Largest n(d − 1) for which the closed form is compared with the autodiff Jacobian by default."""

# Compiled whole: operation by operation, every new shape would cost seconds.
_intrinsic = jax.jit(jacobian.intrinsic)
_extrinsic = jax.jit(jacobian.extrinsic)
_signed_consensus = jax.jit(jacobian.signed_consensus)
_signed_factors = jax.jit(jacobian.signed_factors)


@dataclass(frozen=True)
class Analysis:
    """What ``analyze`` returns.

    Attributes:
      verdict: ``stable``: all multipliers inside the unit circle; ``unstable``: one outside;
        ``marginal``: the largest has modulus 1 to rounding in the closed form, so linearisation
        does not decide; ``undecided``: the distance to 1 is within the uncertainty of the
        computed eigenvalues. For a 2-cycle the multipliers are those of one step.
      eigenvalues: the n(d − 1) intrinsic multipliers, decreasing modulus.
      spectral_radius: largest modulus; 0 if there are none (d = 1).
      margin: 1 − spectral_radius.
      tolerance: uncertainty of the margin.
      method: ``"closed form"`` (theory II.4, II.6, Lemma 14) or ``"dense"`` (autodiff Jacobian).
      conditions: the inequalities of Theorem 1, 2 or 3 that speak about this point.
      disagreement: max |J_closed − J_autodiff| / max |J_autodiff| entrywise, on R^(nd); None where
        it was not affordable or the method is dense.
      kind, status: class of the point, as in ``Equilibrium``.
    """

    verdict: Verdict
    eigenvalues: np.ndarray
    spectral_radius: float
    margin: float
    tolerance: float
    method: Literal["closed form", "dense"]
    conditions: tuple[Condition, ...]
    disagreement: float | None
    kind: str | None
    status: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: eigenvalues as [re, im]."""
        return {
            "verdict": self.verdict,
            "kind": self.kind,
            "status": self.status,
            "method": self.method,
            "spectral_radius": self.spectral_radius,
            "margin": self.margin,
            "tolerance": self.tolerance,
            "disagreement": self.disagreement,
            "eigenvalues": [[float(z.real), float(z.imag)] for z in self.eigenvalues],
            "conditions": [condition.as_dict() for condition in self.conditions],
        }


def analyze(
    system: Any,
    point: Equilibrium | Float[AnyArray, "n d"],
    *,
    affordable: int = AFFORDABLE,
) -> Analysis:
    """Linear stability of an equilibrium (or of one step of a 2-cycle {x, −x}).

    Consensus and bipartite points of maps without biases are answered in closed form, never
    building the (nd × nd) matrix except to measure the disagreement where n(d − 1) is at most
    ``affordable``. Everything else takes the eigenvalues of the autodiff Jacobian, each with an
    uncertainty from its condition number, and answers ``undecided`` within it.

    Args:
      system: an autonomous map.
      point: an ``Equilibrium``, or tokens ``(n, d)`` that ``classify`` recognises as fixed.
      affordable: bound on n(d − 1) for the comparison; 0 turns it off.

    Raises:
      RequestError: a point that is not fixed (run ``run_to_equilibrium`` or ``newton`` first), or
        where the map is undefined.
    """
    known = point if isinstance(point, Equilibrium) else classify(system, point)
    x = jnp.asarray(point.x if isinstance(point, Equilibrium) else point)
    check_tokens(x, system)
    if known.status in ("not fixed", "undefined"):
        raise RequestError(
            f"the point is not an equilibrium (status: {known.status}); stability is defined where "
            "f(x) = x, or f(x) = -x for a 2-cycle: see its conditions or margins, or refine it "
            "with run_to_equilibrium or newton"
        )
    if has_closed_form(system, known):
        v, signs = _direction(known)
        spectrum = signed_multipliers(system, v, signs)
        rounding = 64 * epsilon(x.dtype) * _step_size(system, v, signs)
        # A state that came out of an iteration sits near, not at, the point it was classified as.
        rounding += _defect(known)
        return _assemble(system, known, x, spectrum, "closed form", rounding, affordable)
    dense = np.asarray(_intrinsic(system, x))
    noise = 16 * epsilon(x.dtype) * max(1, dense.shape[0]) ** 0.5 * float(np.linalg.norm(dense))
    spectrum = bounded_eigenvalues(dense, noise)
    return _assemble(system, known, x, spectrum, "dense", None, 0)


def has_closed_form(system: Any, known: Equilibrium | Classification) -> bool:
    """Whether ``analyze`` answers at this point without the Jacobian."""
    if known.kind not in ("consensus", "bipartite") or known.eigenvector is None:
        return False
    if isinstance(system, MultiHead) and not system.is_plain:
        return False
    value = head_maps(system)[0]
    if known.kind == "consensus" or len(value) == 1:
        return True
    # Lemma 12 with several heads needs a common eigenvector; a fixed point may lack it.
    v = np.asarray(known.eigenvector, np.float64)
    moved = np.asarray(value, np.float64) @ v
    across = moved - (moved @ v)[:, None] * v
    size = np.abs(value).max() * len(v)
    return bool(np.abs(across).max() <= 64 * epsilon(value.dtype) * size)


def _direction(known: Equilibrium | Classification) -> tuple[Array, Array]:
    if known.eigenvector is None or known.signs is None:
        raise RequestError(f"a {known.kind} point needs its eigenvector and signs")
    return known.eigenvector, known.signs


def _step_size(system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]) -> float:
    norm = float(np.linalg.norm(np.asarray(system.layer_matrix, np.float64)))
    factors = np.abs(np.asarray(_signed_factors(system, v, signs), np.float64))
    return (1.0 + abs(float(system.alpha)) * norm) / float(factors.min())


def _defect(known: Equilibrium | Classification) -> float:
    if isinstance(known, Equilibrium):
        return 0.0
    name = "equal tokens" if known.kind == "consensus" else "opposite tokens"
    return sum(max(0.0, known.tolerance - known.margins[n]) for n in (name, "eigenvector"))


def _assemble(
    system: Any,
    known: Equilibrium | Classification,
    x: Float[Array, "n d"],
    spectrum: BoundedEigenvalues,
    method: Literal["closed form", "dense"],
    rounding: float | None,
    affordable: int,
) -> Analysis:
    moduli = np.abs(spectrum.values)
    order = np.argsort(-moduli, kind="stable")
    radius = float(moduli.max(initial=0.0))
    upper = float((moduli + spectrum.radius).max(initial=0.0))
    lower = float((moduli - spectrum.radius).max(initial=0.0))
    tolerance = max(upper - radius, radius - lower, rounding or 0.0)
    return Analysis(
        verdict=_verdict(radius, upper, lower, rounding),
        eigenvalues=spectrum.values[order],
        spectral_radius=radius,
        margin=1.0 - radius,
        tolerance=tolerance,
        method=method,
        conditions=theorem_conditions(system, known),
        disagreement=_disagreement(system, known, x, method, affordable),
        kind=known.kind,
        status=known.status,
    )


def _verdict(radius: float, upper: float, lower: float, rounding: float | None) -> Verdict:
    slack = rounding or 0.0
    if max(upper, radius + slack) < 1.0:
        return "stable"
    if min(lower, radius - slack) > 1.0:
        return "unstable"
    # Marginal says that the multiplier is 1 to rounding, so the uncertainty must be rounding too.
    sure = max(upper - radius, radius - lower) <= slack
    return "marginal" if sure and abs(radius - 1.0) <= slack else "undecided"


def _disagreement(
    system: Any,
    known: Equilibrium | Classification,
    x: Float[Array, "n d"],
    method: str,
    affordable: int,
) -> float | None:
    n, d = x.shape
    if method != "closed form" or n * (d - 1) > affordable:
        return None
    automatic = np.asarray(_extrinsic(system, x))
    closed = np.asarray(_signed_consensus(system, *_direction(known)))
    largest = float(np.abs(automatic).max())
    # On S⁰ there is nowhere to move and the Jacobian is zero.
    return float(np.abs(closed - automatic).max()) / (largest or 1.0)

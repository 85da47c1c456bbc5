"""What a state of a run is, whether it is stable, and how that is said."""

from dataclasses import dataclass
from typing import Any

from pmt.cli import answers
from pmt.errors import RequestError

# Size n(d - 1) of a dense matrix whose eigenvalues take a quarter of an hour.
LARGEST_DENSE = 4096

# The same of a certificate, which takes a minute.
LARGEST_CERTIFIED = 256

# How far, as a chord, a state may be from a point that it is said to be near.
NEAR = 0.05


@dataclass(frozen=True)
class Assessment:
    """A state and what the library says about it.

    Attributes:
      known: a `pmt.equilibria.Classification`.
      residual: max_i |f(x)_i - x_i|.
      analysis: a `pmt.stability.Analysis`; None where the state is not at rest or too large.
      near: where the state is not at rest, a `Classification` as which point it would pass within
        `NEAR`; None if as none.
    """

    known: Any
    residual: float
    analysis: Any
    near: Any = None

    @property
    def at_rest(self) -> bool:
        """Whether it is an equilibrium or half of a 2-cycle {x, -x}."""
        return self.known.status in ("equilibrium", "2-cycle")

    def words(self, pairs: Any) -> str:
        """For the screen: kind, status and residual."""
        if self.known.status == "undefined":
            return "the map is undefined there: the update of a token cancels it or overflows"
        if not self.at_rest:
            moving = f"no equilibrium: the next step moves a token by {self.residual:.3g}"
            if self.near is None:
                return moving
            words = answers.point_words(self.near, pairs.values, pairs.vectors)
            return f"{moving}, near {words}"
        words = answers.point_words(self.known, pairs.values, pairs.vectors)
        if self.known.status == "2-cycle":
            return f"2-cycle between x and -x, {words}"
        return f"equilibrium, {words}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        known, analysis = self.known, self.analysis
        return {
            "status": known.status,
            "kind": known.kind,
            "eigenvalue": known.eigenvalue,
            "signs": known.signs,
            "clusters": known.clusters + 1,
            "near": None if self.near is None else self.near.kind,
            "margins": answers.finite(known.margins),
            "residual": answers.finite(self.residual),
            "analysis": None if analysis is None else answers.finite(analysis.as_dict()),
        }


def assess(system: Any, x: Any) -> Assessment:
    """Classifies a state and, where it is at rest, analyses its stability."""
    import jax.numpy as jnp

    from pmt.dynamics.simulate import step_length
    from pmt.equilibria import classify
    from pmt.stability import analyze

    x = jnp.asarray(x)
    known = classify(system, x)
    closed = known.kind in ("consensus", "bipartite")
    at_rest = known.status in ("equilibrium", "2-cycle")
    near = None if at_rest or known.status == "undefined" else classify(system, x, NEAR)
    affordable = closed or dense_size(x) <= LARGEST_DENSE
    return Assessment(
        known=known,
        residual=float(step_length(system, x)),
        analysis=analyze(system, x) if at_rest and affordable else None,
        near=None if near is None or near.kind in (None, "clustering") else near,
    )


def require_prover() -> None:
    """Finds out before any work whether certificates can be made.

    Raises:
      RequestError: python-flint is not installed.
    """
    from theory.certify import balls

    balls.flint()


def certified(system: Any, x: Any) -> Any:
    """The `theory.certify.Certificate` of the system at the tokens.

    Raises:
      RequestError: a Jacobian too large to be worked with in ball arithmetic.
    """
    from theory.certify import certify

    size = dense_size(x)
    if size > LARGEST_CERTIFIED:
        message = (
            f"a certificate for a matrix of size {size} takes too long; at most "
            f"{LARGEST_CERTIFIED} = tokens * (d - 1)"
        )
        raise RequestError(message)
    return certify(system, x)


def certificate_words(certificate: Any) -> str:
    """For the screen: what is proved, where and how, or why nothing is."""
    if certificate.status != "proved":
        return f"undecided: {certificate.reason}"
    m = certificate.power
    power = "J" if m == 1 else f"J^{m}"
    if certificate.order is None:
        how = f"|{power}| <= {certificate.bound:.6g} < 1"
    else:
        name = f"trace of {power}"
        if certificate.order > 1:
            name = f"coefficient {certificate.order} of the characteristic polynomial of {power}"
        how = f"{name} at least {certificate.bound:.6g} times what multipliers in the disk allow"
    return (
        f"proved {certificate.verdict}: exactly one equilibrium next to these tokens, within "
        f"{certificate.distance:.2g} of them, and {how}; {certificate.precision} bits"
    )


def dense_size(x: Any) -> int:
    """n(d - 1), the size of the dense Jacobian in tangent coordinates."""
    return int(x.shape[0] * (x.shape[1] - 1))

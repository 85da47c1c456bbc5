"""What a state of a run is, whether it is stable, and how that is said."""

from dataclasses import dataclass
from typing import Any

from pmt.cli import answers

# Size n(d - 1) of a dense matrix whose eigenvalues take a quarter of an hour.
LARGEST_DENSE = 4096

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


def dense_size(x: Any) -> int:
    """n(d - 1), the size of the dense Jacobian in tangent coordinates."""
    return int(x.shape[0] * (x.shape[1] - 1))

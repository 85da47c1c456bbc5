"""What happens next to an equilibrium: Jacobians, multipliers, theorem conditions, verdicts."""

from pmt.stability import conditions, jacobian, spectrum
from pmt.stability.closed_form import signed_multipliers
from pmt.stability.theorems import theorem_conditions
from pmt.stability.verdict import Analysis, analyze

__all__ = [
    "Analysis",
    "analyze",
    "conditions",
    "jacobian",
    "signed_multipliers",
    "spectrum",
    "theorem_conditions",
]

"""What happens next to an equilibrium: Jacobians, multipliers, theorem conditions, verdicts."""

from pmt.stability import basin, conditions, jacobian, spectrum
from pmt.stability.basin import attractors_reached, basin_fractions
from pmt.stability.closed_form import signed_multipliers
from pmt.stability.family import family_spectra
from pmt.stability.matrix_free import leading_multipliers
from pmt.stability.theorems import theorem_conditions
from pmt.stability.verdict import Analysis, analyze

__all__ = [
    "Analysis",
    "analyze",
    "attractors_reached",
    "basin",
    "basin_fractions",
    "conditions",
    "family_spectra",
    "jacobian",
    "leading_multipliers",
    "signed_multipliers",
    "spectrum",
    "theorem_conditions",
]

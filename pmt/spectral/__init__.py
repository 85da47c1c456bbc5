"""The layer matrix F: its principal eigenpairs, and how tokens align with them."""

from pmt.linalg import Eigenpairs, eigenpairs
from pmt.spectral.alignment import (
    Alignment,
    Average,
    average_over_directions,
    chance,
    rho,
    standard_error,
    summarize,
)
from pmt.spectral.directions import Directions, all_directions, as_directions
from pmt.spectral.eigen import Principal, Spectrum, layer_matrix, principal

__all__ = [
    "Alignment",
    "Average",
    "Directions",
    "Eigenpairs",
    "Principal",
    "Spectrum",
    "all_directions",
    "as_directions",
    "average_over_directions",
    "chance",
    "eigenpairs",
    "layer_matrix",
    "principal",
    "rho",
    "standard_error",
    "summarize",
]

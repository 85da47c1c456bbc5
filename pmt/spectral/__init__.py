"""The layer matrix F: its principal eigenpairs, and how tokens align with them."""

from pmt.linalg import Eigenpairs, eigenpairs
from pmt.spectral.alignment import (
    Alignment,
    Average,
    average_over_directions,
    chance,
    rho,
    rho_on_host,
    standard_error,
    summarize,
)
from pmt.spectral.directions import Directions, all_directions, as_directions
from pmt.spectral.eigen import layer_matrix, principal, solve_all, solve_leading
from pmt.spectral.operator import LayerOperator, layer_operators
from pmt.spectral.spectrum import Leading, Principal, Spectrum

__all__ = [
    "Alignment",
    "Average",
    "Directions",
    "Eigenpairs",
    "LayerOperator",
    "Leading",
    "Principal",
    "Spectrum",
    "all_directions",
    "as_directions",
    "average_over_directions",
    "chance",
    "eigenpairs",
    "layer_matrix",
    "layer_operators",
    "principal",
    "rho",
    "rho_on_host",
    "solve_all",
    "solve_leading",
    "standard_error",
    "summarize",
]

"""The equilibria: constructors with existence conditions, Newton search, classification."""

from pmt.equilibria.classify import Classification, classify
from pmt.equilibria.constructors import (
    attended_means,
    bipartite,
    clustering,
    consensus,
    describe,
    isotropic_direction,
    polygonal,
)
from pmt.equilibria.equilibrium import Equilibrium
from pmt.equilibria.search import NewtonRun, newton

__all__ = [
    "Classification",
    "Equilibrium",
    "NewtonRun",
    "attended_means",
    "bipartite",
    "classify",
    "clustering",
    "consensus",
    "describe",
    "isotropic_direction",
    "newton",
    "polygonal",
]

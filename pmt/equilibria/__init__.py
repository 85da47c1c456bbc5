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
from pmt.equilibria.search_many import (
    Found,
    Search,
    distance_modulo_symmetry,
    search_clusters,
    search_equilibria,
)

__all__ = [
    "Classification",
    "Equilibrium",
    "Found",
    "NewtonRun",
    "Search",
    "attended_means",
    "bipartite",
    "classify",
    "clustering",
    "consensus",
    "describe",
    "distance_modulo_symmetry",
    "isotropic_direction",
    "newton",
    "polygonal",
    "search_clusters",
    "search_equilibria",
]

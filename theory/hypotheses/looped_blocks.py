"""Weights of the looped transformer off its manifold, as pieces: two full blocks, or four scalars.

``lower`` is the lower left block A of V, ``upper`` the upper right one B of W. ``spare`` has what
the six other blocks hold: zero, unless a hypothesis is dropped.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from theory.hypotheses.looped import signed_permutations
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape

ROWS = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
"""X = (e_1, e_1, e_2): λ_1 = 2, λ_2 = 1."""

QUERY = np.array([0.6, 0.8])


def two_blocks() -> Piece:
    """A, B of normal entries of size 0.1 to 3, and two directions P, Q to leave them in.

    alpha is the product of the sizes. Boundary: A is a hair.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        lower = jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 3.0))
        upper = noise.log_uniform(0.1, 3.0)
        return {
            "alpha": lower * upper,
            "lower": lower * noise.normal(d, d),
            "upper": upper * noise.normal(d, d),
            "sides": noise.normal(2, d, d),
            "spare": jnp.zeros((6, d, d)),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        found = identity(case["spare"], scale=1.0, size=shape.d)
        return {"the other blocks are zero": found.value}

    return Piece(draw, margins)


def law_of_one_value() -> Piece:
    """X = (e_1, e_1, e_2) and a = (3, 4)/5, turned by every signed permutation alike."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del noise, kind, shape, case
        turns = signed_permutations(2)
        return {"turned": jnp.asarray(ROWS @ turns), "queries": jnp.asarray(QUERY @ turns)}

    return Piece(draw)


def opposite_scalars() -> Piece:
    """0.2 < |eps| < 0.4 and delta = -eps, as multiples of I in V's and W's other corners.

    Boundary: |eps| is above 0.2 by a hair. Nearly degenerate: it is below 0.4 by one.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        hair, size = noise.hair(), noise.uniform(0.2, 0.4)
        size = jnp.where(kind == BOUNDARY, 0.2 + hair, size)
        size = jnp.where(kind == DEGENERATE, 0.4 - hair, size)
        eps = size * jnp.where(noise.coin(), 1.0, -1.0)
        return {"eps": eps, "delta": -eps}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        size = jnp.abs(case["eps"])
        return {
            "eps delta < 0": -case["eps"] * case["delta"],
            "0.2 < |eps| < 0.4": jnp.minimum(size - 0.2, 0.4 - size),
        }

    return Piece(draw, margins)

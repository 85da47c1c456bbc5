"""Steps and maps without Assumption 1, for what holds of any V and any logits."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from theory.instances import BOUNDARY
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def free_step() -> Piece:
    """alpha > 0 whatever V is: 0.03 to 4; boundary: a hair."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        hair = noise.hair()
        return {"alpha": jnp.where(kind == BOUNDARY, hair, noise.log_uniform(0.03, 4.0))}

    return Piece(draw, lambda _shape, case: {"alpha > 0": case["alpha"] / (1.0 + case["alpha"])})


def turn() -> Piece:
    """A rotation or reflection R of the space the tokens live in."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        gram = jnp.sum(case["turn"][:, :, None] * case["turn"][:, None, :], axis=0)
        error = gram - jnp.eye(shape.d)
        return {"R orthogonal": identity(error, scale=1.0, size=shape.d).value}

    return Piece(
        lambda noise, _kind, shape, _case: {"turn": noise.orthogonal(shape.d)},
        margins,
    )

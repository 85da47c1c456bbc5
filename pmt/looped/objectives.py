"""What a looped transformer is trained for: one number per sample."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt.errors import RequestError
from pmt.looped.data import Samples
from pmt.looped.manifold import power_iterate
from pmt.numerics import einsum

# One of OBJECTIVES.
Objective = str

OBJECTIVES: tuple[Objective, ...] = ("subspace", "sine", "power", "unit-power")


def check_objective(objective: str) -> None:
    """Refuse a name that is none of ``OBJECTIVES``."""
    if objective not in OBJECTIVES:
        raise RequestError(
            f"the objective is {objective!r}; it must be one of {', '.join(OBJECTIVES)}"
        )


def sample_losses(
    objective: Objective, y: Float[Array, "*batch d"], given: Samples
) -> Float[Array, "*batch"]:
    """The loss of every sample for the outputs ``y``.

    - ``subspace``: |y - P_Z y|², the paper's. Shrinking y makes it small too.
    - ``sine``: |y - P_Z y|² / |y|², which no scale of y changes.
    - ``power``: |y - XXᵀa|². ``unit-power``: |y - XXᵀa / |XXᵀa||². One power step as the target.
    """
    if objective in ("subspace", "sine"):
        inside = einsum("...i,...ip->...p", y, given.leading)
        outside = y - einsum("...p,...ip->...i", inside, given.leading)
        loss = jnp.sum(outside * outside, axis=-1)
        if objective == "subspace":
            return loss
        return loss / jnp.maximum(jnp.sum(y * y, axis=-1), jnp.finfo(y.dtype).tiny)
    if objective == "power":
        along = einsum("...ni,...i->...n", given.data, given.query)
        target = einsum("...ni,...n->...i", given.data, along)
    else:
        target = power_iterate(given.data, given.query, 1)
    return jnp.sum((y - target) ** 2, axis=-1)

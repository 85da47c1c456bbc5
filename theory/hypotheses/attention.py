"""The attention: logits, masks, and what they give at signed consensus points."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from pmt.numerics import einsum
from pmt.stability import conditions
from theory import instances
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity, rounding
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def query_key(theta: Literal["any", "non-negative"] = "any") -> Piece:
    """B = QᵀK real and not symmetric; θ = vᵀ B v drawn where there is a direction v.

    Nearly degenerate: almost no attention at all. ``non-negative``: θ >= 0, boundary θ = 0.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        size = jnp.where(kind == DEGENERATE, noise.hair(), noise.log_uniform(0.1, 3.0))
        matrix = size * noise.normal(shape.d, shape.d)
        if "direction" not in case:
            return {"query_key": matrix}
        v = case["direction"]
        wanted = size * noise.normal()
        if theta == "non-negative":
            wanted = jnp.where(kind == BOUNDARY, 0.0, jnp.abs(wanted))
        correction = wanted - einsum("a,ab,b->", v, matrix, v)
        return {"query_key": matrix + correction * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        if theta == "any":
            return {}
        size = 1.0 + jnp.max(jnp.abs(case["query_key"]))
        # θ = 0 is allowed, and comes out as a rounding error of either sign.
        return {"theta >= 0": instances.theta_of(case) / size + rounding(shape.d)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.max(jnp.abs(case["query_key"]))

    return Piece(draw, margins, degeneracy)


def threshold_logits(*, conditions_hold: bool) -> Piece:
    """B with θ_k set relative to the exact threshold of theory II.4, where there is one.

    ``conditions_hold``: beyond it, and so that condition 3 holds for both groups, by construction;
    boundary instances by a hair. Otherwise on either side: boundary instances within a hair,
    nearly degenerate ones almost without attention, generic ones anywhere.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        hair, side = noise.hair(), noise.coin()
        beyond = jnp.where(kind == BOUNDARY, hair, noise.uniform(0.05, 1.5))
        anywhere = 1.5 * noise.normal()
        sign = jnp.where(case["index"] == 0, 1.0, -1.0)
        threshold = _threshold(case, both_groups=conditions_hold)
        wanted = sign * (threshold + beyond)
        if not conditions_hold:
            near = sign * (threshold + jnp.where(side, hair, -hair))
            wanted = jnp.where(kind == BOUNDARY, near, anywhere)
            wanted = jnp.where(kind == DEGENERATE, hair * anywhere, wanted)
        v = case["direction"]
        matrix = noise.normal(shape.d, shape.d)
        correction = wanted - einsum("a,ab,b->", v, matrix, v)
        return {"query_key": matrix + correction * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        if not conditions_hold:
            return {}
        found = conditions.theorem_3_margins(
            case["alpha"],
            instances.principal_eigenvalue(case),
            instances.other_eigenvalues(case),
            instances.theta_of(case),
            *instances.group_sizes(case),
        )
        return {
            "condition 1": found.extrinsic,
            "condition 2": jnp.min(found.schur_cohn),
            "condition 3": found.single,
        }

    return Piece(draw, margins)


def _threshold(case: Case, *, both_groups: bool) -> Array:
    """|θ| at which the largest multiplier is 1, for k = 1 and for k = d with λ_d < −λ_1.

    Ψ(θ) = c, c the next eigenvalue over |λ_k|, is a quadratic equation in E = e^{2θ}:
    (1 − c) E² − r E + (1 + c) = 0. ``both_groups``: and E > ρ, so that 1/g_i < 1 for both.
    """
    own = jnp.abs(instances.principal_eigenvalue(case))
    c = jnp.max(instances.other_eigenvalues(case)) / own
    n1, n2 = instances.group_sizes(case)
    r, ratio = n1 / n2 + n2 / n1, jnp.maximum(n1 / n2, n2 / n1)
    c = jnp.minimum(c, 1.0 - 1e-12)
    root = (r + jnp.sqrt(r**2 - 4.0 * (1.0 - c**2))) / (2.0 * (1.0 - c))
    crowded = both_groups | ((c < 0) & (jnp.minimum(n1, n2) >= 2))
    root = jnp.where(crowded, jnp.maximum(root, ratio), root)
    return jnp.log(jnp.maximum(root, 1.0)) / 2.0


def uniform_attention() -> Piece:
    """B = 0: the softmax system is then the Oja system."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size = jnp.max(jnp.abs(case["query_key"]))
        return {"uniform attention": identity(size, scale=1.0, size=shape.d).value}

    return Piece(
        lambda _noise, _kind, shape, _case: {"query_key": jnp.zeros((shape.d, shape.d))}, margins
    )


def full_attention() -> Piece:
    """Every token attends to every token."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del case
        return {"full attention": jnp.asarray(1.0 if shape.mask == "full" else -1.0)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)


def attention_spectrum_not_negative() -> Piece:
    """The eigenvalues of the attention matrix at consensus lie in [0, 1], as for causal masks."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del case
        mu = instances.attention_eigenvalues(shape)
        return {"attention eigenvalues >= 0": jnp.min(mu) + rounding(shape.n)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)

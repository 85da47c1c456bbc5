"""Layer matrices that are not symmetric, and symmetric ones whose last eigenvalue dominates."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt.numerics import einsum
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def plane_block(real: Any, imaginary: Any) -> Float[Array, "2 2"]:
    """A 2 × 2 matrix with the eigenvalues real ± i imaginary."""
    return jnp.array([[1.0, 0.0], [0.0, 1.0]]) * real + jnp.array(
        [[0.0, -1.0], [1.0, 0.0]]
    ) * jnp.asarray(imaginary)


def asymmetric_value() -> Piece:
    """d = 3: F = S (λ_1 ⊕ complex pair) S⁻¹ with λ_1 > 0 real, λ_1 > Re λ_2: Case 1 of the paper.

    S is a rotation times a unit upper triangular matrix, so F is not normal. Fields ``value``,
    ``direction`` (unit, F v = λ_1 v), ``eigenvalue``, ``pair`` = (Re, Im), ``alpha``. Half of the
    steps straddle the bound alpha (|λ_2|² − λ_1²) < 2 (λ_1 − Re λ_2). Boundary: alpha within a
    hair of it, where there is one, or tiny; nearly degenerate: Re λ_2 next to λ_1.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case, shape
        hair = noise.hair()
        gap = jnp.where(kind == DEGENERATE, hair, noise.uniform(0.05, 2.0))
        pair = jnp.stack([1.0 - gap, noise.log_uniform(0.05, 3.0)])
        excess = jnp.sum(pair**2) - 1.0
        limit = 2.0 * gap / jnp.where(excess > 0, excess, 1.0)
        near = jnp.where(noise.coin(), 1.0 - hair, 1.0 + hair) * limit
        tiny = noise.hair()
        edge = jnp.where((excess > 0) & (gap > 0.04), near, tiny)
        free = noise.log_uniform(0.03, 3.0)
        around = jnp.where((excess > 0) & noise.coin(), limit * noise.uniform(0.3, 3.0), free)
        alpha = jnp.where(kind == BOUNDARY, jnp.where(noise.coin(), tiny, edge), around)
        scale = noise.log_uniform(0.3, 3.0)
        frame = noise.orthogonal(3)
        above = 0.4 * noise.normal(3)
        upper = jnp.eye(3).at[0, 1].set(above[0]).at[0, 2].set(above[1]).at[1, 2].set(above[2])
        skew = einsum("ab,bc->ac", frame, upper)
        middle = jnp.zeros((3, 3)).at[0, 0].set(1.0).at[1:, 1:].set(plane_block(*pair))
        # The inverse of a unit upper triangular matrix, written out.
        inverse = (
            jnp.eye(3)
            .at[0, 1]
            .set(-above[0])
            .at[1, 2]
            .set(-above[2])
            .at[0, 2]
            .set(above[0] * above[2] - above[1])
        )
        value = einsum("ab,bc,cd,ed->ae", skew, middle, inverse, frame)
        return {
            "value": scale * value,
            "direction": frame[:, 0],
            "eigenvalue": scale,
            "pair": scale * pair,
            "alpha": alpha / scale,
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        moved = einsum("ab,b->a", case["value"], case["direction"])
        defect = moved - case["eigenvalue"] * case["direction"]
        size = jnp.sqrt(jnp.sum(case["value"] ** 2))
        own, pair = case["eigenvalue"], case["pair"]
        trace = jnp.trace(case["value"]) - own - 2.0 * pair[0]
        relative = case["alpha"] * own
        return {
            "F v = lambda_1 v": identity(defect, scale=size, size=shape.d).value,
            "trace": identity(trace, scale=size, size=shape.d).value,
            "lambda_1 > 0": own,
            "lambda_1 > Re lambda_2": (own - pair[0]) / size,
            "alpha > 0": relative / (1.0 + relative),
        }

    return Piece(
        draw,
        margins,
        lambda _shape, case: (case["eigenvalue"] - case["pair"][0]) / case["eigenvalue"],
    )


def rotating_value() -> Piece:
    """d = 3: F = U ((a, −b; b, a) ⊕ λ_3) Uᵀ, normal: Case 2 of the paper, and a point of E_1.

    Fields ``value``, ``pair`` = (a, b), ``eigenvalue`` = λ_3, ``frame``, ``alpha``, ``x``: all
    tokens at one point of the plane of the first two columns of the frame. Boundary: a small step;
    nearly degenerate: b a hair.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(3)
        hair = noise.hair()
        imaginary = jnp.where(kind == DEGENERATE, hair, noise.log_uniform(0.05, 2.0))
        pair = jnp.stack([noise.uniform(0.2, 2.0), imaginary])
        third = pair[0] * noise.uniform(-1.0, 0.95)
        middle = jnp.zeros((3, 3)).at[2, 2].set(third).at[:2, :2].set(plane_block(*pair))
        angle = noise.uniform(0.0, 2.0 * jnp.pi)
        point = jnp.cos(angle) * frame[:, 0] + jnp.sin(angle) * frame[:, 1]
        return {
            "value": einsum("ab,bc,dc->ad", frame, middle, frame),
            "frame": frame,
            "pair": pair,
            "eigenvalue": third,
            "alpha": jnp.where(kind == BOUNDARY, hair, noise.log_uniform(0.05, 2.0)),
            "x": jnp.broadcast_to(point[None, :], (shape.n, 3)),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        along = einsum("ia,a->i", case["x"], case["frame"][:, 2])
        return {
            "alpha > 0": case["alpha"] / (1.0 + case["alpha"]),
            "x in E_1": identity(along, scale=1.0, size=shape.d).value,
            "Re lambda_1 > lambda_3": case["pair"][0] - case["eigenvalue"],
        }

    return Piece(draw, margins, lambda _shape, case: jnp.abs(case["pair"][1]))


def dominated_value() -> Piece:
    """Assumption 1 with λ_d < −λ_1: ``eigenvalues`` and ``frame``; then v_1 and a step.

    alpha log-uniform, boundary: a hair; nearly degenerate: λ_d next to −λ_1. Also ``index`` = 0,
    ``direction`` = v_1 and ``alpha``.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        hair = noise.log_uniform(1e-6, 1e-3)
        excess = jnp.where(kind == DEGENERATE, hair, noise.uniform(0.05, 2.0))
        inner = -jnp.sort(-(1.8 * noise.uniforms(shape.d - 2) - 0.9))
        inner = jnp.where(inner == 0, 0.1, inner)
        values = jnp.concatenate([jnp.ones(1), inner, -(1.0 + excess)[None]])
        frame = noise.orthogonal(shape.d)
        top = noise.log_uniform(0.3, 3.0)
        alpha = jnp.where(kind == BOUNDARY, hair, noise.log_uniform(0.03, 3.0))
        return {
            "eigenvalues": top * values,
            "frame": frame,
            "index": jnp.int32(0),
            "direction": frame[:, 0],
            "alpha": alpha / top,
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        relative = case["alpha"] * values[0]
        return {
            "alpha > 0": relative / (1.0 + relative),
            "lambda_d < -lambda_1": -(values[0] + values[-1]) / values[0],
        }

    return Piece(
        draw,
        margins,
        lambda _shape, case: (
            -(case["eigenvalues"][0] + case["eigenvalues"][-1]) / case["eigenvalues"][0]
        ),
    )


def others_mask() -> Piece:
    """Two tokens, each attending only to the other: attention eigenvalues 1 and −1."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del case
        swapped = shape.mask == "others" and shape.n == 2
        return {"two tokens, others": jnp.asarray(1.0 if swapped else -1.0)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)

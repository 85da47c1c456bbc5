"""Polygonal states: what makes a polygon an equilibrium of the softmax system, and what does not.

At such a point every attended mean vanishes, z_i = 0, which for full attention means Σ_j x_j = 0
and x_iᵀ B x_j = 0 for all i, j (theory, Lemma 8).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from theory import instances
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def triangle(plane: Float[Array, "d 2"]) -> Float[Array, "3 d"]:
    """The regular triangle in the plane of two orthonormal columns."""
    angle = 2.0 * np.pi * np.arange(3) / 3.0
    corners = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return sphere.normalize(einsum("np,dp->nd", corners, plane))


def quarter_turn(x: Float[Array, "3 d"]) -> Float[Array, "3 d"]:
    """The rotation of a regular triangle in its own plane, as a tangent direction."""
    return (jnp.roll(x, -1, axis=0) - jnp.roll(x, 1, axis=0)) / np.sqrt(3.0)


def maybe_polygon() -> Piece:
    """Tokens that sum to zero or do not, with logits that vanish on their span or do not.

    Three tokens: a regular triangle; four: two pairs {u, −u}, nearly equal ones in the nearly
    degenerate class. Of the boundary class the logits are a hair of the generic ones. Changes
    ``query_key``; x_iᵀ B x_j = 0 for all i, j in half of the other instances.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        hair, spoiled, isotropic = noise.hair(), noise.uniform() < 0.2, noise.coin()
        if shape.n == 3:
            plane = noise.orthogonal(shape.d)[:, :2]
            x = triangle(plane)
        else:
            axes = noise.unit(2, shape.d)
            near = sphere.retract(axes[0], hair * axes[1])
            second = jnp.where(kind == DEGENERATE, near, axes[1])
            plane = _orthonormal(axes[0], second)
            x = jnp.stack([axes[0], -axes[0], second, -second])
        projector = einsum("ap,bp->ab", plane, plane)
        matrix = case["query_key"]
        on_span = einsum("ab,bc,cd->ad", projector, matrix, projector)
        kept = jnp.where(kind == BOUNDARY, hair, jnp.where(isotropic, 0.0, 1.0))
        x = jnp.where(spoiled, noise.unit(shape.n, shape.d), x)
        return {"x": x, "query_key": matrix - (1.0 - kept) * on_span}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["x"]) - 1.0
        return {"unit tokens": identity(off, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def _orthonormal(first: Float[Array, " d"], second: Float[Array, " d"]) -> Float[Array, "d 2"]:
    """An orthonormal basis of the span, accurate for nearly parallel vectors too."""
    across = sphere.normalize(sphere.tangent_projection(first, second))
    return jnp.stack([first, sphere.normalize(sphere.tangent_projection(first, across))], axis=1)


def asymptotically_stable_pair() -> Piece:
    """d = 2: tokens at ±u with uᵀ B u = 0, and V, B such that theory II.7 says: stable.

    In the frame (u, w): b = V_wu, and alpha V_ww = −p, alpha b B_wu = −q, alpha b (B_uw + B_wu) =
    −r with 0 < q, p + q, r < 2 and p of either sign. Boundary: one of them is a hair from its
    bound. Fields ``value``, ``query_key``, ``alpha``, ``x``.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(2)
        hair = noise.hair()
        q, total, r = 0.02 + 1.93 * noise.uniforms(3)
        total = jnp.where(kind == BOUNDARY, hair, total)
        q = jnp.where(kind == DEGENERATE, hair, q)
        alpha = noise.log_uniform(0.05, 2.0)
        b = jnp.where(noise.coin(), 1.0, -1.0) * noise.log_uniform(0.2, 3.0)
        down, sum_of_both = -q / (alpha * b), -r / (alpha * b)
        value = jnp.array([[noise.normal(), b], [b, -(total - q) / alpha]])
        logits = jnp.array([[0.0, sum_of_both - down], [down, noise.normal()]])
        signs = jnp.where(jnp.arange(shape.n) < shape.n // 2, 1.0, -1.0)
        return {
            "value": einsum("ab,bc,dc->ad", frame, value, frame),
            "query_key": einsum("ab,bc,dc->ad", frame, logits, frame),
            "alpha": alpha,
            "x": signs[:, None] * frame[None, :, 0],
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        own, down, both = pair_rates(case)
        rates = jnp.stack([-own - down, -down, -both])
        size = 1.0 + frobenius(case["query_key"])
        isotropic = einsum("a,ab,b->", case["x"][0], case["query_key"], case["x"][0])
        found = {
            "alpha > 0": case["alpha"] / (1.0 + case["alpha"]),
            "x'Bx = 0": identity(isotropic, scale=size, size=shape.d).value,
            "V_ww + b B_wu < 0": rates[0],
            "b (B_uw + B_wu) < 0": rates[2],
            "no flip": jnp.min(2.0 - rates),
        }
        return found if shape.n == 2 else found | {"b B_wu < 0": rates[1]}

    return Piece(draw, margins)


def pair_rates(case: Case) -> tuple[Array, Array, Array]:
    """alpha V_ww, alpha b B_wu and alpha b (B_uw + B_wu) for d = 2, w across u = x_1, b = V_wu."""
    u, value, logits, alpha = case["x"][0], case["value"], case["query_key"], case["alpha"]
    w = sphere.tangent_basis(u)[:, 0]
    b = einsum("a,ab,b->", w, value, u)
    down = einsum("a,ab,b->", w, logits, u)
    up = einsum("a,ab,b->", u, logits, w)
    own = einsum("a,ab,b->", w, value, w)
    return alpha * own, alpha * b * down, alpha * b * (up + down)


def isotropic_triangle(
    examples: Mapping[int, Callable[[], dict[str, np.ndarray]]], spread: float
) -> Piece:
    """A regular triangle on whose plane B vanishes, with V and B near the example in dimension d.

    V and B are changed by ``spread`` times their size, symmetrically and with B still 0 on the
    plane, then everything is turned; alpha is the example's times 0.2 to 1. So B's own
    perturbations keep the polygon. Boundary: alpha a hair; nearly degenerate: no perturbation.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        fields = {name: jnp.asarray(value) for name, value in examples[shape.d]().items()}
        size = jnp.where(kind == DEGENERATE, noise.hair(), spread)
        value, logits = fields["value"], fields["query_key"]
        loose = noise.normal(shape.d, shape.d)
        value = value + size * frobenius(value) / shape.d * (loose + loose.T) / 2.0
        change = noise.normal(shape.d, shape.d).at[:2, :2].set(0.0)
        logits = logits + size * frobenius(logits) / shape.d * change
        frame = noise.orthogonal(shape.d)
        lower = jnp.where(kind == BOUNDARY, noise.hair(), noise.uniform(0.2, 1.0))
        return {
            "value": einsum("ab,bc,dc->ad", frame, value, frame),
            "query_key": einsum("ab,bc,dc->ad", frame, logits, frame),
            "alpha": fields["alpha"] * lower,
            "x": triangle(frame[:, :2]),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        logits = einsum("ia,ab,jb->ij", case["x"], case["query_key"], case["x"])
        size = 1.0 + frobenius(case["query_key"])
        total = jnp.sum(case["x"], axis=0)
        near = spread_of(case, examples[shape.d]())
        return {
            "alpha > 0": case["alpha"] / (1.0 + case["alpha"]),
            "tokens sum to 0": identity(total, scale=1.0, size=shape.n * shape.d).value,
            "x'Bx = 0": identity(logits, scale=size, size=shape.d * shape.n).value,
            "spectrum near the example's": 6.0 * spread - near,
        }

    return Piece(
        draw,
        margins,
        lambda shape, case: spread_of(case, examples[shape.d]()) / spread,
    )


def spread_of(case: Case, fields: dict[str, np.ndarray]) -> Array:
    """How far the eigenvalues of V are from the example's, relative to its norm."""
    own = instances.spectrum_of(case)[::-1]
    wanted = np.linalg.eigvalsh(fields["value"])
    return jnp.max(jnp.abs(own - wanted)) / np.linalg.norm(fields["value"])

"""States with several tokens at each of a few points, and maps for which they are fixed."""

from typing import Any

import jax
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


def cluster_count(shape: Shape) -> int:
    """m of the states that ``clusters`` draws: 2 for up to four tokens, else 3."""
    return 2 if shape.n <= 4 else 3


def clusters() -> Piece:
    """x_i in {p_1, ..., p_m}, every point taken, 2 <= m <= n: ``points``, ``member`` and ``x``.

    Nearly degenerate: two of the points nearly coincide.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        m = cluster_count(shape)
        points = noise.unit(m, shape.d)
        near = sphere.retract(points[0], noise.hair() * points[1])
        points = points.at[1].set(jnp.where(kind == DEGENERATE, near, points[1]))
        spare = jnp.stack([noise.integer(0, m) for _ in range(shape.n - m)])
        member = jnp.concatenate([jnp.arange(m, dtype=spare.dtype), spare])
        member = member[jnp.argsort(noise.uniforms(shape.n))]
        return {"points": points, "member": member, "x": points[member]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["points"]) - 1.0
        apart = case["x"] - case["points"][case["member"]]
        m = case["points"].shape[0]
        numbers = jnp.arange(m, dtype=case["member"].dtype)
        present = jnp.any(case["member"][None, :] == numbers[:, None], axis=1)
        return {
            "unit tokens": identity(off, scale=1.0, size=shape.d).value,
            "x_i in the points": identity(apart, scale=1.0, size=shape.d).value,
            "every point taken": jnp.where(jnp.all(present), 1.0, -1.0),
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        points = case["points"]
        return sphere.norm(points[0] - points[1])

    return Piece(draw, margins, degeneracy)


def reduced_attention(case: Case) -> tuple[Array, Array]:
    """K_rs = exp(p_rᵀ B p_s) and A_rs = n_s K_rs / Σ_s n_s K_rs: what the points see of each other.

    Logits are shifted by the largest of their row, which changes K by a positive factor a row.
    """
    points = case["points"]
    logits = einsum("ra,ab,sb->rs", points, case["query_key"], points)
    kernel = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    weights = kernel * sizes(case)[None, :]
    return kernel, weights / jnp.sum(weights, axis=1, keepdims=True)


def sizes(case: Case) -> Float[Array, " m"]:
    """n_s: the number of tokens at each point."""
    m = case["points"].shape[0]
    return jnp.sum(jax.nn.one_hot(case["member"], m), axis=0)


def fixed_two_clusters() -> Piece:
    """Two clusters that are an equilibrium by construction, V symmetric, B and the points free.

    With z_1, z_2 the attended means of the points and c_1 = s z_1ᵀp_2, c_2 = s z_2ᵀp_1, the
    equations V z_r = c_r p_r are consistent with a symmetric V: z_1ᵀ(V z_2) = z_2ᵀ(V z_1). V is
    their solution with a random part on the complement of the z. alpha < 1/|V|, so 1 + alpha c_r is
    positive. Boundary: alpha a hair. Nearly degenerate: points close to each other.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        points = noise.unit(2, d)
        near = sphere.retract(points[0], noise.log_uniform(3e-4, 3e-3) * points[1])
        points = points.at[1].set(jnp.where(kind == DEGENERATE, near, points[1]))
        logits = noise.log_uniform(0.3, 3.0) * noise.normal(d, d)
        spare = (jnp.arange(shape.n - 2, dtype=jnp.int32) + noise.integer(0, 2)) % 2
        member = jnp.concatenate([jnp.arange(2, dtype=jnp.int32), spare])
        found = {"points": points, "member": member, "query_key": logits, "x": points[member]}
        weights = reduced_attention(found)[1]
        means = einsum("rs,sa->ra", weights, points)
        across = einsum("ra,sa->rs", means, points)
        wanted = jnp.stack([across[0, 1], across[1, 0]])[:, None] * points
        loose = noise.normal(d, d)
        value = _symmetric_solution(means, wanted, (loose + loose.T) / 2.0)
        value = noise.log_uniform(0.3, 3.0) * value / frobenius(value)
        fraction = jnp.where(kind == BOUNDARY, noise.hair(), noise.uniform(0.05, 0.95))
        return found | {"value": value, "alpha": fraction / frobenius(value)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        means = einsum("rs,sa->ra", reduced_attention(case)[1], case["points"])
        moved = einsum("ab,rb->ra", case["value"], means)
        along = jnp.sum(moved * case["points"], axis=1)
        across = moved - along[:, None] * case["points"]
        size, worst = frobenius(case["value"]), conditioning(case)
        asymmetry = case["value"] - case["value"].T
        return {
            "alpha > 0": case["alpha"] * size,
            "V symmetric": identity(asymmetry, scale=size, size=shape.d).value,
            "V z = c x": identity(across, scale=size, size=shape.d, conditioning=worst).value,
            "1 + alpha c > 0": jnp.min(1.0 + case["alpha"] * along),
        }

    return Piece(draw, margins, lambda _shape, case: 1.0 / conditioning(case))


def conditioning(case: Case) -> Array:
    """How the solution V magnifies rounding: (1 + |B|) over the smallest spread of the means."""
    weights = reduced_attention(case)[1]
    apart = sphere.norm(case["points"][0] - case["points"][1])
    together = sphere.norm(case["points"][0] + case["points"][1])
    spread = jnp.abs(weights[0, 0] - weights[1, 0]) * jnp.minimum(apart, together)
    return (1.0 + frobenius(case["query_key"])) / spread


def _symmetric_solution(
    means: Float[Array, "2 d"], wanted: Float[Array, "2 d"], free: Float[Array, "d d"]
) -> Float[Array, "d d"]:
    """A symmetric V with V z_r = y_r: it exists iff z_rᵀ y_s is symmetric; ``free`` elsewhere."""
    q, r = jnp.linalg.qr(means.T)
    # Y = V Z, so V q = Y R⁻¹.
    image = jnp.linalg.solve(r.T, wanted).T
    inner = einsum("ap,aq->pq", q, image)
    inner = (inner + inner.T) / 2.0
    outside = jnp.eye(q.shape[0]) - einsum("ap,bp->ab", q, q)
    mixed = einsum("ab,bp,cp->ac", outside, image, q)
    rest = einsum("ab,bc,cd->ad", outside, free, outside)
    value = einsum("ap,pq,bq->ab", q, inner, q) + mixed + mixed.T + rest
    return (value + value.T) / 2.0


def off_axis_point() -> Piece:
    """All tokens at one point p that is no eigenvector of V: ``x``, and ``direction`` = p.

    p = (v_1 + t v_l)/|.|, t between 0.05 and 1; boundary: t between 1e-6 and 1e-3.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        # v_1 is simple, so that p is no eigenvector whatever the others are.
        other = noise.integer(1, shape.d)
        small = noise.log_uniform(1e-6, 1e-3)
        turn = jnp.where(kind == BOUNDARY, small, noise.uniform(0.05, 1.0))
        p = sphere.normalize(case["frame"][:, 0] + turn * case["frame"][:, other])
        return {"direction": p, "x": jnp.broadcast_to(p[None, :], (shape.n, shape.d))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        p = case["direction"]
        moved = einsum("ab,b->a", instances.value_matrix(case), p)
        across = sphere.norm(sphere.tangent_projection(p, moved))
        same = jnp.max(jnp.abs(case["x"] - p[None, :]))
        return {
            "p no eigenvector": across / instances.norm_of(case) - 1e-13,
            "equal tokens": identity(same, scale=1.0, size=p.shape[0]).value,
        }

    return Piece(draw, margins)


def orthogonal_or_not() -> Piece:
    """Tokens that are all orthogonal to v_1, or not; and the factors c_i of w_i = c_i v_1.

    Boundary: orthogonal up to a hair.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        v = case["frame"][:, 0]
        x = noise.unit(shape.n, shape.d)
        axis = jnp.broadcast_to(v, x.shape)
        across = sphere.normalize(sphere.tangent_projection(axis, x))
        # Twice, for tokens that are nearly parallel to v_1.
        across = sphere.normalize(sphere.tangent_projection(axis, across))
        close = sphere.retract(across, noise.hair() * axis)
        x = jnp.where(noise.coin(), across, x)
        x = jnp.where(kind == BOUNDARY, close, x)
        sign = jnp.where(noise.uniforms(shape.n) < 0.5, -1.0, 1.0)
        return {"x": x, "factors": sign * (0.1 + noise.uniforms(shape.n))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["x"]) - 1.0
        return {
            "unit tokens": identity(off, scale=1.0, size=shape.d).value,
            "c != 0": jnp.min(jnp.abs(case["factors"])) - 1e-3,
        }

    return Piece(draw, margins)


def near_example(example: dict[str, np.ndarray], spread: float) -> Piece:
    """V and B within ``spread`` (relative, entrywise) of an example's, V symmetric, alpha lower.

    alpha is 0.3 to 1 times the example's; boundary: 1e-2 times it and less. Nearly degenerate:
    almost the example itself.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        size = jnp.where(kind == DEGENERATE, noise.hair() * spread, spread)
        loose = 2.0 * noise.uniforms(d * d).reshape(d, d) - 1.0
        value = jnp.asarray(example["value"])
        value = value * (1.0 + size * (loose + loose.T) / 2.0)
        change = 2.0 * noise.uniforms(d * d).reshape(d, d) - 1.0
        logits = jnp.asarray(example["query_key"]) * (1.0 + size * change)
        lower = jnp.where(kind == BOUNDARY, noise.uniform(0.003, 0.009), noise.uniform(0.3, 1.0))
        return {
            "value": value,
            "query_key": logits,
            "alpha": lower * jnp.asarray(example["alpha"]),
            "x": jnp.asarray(example["x"]),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size = frobenius(case["value"])
        asymmetry = case["value"] - case["value"].T
        return {
            "alpha > 0": case["alpha"] * size,
            "V symmetric": identity(asymmetry, scale=size, size=shape.d).value,
            "near the example": spread - _distance(case, example) + 1e-12,
            "alpha <= the example's": example["alpha"] - case["alpha"] + 1e-12,
        }

    return Piece(draw, margins, lambda _shape, case: _distance(case, example) / spread)


def _distance(case: Case, example: dict[str, np.ndarray]) -> Array:
    def relative(name: str) -> Array:
        wanted = example[name]
        size = np.where(wanted == 0, 1.0, np.abs(wanted))
        return jnp.max(jnp.abs(case[name] - wanted) / size)

    return jnp.maximum(relative("value"), relative("query_key"))

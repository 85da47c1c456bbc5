"""The state: signs along an eigenvector, tokens anywhere, polygons, directions."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import instances
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def consensus_signs() -> Piece:
    """All tokens equal: s_i = 1."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"equal tokens": jnp.min(case["signs"]) * jnp.max(case["signs"])}

    return Piece(lambda _noise, _kind, shape, _case: {"signs": jnp.ones(shape.n)}, margins)


def split_signs(split: Literal["any", "balanced", "unbalanced", "decided"] = "any") -> Piece:
    """Signs s_i = ±1 in random order, both present; 1 <= n_1 <= n − 1.

    ``decided``: unbalanced where k = 1 and λ_2 < 0, the one case of the Oja system that its
    linearization does not decide (Lemma 5, corrected).
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        positive = noise.integer(1, shape.n)
        if split == "balanced":
            positive = jnp.full_like(positive, shape.n // 2)
        if split in ("unbalanced", "decided"):
            # One token changes sides if the draw happens to be balanced.
            tilted = jnp.where(2 * positive == shape.n, positive + 1, positive)
            tilt = _undecided_pair(case) if split == "decided" else True
            positive = jnp.where(tilt, tilted, positive)
        signs = jnp.where(jnp.arange(shape.n, dtype=positive.dtype) < positive, 1.0, -1.0)
        return {"signs": noise.shuffled(signs)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        sizes = instances.group_sizes(case)
        found = {"both groups present": jnp.minimum(*sizes) / shape.n}
        difference = jnp.abs(sizes[0] - sizes[1])
        if split == "balanced":
            found["balanced"] = jnp.where(difference == 0, 1.0, -1.0)
        if split == "unbalanced":
            found["unbalanced"] = jnp.where(difference > 0, 1.0, -1.0)
        if split == "decided":
            undecided = _undecided_pair(case) & (difference == 0)
            found["not balanced at v_1 with lambda_2 < 0"] = jnp.where(undecided, -1.0, 1.0)
        return found

    return Piece(draw, margins)


def _undecided_pair(case: Case) -> Array:
    return (case["index"] == 0) & (case["eigenvalues"][1] < 0)


def existing_bipartite() -> Piece:
    """1 + alpha λ_k γ_i > 0 for every token; lowers alpha where it is too large for that.

    Comes after the attention that γ_i depends on. Needed only above alpha = 1/|V| (Lemma 13).
    """

    def strength(shape: Shape, case: Case) -> Array:
        """max_i −λ_k γ_i."""
        unit = instances.single_head(shape, {**case, "alpha": jnp.asarray(1.0)})
        factors = jacobian.signed_factors(unit, case["direction"], case["signs"])
        return jnp.max(1.0 - factors)

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        size, alpha = strength(shape, case), case["alpha"]
        lower = noise.uniform(0.3, 0.95) / jnp.where(size > 0, size, 1.0)
        return {"alpha": jnp.where(alpha * size < 1.0, alpha, lower)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        room = 1.0 - case["alpha"] * strength(shape, case)
        return {"bipartite point exists": room / (1.0 + case["alpha"] * instances.norm_of(case))}

    return Piece(draw, margins)


def tokens() -> Piece:
    """Unit tokens, uniform on the sphere; nearly degenerate: all but one nearly equal."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        x = noise.unit(shape.n, shape.d)
        near = sphere.retract(jnp.broadcast_to(x[:1], x.shape), noise.hair() * x)
        return {"x": jnp.where(kind == DEGENERATE, near.at[-1].set(-x[0]), x)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["x"]) - 1.0
        return {"unit tokens": identity(off, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def tangent_direction() -> Piece:
    """A unit direction w with w_i ⟂ x_i for every token."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        w = noise.normal(shape.n, shape.d)
        w = sphere.tangent_projection(case["x"], w)
        return {"w": w / jnp.sqrt(jnp.sum(w**2))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        along = jnp.sum(case["x"] * case["w"], axis=-1)
        return {"w tangent": identity(along, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def nonzero_update(system: Callable[[Shape, Case], Any]) -> Piece:
    """y_i ≠ 0; boundary: equal tokens that V nearly cancels, y_i = δ x_i with δ a hair.

    Changes ``value`` and ``x`` of its boundary instances.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        x, value = case["x"], case["value"]
        u = x[0]
        target = (noise.log_uniform(1e-5, 1e-2) - 1.0) / case["alpha"]
        moved = einsum("ab,b->a", value, u)
        nearly = value + (target * u - moved)[:, None] * u[None, :]
        boundary = kind == BOUNDARY
        same = jnp.broadcast_to(u[None, :], (shape.n, shape.d))
        return {"value": jnp.where(boundary, nearly, value), "x": jnp.where(boundary, same, x)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        smallest = jnp.min(sphere.norm(system(shape, case).unnormalized(case["x"])))
        size = 1.0 + case["alpha"] * frobenius(case["value"])
        return {"y != 0": smallest / size - 1e-14}

    return Piece(draw, margins)


def polygon() -> Piece:
    """Σ_j x_j = 0 with tokens that do not all lie on one line: a triangle and opposite pairs.

    n = 3 is the regular triangle in a random plane; every two tokens more are a random pair
    {u, −u}; n = 4 is two pairs. Nearly degenerate: two pairs that nearly coincide.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(shape.d)
        count = (shape.n - 3 * (shape.n % 2)) // 2
        axes = noise.unit(count, shape.d)
        if shape.n % 2 == 0:
            near = sphere.retract(jnp.broadcast_to(axes[:1], axes.shape), noise.hair() * axes)
            near = near.at[0].set(axes[0])
            axes = jnp.where(kind == DEGENERATE, near, axes)
        angle = 2.0 * jnp.pi * jnp.arange(3.0 * (shape.n % 2)) / 3.0
        plane = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        triangle = einsum("np,dp->nd", plane, frame[:, :2])
        return {"x": sphere.normalize(jnp.concatenate([triangle, axes, -axes]))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = jnp.sum(case["x"], axis=0)
        singular = jnp.linalg.svd(case["x"], compute_uv=False)
        return {
            "tokens sum to 0": identity(total, scale=1.0, size=shape.n * shape.d).value,
            "not collinear": singular[1] / singular[0],
        }

    return Piece(draw, margins)


def antipodal_tokens() -> Piece:
    """Two tokens {u, −u} along a random axis."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, case
        u = noise.unit(1, shape.d)
        return {"x": jnp.concatenate([u, -u])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = jnp.sum(case["x"], axis=0)
        return {"tokens antipodal": identity(total, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def isotropic_pairs() -> Piece:
    """n/2 tokens at u and n/2 at −u with uᵀ B u = 0: a polygonal point (Lemma 8, corrected).

    Changes ``query_key``. Nearly degenerate: u next to an eigenvector of V.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        vectors = jnp.linalg.eigh((case["value"] + case["value"].T) / 2.0)[1]
        turn = jnp.where(kind == DEGENERATE, noise.hair(), 1.0)
        u = sphere.normalize(vectors[:, 0] + turn * noise.normal(shape.d))
        signs = jnp.where(jnp.arange(shape.n) < shape.n // 2, 1.0, -1.0)
        matrix = case["query_key"]
        own = einsum("a,ab,b->", u, matrix, u)
        return {
            "x": signs[:, None] * u[None, :],
            "query_key": matrix - own * u[:, None] * u[None, :],
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        u = case["x"][0]
        logits = einsum("ia,ab,jb->ij", case["x"], case["query_key"], case["x"])
        size = 1.0 + jnp.max(jnp.abs(case["query_key"]))
        off_axis = jnp.abs(einsum("ia,a->i", case["x"], u)) - 1.0
        return {
            "tokens sum to 0": identity(
                jnp.sum(case["x"], axis=0), scale=1.0, size=shape.n * shape.d
            ).value,
            "tokens on one line": identity(off_axis, scale=1.0, size=shape.d).value,
            "x'Bx = 0": identity(logits, scale=size, size=shape.d).value,
        }

    return Piece(draw, margins)


def enough_tokens() -> Piece:
    """n >= 3, or λ_2 > 0 (Theorem 2, corrected)."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        second = case["eigenvalues"][1] / instances.norm_of(case)
        return {"n >= 3 or lambda_2 > 0": jnp.asarray(1.0) if shape.n >= 3 else second}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)

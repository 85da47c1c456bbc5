"""Rank-one edits of a layer: heads with a regular V, matrices with an eigenvector, strong edits."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import identity
from theory.noise import Noise
from theory.statement import (
    Case,
    Piece,
    Shape,
)

GAP = 10.0


"""What the paper calls sufficient: a spectral gap of an order of magnitude."""


def attention_heads() -> Piece:
    """Heads with a stacked V that is square and regular; w a unit vector, u any with uᵀw = 1."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d, h = shape.d, shape.h
        k = d // h
        stretch = jnp.exp(noise.normal(d) * 0.5)
        small = jnp.where(kind == DEGENERATE, noise.log_uniform(1e-4, 1e-2), 1.0)
        stretch = stretch.at[-1].set(stretch[-1] * small)
        stacked = einsum("ab,b,cb->ac", noise.orthogonal(d), stretch, noise.orthogonal(d))
        w = noise.unit(d)
        loose = noise.normal(d)
        probe = w + loose - w * jnp.sum(w * loose)
        return {
            "query": noise.normal(h, k, d),
            "key": noise.normal(h, k, d),
            "value_weights": stacked.reshape(h, k, d),
            "output_weights": noise.normal(h, d, k),
            "target": w,
            "probe": jnp.where(noise.coin(), w, probe),
            "strength": jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 1e3)),
            "alpha": noise.log_uniform(0.1, 2.0),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        weights = case["value_weights"].reshape(shape.d, shape.d)
        singular = jnp.linalg.svd(weights, compute_uv=False)
        inner = jnp.sum(case["target"] * case["probe"]) - 1.0
        return {
            "V nonsingular": singular[-1] / singular[0] - 1e-10,
            "u'w = 1": identity(inner, scale=1.0, size=10 * shape.d).value,
            "c > 0": case["strength"],
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        weights = case["value_weights"].reshape(shape.d, shape.d)
        singular = jnp.linalg.svd(weights, compute_uv=False)
        return singular[-1] / singular[0]

    return Piece(draw, margins, degeneracy)


def edit_at_eigenvector(*, both: bool) -> Piece:
    """F w = λ w; u any vector, or (``both``) a left eigenvector of λ with uᵀw = 1.

    Adds ``target``, ``probe``, ``strength`` to ``real_eigenvector``'s fields.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        w, f, own = case["direction"], case["value"], case["eigenvalue"]
        found = {"target": w, "strength": noise.log_uniform(0.1, 10.0)}
        u = noise.normal(shape.d)
        if not both:
            return found | {"probe": u}
        u = u / jnp.sum(u * w)
        # Makes u a left eigenvector and keeps F w = λ w, since uᵀF w = λ.
        left = einsum("a,ab->b", u, f)
        changed = f + u[:, None] * (own * u - left)[None, :] / jnp.sum(u * u)
        return found | {"probe": u, "value": changed}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        w, f, own = case["target"], case["value"], case["eigenvalue"]
        size = frobenius(f)
        right = einsum("ab,b->a", f, w) - own * w
        found = {"F w = lambda w": identity(right, scale=size, size=10 * shape.d).value}
        if both:
            u = case["probe"]
            left = (einsum("a,ab->b", u, f) - own * u) / sphere.norm(u)
            found["u'F = lambda u'"] = identity(left, scale=size, size=10 * shape.d).value
        return found

    return Piece(draw, margins)


def gapped_plane() -> Piece:
    """d = 2, F = a w wᵀ + t w^⊥ wᵀ + b w^⊥ w^⊥ᵀ, c with (a + c)/|b| >= 10 and c >= 10 |a|.

    Boundary: a gap of ten by a hair. Nearly degenerate: t nearly 0.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        w = noise.unit(2)
        across = jnp.stack([-w[1], w[0]])
        a, b = noise.log_uniform(0.2, 2.0), noise.log_uniform(0.2, 2.0)
        b = jnp.where(noise.coin(), b, -b)
        pull = noise.log_uniform(0.1, 1e3)
        pull = jnp.where(kind == DEGENERATE, noise.hair(), pull)
        more = jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 10.0))
        strength = GAP * jnp.maximum(a, jnp.abs(b)) * (1.0 + more)
        value = a * w[:, None] * w[None] + pull * across[:, None] * w[None]
        value = value + b * across[:, None] * across[None]
        return {
            "value": value,
            "target": w,
            "probe": w,
            "strength": strength,
            "alpha": noise.log_uniform(0.1, 2.0),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        w = case["target"]
        across = jnp.stack([-w[1], w[0]])
        own = einsum("a,ab,b->", w, case["value"], w)
        back = einsum("a,ab,b->", w, case["value"], across)
        other = einsum("a,ab,b->", across, case["value"], across)
        size = frobenius(case["value"])
        largest = own + case["strength"]
        return {
            "F w^perp along w^perp": identity(back, scale=size, size=8).value,
            "gap of ten": largest / (GAP * jnp.abs(other)) - 1.0,
            "c >= 10 lambda": case["strength"] / (GAP * jnp.abs(own)) - 1.0 + 1e-12,
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        w = case["target"]
        moved = einsum("ab,b->a", case["value"], w)
        return sphere.norm(moved - w * jnp.sum(w * moved))

    return Piece(draw, margins, degeneracy)


def strong_edit() -> Piece:
    """Any F, a unit w = u and c > 8|F|; boundary by a hair, nearly degenerate: F nearly 0."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        f = noise.normal(shape.d, shape.d)
        f = f * jnp.where(kind == DEGENERATE, noise.log_uniform(1e-4, 5e-3) / frobenius(f), 1.0)
        more = jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 30.0))
        w = noise.unit(shape.d)
        return {
            "value": f,
            "target": w,
            "probe": w,
            "strength": 8.0 * frobenius(f) * (1.0 + more),
            "alpha": noise.log_uniform(0.1, 2.0),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"c > 8|F|": case["strength"] / (8.0 * frobenius(case["value"])) - 1.0}

    return Piece(draw, margins, lambda _shape, case: frobenius(case["value"]))

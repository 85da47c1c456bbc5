"""The second paper's task as pieces: data with unit columns, a query, and a point (v, w).

``data`` holds the columns of X as rows; ``frame`` has the eigenvectors of XXᵀ as columns, Z first;
``eigenvalues`` go with them; ``coefficients`` are those of the query. The number of heads of a
shape stands for r, the dimension of Z, here: these models have none.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.looped.data import covariance, with_spectrum
from pmt.numerics import einsum
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape

LARGE = 1e6
"""What ``rho`` must exceed where a statement speaks of its limit."""

TURN = 1e-6
"""What E sin² must exceed where a statement needs queries that are no eigenvectors."""


def data(*, turning: bool = False) -> Piece:
    """Unit columns with r equal leading eigenvalues, then a gap, and a unit query off both ends.

    λ_{r+1}/λ_1 in (0.2, 0.9), the others between a tenth of λ_{r+1} and itself. Boundary: the part
    of the query in Z, or outside of it, is small. Nearly degenerate: the gap is a hair. With
    ``turning`` the hypothesis is that XXᵀ turns queries, instead of a gap, and nearly degenerate
    spectra are nearly a single number.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        n, d, r = shape.n, shape.d, shape.h
        hair, inside = noise.hair(), noise.coin()
        near = noise.uniform(0.9, 0.98) if turning else 1.0 - hair
        ratio = jnp.where(kind == DEGENERATE, near, noise.uniform(0.2, 0.9))
        lowest = jnp.where(kind == DEGENERATE, near, 0.1) if turning else 0.1
        spread = lowest + (1.0 - lowest) * noise.uniforms(d - r - 1)
        tail = jnp.sort(jnp.concatenate([jnp.ones(1), spread]))[::-1]
        eigenvalues = jnp.concatenate([jnp.ones(r), ratio * tail])
        eigenvalues = eigenvalues * n / jnp.sum(eigenvalues)
        frame, mix = noise.orthogonal(d), noise.orthogonal(n)
        # The square root keeps the squares of both parts well above rounding.
        small = jnp.sqrt(hair)
        part = jnp.where(inside, small, 1.0 - small)
        part = jnp.where(kind == BOUNDARY, part, noise.uniform(0.2, 0.9))
        leading, other = noise.unit(r), _no_small(noise.unit(d - r))
        coefficients = jnp.concatenate([part * leading, jnp.sqrt((1 - part) * (1 + part)) * other])
        found = {
            "data": with_spectrum(eigenvalues, frame, mix),
            "eigenvalues": eigenvalues,
            "frame": frame,
            "coefficients": coefficients,
            "query": einsum("ik,k->i", frame, coefficients),
        }
        if not turning:
            return found
        # Where query and frame are both next to the axes every image is nearly an eigenvector.
        even = jnp.full(d, d**-0.5)
        turned = mean_turn(shape, found) > 2.0 * TURN
        found["coefficients"] = jnp.where(turned, coefficients, even)
        return found | {"query": einsum("ik,k->i", frame, found["coefficients"])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        rows, frame, values = case["data"], case["frame"], case["eigenvalues"]
        built = einsum("ik,k,jk->ij", frame, values, frame)
        size = 4 * shape.n * shape.d
        found = {
            "unit columns": identity(sphere.norm(rows) - 1.0, scale=1.0, size=size).value,
            "unit query": identity(sphere.norm(case["query"]) - 1.0, scale=1.0, size=size).value,
            "frame of XX'": identity(covariance(rows) - built, scale=shape.n, size=size).value,
        }
        if turning:
            return found | {"E sin^2(a, XX'a) > 1e-6": mean_turn(shape, case) - TURN}
        return found | _gap(shape, case)

    def degeneracy(shape: Shape, case: Case) -> Array:
        values = case["eigenvalues"]
        gap = (values[0] - values[shape.h]) / values[0]
        return mean_turn(shape, case) if turning else gap

    return Piece(draw, margins, degeneracy)


def mean_turn(shape: Shape, case: Case) -> Float[Array, ""]:
    """E sin² of the angle between a and XXᵀa, a any signed permutation of the query."""
    queries = einsum("gij,j->gi", jnp.asarray(signed_permutations(shape.d)), case["query"])
    image = sphere.normalize(einsum("ij,gj->gi", covariance(case["data"]), queries))
    return jnp.mean(jnp.sum(sphere.tangent_projection(image, queries) ** 2, axis=1))


def _no_small(unit: Float[Array, " k"]) -> Float[Array, " k"]:
    """Every coefficient at least a tenth of the average one, so that none is lost in rounding."""
    floor = 0.1 / unit.shape[0] ** 0.5
    return sphere.normalize(jnp.where(unit < 0, unit - floor, unit + floor))


def _gap(shape: Shape, case: Case) -> dict[str, Array]:
    values, r = case["eigenvalues"], shape.h
    inside = sphere.norm(case["coefficients"][:r])
    outside = jnp.abs(case["coefficients"][r])
    return {
        "lam_r > lam_(r+1)": (jnp.min(values[:r]) - jnp.max(values[r:])) / jnp.max(values),
        "a_Z != 0": inside,
        "c_(r+1) != 0": outside,
    }


def has_more_rank() -> Piece:
    """λ_{r+1} > 0: the data do not all lie in Z. Draws nothing."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        values = case["eigenvalues"]
        # Of zero, the sign is that of a violation.
        return {"lam_(r+1) > 0": jnp.where(values[shape.h] > 0, values[shape.h] / values[0], -1.0)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)


def point(low: float, high: float) -> Piece:
    """v, w > 0, log-uniform between the bounds, and alpha = ρ = v w; boundary: v is a hair."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        v, w = noise.log_uniform(low, high), noise.log_uniform(low, high)
        hair = noise.hair()
        v = jnp.where((kind == BOUNDARY) & (low < 1.0), hair, v)
        return {"v": v, "w": w, "alpha": v * w}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {name: case[name] / (1.0 + jnp.abs(case[name])) for name in ("v", "w")}

    return Piece(draw, margins)


def far_point() -> Piece:
    """ρ = alpha > 1e6, up to 1e10: where a limit in ρ is looked at. Boundary: by a hair."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        rho = LARGE * noise.log_uniform(10.0, 1e4)
        return {"alpha": jnp.where(kind == BOUNDARY, LARGE * (1.0 + noise.hair()), rho)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"rho > 1e6": (case["alpha"] - LARGE) / (case["alpha"] + LARGE)}

    return Piece(draw, margins)


def any_gamma() -> Piece:
    """γ = alpha > 0, finite: 0.03 to 3; boundary: a hair."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        gamma, hair = noise.log_uniform(0.03, 3.0), noise.hair()
        return {"alpha": jnp.where(kind == BOUNDARY, hair, gamma)}

    return Piece(draw, lambda _shape, case: {"gamma > 0": case["alpha"] / (1.0 + case["alpha"])})


def signed_permutations(d: int) -> np.ndarray:
    """All 2^d d! of them, shape ``(size, d, d)``.

    They act irreducibly on R^d, so that averaging Qᵀ A Q over them gives (tr A / d) I, as the
    average over all rotations does: an invariant law with finitely many values.
    """
    from itertools import permutations, product

    found = [
        np.eye(d)[list(order)] * np.array(signs)[:, None]
        for order in permutations(range(d))
        for signs in product((1.0, -1.0), repeat=d)
    ]
    return np.stack(found)


def invariant_law() -> Piece:
    """Probabilities of the signed permutations Q that turn data and query: all the same."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del noise, kind, case
        size = len(signed_permutations(shape.d))
        return {"law": jnp.full((size,), 1.0 / size)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size = len(signed_permutations(shape.d))
        law = case["law"]
        return {"law invariant": identity(law - 1.0 / size, scale=1.0 / size, size=size).value}

    return Piece(draw, margins)


def enough_rho() -> Piece:
    """ε in (1e-6, 0.1) and ρ = alpha > 2 / (√ε |XXᵀa|); boundary: by a hair."""

    def needed(case: Case) -> Array:
        image = einsum("ij,j->i", covariance(case["data"]), case["query"])
        return 2.0 / (jnp.sqrt(case["epsilon"]) * sphere.norm(image))

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        epsilon, excess, hair = noise.log_uniform(1e-6, 0.1), noise.uniform(0.1, 2.0), noise.hair()
        excess = jnp.where(kind == BOUNDARY, hair, excess)
        rho = (1.0 + excess) * needed(dict(case) | {"epsilon": epsilon})
        return {"epsilon": epsilon, "alpha": rho}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        least = needed(case)
        return {"rho > 2/(sqrt(eps)|XX'a|)": (case["alpha"] - least) / (case["alpha"] + least)}

    return Piece(draw, margins)

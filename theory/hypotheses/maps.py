"""The map: V or its heads, their eigenpairs, and the step size."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt.numerics import einsum
from pmt.stability import conditions
from theory import instances
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import identity, rounding
from theory.noise import Noise
from theory.statement import Case, Piece, Shape

Bound = Literal["none", "sharp", "half norm", "norm", "closed norm", "norm or positive"]
Which = Literal["first", "others", "any", "negative", "ends"]


def symmetric_value(*, last: Literal["any", "negative"] = "any") -> Piece:
    """Assumption 1: V = U diag(λ) Uᵀ nonsingular, λ_1 > λ_2 >= ... >= λ_d, λ_1 > 0.

    The eigenpairs are drawn and V is made of them, so that no eigensolver is needed. ``last``
    makes λ_d negative. Nearly degenerate: λ_2 next to λ_1, a repeated eigenvalue, one next to
    zero, or λ_d next to −λ_1.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        ratios = _ratios(noise, shape.d)
        mode = noise.integer(0, 4)
        small = noise.log_uniform(1e-6, 1e-3)
        bent = jnp.stack(
            [
                ratios.at[0].set(1.0 - small),
                ratios.at[-1].set(ratios[0]),
                ratios.at[-1].set(small),
                ratios.at[-1].set(-1.0 + small),
            ]
        )[mode]
        ratios = jnp.where(kind == DEGENERATE, bent, ratios)
        if last == "negative":
            ratios = -jnp.sort(-ratios)
            ratios = ratios.at[-1].set(-jnp.abs(ratios[-1]))
        top = noise.log_uniform(0.3, 3.0)
        eigenvalues = top * jnp.concatenate([jnp.ones(1), -jnp.sort(-ratios)])
        return {"eigenvalues": eigenvalues, "frame": noise.orthogonal(shape.d)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        gram = einsum("ak,al->kl", case["frame"], case["frame"]) - jnp.eye(shape.d)
        symmetric = identity(gram, scale=1.0, size=shape.d).value
        found = {"V symmetric": symmetric} | _assumption_1(case)
        if last == "negative":
            found["lambda_d < 0"] = -case["eigenvalues"][-1] / instances.norm_of(case)
        return found

    return Piece(draw, margins, _spectral_degeneracy)


def symmetric_matrix() -> Piece:
    """Assumption 1 with V given by its entries, not by its eigenpairs."""
    pairs = symmetric_value()

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        return {"value": instances.value_matrix(pairs.draw(noise, kind, shape, case))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        asymmetry = case["value"] - case["value"].T
        symmetric = identity(asymmetry, scale=instances.norm_of(case), size=shape.d).value
        return {"V symmetric": symmetric} | _assumption_1(case)

    return Piece(draw, margins, _spectral_degeneracy)


def _assumption_1(case: Case) -> dict[str, Array]:
    values, size = instances.spectrum_of(case), instances.norm_of(case)
    return {
        "lambda_1 > 0": values[0] / size,
        "lambda_1 simple": (values[0] - values[1]) / size,
        "V nonsingular": jnp.min(jnp.abs(values)) / size,
    }


def _spectral_degeneracy(shape: Shape, case: Case) -> Array:
    del shape
    values = instances.spectrum_of(case)
    gaps = jnp.min(values[:-1] - values[1:])
    opposite = jnp.abs(values[0] + values[-1])
    nearest = jnp.minimum(jnp.minimum(gaps, opposite), jnp.min(jnp.abs(values)))
    return nearest / instances.norm_of(case)


def _ratios(noise: Noise, d: int) -> Float[Array, " d_1"]:
    """λ_l / λ_1 for l >= 2, decreasing, away from 0 and 1."""
    floor = jnp.array([-2.5, -0.9, 0.05])[noise.integer(0, 3)]
    drawn = floor + (0.95 - floor) * noise.uniforms(d - 1)
    away = jnp.where(drawn < 0, jnp.minimum(drawn, -0.02), jnp.maximum(drawn, 0.02))
    return -jnp.sort(-away)


def any_value() -> Piece:
    """V real, nothing more: Gaussian, or (nearly degenerate) of rank one with a Jordan block."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        value = noise.log_uniform(0.1, 3.0) * noise.normal(shape.d, shape.d)
        # e_1 e_2ᵀ in a random frame: nilpotent.
        jordan = value[:, :1] * jnp.zeros((1, shape.d)).at[0, -1].set(1.0)
        jordan = jordan.at[-1, -1].set(0.0)
        return {"value": jnp.where(kind == DEGENERATE, jordan, value)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        singular = jnp.linalg.svd(case["value"], compute_uv=False)
        return singular[-1] / singular[0]

    return Piece(draw, degeneracy=degeneracy)


def step(bound: Bound) -> Piece:
    """alpha > 0 below a bound; boundary instances come within a hair of it.

    ``sharp``: alpha < −2/(λ_1 + λ_d) where λ_d < −λ_1 (Lemma 4). ``half norm``: alpha < 1/(2|V|).
    ``norm``: alpha < 1/|V|; ``closed norm``: alpha <= 1/|V|, equal on the boundary. ``norm or
    positive``: alpha < 1/|V|, or any alpha if V > 0. ``none``: any alpha; its boundary instances
    have very small or large steps.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        size = instances.norm_of(case)
        free = noise.log_uniform(0.03, 4.0) / size
        hair = noise.hair()
        extreme = jnp.where(noise.coin(), hair, 1.0 / jnp.sqrt(hair))
        free = jnp.where(kind == BOUNDARY, extreme / size, free)
        limit = _limit(bound, case)
        fraction = noise.uniform(0.05, 0.95)
        edge = jnp.asarray(1.0) if bound == "closed norm" else 1.0 - hair
        fraction = jnp.where(kind == BOUNDARY, edge, fraction)
        bounded = jnp.where(jnp.isfinite(limit), limit, 0.0) * fraction
        return {"alpha": jnp.where(jnp.isfinite(limit), bounded, free)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        size = instances.norm_of(case)
        relative = case["alpha"] * size
        found = {"alpha > 0": relative / (1.0 + relative)}
        room = _room(bound, case)
        return found if room is None else found | {"step bound": room}

    return Piece(draw, margins)


def _limit(bound: Bound, case: Case) -> Array:
    if bound == "none":
        return jnp.asarray(jnp.inf)
    values = instances.spectrum_of(case)
    if bound == "sharp":
        excess = -(values[0] + values[-1])
        return jnp.where(excess > 0, 2.0 / jnp.where(excess > 0, excess, 1.0), jnp.inf)
    by_norm = 1.0 / instances.norm_of(case)
    if bound == "half norm":
        return by_norm / 2.0
    if bound in ("norm", "closed norm"):
        return by_norm
    return jnp.where(values[-1] > 0, jnp.inf, by_norm)


def _room(bound: Bound, case: Case) -> Array | None:
    if bound == "none":
        return None
    values, alpha = instances.spectrum_of(case), case["alpha"]
    if bound == "sharp":
        return conditions.consensus_step_margin(alpha, values[0], values[-1])
    room = conditions.norm_step_margin(alpha, values, 2.0 if bound == "half norm" else 1.0)
    if bound == "closed norm":
        return room + rounding(1)
    if bound == "norm or positive":
        return jnp.maximum(room, values[-1] / instances.norm_of(case))
    return room


def moderate_step() -> Piece:
    """alpha between 0.03 and 4, whatever V is."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, shape, case
        return {"alpha": noise.log_uniform(0.03, 4.0)}

    return Piece(draw, lambda _shape, case: {"alpha > 0": case["alpha"] / (1.0 + case["alpha"])})


def eigenpair(which: Which) -> Piece:
    """An eigenpair V v = λ_k v of the symmetric V: its index and its vector.

    ``negative``: any k with λ_k < 0. ``ends``: k = 1, or k = d where λ_d < −λ_1: the only ones at
    which bipartite points can be stable.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        values = case["eigenvalues"]
        index = noise.integer(*{"first": (0, 1), "others": (1, shape.d)}.get(which, (0, shape.d)))
        if which == "negative":
            below = jnp.maximum(jnp.sum((values < 0).astype(jnp.int32), dtype=jnp.int32), 1)
            index = shape.d - 1 - index % below
        if which == "ends":
            last = (values[-1] < -values[0]) & (index > 0)
            index = jnp.where(last, shape.d - 1, 0)
        return {"index": index, "direction": case["frame"][:, index]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size, own = instances.norm_of(case), instances.principal_eigenvalue(case)
        moved = einsum("ab,b->a", instances.value_matrix(case), case["direction"])
        defect = moved - own * case["direction"]
        found = {"V v = lambda v": identity(defect, scale=size, size=shape.d).value}
        if which in ("first", "others"):
            place = jnp.where(case["index"] == 0, 1.0, -1.0)
            found["place of k"] = place if which == "first" else -place
        if which == "negative":
            found["lambda_k < 0"] = -own / size
        if which == "ends":
            last = (case["eigenvalues"][0] + own) / size
            found["place of k"] = jnp.where(case["index"] == 0, 1.0, -last)
        return found

    return Piece(draw, margins)


def real_eigenvector() -> Piece:
    """F arbitrary with one real eigenpair F v = λ v: ``value``, ``direction``, ``eigenvalue``.

    Boundary: |1 + alpha λ| small, through λ (alpha is drawn before); nearly degenerate: λ small.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        v = noise.unit(shape.d)
        matrix = noise.log_uniform(0.2, 2.0) * noise.normal(shape.d, shape.d)
        eigenvalue = 2.0 * noise.normal()
        hair = noise.hair()
        near = (hair - 1.0) / case["alpha"]
        eigenvalue = jnp.where(kind == BOUNDARY, near, eigenvalue)
        eigenvalue = jnp.where(kind == DEGENERATE, hair, eigenvalue)
        moved = einsum("ab,b->a", matrix, v)
        value = matrix + (eigenvalue * v - moved)[:, None] * v[None, :]
        return {"value": value, "direction": v, "eigenvalue": eigenvalue}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        moved = einsum("ab,b->a", case["value"], case["direction"])
        defect = moved - case["eigenvalue"] * case["direction"]
        size = frobenius(case["value"])
        found = {"F v = lambda v": identity(defect, scale=size, size=shape.d).value}
        factor = 1.0 + case["alpha"] * case["eigenvalue"]
        return found | {"1 + alpha lambda != 0": jnp.abs(factor) / (1.0 + case["alpha"] * size)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.abs(case["eigenvalue"])

    return Piece(draw, margins, degeneracy)


def heads(*, symmetric_sum: bool) -> Piece:
    """Heads F_h, not symmetric, that sum to V, and B_h real: ``heads``, ``query_keys``.

    Nearly degenerate: one head carries all of V and the others cancel.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        total = instances.value_matrix(case)
        loose = noise.normal(shape.h, shape.d, shape.d) * frobenius(total)
        loose = loose - jnp.mean(loose, axis=0, keepdims=True)
        even = loose + total[None] / shape.h
        one = loose.at[0].add(total)
        keys = noise.log_uniform(0.1, 3.0) * noise.normal(shape.h, shape.d, shape.d)
        return {"heads": jnp.where(kind == DEGENERATE, one, even), "query_keys": keys}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = instances.value_matrix(case)
        size = jnp.sqrt(jnp.sum(case["heads"] ** 2)) + frobenius(total)
        defect = jnp.sum(case["heads"], axis=0) - total
        found = {"heads sum to F": identity(defect, scale=size, size=shape.d * shape.h).value}
        if symmetric_sum:
            asymmetry = total - total.T
            found["F symmetric"] = identity(asymmetry, scale=size, size=shape.d).value
        return found

    return Piece(draw, margins)

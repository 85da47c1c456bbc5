"""What the second paper's theorems conclude, as margins of one instance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from pmt import sphere
from pmt.looped import core, manifold, two_scalar
from pmt.looped.data import Samples, covariance
from pmt.looped.objectives import Objective, sample_losses
from pmt.numerics import einsum
from theory.hypotheses.looped import TURN, mean_turn, signed_permutations
from theory.margin import Margin, every, identity, inequality, rounding
from theory.statement import Case, Shape

LOOPS = 2

# Of the descent on (v, w): its steps, the first of them relative to ρ², and what the exponents may
# miss: L' differs from its limit by 1/ρ, and v from w.
_STEPS = 4000
_FIRST = 0.05
_SLOPE_ERROR = 0.03


def _samples(shape: Shape, case: Case) -> Samples:
    leading = case["frame"][:, : shape.h]
    return Samples(case["data"][None], case["query"][None], leading[None])


def _turned(shape: Shape, case: Case) -> Samples:
    """The instance turned by every signed permutation: the values of the law."""
    turns = jnp.asarray(signed_permutations(shape.d))
    return Samples(
        einsum("gij,nj->gni", turns, case["data"]),
        einsum("gij,j->gi", turns, case["query"]),
        einsum("gij,jr->gir", turns, case["frame"][:, : shape.h]),
    )


def invariance(shape: Shape, case: Case) -> Margin:
    """At (v, w) on the manifold the population gradient of the full V and W is tangent to it.

    The law has finitely many values, so that its gradient is exact to rounding. The part on the
    manifold is (1/d) of the gradient of the two-scalar dynamics.
    """
    given, d = _turned(shape, case), shape.d

    def population(weights: core.Weights) -> Array:
        y = core.apply(weights, given.data, given.query, LOOPS, "l2")
        return jnp.sum(case["law"] * sample_losses("subspace", y, given))

    weights = manifold.on_manifold(case["v"], case["w"], d)
    gradient = jax.grad(population)(weights)
    derivative = jax.grad(two_scalar.manifold_loss)(
        case["alpha"], case["eigenvalues"], case["coefficients"], shape.h, LOOPS, "l2", "subspace"
    )
    off, on = manifold.off_manifold(gradient), manifold.scalars(gradient)
    size = 4 * d * d * shape.n * LOOPS
    # A sample's gradient, before averaging; rounding is relative to it.
    outside = sphere.norm(case["coefficients"][shape.h :])
    scale = (case["v"] + case["w"]) * shape.n * LOOPS * outside / jnp.sqrt(1.0 + case["alpha"] ** 2)
    return every(
        identity(jnp.stack(off), scale=scale, size=size),
        identity(on.v - case["w"] * derivative / d, scale=scale, size=size),
        identity(on.w - case["v"] * derivative / d, scale=scale, size=size),
    )


def growth(shape: Shape, case: Case) -> Margin:
    """v, w grow as t^(1/4) and the loss tends to the power method's, positive, as t^(-1/2).

    The two-scalar descent from ρ_0 = v_0 w_0, with a learning rate that moves ρ by a twentieth in
    the first step, over 4000 steps; exponents over its last three quarters (a factor of four).
    """
    values, coefficients = case["eigenvalues"], case["coefficients"]

    def loss(rho: Array) -> Array:
        return two_scalar.manifold_loss(rho, values, coefficients, shape.h, LOOPS, "l2", "subspace")

    derivative = jax.grad(loss)
    v, w = case["v"], case["w"]
    rate = _FIRST * v * w / ((v * v + w * w) * jnp.abs(derivative(v * w)))

    def move(_: Any, state: Array) -> Array:
        change = rate * derivative(state[0] * state[1])
        return state - change * state[::-1]

    early = lax.fori_loop(0, _STEPS // 4, move, jnp.stack([v, w]))
    late = lax.fori_loop(0, _STEPS - _STEPS // 4, move, early)
    exponents = jnp.log(late / early) / np.log(4.0)
    power = (values / values[0]) ** LOOPS * coefficients
    limit = jnp.sum(power[shape.h :] ** 2) / jnp.sum(power**2)
    above = jnp.stack([loss(state[0] * state[1]) - limit for state in (early, late)])
    decay = jnp.log(jnp.abs(above[1] / above[0])) / np.log(4.0)
    error = jnp.stack([jnp.max(jnp.abs(exponents - 0.25)), 0.5 * jnp.abs(decay + 0.5)])
    value = jnp.min(1.0 - error / _SLOPE_ERROR)
    outside = jnp.sum(coefficients[shape.h :] ** 2)
    return every(
        Margin(jnp.where(jnp.isfinite(value), jnp.maximum(value, -1e3), -1e3), jnp.asarray(1e-3)),
        inequality(limit / outside, size=shape.d),
    )


def limit_bound(shape: Shape, case: Case) -> Margin:
    """0 < L(ρ) − L_inf <= 2 L |a_perp|² / (|a_Z|² (1 + ρ λ_1)) for the full model at ρ = v w.

    L_inf is the loss of L steps of the power method on the same sample.
    """
    given = _samples(shape, case)
    weights = manifold.on_manifold(case["v"], case["w"], shape.d)
    y = core.apply(weights, given.data, given.query, LOOPS, "l2")
    iterate = manifold.power_iterate(given.data, given.query, LOOPS)
    difference = (sample_losses("subspace", y, given) - sample_losses("subspace", iterate, given))[
        0
    ]
    inside = jnp.sum(case["coefficients"][: shape.h] ** 2)
    outside = jnp.sum(case["coefficients"][shape.h :] ** 2)
    bound = 2.0 * LOOPS * outside / (inside * (1.0 + case["alpha"] * case["eigenvalues"][0]))
    # Where the bound exceeds 1 it says nothing about a loss that is at most 1.
    bound = jnp.minimum(bound, 1.0)
    error = rounding(shape.n * shape.d * LOOPS, 1.0 / jnp.minimum(bound, 1.0))
    value = jnp.minimum(difference / bound, 1.0 - difference / bound)
    return Margin(jnp.clip(value, -1e3, 1.0), error)


def _one_layer(shape: Shape, case: Case, objective: Objective) -> tuple[Array, Array, Array]:
    """The quadratic A γ² − 2 B γ + C that the loss without Norm is in γ = v w, over the law of a.

    a is any signed permutation of the query, independent of X.
    """
    queries = einsum("gij,j->gi", jnp.asarray(signed_permutations(shape.d)), case["query"])
    image = einsum("ij,gj->gi", covariance(case["data"]), queries)
    target = image if objective == "power" else sphere.normalize(image)
    wanted = target - queries
    return (
        jnp.mean(jnp.sum(image * image, axis=1)),
        jnp.mean(jnp.sum(image * wanted, axis=1)),
        jnp.mean(jnp.sum(wanted * wanted, axis=1)),
    )


def positive_without_norm(shape: Shape, case: Case) -> Margin:
    """Both targets: descent on (v, w) reaches γ* = B/A, where the full model's loss is > 1e-6.

    And no less than E sin² of the angle between a and XXᵀa, what is left with a γ for every a.
    """
    return every(*(_positive(shape, case, target) for target in ("power", "unit-power")))


def _positive(shape: Shape, case: Case, objective: Any) -> Margin:
    a, b, c = _one_layer(shape, case, objective)
    best, least = b / a, c - b * b / a
    turns = jnp.asarray(signed_permutations(shape.d))
    queries = einsum("gij,j->gi", turns, case["query"])
    count = len(signed_permutations(shape.d))
    given = Samples(
        jnp.broadcast_to(case["data"][None], (count, *case["data"].shape)),
        queries,
        jnp.broadcast_to(case["frame"][None, :, : shape.h], (count, shape.d, shape.h)),
    )
    weights = manifold.on_manifold(best, jnp.ones_like(best), shape.d)
    y = core.apply(weights, given.data, given.query, 1, "none")
    measured = jnp.mean(sample_losses(objective, y, given))
    size = shape.n * shape.d * 8

    def move(_: Any, state: Array) -> Array:
        change = 2.0 * (a * state[0] * state[1] - b)
        step = 0.05 / (a * (1.0 + jnp.sum(state * state)))
        return state - step * change * state[::-1]

    end = lax.fori_loop(0, 3000, move, jnp.stack([case["v"], case["w"]]))
    excess = a * (end[0] * end[1] - best) ** 2 / (1.0 + a)
    missing = jnp.maximum(mean_turn(shape, case) - least, 0.0)
    return every(
        identity(measured - least, scale=1.0 + a, size=size),
        identity(missing, scale=1.0 + a, size=size),
        inequality((least - TURN) / (least + TURN), size=size, conditioning=(1.0 + a) / TURN),
        inequality(1e-2 - excess, size=size),
    )


def arbitrarily_small_with_norm(shape: Shape, case: Case) -> Margin:
    """One layer with Norm: the full model's loss against XXᵀa/|XXᵀa| is below ε."""
    given = _samples(shape, case)
    weights = manifold.on_manifold(case["alpha"], jnp.ones_like(case["alpha"]), shape.d)
    y = core.apply(weights, given.data, given.query, 1, "l2")
    loss = sample_losses("unit-power", y, given)[0]
    value = 1.0 - loss / case["epsilon"]
    # A difference of two unit vectors, squared.
    error = rounding(shape.n * shape.d) ** 2 / case["epsilon"] + rounding(shape.n * shape.d)
    return Margin(jnp.maximum(value, -1e3), error)


def _angles(shape: Shape, case: Case, norm: Any, loops: int) -> tuple[Array, Array]:
    """sin φ and tan φ of the full model after so many loops, φ the angle to Z."""
    given = _samples(shape, case)
    weights = manifold.on_manifold(case["alpha"], jnp.ones_like(case["alpha"]), shape.d)
    y = core.apply(weights, given.data, given.query, loops, norm)[0]
    inside = einsum("i,ir->r", y, case["frame"][:, : shape.h])
    outside = einsum("i,ir->r", y, case["frame"][:, shape.h :])
    across, along = sphere.norm(outside), sphere.norm(inside)
    return across / jnp.hypot(across, along), across / along


def without_norm(shape: Shape, case: Case) -> Margin:
    """R = (1 + γ λ_{r+1})/(1 + γ λ_1) > λ_{r+1}/λ_1, and tan φ_L between two multiples of R^L.

    (|c_{r+1}|/|a_Z|) R^L <= tan φ_L <= (|a_perp|/|a_Z|) R^L: R is the factor per loop in the long
    run.
    """
    r, values = shape.h, case["eigenvalues"]
    inside, outside, factor = _parts(shape, case)
    tangent = _angles(shape, case, "none", LOOPS)[1]
    low = jnp.abs(case["coefficients"][r]) / inside * factor**LOOPS
    high = outside / inside * factor**LOOPS
    size, conditioning = _accuracy(shape, tangent, inside)
    return every(
        inequality((factor - values[r] / values[0]) / factor, size=size),
        inequality(1.0 - low / tangent, size=size, conditioning=conditioning),
        inequality(1.0 - tangent / high, size=size, conditioning=conditioning),
    )


def first_loop(shape: Shape, case: Case) -> Margin:
    """The first loop's own factor tan φ_1/tan φ_0 is below R."""
    inside, outside, factor = _parts(shape, case)
    tangent = _angles(shape, case, "none", 1)[1]
    size, conditioning = _accuracy(shape, tangent, inside)
    value = 1.0 - tangent * inside / (outside * factor)
    return inequality(value, size=size, conditioning=conditioning)


def _parts(shape: Shape, case: Case) -> tuple[Array, Array, Array]:
    """|a_Z|, |a_perp|, and R at γ = alpha."""
    r, values, gamma = shape.h, case["eigenvalues"], case["alpha"]
    factor = (1.0 + gamma * values[r]) / (1.0 + gamma * values[0])
    coefficients = case["coefficients"]
    return sphere.norm(coefficients[:r]), sphere.norm(coefficients[r:]), factor


def _accuracy(shape: Shape, tangent: Array, inside: Array) -> tuple[int, Array]:
    return 8 * shape.n * shape.d, 1.0 / jnp.minimum(1.0, tangent) + 1.0 / inside


def with_norm(shape: Shape, case: Case) -> Margin:
    """|c_{r+1}| q^L <= lim sin φ_L <= (|a_perp|/|a_Z|) q^L, q = λ_{r+1}/λ_1, as ρ → ∞.

    At ρ = alpha; what is left of the limit, 2L/(ρ λ_{r+1}) relatively, is part of the tolerance.
    """
    r, values, coefficients = shape.h, case["eigenvalues"], case["coefficients"]
    ratio = (values[r] / values[0]) ** LOOPS
    sine = _angles(shape, case, "l2", LOOPS)[0]
    low = jnp.abs(coefficients[r]) * ratio
    high = sphere.norm(coefficients[r:]) / sphere.norm(coefficients[:r]) * ratio
    value = jnp.minimum(1.0 - low / sine, 1.0 - sine / high)
    conditioning = 1.0 / sine + 1.0 / sphere.norm(coefficients[:r])
    left = 2.0 * LOOPS / (1e6 * values[r])
    return Margin(jnp.maximum(value, -1e3), rounding(8 * shape.n * shape.d, conditioning) + left)

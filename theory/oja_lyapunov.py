"""The Lyapunov function of the Oja system and its exact increment, II.1."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from theory import hypotheses as hyp
from theory import instances, witnesses
from theory import linearization as lin
from theory.instances import BOUNDARY
from theory.margin import Margin, every, identity, inequality, rounding
from theory.noise import Noise
from theory.oja_equilibria import influence
from theory.statement import Case, Clause, Explicit, Hypotheses, Piece, Shape, Twin


def energy(value: Float[Array, "d d"], x: Float[Array, "n d"]) -> Float[Array, ""]:
    """w(X) = mᵀ V m with m the mean of the tokens; the paper's W is −(n/2) w."""
    mean = jnp.mean(x, axis=0)
    return einsum("a,ab,b->", mean, value, mean)


def moved_by(shape: Shape, case: Case) -> tuple[Array, Array]:
    """X⁺ − X by the map, and |y_i|."""
    system, x = instances.oja(shape, case), case["x"]
    return system(x) - x, sphere.norm(system.unnormalized(x))


def conditioning(shape: Shape, case: Case) -> Array:
    """How much the map magnifies rounding at the tokens ``x``."""
    return lin.conditioning(instances.oja(shape, case), case["x"])


def increment(shape: Shape, case: Case) -> Float[Array, ""]:
    """w(X⁺) − w(X) without the cancellation of a difference of two values: Δmᵀ V (2m + Δm)."""
    difference, _ = moved_by(shape, case)
    value, mean = instances.value_matrix(case), jnp.mean(case["x"], axis=0)
    change = jnp.mean(difference, axis=0)
    return einsum("a,ab,b->", change, value, 2.0 * mean + change)


def exact_increment(shape: Shape, case: Case) -> Margin:
    """alpha uᵀΔx_i = (1 + |y_i|)/2 |Δx_i|², and what it makes of w."""
    difference, length = moved_by(shape, case)
    value = instances.value_matrix(case)
    alpha, size, u = case["alpha"], instances.norm_of(case), influence(case)
    squares = jnp.sum(difference**2, axis=-1)
    change = jnp.mean(difference, axis=0)
    amplification = conditioning(shape, case)
    token = alpha * einsum("a,ia->i", u, difference) - (1.0 + length) / 2.0 * squares
    both = jnp.sum((1.0 + length) * squares) / shape.n
    both = both + alpha * einsum("a,ab,b->", change, value, change)
    total = alpha * increment(shape, case) - both
    written = energy(value, case["x"] + difference) - energy(value, case["x"])
    written = written - increment(shape, case)
    scale = (1.0 + alpha * size) * amplification

    def vanishes(error: Array) -> Margin:
        size = shape.n * shape.d
        return identity(error, scale=scale, size=size, conditioning=amplification)

    return every(vanishes(token), vanishes(total), vanishes(alpha * written))


def _lower_bound(shape: Shape, case: Case) -> Margin:
    """w(X⁺) − w(X) >= (1/n) Σ ((1 + |y_i|)/alpha + min(λ_d, 0)) |Δx_i|², and this is >= 0."""
    difference, length = moved_by(shape, case)
    alpha, size = case["alpha"], instances.norm_of(case)
    last = jnp.minimum(instances.spectrum_of(case)[-1], 0.0)
    squares = jnp.sum(difference**2, axis=-1)
    rate = (1.0 + length) + alpha * last
    bound = jnp.sum(rate * squares) / shape.n
    gain = alpha * increment(shape, case)
    amplification = conditioning(shape, case)
    # The difference of the two is alpha (Δmᵀ V Δm − min(λ_d, 0) mean |Δx_i|²): never negative.
    scale = (1.0 + alpha * size) * amplification
    short = jnp.maximum(bound - gain, 0.0)
    return every(
        identity(short, scale=scale, size=shape.n * shape.d, conditioning=amplification),
        increases(shape, case),
    )


def increases(shape: Shape, case: Case) -> Margin:
    """w(X⁺) > w(X), relative to alpha |V| mean |Δx_i|²; undecided where nothing moves."""
    difference, _ = moved_by(shape, case)
    alpha, size = case["alpha"], instances.norm_of(case)
    squares = jnp.mean(jnp.sum(difference**2, axis=-1))
    gain = alpha * increment(shape, case)
    amplification = conditioning(shape, case)
    unit = (1.0 + alpha * size) * squares
    # Rounding of the step, relative to the step.
    error = amplification / jnp.maximum(jnp.sqrt(squares), 1e-300)
    tiny = squares < (1e-7 * amplification) ** 2
    value = jnp.where(tiny, 0.0, gain / jnp.where(tiny, 1.0, unit))
    return inequality(value, size=shape.n * shape.d, conditioning=jnp.minimum(error, 1e12))


def _negative_step() -> Piece:
    """alpha <= 1/|λ_d| if λ_d < 0, any alpha > 0 otherwise; equal to it on the boundary."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        last = instances.spectrum_of(case)[-1]
        free = noise.log_uniform(0.03, 4.0) / instances.norm_of(case)
        fraction = jnp.where(kind == BOUNDARY, 1.0, noise.uniform(0.05, 0.95))
        negative = last < 0
        return {"alpha": jnp.where(negative, fraction / jnp.where(negative, -last, 1.0), free)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        last = instances.spectrum_of(case)[-1]
        room = 1.0 - case["alpha"] * jnp.maximum(-last, 0.0)
        return {"alpha <= 1/|lambda_d| or V > 0": room + rounding(1)}

    return Piece(draw, margins)


def sufficient_increase(shape: Shape, case: Case) -> Margin:
    """w(X⁺) − w(X) >= c mean |Δx_i|² with c = 1/alpha + min(λ_d, 0), and steps are not too short.

    |Δx_i| >= alpha |Π_i u|/(1 + alpha |V|): what convergence to a single equilibrium follows from
    (Łojasiewicz; Absil, Mahony and Andrews), w being analytic. And w grows wherever a token moves.
    """
    difference, _ = moved_by(shape, case)
    alpha, size = case["alpha"], instances.norm_of(case)
    last = jnp.minimum(instances.spectrum_of(case)[-1], 0.0)
    squares = jnp.sum(difference**2, axis=-1)
    gain = alpha * increment(shape, case) - (1.0 + alpha * last) * jnp.mean(squares)
    u = jnp.broadcast_to(influence(case)[None], difference.shape)
    across = sphere.norm(sphere.tangent_projection(case["x"], u))
    longer = sphere.norm(difference) - alpha * across / (1.0 + alpha * size)
    amplification = conditioning(shape, case)
    scale = (1.0 + alpha * size) * amplification

    def at_least_zero(value: Array) -> Margin:
        error = jnp.maximum(-jnp.min(value), 0.0)
        return identity(error, scale=scale, size=shape.n * shape.d, conditioning=amplification)

    return every(at_least_zero(gain), at_least_zero(longer), increases(shape, case))


def energies(shape: Shape, case: Case) -> dict[str, Any]:
    """w before and after one step."""

    @jax.jit
    def both(case: Case) -> tuple[Array, Array]:
        value, x = instances.value_matrix(case), case["x"]
        return energy(value, x), energy(value, instances.oja(shape, case)(x))

    before, after = both(dict(case))
    return {"w before": float(before), "w after": float(after)}


def _all_but_one(n: int, alpha: float) -> Explicit:
    """n − 1 tokens at v_d and one at −v_d."""
    x = np.zeros((n, 2))
    x[:, 1] = 1.0
    x[-1, 1] = -1.0
    return Explicit(
        name=f"all jump, n = {n}",
        text=f"V = diag(1, -1), alpha = {alpha}, {n - 1} tokens at v_2 and one at -v_2: all jump "
        "to -v_2, and w falls to -1",
        shape=Shape(n, 2),
        case=witnesses.symmetric([1.0, -1.0], alpha, x=x, index=1),
        numbers=energies,
    )


ALL_JUMP = (_all_but_one(7, 1.5), _all_but_one(23, 1.1))


_ANYWHERE = Hypotheses(
    (hyp.symmetric_value(), _negative_step(), hyp.tokens()), (Shape(2, 2), Shape(4, 3))
)


MONOTONE = Clause(
    name="monotone",
    text="w(X+) - w(X) >= (1/n) sum_i ((1 + |y_i|)/alpha + min(lambda_d, 0)) |Dx_i|^2 > 0 wherever "
    "a token moves, for alpha <= 1/|lambda_d|, and for every alpha if V > 0",
    hypotheses=_ANYWHERE,
    conclusion=_lower_bound,
    twin=Twin("alpha <= 1/|lambda_d| or V > 0", ALL_JUMP[0]),
)

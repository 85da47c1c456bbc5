"""Supplementary D.2: bipartite points of the Oja system, Lemma 5."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from theory import conclusions, convergence, instances, trajectories, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory import measurements as measure
from theory.instances import BOUNDARY
from theory.margin import Margin, every, identity, rounding
from theory.noise import Noise
from theory.oja import PAPER
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    Twin,
    numbered,
)

_RUN = 600
# φ² from which two pairs are apart and not at one place to rounding; growth from rounding to 1.
_APART, _ENOUGH = 1e-12, 40.0


def _factors(case: Case) -> tuple[Array, Array]:
    """γ, the mean of the signs, and D = diag(1 + alpha λ_k s_i γ)."""
    gamma = jnp.mean(case["signs"])
    own = instances.principal_eigenvalue(case)
    return gamma, 1.0 + case["alpha"] * own * case["signs"] * gamma


def _consensus_vector(shape: Shape, case: Case) -> Margin:
    """The proof: (1, ..., 1) is an eigenvector of D⁻¹ (I + (alpha λ_1/n) 11ᵀ)."""
    _, factors = _factors(case)
    rate = case["alpha"] * case["eigenvalues"][0]
    image = (1.0 + rate) / factors
    amplification = (1.0 + rate) / jnp.min(jnp.abs(factors))
    error = image - jnp.mean(image)
    return identity(error, scale=amplification, size=shape.n, conditioning=amplification)


def _vector(shape: Shape, case: Case) -> dict[str, Any]:
    _, factors = _factors(case)
    rate = case["alpha"] * case["eigenvalues"][0]
    found = {"image of (1, ..., 1)": np.asarray((1.0 + rate) / factors).tolist()}
    return found | measure.at_signed_point(shape, case)


def _rayleigh(shape: Shape, case: Case) -> Array:
    """A lower bound on the largest multiplier, above 1 save where k = 1, γ = 0 and λ_2 < 0.

    k ≠ 1: (1 + alpha λ_1)/(1 + alpha γ² λ_k), from D^½ 1. k = 1: 1/(1 − alpha |γ| λ_1) if the
    minority has two tokens; if it has one, from the vector (−1/n_1, ..., −1/n_1, 1) of sum zero,
    (1 + 1/n_1)/(1 + 1/n_1 − alpha γ λ_1 (1 − 1/n_1)). γ = 0: 1 + alpha λ_2 if that is larger.
    """
    gamma, _ = _factors(case)
    gamma = jnp.abs(gamma)
    alpha, top = case["alpha"], case["eigenvalues"][0]
    majority = jnp.maximum(*instances.group_sizes(case))
    others = (1.0 + alpha * top) / (1.0 + alpha * gamma**2 * instances.principal_eigenvalue(case))
    crowd = 1.0 / (1.0 - alpha * gamma * top)
    unit = 1.0 + 1.0 / majority
    alone = unit / (unit - alpha * gamma * top * (1.0 - 1.0 / majority))
    first = jnp.where(majority <= shape.n - 2, crowd, alone)
    first = jnp.where(gamma == 0, 1.0 + alpha * case["eigenvalues"][1], first)
    return jnp.where(case["index"] == 0, first, others)


def _bipartite_bound(shape: Shape, case: Case) -> Margin:
    radius, agreement, amplification = conclusions.bipartite_radius(shape, case)
    size = shape.n * shape.d
    short = jnp.maximum(_rayleigh(shape, case) - radius, 0.0)
    return every(
        agreement,
        identity(short, scale=amplification, size=size, conditioning=amplification),
        lin.unstable(radius, size=size, conditioning=amplification),
    )


def _not_decided(shape: Shape, case: Case) -> Margin:
    """The spectral radius at a balanced pair at v_1 is exactly 1."""
    radius, agreement, amplification = conclusions.bipartite_radius(shape, case)
    off = identity(
        radius - 1.0, scale=amplification, size=shape.n * shape.d, conditioning=amplification
    )
    return every(agreement, off)


def stays(shape: Shape, case: Case) -> Margin:
    """Perturbations of {u, −u} stay within ten times their size, and the sum does not grow.

    The size shrinks with how negative V is across u, since further away it is not. After 200 steps
    the sum x_1 + x_2 may be 1.5 times what it was.
    """
    system, x = instances.oja(shape, case), case["x"]
    basis = sphere.tangent_basis(x[0])[:, 0]
    own = einsum("a,ab,b->", basis, instances.value_matrix(case), basis)
    size = jnp.minimum(1e-2, 0.05 * jnp.abs(own) / instances.norm_of(case))
    factors = jnp.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
    turns = jnp.concatenate([case["w"][None], factors[:, :, None] * basis[None, None]])
    starts = sphere.retract(jnp.broadcast_to(x[None], turns.shape), size * turns)
    ends = jax.vmap(lambda start: trajectories.after(system, start, 200))(starts)
    drift = jnp.max(sphere.norm(ends - x[None])) / (10.0 * size)
    before, after = (sphere.norm(jnp.sum(state, axis=1)) for state in (starts, ends))
    growth = jnp.max((after - 0.01 * size) / (1.5 * before + 0.01 * size))
    worst = jnp.maximum(drift, growth)
    value = (1.0 - worst) / jnp.maximum(worst, 1.0)
    # Where V nearly vanishes across u the perturbation is as small as the rounding of the tokens.
    return Margin(value, 1e-3 + rounding(shape.n * shape.d) / jnp.maximum(size, 1e-300))


def _leaves_in_the_end(shape: Shape, case: Case) -> Margin:
    """A perturbation of size 0.3 in the tangent direction ``w`` ends at consensus at ±v_1.

    Two pairs that come to rest an angle φ from each other are left at a rate of the order of φ²
    (Lemma 6: the largest eigenvalue of α P V, P = I − mean x xᵀ). Where the run is too short for
    that it is undecided; two pairs at one place, φ = 0, would be a violation.
    """
    system = instances.oja(shape, case)
    start = sphere.retract(case["x"], 0.3 * case["w"])
    found = trajectories.ends_at(system, start, case["w"], case["frame"][:, 0], _RUN)
    x = trajectories.after(system, start, _RUN)
    spread, axes = jnp.linalg.eigh(jnp.eye(shape.d) - einsum("ia,ib->ab", x, x) / shape.n)
    root = axes * jnp.sqrt(jnp.maximum(spread, 0.0))[None]
    growth = case["alpha"] * jnp.linalg.eigvalsh(root.T @ system.value @ root)[-1]
    slow = (spread[0] > _APART) & (growth * _RUN < _ENOUGH)
    return Margin(jnp.where(slow, jnp.maximum(found.value, 0.0), found.value), found.tolerance)


def negative_below_first() -> Piece:
    """λ_2 < 0, hence all but λ_1; changes the eigenvalues of symmetric_value.

    Boundary: λ_2 negative by a hair.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        below = -jnp.sort(jnp.abs(values[1:]))
        near = -values[0] * noise.hair()
        below = below.at[0].set(jnp.where(kind == BOUNDARY, jnp.maximum(near, below[0]), below[0]))
        return {"eigenvalues": jnp.concatenate([values[:1], below])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"lambda_2 < 0": -case["eigenvalues"][1] / instances.norm_of(case)}

    return Piece(draw, margins)


def _at_signs() -> Piece:
    """x_i = s_i v_k as tokens."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = case["x"] - instances.signed_state(case)
        return {"x_i = s_i v": identity(off, scale=1.0, size=shape.d).value}

    return Piece(
        lambda _noise, _kind, _shape, case: {"x": instances.signed_state(case)},
        margins,
    )


def tangent_direction() -> Piece:
    """A unit direction w with w_i ⟂ x_i, drawn in a basis of the tangent space.

    In the plane a projection of a random vector may be so short that it loses its digits.
    """
    free = hyp.tangent_direction()

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        basis = sphere.tangent_basis(case["x"])
        w = einsum("ide,ie->id", basis, noise.normal(shape.n, shape.d - 1))
        return {"w": w / jnp.sqrt(jnp.sum(w**2))}

    return Piece(draw, free.margins)


def _first_pair(step: Piece, more: tuple[Piece, ...], *shapes: Shape) -> Hypotheses:
    """A balanced pair at v_1 with a tangent direction."""
    return Hypotheses(
        (
            hyp.symmetric_value(),
            *more,
            step,
            hyp.eigenpair("first"),
            hyp.split_signs("balanced"),
            _at_signs(),
            hyp.uniform_attention(),
            tangent_direction(),
        ),
        shapes,
    )


# The pair of Theorem 2; where random pairs end is counted there.
OJA_PAIR = replace(witnesses.OJA_PAIR, numbers=measure.at_signed_point)


PULLED = Explicit(
    name="antipodal pair with lambda_2 > 0",
    text="V = diag(1, 1/2), alpha = 1/4, tokens {v_1, -v_1}: the multiplier 1 + alpha lambda_2",
    shape=Shape(2, 2),
    case=witnesses.antipodal_pair(second=0.5) | {"w": np.array([[0.0, 0.8], [0.0, -0.6]])},
)


MAJORITY = Explicit(
    name="two against one",
    text="V = diag(1, 1/2), alpha = 1/4, (2, 1) at v_1, gamma = 1/3: D^(-1)(I + (alpha/n) 11') "
    "takes (1, 1, 1) to (15/13, 15/13, 15/11)",
    shape=Shape(3, 2),
    case=witnesses.symmetric(
        [1.0, 0.5], 0.25, signs=witnesses.signs(2, 1), query_key=np.zeros((2, 2))
    ),
    numbers=_vector,
)


@numbered
def lemma_5() -> Statement:
    """Bipartite points of the Oja system."""
    decided = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step("none"),
            hyp.eigenpair("any"),
            hyp.split_signs("decided"),
            hyp.uniform_attention(),
            hyp.existing_bipartite(),
            hyp.full_attention(),
        ),
        (Shape(4, 3), Shape(3, 2)),
    )
    attentive = Explicit(
        name="softmax attention",
        text="V = diag(1, -2), Q'K = diag(0, -2), alpha = 1/4, (2, 1) at v_2: stable",
        shape=Shape(3, 2),
        case=witnesses.symmetric(
            [1.0, -2.0],
            0.25,
            index=1,
            signs=witnesses.signs(2, 1),
            query_key=np.diag([0.0, -2.0]),
        ),
    )
    return Statement(
        id="lemma-5",
        source=f"Lemma 5, {PAPER}",
        text="Bipartite consensus points of the Oja system.",
        paper=Form(
            text="as read: all bipartite consensus points of (9) are unstable; in the proof, c_l(t "
            "+ 1) = D^(-1)(I + (alpha lambda_l/n) 11') c_l with the eigenvector (1, ..., 1).",
            expected="refuted",
            clauses=(
                Clause(
                    name="pairs at v_1",
                    text="n = 2: some small perturbation leaves {v_1, -v_1}",
                    hypotheses=_first_pair(hyp.step("half norm"), (), Shape(2, 2)),
                    conclusion=convergence.pair_leaves,
                    explicit=(OJA_PAIR,),
                    share=0.2,
                    long=True,
                ),
                Clause(
                    name="multipliers",
                    text="a multiplier above 1, save for balanced points at v_1 with lambda_2 < 0",
                    hypotheses=decided,
                    conclusion=conclusions.bipartite_unstable,
                    twin=Twin("uniform attention", attentive),
                ),
                Clause(
                    name="the proof's eigenvector",
                    text="D^(-1)(I + (alpha lambda_1/n) 11') maps (1, ..., 1) to a multiple",
                    hypotheses=decided,
                    conclusion=_consensus_vector,
                    explicit=(MAJORITY,),
                    share=0.2,
                ),
            ),
        ),
        corrected=Form(
            text="Unstable for every n >= 3: D^(-1)(I + (alpha lambda_l/n) 11') is similar to a "
            "symmetric matrix, and a Rayleigh quotient exceeds 1, save for balanced points at v_1 "
            "with lambda_2 < 0, whose spectral radius is exactly 1; with n >= 4 they are left "
            "nonlinearly (shown by runs). For n = 2 and lambda_2 < 0 the pair {v_1, -v_1} is "
            "stable: perturbed pairs become antipodal again nearby.",
            expected="supported",
            clauses=(
                Clause(
                    name="multipliers",
                    text="the largest multiplier is at least (1 + alpha lambda_1)/(1 + alpha "
                    "gamma^2 lambda_k) for k != 1; for k = 1 at least 1/(1 - alpha gamma lambda_1)"
                    " with two tokens in the minority, and above 1 with one",
                    hypotheses=decided,
                    conclusion=_bipartite_bound,
                    explicit=(MAJORITY,),
                    twin=Twin("uniform attention", attentive),
                ),
                Clause(
                    name="balanced at v_1",
                    text="for lambda_2 < 0 the spectral radius is exactly 1",
                    hypotheses=_first_pair(
                        hyp.step("norm"), (negative_below_first(),), Shape(4, 3), Shape(2, 2)
                    ),
                    conclusion=_not_decided,
                    explicit=(OJA_PAIR,),
                    twin=Twin("lambda_2 < 0", PULLED),
                    share=0.5,
                ),
                Clause(
                    name="n = 2 stays",
                    text="n = 2, lambda_2 < 0: small perturbations of {v_1, -v_1} stay near it",
                    hypotheses=_first_pair(
                        hyp.step("norm"), (negative_below_first(),), Shape(2, 2)
                    ),
                    conclusion=stays,
                    explicit=(OJA_PAIR,),
                    twin=Twin("lambda_2 < 0", PULLED),
                    share=0.1,
                    long=True,
                ),
                Clause(
                    name="n = 4 leaves",
                    text=f"for n = 4 and lambda_2 < 0 a perturbation of .3 ends at consensus at v_1"
                    f", or has not come to rest in {_RUN} steps",
                    hypotheses=_first_pair(
                        hyp.step("norm"), (negative_below_first(),), Shape(4, 2)
                    ),
                    conclusion=_leaves_in_the_end,
                    share=0.1,
                    long=True,
                ),
            ),
        ),
    )

"""Supplementary D.2: what descends, Lemma 7, and which steps allow it, Remarks 3 and 4."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from theory import conclusions, instances, trajectories, witnesses
from theory import hypotheses as hyp
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, every, identity
from theory.noise import Noise
from theory.oja import PAPER, consensus_point
from theory.oja_equilibria import candidates, influence
from theory.oja_lyapunov import MONOTONE, conditioning, energies, energy, moved_by
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

_RUN = 400


def _expansion(shape: Shape, case: Case) -> Margin:
    """W's first two derivatives in alpha at 0, and the bound on their sum for alpha < 1/(2|V|).

    W(alpha) = −(n/2) w(f(X)): W' = −Σ|Π_i u|², W''/2 = (3/2) Σ (x_iᵀu)|Π_i u|² −
    (1/2n) (ΣΠ_i u)ᵀ V (ΣΠ_i u); alpha W' + alpha² W''/2 <= −alpha (1 − 2 alpha |V|) Σ|Π_i u|².
    """
    x, value, size = case["x"], instances.value_matrix(case), instances.norm_of(case)
    u = influence(case)
    alpha = case["alpha"]

    def lyapunov(step: Array) -> Array:
        return -shape.n / 2.0 * energy(value, sphere.normalize(x + step * u[None]))

    def slope(step: Array) -> Array:
        return jax.jvp(lyapunov, (step,), (jnp.ones_like(step),))[1]

    zero = jnp.zeros_like(alpha)
    first, second = jax.jvp(slope, (zero,), (jnp.ones_like(alpha),))
    across = sphere.tangent_projection(x, jnp.broadcast_to(u, x.shape))
    squares, total = jnp.sum(across**2, axis=-1), jnp.sum(across, axis=0)
    linear = -jnp.sum(squares)
    quadratic = 1.5 * jnp.sum(einsum("id,d->i", x, u) * squares)
    quadratic = quadratic - einsum("a,ab,b->", total, value, total) / (2.0 * shape.n)
    bound = -alpha * (1.0 - 2.0 * alpha * size) * jnp.sum(squares)
    truncated = alpha * linear + alpha**2 * quadratic

    def vanishes(error: Array, scale: Array) -> Margin:
        return identity(error, scale=shape.n * scale, size=shape.n * shape.d)

    return every(
        vanishes(first - linear, size**2),
        vanishes(second / 2.0 - quadratic, size**3),
        vanishes(jnp.maximum(truncated - bound, 0.0), alpha * size**2),
    )


def _aligned(shape: Shape, case: Case) -> Margin:
    """All tokens are ±v_k for one k."""
    cosines = jnp.abs(einsum("id,dk->ik", case["x"], case["frame"]))
    off = jnp.min(jnp.max(1.0 - cosines, axis=0))
    return identity(off, scale=1.0, size=shape.n * shape.d)


def _no_increment(shape: Shape, case: Case) -> Margin:
    """f(X) = X and w(f(X)) = w(X)."""
    x = case["x"]
    amplification = conditioning(shape, case)
    gain = energy(instances.value_matrix(case), instances.oja(shape, case)(x))
    gain = (gain - energy(instances.value_matrix(case), x)) / instances.norm_of(case)
    errors = jnp.append(moved_by(shape, case)[0].reshape(-1), gain)
    return identity(errors, scale=amplification, size=x.size, conditioning=amplification)


def _resting() -> Piece:
    """Π_i u = 0 for every token: one of the three classes of Lemma 1."""
    states = candidates(anywhere=False)

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        u = influence(case)
        across = sphere.tangent_projection(case["x"], jnp.broadcast_to(u, case["x"].shape))
        size = instances.norm_of(case)
        vanishing = identity(across / size, scale=1.0, size=shape.n * shape.d).value
        return states.margins(shape, case) | {"Pi_i u = 0": vanishing}

    return Piece(states.draw, margins)


def _at_triangle(shape: Shape, case: Case) -> dict[str, Any]:
    moved = instances.oja(shape, case)(case["x"])
    return energies(shape, case) | {
        "largest movement": float(jnp.max(jnp.abs(moved - case["x"]))),
        "cosines with the eigenvectors": np.asarray(case["x"] @ case["frame"]).tolist(),
    }


_THIRD = 2.0 * np.pi / 3.0 * np.arange(3)


TRIANGLE = Explicit(
    name="a triangle",
    text="V = diag(1, -1/2), alpha = 1/4, three tokens at 0, 120 and 240 degrees: u = 0 and w = 0 "
    "stay, though only one token is at an eigenvector",
    shape=Shape(3, 2),
    case=witnesses.symmetric(
        [1.0, -0.5], 0.25, x=np.stack([np.cos(_THIRD), np.sin(_THIRD)], axis=1)
    ),
    numbers=_at_triangle,
)


@numbered
def lemma_7() -> Statement:
    """The Lyapunov function."""

    def states(bound: hyp.Bound, state: Piece, *shapes: Shape) -> Hypotheses:
        return Hypotheses((hyp.symmetric_value(), hyp.step(bound), state), shapes)

    cycling = Explicit(
        name="2-cycle of three",
        text="V = diag(1, -3), alpha = 1/2: (v_2, v_2, v_2) goes to (-v_2, -v_2, -v_2) and back",
        shape=Shape(3, 2),
        case=witnesses.symmetric([1.0, -3.0], 0.5, x=np.array([[0.0, 1.0]] * 3)),
    )
    return Statement(
        id="lemma-7",
        source=f"Lemma 7, {PAPER}",
        text="A Lyapunov function of the Oja system.",
        paper=Form(
            text="as read: W = -(1/2n) s'V s, s = sum_j x_j; to second order in alpha its increment"
            " is at most -alpha(1 - 2 alpha |V|) sum_i |Pi_i u|^2, so it does not increase for "
            "alpha < 1/(2|V|); where it stays, Pi_i u = 0 for every i, hence x is a consensus or "
            "bipartite consensus point.",
            expected="refuted",
            clauses=(
                Clause(
                    name="truncated increment",
                    text="the terms of first and second order, and the bound on their sum",
                    hypotheses=states("half norm", hyp.tokens(), Shape(2, 2), Shape(4, 3)),
                    conclusion=_expansion,
                ),
                Clause(
                    name="where it stays",
                    text="Pi_i u = 0 for every i only where all tokens are +-v_k",
                    hypotheses=states("half norm", _resting(), Shape(4, 3), Shape(3, 2)),
                    conclusion=_aligned,
                    explicit=(TRIANGLE,),
                ),
            ),
        ),
        corrected=Form(
            text="Not truncated (II.1): W decreases wherever a token moves, for alpha <= 1/"
            "|lambda_d|, and for every alpha if V > 0. For alpha < 1/|V| it stays exactly at the "
            "equilibria, which include all polygonal ones (u = 0).",
            expected="supported",
            clauses=(
                MONOTONE,
                Clause(
                    name="where it stays",
                    text="the points of all three classes with Pi_i u = 0 are fixed and keep w",
                    hypotheses=states("norm", _resting(), Shape(4, 3), Shape(3, 2)),
                    conclusion=_no_increment,
                    explicit=(TRIANGLE,),
                    twin=Twin("step bound", cycling),
                ),
            ),
        ),
    )


def _rests(shape: Shape, case: Case) -> Margin:
    return trajectories.comes_to_rest(instances.oja(shape, case), case["x"], _RUN)


@numbered
def remark_3() -> Statement:
    """Trajectories converge to an equilibrium."""

    def run(bound: hyp.Bound, twin: Twin | None) -> Clause:
        return Clause(
            name="comes to rest",
            text=f"after {_RUN} steps from random tokens none moves by 1e-3",
            hypotheses=Hypotheses(
                (hyp.symmetric_value(), hyp.step(bound), hyp.tokens()), (Shape(2, 2), Shape(4, 3))
            ),
            conclusion=_rests,
            twin=twin,
            long=True,
        )

    cycle = Explicit(
        name="a 2-cycle attracts",
        text="V = diag(1, 1/2, -3), alpha = 2 > -2/(lambda_1 + lambda_3): the tokens end jumping "
        "between v_3 and -v_3",
        shape=Shape(4, 3),
        case=witnesses.symmetric(
            [1.0, 0.5, -3.0],
            2.0,
            x=np.array([[0.6, 0, 0.8], [0.8, 0, 0.6], [0, 0.6, 0.8], [0.6, 0.8, 0]]),
        ),
    )
    twin = Twin("step bound", cycle)
    return Statement(
        id="remark-3",
        source=f"Remark 3, {PAPER}",
        text="Trajectories of the Oja system converge to an equilibrium.",
        paper=Form(
            text="as read: trajectories converge generically to an equilibrium point (for the step "
            "sizes of Theorem 2).",
            expected="supported",
            clauses=(run("half norm", twin),),
        ),
        corrected=Form(
            text="Every trajectory converges to a single equilibrium if alpha < 1/|V|, or if V > 0 "
            "for any alpha: the steps are square summable (II.1), and w is analytic.",
            expected="supported",
            clauses=(run("norm or positive", twin),),
        ),
    )


def _step_beyond_half_norm() -> Piece:
    """1/(2|V|) < alpha < −2/(λ_1 + λ_d), the second only where λ_d < −λ_1."""
    sharp = hyp.step("sharp")

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        low, excess = 0.5 / instances.norm_of(case), -(values[0] + values[-1])
        high = jnp.where(excess > 0, 2.0 / jnp.where(excess > 0, excess, 1.0), 8.0 * low)
        hair = noise.hair()
        share = jnp.where(kind == BOUNDARY, hair, noise.uniform(0.05, 0.95))
        share = jnp.where((kind == BOUNDARY) & noise.coin(), 1.0 - hair, share)
        return {"alpha": low * (high / low) ** share}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        beyond = 2.0 * case["alpha"] * instances.norm_of(case) - 1.0
        return sharp.margins(shape, case) | {"alpha > 1/(2|V|)": beyond}

    return Piece(draw, margins)


def _step_beyond_sharp() -> Piece:
    """λ_d < −λ_1 and alpha > −2/(λ_1 + λ_d); changes λ_d where it is not."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        deep = -values[0] * (1.0 + noise.uniform(0.05, 2.0))
        deep = jnp.where(kind == DEGENERATE, -values[0] * (1.0 + noise.hair()), deep)
        values = jnp.maximum(values, deep).at[-1].set(deep)
        share = jnp.where(kind == BOUNDARY, noise.hair(), noise.uniform(0.05, 2.0))
        alpha = -2.0 / (values[0] + values[-1]) * (1.0 + share)
        return {"eigenvalues": values, "alpha": alpha}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        excess = -(values[0] + values[-1]) / instances.norm_of(case)
        room = -case["alpha"] * (values[0] + values[-1]) / 2.0 - 1.0
        return {"lambda_d < -lambda_1": excess, "alpha beyond the sharp bound": room}

    return Piece(draw, margins)


def _principal_unstable(shape: Shape, case: Case) -> Margin:
    system = instances.single_head(shape, case)
    return conclusions.consensus_stability(system, shape, case, stable=False)


@numbered
def remark_4() -> Statement:
    """The bound of Theorem 2 is sufficient, not necessary."""
    at_v1 = (hyp.eigenpair("first"), hyp.consensus_signs(), hyp.uniform_attention())
    shapes = (Shape(2, 2), Shape(4, 3))

    def point(step: Piece) -> Hypotheses:
        return Hypotheses((hyp.symmetric_value(), step, *at_v1, hyp.full_attention()), shapes)

    stable_below = Explicit(
        name="below the sharp bound",
        text="V = diag(1, 1/2, -3), alpha = .9 < -2/(lambda_1 + lambda_3) = 1 at v_1",
        shape=Shape(4, 3),
        case=witnesses.symmetric(
            [1.0, 0.5, -3.0], 0.9, signs=witnesses.signs(4, 0), query_key=np.zeros((3, 3))
        ),
    )
    clauses = (
        Clause(
            name="sufficient",
            text="v_1 is stable for alpha < 1/(2|V|)",
            hypotheses=consensus_point("half norm", "first"),
            conclusion=conclusions.principal_stable,
            twin=Twin("step bound", witnesses.PRINCIPAL_BEYOND_BOUND),
        ),
        Clause(
            name="not necessary",
            text="it is so beyond 1/(2|V|), for every alpha if lambda_d >= -lambda_1",
            hypotheses=point(_step_beyond_half_norm()),
            conclusion=conclusions.principal_stable,
            twin=Twin("step bound", witnesses.PRINCIPAL_BEYOND_BOUND),
        ),
        Clause(
            name="needed",
            text="where lambda_d < -lambda_1 it is unstable for alpha > -2/(lambda_1 + lambda_d)",
            hypotheses=point(_step_beyond_sharp()),
            conclusion=_principal_unstable,
            twin=Twin("alpha beyond the sharp bound", stable_below),
        ),
    )
    return Statement(
        id="remark-4",
        source=f"Remark 4, {PAPER}",
        text="Which bound on the step Theorem 2 needs.",
        paper=Form(
            text="as read: alpha < 1/(2|V|) is sufficient, not necessary; alpha < -2/(lambda_1 + "
            "lambda_d) is needed only when lambda_d < -lambda_1.",
            expected="supported",
            clauses=clauses,
        ),
        corrected=Form(
            text="As in the paper; w ascends up to alpha = 1/|lambda_d|, and for every alpha if "
            "V > 0 (II.1).",
            expected="supported",
            clauses=(*clauses, MONOTONE),
        ),
    )

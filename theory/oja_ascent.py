"""II.1: the Oja system ascends w = mᵀ V m; by how much, and for which steps."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt.numerics import einsum
from theory import hypotheses as hyp
from theory import instances, oja_step_range, witnesses
from theory.instances import BOUNDARY
from theory.margin import Margin, every, identity, inequality
from theory.noise import Noise
from theory.oja_lyapunov import (
    ALL_JUMP,
    MONOTONE,
    conditioning,
    energies,
    energy,
    exact_increment,
    increases,
)
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


def _jumps(shape: Shape, case: Case) -> Margin:
    """All tokens are at −v_d after one step, and w has fallen to λ_d."""
    x, v = case["x"], case["frame"][:, -1]
    moved = instances.oja(shape, case)(x)
    amplification = conditioning(shape, case)
    size = instances.norm_of(case)
    fallen = energy(instances.value_matrix(case), x) - case["eigenvalues"][-1]
    return every(
        identity(moved + v[None], scale=1.0, size=x.size, conditioning=amplification),
        inequality(fallen / size, size=x.size),
    )


def _crowd() -> Piece:
    """n − 1 tokens at v_d, one at −v_d, and alpha |λ_d| = 1 + ε with ε > 2/(n − 2)."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        needed = 2.0 / (shape.n - 2)
        excess = jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.02, 2.0))
        v = case["frame"][:, -1]
        signs = jnp.ones(shape.n).at[-1].set(-1.0)
        alpha = (1.0 + needed + excess) / jnp.abs(case["eigenvalues"][-1])
        return {"x": signs[:, None] * v[None], "alpha": alpha}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        along = einsum("id,d->i", case["x"], case["frame"][:, -1])
        signs = jnp.ones(shape.n).at[-1].set(-1.0)
        excess = case["alpha"] * jnp.abs(case["eigenvalues"][-1]) - 1.0
        return {
            "all but one at v_d": identity(along - signs, scale=1.0, size=shape.d).value,
            "n > 2 + 2/eps": excess - 2.0 / (shape.n - 2),
        }

    return Piece(draw, margins)


def _single_step() -> Piece:
    """alpha < −2/(λ_{d−1} + λ_d) if that is positive, any alpha otherwise."""

    def excess(case: Case) -> Array:
        return -(case["eigenvalues"][-2] + case["eigenvalues"][-1])

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        free = noise.log_uniform(0.03, 4.0) / instances.norm_of(case)
        needed = excess(case) > 0
        limit = 2.0 / jnp.where(needed, excess(case), 1.0)
        near = jnp.where(kind == BOUNDARY, 1.0 - noise.hair(), noise.uniform(0.05, 0.95))
        return {"alpha": jnp.where(needed, limit * near, free)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        room = 1.0 - case["alpha"] * jnp.maximum(excess(case), 0.0) / 2.0
        return {"step bound for n = 1": room}

    return Piece(draw, margins)


@numbered
def ii_1() -> Statement:
    """The exact Lyapunov identity and the sharp step range."""
    too_few = Explicit(
        name="too few tokens",
        text="V = diag(1, -1), alpha = 1.3, six tokens at v_2 and one at -v_2: eps = .3 < 2/5, and "
        "the six stay",
        shape=Shape(7, 2),
        case=dict(ALL_JUMP[0].case) | {"alpha": np.array(1.3)},
    )
    alone = Explicit(
        name="one token, step beyond the bound",
        text="V = diag(1, -3), alpha = 1.2 > -2/(lambda_1 + lambda_2) = 1, x = (.6, .8): the second"
        " component grows by 2.6, the first by 2.2, and w falls",
        shape=Shape(1, 2),
        case=witnesses.symmetric([1.0, -3.0], 1.2, x=np.array([[0.6, 0.8]])),
        numbers=energies,
    )
    from_one_side = Explicit(
        name="V not symmetric",
        text="V = [[0, 1], [0, 0]], alpha = 1, tokens e_1 and e_2",
        shape=Shape(2, 2),
        case={
            "value": np.array([[0.0, 1.0], [0.0, 0.0]]),
            "alpha": np.array(1.0),
            "x": np.eye(2),
        },
    )
    return Statement(
        id="ii.1",
        source="theory II.1",
        text="Exact Lyapunov identity of the Oja system and the steps for which it ascends.",
        paper=None,
        corrected=Form(
            text="alpha u'Dx_i = ((1 + |y_i|)/2) |Dx_i|^2 for every alpha, so w = m'Vm obeys "
            "w(X+) - w(X) = (1/(alpha n)) sum_i (1 + |y_i|)|Dx_i|^2 + Dm'V Dm. It ascends for all "
            "alpha if V > 0, else for alpha <= 1/|lambda_d|, and no larger bound holds for all n. "
            "For n = 1 it ascends exactly for alpha <= -2/(lambda_{d-1} + lambda_d); for n >= 2, "
            "d = 2 and lambda_1 > 0 it fails above alpha |lambda_2| = (2n - 1)/(2n - 2) and, by "
            "numerical evidence, holds up to 2n/(2n - 1).",
            expected="supported",
            clauses=(
                Clause(
                    name="identity",
                    text="the identity, token by token and for w",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_matrix(), hyp.step("none"), hyp.tokens()),
                        (Shape(2, 2), Shape(4, 3)),
                    ),
                    conclusion=exact_increment,
                    twin=Twin("V symmetric", from_one_side),
                ),
                MONOTONE,
                Clause(
                    name="sharp for large n",
                    text="n - 1 tokens at v_d, one at -v_d, alpha |lambda_d| = 1 + eps, n > 2 + 2/"
                    "eps: all jump to -v_d and w falls to lambda_d",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(last="negative"), _crowd()),
                        (Shape(23, 2), Shape(7, 2)),
                    ),
                    conclusion=_jumps,
                    explicit=ALL_JUMP,
                    twin=Twin("n > 2 + 2/eps", too_few),
                ),
                Clause(
                    name="one token",
                    text="n = 1: w ascends for alpha < -2/(lambda_{d-1} + lambda_d), for every "
                    "alpha if that sum is positive",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(), _single_step(), hyp.tokens()),
                        (Shape(1, 2), Shape(1, 3)),
                    ),
                    conclusion=increases,
                    twin=Twin("step bound for n = 1", alone),
                ),
                *oja_step_range.clauses(),
            ),
        ),
    )

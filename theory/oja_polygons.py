"""Supplementary D.2: polygonal points of the Oja system, Lemma 6."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import convergence, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory import measurements as measure
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, every, identity
from theory.noise import Noise
from theory.oja import PAPER
from theory.oja_instability import negative_below_first, stays, tangent_direction
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


def lines_and_polygons() -> Piece:
    """Σ x_j = 0: polygons, and in one of three instances balanced points along a random line."""
    polygon = hyp.polygon()

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        x = polygon.draw(noise, kind, shape, case)["x"]
        if shape.n % 2:
            return {"x": x}
        half = jnp.where(jnp.arange(shape.n) < shape.n // 2, 1.0, -1.0)
        line = half[:, None] * noise.unit(1, shape.d)
        return {"x": jnp.where(noise.uniform() < 1 / 3, line, x)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        return {"tokens sum to 0": polygon.margins(shape, case)["tokens sum to 0"]}

    return Piece(draw, margins)


def _spectrum(shape: Shape, case: Case) -> Margin:
    """The power sums of J − I are those of alpha P V, P = I − (1/n) Σ x_i x_iᵀ: the same spectrum.

    J is the intrinsic autodiff Jacobian, of size n(d − 1), and symmetric.
    """
    system, x = instances.oja(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    rest = matrix - jnp.eye(matrix.shape[0])
    product = jnp.eye(shape.d) - einsum("ia,ib->ab", x, x) / shape.n
    product = case["alpha"] * einsum("ab,bc->ac", product, instances.value_matrix(case))
    scale = 1.0 + case["alpha"] * instances.norm_of(case)
    amplification = lin.conditioning(system, x)
    size = matrix.shape[0]
    asymmetry = matrix - matrix.T
    margins = [identity(asymmetry, scale=scale, size=size, conditioning=amplification)]
    left, right = rest, product
    for exponent in range(1, size + 1):
        error = jnp.trace(left) - jnp.trace(right)
        margins.append(
            identity(error, scale=scale**exponent, size=size**2, conditioning=amplification)
        )
        left, right = einsum("ab,bc->ac", left, rest), einsum("ab,bc->ac", right, product)
    return every(*margins)


def _above_one(shape: Shape, case: Case) -> Margin:
    """A multiplier above 1, by the symmetric intrinsic Jacobian."""
    system, x = instances.oja(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    amplification = lin.conditioning(system, x)
    top = jnp.linalg.eigvalsh((matrix + matrix.T) / 2.0)[-1]
    return lin.unstable(top, size=x.size, conditioning=amplification)


def stable_axis() -> Piece:
    """Two tokens {u, −u} in the plane with V < 0 across u: tan² of its angle to v_1 < |λ_2|/λ_1.

    Boundary: by a hair; nearly degenerate: u next to v_1.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values, frame = case["eigenvalues"], case["frame"]
        limit = jnp.arctan(jnp.sqrt(-values[1] / values[0]))
        share = jnp.where(kind == BOUNDARY, 1.0 - noise.hair(), noise.uniform(-0.95, 0.95))
        share = jnp.where(kind == DEGENERATE, noise.hair(), share)
        angle = limit * share
        u = jnp.cos(angle) * frame[:, 0] + jnp.sin(angle) * frame[:, 1]
        return {"x": jnp.stack([u, -u])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        found = hyp.antipodal_tokens().margins(shape, case)
        across = sphere.tangent_basis(case["x"][0])[:, 0]
        own = einsum("a,ab,b->", across, instances.value_matrix(case), across)
        return found | {"V < 0 across": -own / instances.norm_of(case)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.abs(einsum("a,a->", case["x"][0], case["frame"][:, 1]))

    return Piece(draw, margins, degeneracy)


_TILTED = np.array([[np.cos(0.3), np.sin(0.3)], [-np.cos(0.3), -np.sin(0.3)]])


TILTED_PAIR = Explicit(
    name="a pair along no eigenvector",
    text="V = diag(1, -1/2), alpha = 1/4, tokens {u, -u} with u at .3 radians from v_1: V is "
    "negative across u, and perturbed pairs become antipodal again",
    shape=Shape(2, 2),
    case=witnesses.symmetric([1.0, -0.5], 0.25, x=_TILTED, query_key=np.zeros((2, 2)))
    | {
        "w": 0.1
        * np.array([[-8 * np.sin(0.3), 8 * np.cos(0.3)], [6 * np.sin(0.3), -6 * np.cos(0.3)]])
    },
    numbers=measure.at_tokens,
)


@numbered
def lemma_6() -> Statement:
    """Polygonal points of the Oja system."""

    def polygons(state: Piece, bound: hyp.Bound = "none") -> Hypotheses:
        pieces = (hyp.symmetric_value(), hyp.step(bound), state)
        return Hypotheses(pieces, (Shape(4, 3), Shape(3, 2)))

    generic = Clause(
        name="not on a line",
        text="polygonal points that are not on one line have a multiplier above 1",
        hypotheses=polygons(hyp.polygon()),
        conclusion=_above_one,
        twin=Twin("tokens sum to 0", witnesses.NO_POLYGON),
    )
    pair_pieces = (hyp.symmetric_value(), hyp.step("half norm"), hyp.antipodal_tokens())
    return Statement(
        id="lemma-6",
        source=f"Lemma 6, {PAPER}",
        text="Polygonal equilibria of the Oja system.",
        paper=Form(
            text="as read: all polygonal equilibria of (9), sum_j x_j = 0, are unstable.",
            expected="refuted",
            clauses=(
                Clause(
                    name="pairs",
                    text="n = 2: some small perturbation leaves {u, -u}",
                    hypotheses=Hypotheses((*pair_pieces, tangent_direction()), (Shape(2, 2),)),
                    conclusion=convergence.pair_leaves,
                    explicit=(TILTED_PAIR,),
                    share=0.2,
                    long=True,
                ),
                generic,
            ),
        ),
        corrected=Form(
            text="The spectrum is that of I + alpha P V, P = I - (1/n) sum_i x_i x_i', and 1. So "
            "there is a multiplier above 1 if the tokens are not on one line; x_i = s_i x, balanced"
            ", has one iff V is not <= 0 across x. For n = 2 the pair {x, -x} is stable if V < 0 "
            "across x (alpha < 2/|lambda_min|).",
            expected="supported",
            clauses=(
                Clause(
                    name="spectrum",
                    text="J is symmetric with the power sums of I + alpha P V and 1",
                    hypotheses=polygons(lines_and_polygons()),
                    conclusion=_spectrum,
                    twin=Twin("tokens sum to 0", witnesses.NO_POLYGON),
                ),
                generic,
                Clause(
                    name="n = 2 stays",
                    text="small perturbations of {u, -u} with V < 0 across u stay near it",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            negative_below_first(),
                            hyp.step("norm"),
                            stable_axis(),
                            tangent_direction(),
                        ),
                        (Shape(2, 2),),
                    ),
                    conclusion=stays,
                    explicit=(TILTED_PAIR,),
                    share=0.1,
                    long=True,
                ),
            ),
        ),
    )

"""Supplementary D.3: the softmax map and its equilibria: (8) and Lemma 8."""

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.dynamics import SingleHead
from pmt.numerics import einsum
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory import witnesses_softmax as told
from theory.hypotheses import general, polygons
from theory.margin import Margin, equivalent, every, identity
from theory.self_attention import MASKED, PAPER
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Shape,
    Statement,
    Twin,
    numbered,
)


def logit_size(case: Case) -> jnp.ndarray:
    """How much the logits magnify rounding of the tokens."""
    return 1.0 + lin.frobenius(case["query_key"])


def _transcription(system: SingleHead, x: jnp.ndarray, visible: jnp.ndarray) -> jnp.ndarray:
    """(8) as it is written, without the shift that keeps the exponentials from overflowing."""
    weights = jnp.where(visible, jnp.exp(einsum("ia,ab,jb->ij", x, system.query_key, x)), 0.0)
    means = einsum("ij,ja->ia", weights / jnp.sum(weights, axis=1, keepdims=True), x)
    y = x + system.alpha * einsum("ab,ib->ia", system.value, means)
    return y / jnp.sqrt(jnp.sum(y * y, axis=1, keepdims=True))


def _map_and_projector(shape: Shape, case: Case) -> Margin:
    system, x = instances.single_head(shape, case), case["x"]
    allowed = system.mask.allowed(shape.n)
    visible = jnp.ones((shape.n, shape.n), bool) if allowed is None else allowed
    moved = system(x)
    halved = SingleHead(system.value, 2.0 * system.query_key, system.alpha, 0.5, system.mask)
    projector = jnp.eye(shape.d)[None] - x[:, :, None] * x[:, None, :]
    again = einsum("iab,ibc->iac", projector, projector) - projector
    normal = einsum("iab,ib->ia", projector, x)
    worst = lin.conditioning(system, x, case["query_key"])
    size = x.size
    return every(
        identity(
            moved - _transcription(system, x, visible), scale=worst, size=size, conditioning=worst
        ),
        identity(moved - halved(x), scale=worst, size=size, conditioning=worst),
        identity(jnp.sum(system.attention(x), axis=1) - 1.0, scale=1.0, size=size),
        identity(again, scale=1.0, size=shape.d),
        identity(normal, scale=1.0, size=shape.d),
    )


def _equivariance(shape: Shape, case: Case) -> Margin:
    system, x, turn = instances.single_head(shape, case), case["x"], case["turn"]
    turned = SingleHead(
        einsum("ab,bc,dc->ad", turn, system.value, turn),
        einsum("ab,bc,dc->ad", turn, system.query_key, turn),
        system.alpha,
        mask=system.mask,
    )
    moved = system(x)
    worst = lin.conditioning(system, x, case["query_key"])
    rotated = turned(einsum("ia,ba->ib", x, turn)) - einsum("ia,ba->ib", moved, turn)
    reversed_ = SingleHead(system.value, system.query_key, system.alpha)
    permuted = reversed_(x[::-1])[::-1] - reversed_(x)
    own = lin.conditioning(reversed_, x, case["query_key"])
    return every(
        identity(rotated, scale=worst, size=x.size, conditioning=worst),
        identity(system(-x) + moved, scale=worst, size=x.size),
        identity(permuted, scale=own, size=x.size, conditioning=own),
    )


@numbered
def equation_8() -> Statement:
    """The softmax map."""
    everything = Hypotheses(
        (
            hyp.any_value(),
            general.free_step(),
            hyp.query_key(),
            hyp.tokens(),
            general.turn(),
        ),
        MASKED,
    )
    clause = Clause(
        name="map and projector",
        text="the map is (8), the rows of a sum to 1, a factor of the logits is absorbed in Q'K, "
        "Pi_i^2 = Pi_i and Pi_i x_i = 0",
        hypotheses=everything,
        conclusion=_map_and_projector,
        twin=Twin(
            "unit tokens",
            Explicit(
                "a token of length 2",
                "V = diag(1, -1/2), Q'K = diag(1, 0), alpha = 1/4, tokens 2 e_1 and e_2: Pi_1 is "
                "no projector",
                Shape(2, 2),
                {
                    "value": np.diag([1.0, -0.5]),
                    "query_key": np.diag([1.0, 0.0]),
                    "alpha": np.array(0.25),
                    "x": np.diag([2.0, 1.0]),
                    "turn": np.eye(2),
                },
            ),
        ),
    )
    skewed = {
        "value": np.array([[1.0, 0.5], [0.5, -0.5]]),
        "query_key": np.array([[0.0, -1.0], [-1.0, 0.0]]),
        "alpha": np.array(0.25),
        "x": np.array([[1.0, 0.0], [0.6, 0.8]]),
        "turn": np.array([[1.0, 1.0], [0.0, 1.0]]),
    }
    return Statement(
        id="equation-8",
        source=f"eq. (8), {PAPER}",
        text="The single-head softmax system and the tangent projectors Pi_i.",
        paper=Form(
            text="as read: x_i(t+1) = (x_i + alpha sum_j a_ij V x_j)/|.|, a_ij = exp(x_i'Q'K x_j)/"
            "sum_l exp(x_i'Q'K x_l); Pi_i = I - x_i x_i', Pi_i x_i = 0, Pi_i^2 = Pi_i.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="The same for any mask. The factor 1/sqrt(d) may be absorbed in Q'K. The map is "
            "equivariant under rotations R (with R V R', R Q'K R') and x -> -x, and with full "
            "attention under permutations of the tokens.",
            expected="supported",
            clauses=(
                clause,
                Clause(
                    name="equivariance",
                    text="f(x R') = f(x) R', f(-x) = -f(x), and permutations with full attention",
                    hypotheses=everything,
                    conclusion=_equivariance,
                    twin=Twin(
                        "R orthogonal",
                        Explicit(
                            "a shear",
                            "V = [[1, .5], [.5, -.5]], Q'K = [[0, -1], [-1, 0]], alpha = 1/4, "
                            "R = [[1, 1], [0, 1]]",
                            Shape(2, 2),
                            skewed,
                        ),
                    ),
                ),
            ),
        ),
    )


def _tokens_fixed(shape: Shape, case: Case) -> Margin:
    """f(x) = x."""
    system, x = instances.single_head(shape, case), case["x"]
    worst = lin.conditioning(system, x, case["query_key"])
    return identity(system(x) - x, scale=worst, size=x.size, conditioning=worst)


def _polygonal_exactly(shape: Shape, case: Case) -> Margin:
    """z_i = 0 for all i iff Σ_j x_j = 0 and x_iᵀ B x_j = 0 for all i, j; then x is fixed."""
    system, x = instances.single_head(shape, case), case["x"]
    means = einsum("ij,ja->ia", system.attention(x), x)
    logits, size = system.logits(x), logit_size(case)
    vanishing = identity(means, scale=1.0, size=x.size, conditioning=size)
    sums = identity(jnp.sum(x, axis=0), scale=1.0, size=x.size)
    flat = identity(logits, scale=size, size=x.size)
    worst = lin.conditioning(system, x, case["query_key"])
    # |f(x)_i - x_i| is at most 2 alpha |V z_i| / |y_i|.
    bound = 2.0 * worst * sphere.norm(means)
    moved = jnp.maximum(sphere.norm(system(x) - x) - bound, 0.0)
    return every(
        equivalent(vanishing, every(sums, flat)),
        identity(moved, scale=worst, size=x.size, conditioning=worst),
    )


SIGNED = (Shape(2, 2), Shape(4, 3))
POLYGONS = (Shape(4, 2), Shape(3, 3))


def signed_fixed(shape: Shape, case: Case) -> Margin:
    """x_i = s_i v is an equilibrium."""
    return conclusions.is_fixed(instances.single_head(shape, case), case)


@numbered
def lemma_8() -> Statement:
    """The equilibria of the softmax system."""
    signed = (hyp.eigenpair("any"), hyp.split_signs(), hyp.query_key())
    full = hyp.full_attention()
    return Statement(
        id="lemma-8",
        source=f"Lemma 8, {PAPER}",
        text="The classes of equilibria of the softmax system.",
        paper=Form(
            text="as read, for alpha < 1/|V|: 1. consensus x_i = v_k and 2. bipartite points x_i = "
            "s_i v_k are equilibria; 3. so are the polygonal points, as for the Oja system (m "
            "replaced by z_i): sum_j x_j = 0; 4. all others are clusterings, sum_j a_ij V x_j = "
            "c_i x_i.",
            expected="refuted",
            clauses=(
                Clause(
                    name="bipartite",
                    text="x_i = s_i v_k is fixed",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(), hyp.step("norm"), *signed, full), SIGNED
                    ),
                    conclusion=signed_fixed,
                    twin=Twin("step bound", told.FLIPPED_BY_A_LARGE_STEP),
                ),
                Clause(
                    name="polygonal",
                    text="tokens that sum to zero are fixed",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            hyp.polygon(),
                            hyp.query_key(),
                            full,
                        ),
                        POLYGONS,
                    ),
                    conclusion=_tokens_fixed,
                    explicit=(told.TRIANGLE_MOVES,),
                ),
            ),
        ),
        corrected=Form(
            text="Signed points are equilibria iff all 1 + alpha lambda_k gamma_i > 0. With full "
            "attention z_i = 0 for all i iff sum_j x_j = 0 and x_i'Bx_j = 0 for all i, j, B = Q'K: "
            "polygonal points exist only on isotropic subspaces of B, never if its symmetric part "
            "is definite. Every equilibrium satisfies V z_i = c_i x_i with 1 + alpha c_i > 0; the "
            "four classes overlap.",
            expected="supported",
            clauses=(
                Clause(
                    name="signed points",
                    text="x_i = s_i v_k with 1 + alpha lambda_k gamma_i > 0 is fixed",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("none"),
                            *signed,
                            hyp.existing_bipartite(),
                            full,
                        ),
                        SIGNED,
                    ),
                    conclusion=signed_fixed,
                    twin=Twin("bipartite point exists", told.FLIPPED_BY_A_LARGE_STEP),
                ),
                Clause(
                    name="polygonal, exactly",
                    text="z_i = 0 for all i iff the tokens sum to zero and all logits vanish",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_matrix(),
                            hyp.step("norm"),
                            hyp.query_key(),
                            polygons.maybe_polygon(),
                            full,
                        ),
                        (Shape(3, 3), Shape(4, 3)),
                    ),
                    conclusion=_polygonal_exactly,
                    explicit=(told.TRIANGLE_MOVES, witnesses.POLYGONAL, told.STABLE_TRIANGLE),
                ),
            ),
        ),
    )

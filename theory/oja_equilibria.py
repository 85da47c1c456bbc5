"""Supplementary D.2.1: the Oja system as written, and its equilibria, Lemma 1 and Remark 1."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.numerics import einsum
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.instances import BOUNDARY
from theory.margin import Margin, equivalent, every, identity, inequality
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


def influence(case: Case) -> Array:
    """u = V m, m the mean of the tokens: eq. (10)."""
    return einsum("ab,b->a", instances.value_matrix(case), jnp.mean(case["x"], axis=0))


def _written_out(shape: Shape, case: Case) -> Margin:
    """(9) and (10), term by term, are the map of the package, and softmax with B = 0."""
    system, x = instances.oja(shape, case), case["x"]
    y = x + case["alpha"] * influence(case)[None, :]
    pairwise = einsum("ab,jb->ja", instances.value_matrix(case), x)
    summed = x + case["alpha"] / shape.n * jnp.sum(pairwise, axis=0, keepdims=True)
    length = jnp.sqrt(jnp.sum(y * y, axis=-1, keepdims=True))
    amplification = lin.conditioning(system, x, case["query_key"])

    def same(left: Array, right: Array) -> Margin:
        return identity(left - right, scale=amplification, size=x.size, conditioning=amplification)

    return every(
        same(y, summed),
        same(y, system.unnormalized(x)),
        same(y / length, system(x)),
        same(y / length, instances.single_head(shape, case)(x)),
    )


@numbered
def equation_10() -> Statement:
    """The Oja system, written in two ways."""
    states = Hypotheses(
        (
            hyp.any_value(),
            hyp.moderate_step(),
            hyp.tokens(),
            hyp.nonzero_update(instances.oja),
            hyp.uniform_attention(),
        ),
        (Shape(2, 2), Shape(4, 3)),
    )
    attentive = Explicit(
        name="softmax attention",
        text="V = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4 at tokens e_1 and e_2: the token "
        "e_1 attends more to itself",
        shape=Shape(4, 3),
        case={
            "value": np.diag([1.0, -0.5, 0.25]),
            "query_key": np.diag([2.0, 0.0, 0.0]),
            "alpha": np.array(0.25),
            "x": np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0], [0, 0, 1.0]]),
        },
    )
    clause = Clause(
        name="the map",
        text="x_i + (alpha/n) sum_j V x_j = x_i + alpha u, u = V m; divided by its length it is "
        "(8) with uniform attention, that is with Q'K = 0",
        hypotheses=states,
        conclusion=_written_out,
        twin=Twin("uniform attention", attentive),
    )
    return Statement(
        id="equation-10",
        source=f"Eqs. (9) and (10), {PAPER}",
        text="The Oja system: self-attention with uniform weights, one influence on all tokens.",
        paper=Form(
            text="as read: x_i <- (x_i + (alpha/n) sum_j V x_j)/|.| (9) is y_i = x_i + alpha u, "
            "x_i <- y_i/|y_i|, with u = (1/n) V sum_j x_j = V m (10).",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper, wherever y_i != 0; V need not be symmetric.",
            expected="supported",
            clauses=(clause,),
        ),
        covers=("equation-9",),
    )


def candidates(*, anywhere: bool) -> Piece:
    """Tokens at v_k with any signs, or that sum to zero; ``anywhere``: a quarter anywhere else.

    And then boundary instances are such states with a hair of noise.
    """
    tokens, polygon = hyp.tokens(), hyp.polygon()

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        mode = noise.integer(0 if anywhere else 1, 4)
        random = tokens.draw(noise, kind, shape, case)["x"]
        balanced = polygon.draw(noise, kind, shape, case)["x"]
        signs = jnp.where(noise.uniforms(shape.n) < 0.5, 1.0, -1.0)
        v = case["frame"][:, noise.integer(0, shape.d)]
        # A polygon on one line: a pair along an axis that need not be an eigenvector.
        half = jnp.where(jnp.arange(shape.n) < shape.n // 2, 1.0, -1.0)
        line = half[:, None] * random[:1] if shape.n % 2 == 0 else balanced
        rests = jnp.stack([random, signs[:, None] * v[None], balanced, line])[mode]
        if not anywhere:
            return {"x": rests}
        noisy = sphere.retract(rests, noise.hair() * random)
        return {"x": jnp.where(kind == BOUNDARY, noisy, rests)}

    return Piece(draw, tokens.margins)


def _exactly_at_rest(shape: Shape, case: Case) -> Margin:
    """f(x) = x iff Π_i u = 0 and 1 + alpha x_iᵀu > 0 for every token."""
    system, x = instances.oja(shape, case), case["x"]
    push = jnp.broadcast_to(case["alpha"] * influence(case)[None, :], x.shape)
    amplification = lin.conditioning(system, x)
    length = sphere.norm(x + push)[:, None]

    def vanishes(error: Array) -> Margin:
        return identity(error, scale=amplification, size=x.size, conditioning=amplification)

    ahead = 1.0 + jnp.min(jnp.sum(x * push, axis=-1))
    ahead = ahead / (1.0 + case["alpha"] * instances.norm_of(case))
    return equivalent(
        vanishes(system(x) - x),
        every(
            vanishes(sphere.tangent_projection(x, push) / length),
            inequality(ahead, size=x.size, conditioning=amplification),
        ),
    )


def _at_rest(shape: Shape, case: Case) -> Margin:
    system, x = instances.oja(shape, case), case["x"]
    amplification = lin.conditioning(system, x)
    return identity(system(x) - x, scale=amplification, size=x.size, conditioning=amplification)


def _nearly_a_class(shape: Shape, case: Case) -> Margin:
    """What is nearly at rest is nearly in one of the three classes.

    With û = u/|u|, s_i the sign of x_iᵀû and γ their mean: |x_i − s_i û| <= √2 |Π_i u|/|u|, hence
    |u| |γ| |Π_û V û| <= √2 |V| max_i |Π_i u|. Where the right side vanishes all x_i = ±û, and V û
    is along û, γ = 0 (so that the tokens sum to zero), or u = 0.
    """
    x, u = case["x"], influence(case)
    value, size = instances.value_matrix(case), instances.norm_of(case)
    unit = sphere.normalize(u)
    signs = jnp.where(einsum("id,d->i", x, unit) < 0, -1.0, 1.0)
    across = jnp.max(sphere.norm(sphere.tangent_projection(x, jnp.broadcast_to(u, x.shape))))
    moved = einsum("ab,b->a", value, unit)
    defect = sphere.norm(sphere.tangent_projection(unit, moved)) * jnp.abs(jnp.mean(signs))
    far = sphere.norm(u) * jnp.max(sphere.norm(x - signs[:, None] * unit[None]))
    root = jnp.sqrt(2.0)
    return every(
        inequality((root * across - far) / size, size=shape.n * shape.d),
        inequality((root * across * size - sphere.norm(u) * defect) / size**2, size=x.size),
    )


def _signed_exactly(shape: Shape, case: Case) -> Margin:
    """s_i v_k is fixed iff 1 + alpha λ_k s_i γ > 0 for every i, γ the mean of the signs."""
    system = instances.oja(shape, case)
    signs = case["signs"]
    alpha, own = case["alpha"], instances.principal_eigenvalue(case)
    least = 1.0 + alpha * jnp.min(own * signs * jnp.mean(signs))
    least = least / (1.0 + alpha * instances.norm_of(case))
    amplification = lin.conditioning(system, instances.signed_state(case))
    return equivalent(
        conclusions.is_fixed(system, case),
        inequality(least, size=shape.n * shape.d, conditioning=amplification),
    )


def _signed_fixed(shape: Shape, case: Case) -> Margin:
    return conclusions.is_fixed(instances.oja(shape, case), case)


def _any_signs() -> Piece:
    """Signs ±1, all equal in one instance of three."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, case
        signs = jnp.where(noise.uniforms(shape.n) < 0.5, 1.0, -1.0)
        return {"signs": jnp.where(noise.uniform() < 1 / 3, jnp.ones(shape.n), signs)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        off = jnp.max(jnp.abs(jnp.abs(case["signs"]) - 1.0))
        return {"signs": identity(off, scale=1.0, size=1).value}

    return Piece(draw, margins)


def _jump(shape: Shape, case: Case) -> dict[str, Any]:
    """Where the tokens are after one step: x_iᵀ v_k."""
    moved = instances.oja(shape, case)(instances.signed_state(case))
    return {"x_i'v after one step": np.asarray(moved @ case["direction"]).tolist()}


JUMP = Explicit(
    name="the minority jumps",
    text="V = diag(1, 1/5), alpha = 3, three tokens at v_1 and one at -v_1: alpha lambda_1 |n_1 - "
    "n_2|/n = 3/2, and the one jumps to v_1",
    shape=Shape(4, 2),
    case=witnesses.symmetric(
        [1.0, 0.2], 3.0, signs=witnesses.signs(3, 1), query_key=np.zeros((2, 2))
    ),
    numbers=_jump,
)


def _axis(angle: float) -> np.ndarray:
    u = np.array([np.cos(angle), np.sin(angle)])
    return np.stack([u, -u])


@numbered
def lemma_1() -> Statement:
    """The equilibria of the Oja system."""
    signed = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step("none"),
            hyp.eigenpair("any"),
            _any_signs(),
            hyp.uniform_attention(),
            hyp.full_attention(),
        ),
        (Shape(3, 3), Shape(4, 2)),
    )
    anywhere = Hypotheses(
        (hyp.symmetric_value(), hyp.step("none"), candidates(anywhere=True), hyp.full_attention()),
        (Shape(2, 2), Shape(4, 3)),
    )
    causal = Explicit(
        name="causal attention",
        text="V = diag(1, -1/2), alpha = 1/4, a pair along an axis at 1 radian with causal "
        "attention: u = 0, but the first token does not see the second",
        shape=Shape(2, 2, 1, "causal"),
        case=witnesses.symmetric([1.0, -0.5], 0.25, x=_axis(1.0)),
    )
    causal_consensus = Explicit(
        name="causal attention, mixed signs",
        text="V = diag(1, 1/5), alpha = 3/2 with causal attention, tokens v_1, v_1, -v_1, -v_1: "
        "the third sees two thirds of the others' side and jumps",
        shape=Shape(4, 2, 1, "causal"),
        case=witnesses.symmetric(
            [1.0, 0.2], 4.0, signs=witnesses.signs(2, 2), query_key=np.zeros((2, 2))
        ),
    )
    return Statement(
        id="lemma-1",
        source=f"Lemma 1, {PAPER}",
        text="The equilibria of the Oja system.",
        paper=Form(
            text="as read: the equilibria are exactly the points of three classes: consensus x_i ="
            " v_k; bipartite consensus x_i = s_i v_k; polygonal, sum_j x_j = 0, for every alpha.",
            expected="refuted",
            clauses=(
                Clause(
                    name="consensus and bipartite",
                    text="x_i = s_i v_k is fixed",
                    hypotheses=signed,
                    conclusion=_signed_fixed,
                    explicit=(witnesses.TWO_CYCLE, JUMP),
                ),
                Clause(
                    name="polygonal",
                    text="tokens that sum to zero are fixed",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(), hyp.step("none"), hyp.polygon()),
                        (Shape(3, 2), Shape(4, 3)),
                    ),
                    conclusion=_at_rest,
                    twin=Twin("tokens sum to 0", witnesses.NO_POLYGON),
                ),
            ),
        ),
        corrected=Form(
            text="f(x) = x iff Pi_i u = 0 and 1 + alpha x_i'u > 0 for every i, u = V m. So x_i = "
            "v_k is an equilibrium iff 1 + alpha lambda_k > 0, and (n_1, n_2) at v_k iff alpha "
            "|lambda_k| |n_1 - n_2|/n < 1; tokens that sum to zero always are, on any axis. What "
            "satisfies Pi_i u = 0 is in one of the three classes, which overlap at balanced pairs.",
            expected="supported",
            clauses=(
                Clause(
                    name="exactly",
                    text="f(x) = x iff Pi_i u = 0 and 1 + alpha x_i'u > 0 for every i",
                    hypotheses=anywhere,
                    conclusion=_exactly_at_rest,
                    twin=Twin("full attention", causal),
                ),
                Clause(
                    name="consensus and bipartite",
                    text="x_i = s_i v_k is fixed iff 1 + alpha lambda_k s_i gamma > 0 for every i",
                    hypotheses=signed,
                    conclusion=_signed_exactly,
                    explicit=(witnesses.TWO_CYCLE, JUMP),
                    twin=Twin("full attention", causal_consensus),
                ),
                Clause(
                    name="no others",
                    text="|x_i - s_i uhat| <= sqrt(2) |Pi_i u|/|u|, and |u| |gamma| |Pi V uhat| <= "
                    "sqrt(2) |V| max_i |Pi_i u|: nothing is at rest outside the three classes",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(), hyp.step("none"), hyp.tokens()),
                        (Shape(2, 2), Shape(4, 3)),
                    ),
                    conclusion=_nearly_a_class,
                ),
            ),
        ),
    )


def _all_patterns(shape: Shape, case: Case) -> Margin:
    """All 2ⁿ sign patterns at v_k are distinct and fixed, and f(−X) = −f(X) at each."""
    system, v = instances.oja(shape, case), case["direction"]
    patterns = np.array(list(product([1.0, -1.0], repeat=shape.n)))
    states = jnp.asarray(patterns)[:, :, None] * v[None, None, :]
    moved, opposite = jax.vmap(system)(states), jax.vmap(system)(-states)
    # |y_i| >= 1 − alpha |V|; the conditioning is that of the worst pattern.
    smallest = jnp.min(jax.vmap(lambda x: jnp.min(sphere.norm(system.unnormalized(x))))(states))
    amplification = (1.0 + case["alpha"] * instances.norm_of(case)) / smallest
    distances = jnp.sum((states[:, None] - states[None]) ** 2, axis=(2, 3))
    nearest = jnp.min(distances + 10.0 * jnp.eye(len(patterns)))

    def vanishes(error: Array) -> Margin:
        return identity(error, scale=amplification, size=shape.n, conditioning=amplification)

    return every(
        vanishes(moved - states),
        vanishes(moved + opposite),
        inequality(nearest / 4.0, size=shape.n),
    )


@numbered
def remark_1() -> Statement:
    """How many signed equilibria there are."""

    def patterns(bound: hyp.Bound) -> Clause:
        return Clause(
            name="patterns",
            text="the 2^n points x_i = s_i v_k are distinct equilibria, in antipodal pairs",
            hypotheses=Hypotheses(
                (
                    hyp.symmetric_value(),
                    hyp.step(bound),
                    hyp.eigenpair("any"),
                    hyp.uniform_attention(),
                ),
                (Shape(2, 2), Shape(3, 3)),
            ),
            conclusion=_all_patterns,
            twin=Twin("step bound", witnesses.TWO_CYCLE),
        )

    return Statement(
        id="remark-1",
        source=f"Remark 1, {PAPER}",
        text="The number of consensus and bipartite equilibria of the Oja system.",
        paper=Form(
            text="as read: for a given v_k there are 2^n consensus or bipartite equilibria, paired "
            "by the symmetry about the origin (for the step sizes of Theorem 2).",
            expected="supported",
            clauses=(patterns("half norm"),),
        ),
        corrected=Form(
            text="For alpha < 1/|V| and every k: two consensus and 2^n - 2 bipartite equilibria, "
            "antipodal in pairs, since f(-X) = -f(X). For larger alpha only those with 1 + alpha "
            "lambda_k s_i gamma > 0 are left (Lemma 1).",
            expected="supported",
            clauses=(patterns("norm"),),
        ),
    )

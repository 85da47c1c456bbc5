"""Lemma 9: the attention matrix at bipartite, polygonal and clustering equilibria, and its rank."""

import jax.numpy as jnp

from pmt.numerics import einsum
from theory import conclusions, instances
from theory import hypotheses as hyp
from theory import witnesses_softmax as told
from theory.hypotheses import clusters, general
from theory.margin import Margin, differs, equivalent, every, identity
from theory.self_attention import PAPER
from theory.softmax_equilibria import logit_size
from theory.statement import (
    Case,
    Clause,
    Form,
    Hypotheses,
    Shape,
    Statement,
    Twin,
    numbered,
)


def _second_singular(matrix: jnp.ndarray) -> jnp.ndarray:
    return jnp.linalg.svd(matrix, compute_uv=False)[1]


def _bipartite_weights(shape: Shape, case: Case) -> tuple[jnp.ndarray, jnp.ndarray]:
    """A at x_i = s_i v, measured on the map, and eq. (13) as it is written."""
    system = instances.single_head(shape, case)
    weights = system.attention(instances.signed_state(case))
    n1, n2 = instances.group_sizes(case)
    theta = instances.theta_of(case)
    e, inverse = jnp.exp(theta), jnp.exp(-theta)
    own, other = n1 * e + n2 * inverse, n2 * e + n1 * inverse
    positive = case["signs"] > 0
    same = positive[:, None] == positive[None, :]
    claimed = jnp.where(same, e, inverse) / jnp.where(positive, own, other)[:, None]
    return weights, claimed


def _lemma_9_entries(shape: Shape, case: Case) -> Margin:
    """Eq. (13), entry by entry, and z_i = s_i γ_i v_k with γ_i = 2 p_i − 1."""
    weights, claimed = _bipartite_weights(shape, case)
    x, size = instances.signed_state(case), logit_size(case)
    classes = conclusions.bipartite_classes(case)
    gamma = jnp.where(case["signs"] > 0, classes.order[0], classes.order[1])
    means = (
        einsum("ij,ja->ia", weights, x) - (case["signs"] * gamma)[:, None] * case["direction"][None]
    )
    system = instances.single_head(shape, case)
    equal = jnp.broadcast_to(case["direction"][None, :], x.shape)
    consensus = system.attention(equal) - 1.0 / shape.n
    return every(
        identity(weights - claimed, scale=1.0, size=x.size, conditioning=size),
        identity(means, scale=1.0, size=x.size, conditioning=size),
        identity(consensus, scale=1.0, size=x.size, conditioning=size),
    )


def _lemma_9_rank_two(shape: Shape, case: Case) -> Margin:
    """The paper: rank A = 2 at every bipartite point."""
    weights = _bipartite_weights(shape, case)[0]
    second = differs(
        _second_singular(weights), scale=1.0, size=shape.n, conditioning=logit_size(case)
    )
    return every(_lemma_9_entries(shape, case), second)


def _lemma_9_rank(shape: Shape, case: Case) -> Margin:
    """Rank 2 iff θ ≠ 0: the second singular value vanishes where θ does."""
    weights = _bipartite_weights(shape, case)[0]
    size, theta = logit_size(case), instances.theta_of(case)
    flat = identity(_second_singular(weights), scale=1.0, size=shape.n, conditioning=size)
    zero = identity(theta, scale=1.0, size=shape.n, conditioning=size)
    return every(_lemma_9_entries(shape, case), equivalent(flat, zero))


def _clustered(shape: Shape, case: Case) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """The reduced attention of the map itself, the kernel K, and the reduced attention by K."""
    kernel, weights = clusters.reduced_attention(case)
    m = case["points"].shape[0]
    full = instances.single_head(shape, case).attention(case["x"])
    first = jnp.stack([jnp.argmax(case["member"] == r) for r in range(m)])
    numbers = jnp.arange(m, dtype=case["member"].dtype)
    member = (case["member"][:, None] == numbers[None, :]).astype(full.dtype)
    return einsum("ij,js->is", full, member)[first], kernel, weights


def _clustering_rank(shape: Shape, case: Case) -> Margin:
    """The paper: rank A = m, so the determinant of the reduced attention does not vanish."""
    measured, _, _ = _clustered(shape, case)
    return differs(jnp.linalg.det(measured), scale=1.0, size=shape.n, conditioning=logit_size(case))


def _clustering_rank_exactly(shape: Shape, case: Case) -> Margin:
    """rank A = rank K <= m: A = S D⁻¹ K S' with the membership S, and det A_m from det K."""
    measured, kernel, weights = _clustered(shape, case)
    totals = jnp.sum(kernel * clusters.sizes(case)[None, :], axis=1)
    claimed = jnp.linalg.det(kernel) * jnp.prod(clusters.sizes(case) / totals)
    size = logit_size(case)
    system = instances.single_head(shape, case)
    weights_of_tokens = system.attention(case["x"])
    rows = (
        weights_of_tokens
        - (weights / clusters.sizes(case)[None, :])[case["member"]][:, case["member"]]
    )
    return every(
        identity(rows, scale=1.0, size=shape.n, conditioning=size),
        identity(measured - weights, scale=1.0, size=shape.n, conditioning=size),
        identity(jnp.linalg.det(measured) - claimed, scale=1.0, size=shape.n, conditioning=size),
    )


@numbered
def lemma_9() -> Statement:
    """The attention matrix at the equilibria."""
    bipartite = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step("norm"),
            hyp.eigenpair("any"),
            hyp.split_signs(),
            hyp.query_key("non-negative"),
            hyp.full_attention(),
        ),
        (Shape(2, 2), Shape(5, 3)),
    )
    clustered = Hypotheses(
        (
            hyp.any_value(),
            general.free_step(),
            hyp.query_key(),
            clusters.clusters(),
            hyp.full_attention(),
        ),
        (Shape(3, 2), Shape(5, 3)),
    )
    return Statement(
        id="lemma-9",
        source=f"Lemma 9, {PAPER}",
        text="The attention matrix at consensus, bipartite and clustering equilibria, eq. (13).",
        paper=Form(
            text="as read: A = 11'/n at consensus; at a bipartite point a_ij is given by (13) and "
            "rank A = 2; at an m-clustering rank A = m.",
            expected="refuted",
            clauses=(
                Clause(
                    name="bipartite",
                    text="(13) holds and rank A = 2",
                    hypotheses=bipartite,
                    conclusion=_lemma_9_rank_two,
                    explicit=(told.FLAT_ATTENTION,),
                ),
                Clause(
                    name="clustering",
                    text="rank A = m at m distinct points",
                    hypotheses=clustered,
                    conclusion=_clustering_rank,
                    explicit=(told.FLAT_TRIANGLE,),
                ),
            ),
        ),
        corrected=Form(
            text="(13) holds, with z_i = s_i gamma_i v_k; rank A = 2 iff theta_k != 0, else 1. At "
            "an m-clustering rank A = rank [exp(p_r'Bp_s)] <= m, equal to m generically only.",
            expected="supported",
            clauses=(
                Clause(
                    name="bipartite",
                    text="(13), and rank A = 2 iff theta_k != 0",
                    hypotheses=bipartite,
                    conclusion=_lemma_9_rank,
                    explicit=(told.FLAT_ATTENTION,),
                    twin=Twin("full attention", told.CAUSAL_PAIR),
                ),
                Clause(
                    name="clustering",
                    text="A is made of K = [exp(p_r'Bp_s)], and has its rank",
                    hypotheses=clustered,
                    conclusion=_clustering_rank_exactly,
                    explicit=(told.FLAT_TRIANGLE,),
                ),
            ),
        ),
        covers=("equation-13",),
    )

"""Supplementary D.4.1 and theory II.5: bipartite points of several heads."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import conclusions, instances, oracles, radius, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.hypotheses import many_heads
from theory.margin import Margin, every, identity, inequality
from theory.self_attention import PAPER
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

STEPS, SEARCH_STEP = 300, 0.2
"""Iterations of a reduced map and their alpha; near the example it contracts by 0.85 a step."""

LEANING = 0.3
"""|p + q| of the 2-clustering that an unbalanced bipartite point becomes, over the perturbation."""


def group_actions(case: Case) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """Heads with the common eigenvectors u_l: what the tangent map does with each l ≠ 1.

    On the two group means the 2 × 2 matrix with rows (1 + alpha Σ_h λ_l^h p_1^h, alpha Σ_h λ_l^h
    (1 − p_1^h))/g_1 and likewise for group 2, g_i = 1 + alpha Σ_h λ_1^h γ_i^h; 1/g_i on differences
    within group i. Returns the matrices (l, 2, 2), (g_1, g_2) and (n_1, n_2).
    """
    n1, n2 = instances.group_sizes(case)
    v, values, alpha = case["direction"], case["head_eigenvalues"], case["alpha"]
    theta = einsum("a,hab,b->h", v, case["query_keys"], v)
    ratio = jnp.log(n1 / n2)
    own = 1.0 / (1.0 + jnp.exp(-jnp.stack([2.0 * theta + ratio, 2.0 * theta - ratio])))
    other = 1.0 - own
    factors = 1.0 + alpha * einsum("h,gh->g", values[:, 0], own - other)
    inside = 1.0 + alpha * einsum("hl,gh->lg", values[:, 1:], own)
    across = alpha * einsum("hl,gh->lg", values[:, 1:], other)
    rows = [
        jnp.stack([inside[:, 0], across[:, 0]], axis=1) / factors[0],
        jnp.stack([across[:, 1], inside[:, 1]], axis=1) / factors[1],
    ]
    return jnp.stack(rows, axis=1), factors, jnp.stack([n1, n2])


def pair_radius(matrices: jnp.ndarray) -> jnp.ndarray:
    """Spectral radii of 2 × 2 matrices, real or complex eigenvalues."""
    trace = matrices[:, 0, 0] + matrices[:, 1, 1]
    gap = (matrices[:, 0, 0] - matrices[:, 1, 1]) ** 2 / 4.0 + matrices[:, 0, 1] * matrices[:, 1, 0]
    real = gap >= 0
    root = jnp.sqrt(jnp.where(real, gap, 0.0))
    square = jnp.where(real, 1.0, trace**2 / 4.0 - gap)
    return jnp.where(real, jnp.abs(trace) / 2.0 + root, jnp.sqrt(square))


def _commuting_radius(case: Case) -> jnp.ndarray:
    matrices, factors, sizes = group_actions(case)
    crowd = jnp.max(jnp.where(sizes >= 2, 1.0 / factors, 0.0))
    return jnp.maximum(jnp.max(pair_radius(matrices)), crowd)


def _commuting(shape: Shape, case: Case, *, stable: bool) -> Margin:
    system = instances.multi_head(shape, case)
    worst = lin.conditioning(system, instances.signed_state(case), case["query_keys"])
    claim = lin.stable if stable else lin.unstable
    return every(
        conclusions.is_fixed(system, case),
        claim(_commuting_radius(case), size=shape.n * shape.d, conditioning=worst),
    )


def _commuting_unstable(shape: Shape, case: Case) -> Margin:
    """The paper: the bipartite point has a multiplier above 1."""
    return _commuting(shape, case, stable=False)


def _commuting_stable(shape: Shape, case: Case) -> Margin:
    return _commuting(shape, case, stable=True)


def _commuting_spectrum(shape: Shape, case: Case) -> Margin:
    """The Jacobian is the closed form, entry by entry, and its group actions those above."""
    system, x = instances.multi_head(shape, case), instances.signed_state(case)
    formula = jacobian.signed_consensus(system, case["direction"], case["signs"])
    worst = lin.conditioning(system, x, case["query_keys"])
    matrices, factors, sizes = group_actions(case)
    restricted = jacobian.restrict(formula, x)
    singles = (sizes - 1.0) * (shape.d - 1)
    first = jnp.trace(restricted) - jnp.sum(singles / factors)
    first = first - jnp.sum(matrices[:, 0, 0] + matrices[:, 1, 1])
    second = jnp.sum(restricted * restricted.T) - jnp.sum(singles / factors**2)
    second = second - jnp.sum(matrices * jnp.swapaxes(matrices, 1, 2))
    size = x.size
    return every(
        conclusions.signed_jacobian(system, formula, case),
        identity(first, scale=size * worst, size=size, conditioning=worst),
        identity(second, scale=size * worst**2, size=size, conditioning=worst),
    )


def reduced_step(
    heads: jnp.ndarray, query_keys: jnp.ndarray, alpha: Any, v: jnp.ndarray
) -> jnp.ndarray:
    """v ↦ N(v + alpha Σ_h tanh(vᵀ B_h v) F_h v)."""
    order = jnp.tanh(einsum("a,hab,b->h", v, query_keys, v))
    return sphere.normalize(v + alpha * einsum("h,hab,b->a", order, heads, v))


def _alternating(n: int) -> jnp.ndarray:
    return jnp.where(jnp.arange(n) < n // 2, 1.0, -1.0)


def _balanced_map(shape: Shape, case: Case) -> Margin:
    """f({v, −v}) = {v⁺, −v⁺} for balanced groups and any heads, v⁺ by the reduced map."""
    system, v = instances.multi_head(shape, case), case["direction"]
    moved = system(instances.signed_state(case))
    image = reduced_step(case["heads"], case["query_keys"], case["alpha"], v)
    worst = lin.conditioning(system, instances.signed_state(case), case["query_keys"])
    error = moved - case["signs"][:, None] * image[None]
    return identity(error, scale=worst, size=moved.size, conditioning=worst)


def _criterion(shape: Shape, case: Case) -> Margin:
    """Pi_v f(x)_i = alpha s_i Pi_v M_i(v) v / |y_i|, M_i = Σ_h γ_i^h F_h: fixed iff both vanish."""
    system, x = instances.multi_head(shape, case), instances.signed_state(case)
    v, signs = case["direction"], case["signs"]
    weights = jacobian.signed_attention(system, v, signs)
    gamma = signs[None] * einsum("hij,j->hi", weights, signs)
    moved = einsum("hi,hab,b->ia", gamma, case["heads"], v)
    along = jnp.broadcast_to(v[None], x.shape)
    length = sphere.norm(v[None] + system.alpha * moved)
    across = system.alpha * sphere.tangent_projection(along, moved) * signs[:, None]
    error = sphere.tangent_projection(along, system(x)) - across / length[:, None]
    worst = lin.conditioning(system, x, case["query_keys"])
    return identity(error, scale=worst, size=x.size, conditioning=worst)


def _balanced_persists(shape: Shape, case: Case) -> Margin:
    """The reduced map has a fixed point near e_1, {v, −v} is exactly fixed, and stable."""
    system = instances.multi_head(shape, case)
    # Where the update is parallel to v does not depend on alpha: look for it with a large one.
    step = partial(reduced_step, case["heads"], case["query_keys"], SEARCH_STEP)
    v = lax.fori_loop(0, STEPS, lambda _i, v: step(v), case["direction"])
    x = _alternating(shape.n)[:, None] * v[None, :]
    moved = system(x)
    worst = lin.conditioning(system, x, case["query_keys"])
    return every(
        identity(moved - x, scale=100.0, size=x.size, conditioning=worst),
        radius.stable(jacobian.intrinsic(system, x), conditioning=worst),
    )


def _two_clusters(case: Case, sizes: tuple[int, int]) -> jnp.ndarray:
    """Where two clusters of these sizes end that start at ±e_1; shape (2, d)."""
    heads, keys = case["heads"], case["query_keys"]
    crowd = jnp.log(jnp.asarray(np.array(sizes, float)))

    def step(_i: Any, points: jnp.ndarray) -> jnp.ndarray:
        logits = einsum("ra,hab,sb->hrs", points, keys, points) + crowd[None, None]
        weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        moved = einsum("hrs,sa,hba->rb", weights, points, heads)
        return sphere.normalize(points + SEARCH_STEP * moved)

    v = case["direction"]
    return lax.fori_loop(0, STEPS, step, jnp.stack([v, -v]))


def _unbalanced_leans(shape: Shape, case: Case) -> Margin:
    """(3, 2) tokens: a stable 2-clustering p, q persists, with |p + q| <= LEANING x the change."""
    system = instances.multi_head(shape, case)
    points = _two_clusters(case, (3, 2))
    x = points[np.array([0, 0, 0, 1, 1])]
    worst = lin.conditioning(system, x, case["query_keys"])
    leaning = sphere.norm(points[0] + points[1]) / (LEANING * case["size"])
    apart = sphere.norm(points[0] - points[1]) - 1.0
    return every(
        identity(system(x) - x, scale=100.0, size=x.size, conditioning=worst),
        inequality(1.0 - leaning / (1.0 + leaning) * 2.0, size=x.size),
        inequality(apart, size=x.size),
        radius.stable(jacobian.intrinsic(system, x), conditioning=worst),
    )


def multipliers(shape: Shape, case: Case) -> dict[str, object]:
    """Multipliers at x_i = s_i v by the NumPy transcription."""
    step = oracles.multi_head(
        np.asarray(case["heads"]), np.asarray(case["query_keys"]), float(case["alpha"]), shape.mask
    )
    x = np.asarray(case["signs"])[:, None] * np.asarray(case["direction"])[None]
    found = oracles.intrinsic_spectrum(step, x)
    return {"multipliers": sorted((float(v) for v in found.real), key=abs, reverse=True)}


STABLE_HEADS = Explicit(
    name="stable bipartite point of two heads",
    text="F_1 = diag(1, .3, -.2), F_2 = diag(.8, .1, .4), B_1 = 2I, B_2 = 1.5I, alpha = .2, "
    "(3, 2) at e_1: every multiplier is below 0.812",
    shape=Shape(5, 3, 2),
    case=many_heads.example()
    | {"heads": many_heads.example_heads(), "signs": witnesses.signs(3, 2)},
    numbers=multipliers,
)

_WITHOUT_LOGITS = Explicit(
    name="two heads without logits",
    text="the stable example with B_1 = B_2 = 0: nothing keeps the groups apart",
    shape=Shape(5, 3, 2),
    case=dict(STABLE_HEADS.case) | {"query_keys": np.zeros((2, 3, 3))},
)

_PERSISTENT = Hypotheses((many_heads.perturbed_example(0.05),), (Shape(4, 3, 2),))


@numbered
def section_d_4_1() -> Statement:
    """Bipartite points in the multi-head case."""
    return Statement(
        id="section-d.4.1",
        source=f"Sec. D.4.1, {PAPER}",
        text="Stable bipartite points of multi-head attention.",
        paper=Form(
            text="as read: with several heads there is no evidence of stable bipartite points: "
            "those that exist (at a common eigenvector of the heads) have a multiplier above 1.",
            expected="refuted",
            clauses=(
                Clause(
                    name="unstable",
                    text="x_i = s_i v at a common eigenvector v of all heads is unstable",
                    hypotheses=Hypotheses(
                        (many_heads.commuting_heads(), hyp.split_signs(), hyp.full_attention()),
                        (Shape(3, 2, 2), Shape(5, 3, 2)),
                    ),
                    conclusion=_commuting_unstable,
                    explicit=(STABLE_HEADS,),
                ),
            ),
        ),
        corrected=Form(
            text="They exist at a common eigenvector for every split, and are stable in an open "
            "set of heads, for instance around F_1 = diag(1, .3, -.2), F_2 = diag(.8, .1, .4), "
            "B_1 = 2I, B_2 = 1.5I, alpha = .2. Balanced ones survive generic, asymmetric "
            "perturbations of the heads as exactly antipodal points.",
            expected="supported",
            clauses=(
                Clause(
                    name="stable",
                    text="around the example all splits with both groups are stable",
                    hypotheses=Hypotheses(
                        (
                            many_heads.near_commuting_example(),
                            hyp.split_signs(),
                            hyp.full_attention(),
                        ),
                        (Shape(5, 3, 2),),
                    ),
                    conclusion=_commuting_stable,
                    explicit=(STABLE_HEADS,),
                    twin=Twin("theta_h near the example's", _WITHOUT_LOGITS),
                ),
                Clause(
                    name="balanced, perturbed",
                    text="with all entries of F_h and B_h perturbed by up to .05, (2, 2) tokens "
                    "still have an exactly antipodal stable equilibrium",
                    hypotheses=_PERSISTENT,
                    conclusion=_balanced_persists,
                    share=0.25,
                ),
            ),
        ),
    )


@numbered
def ii_5() -> Statement:
    """Multi-head bipartite points: existence, stability, robustness."""
    generic = Hypotheses(
        (many_heads.any_heads(), hyp.split_signs(), hyp.full_attention()),
        (Shape(3, 2, 2), Shape(4, 3, 3)),
    )
    balanced = Hypotheses(
        (many_heads.any_heads(), hyp.split_signs("balanced"), hyp.full_attention()),
        (Shape(2, 2, 2), Shape(4, 3, 3)),
    )
    unbalanced = Explicit(
        name="three tokens against one",
        text="F_1 = [[1, 1], [0, .5]], B_1 = I, alpha = 1/4, (3, 1) at e_2: the two groups turn by "
        "different angles",
        shape=Shape(4, 2, 1),
        case={
            "heads": np.array([[[1.0, 1.0], [0.0, 0.5]]]),
            "query_keys": np.eye(2)[None],
            "alpha": np.array(0.25),
            "direction": np.array([0.0, 1.0]),
            "signs": witnesses.signs(3, 1),
        },
    )
    long_direction = Explicit(
        name="v of length 2",
        text="as before with v = 2 e_2, which is no unit vector",
        shape=Shape(4, 2, 1),
        case=dict(unbalanced.case) | {"direction": np.array([0.0, 2.0])},
    )
    tilted = Explicit(
        name="v no eigenvector of the heads",
        text="the stable example at v = (3, 4, 0)/5",
        shape=Shape(5, 3, 2),
        case=dict(STABLE_HEADS.case) | {"direction": np.array([0.6, 0.8, 0.0])},
    )
    return Statement(
        id="ii.5",
        source="Theory II.5",
        text="Multi-head bipartite points: existence, stability, robustness.",
        paper=None,
        corrected=Form(
            text="x_i = s_i v is an equilibrium iff M_i(v) v is parallel to v for both groups, M_i "
            "= sum_h gamma_i^h F_h (and 1 + alpha v'M_i v > 0). Heads with common eigenvectors: "
            "multipliers of D^-1 (I + alpha sum_h lambda_l^h A_h). Balanced groups are invariant "
            "for any heads, v -> N(v + alpha sum_h tanh(v'B_h v) F_h v): the odd eigenproblem "
            "M(v) v = kappa v, which for odd d always has a solution (hairy ball, not checked "
            "here), and whose solutions persist. Unbalanced ones become stable 2-clusterings with "
            "|p + q| of the order of the perturbation (numerical evidence).",
            expected="supported",
            clauses=(
                Clause(
                    name="criterion",
                    text="Pi_v f(x)_i = alpha s_i Pi_v M_i(v) v/|y_i|, for any heads and signs",
                    hypotheses=generic,
                    conclusion=_criterion,
                    twin=Twin("|v| = 1", long_direction),
                ),
                Clause(
                    name="common eigenvectors",
                    text="the closed form is the Jacobian, and the group actions have its spectrum",
                    hypotheses=Hypotheses(
                        (many_heads.commuting_heads(), hyp.split_signs(), hyp.full_attention()),
                        (Shape(3, 2, 2), Shape(5, 3, 2)),
                    ),
                    conclusion=_commuting_spectrum,
                    explicit=(STABLE_HEADS,),
                    twin=Twin("F_h v = lambda^h v", tilted),
                ),
                Clause(
                    name="balanced",
                    text="balanced groups move by the reduced map, exactly antipodal",
                    hypotheses=balanced,
                    conclusion=_balanced_map,
                    twin=Twin("balanced", unbalanced),
                ),
                Clause(
                    name="unbalanced, perturbed",
                    text="(3, 2) tokens of the perturbed example: a stable 2-clustering with "
                    "|p + q| <= 0.3 times the perturbation",
                    hypotheses=Hypotheses((many_heads.perturbed_example(0.05),), (Shape(5, 3, 2),)),
                    conclusion=_unbalanced_leans,
                    share=0.25,
                ),
            ),
        ),
    )

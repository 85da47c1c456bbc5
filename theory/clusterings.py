"""Supplementary D.3: clusterings, Remarks 5 to 7 and Proposition 1."""

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.numerics import einsum
from theory import hypotheses as hyp
from theory import instances
from theory import linearization as lin
from theory import witnesses_softmax as told
from theory.hypotheses import clusters, general
from theory.margin import Margin, differs, equivalent, every, identity
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


def _stay_together(shape: Shape, case: Case) -> Margin:
    """Tokens at one point move to one point, as m points with the weights n_s do."""
    system, points = instances.single_head(shape, case), case["points"]
    weights = clusters.reduced_attention(case)[1]
    y = points + system.alpha * einsum("ab,rs,sb->ra", system.value, weights, points)
    moved = system(case["x"]) - sphere.normalize(y)[case["member"]]
    # How much the division by |y| magnifies: the points' own, which are all of the tokens.
    worst = lin.conditioning(system, case["x"], case["query_key"])
    return identity(moved, scale=worst, size=case["x"].size, conditioning=worst)


@numbered
def remark_5() -> Statement:
    """What an m-clustering is."""
    causal = Explicit(
        name="causal attention",
        text="V = diag(1, -1/2), Q'K = 0, alpha = 1/4 with causal attention, tokens e_1, e_2, e_1: "
        "the first and the last see different tokens",
        shape=Shape(3, 2, 1, "causal"),
        case={
            "value": np.diag([1.0, -0.5]),
            "query_key": np.zeros((2, 2)),
            "alpha": np.array(0.25),
            "points": np.eye(2),
            "member": np.array([0, 1, 0]),
            "x": np.eye(2)[[0, 1, 0]],
        },
    )
    clause = Clause(
        name="clusters stay together",
        text="with x_i in {p_1, ..., p_m}, 2 <= m <= n, f(x) has at most m points: those of the "
        "system of m tokens with weights n_s",
        hypotheses=Hypotheses(
            (
                hyp.any_value(),
                general.free_step(),
                hyp.query_key(),
                clusters.clusters(),
                hyp.full_attention(),
            ),
            (Shape(3, 2), Shape(5, 3)),
        ),
        conclusion=_stay_together,
        twin=Twin("full attention", causal),
    )
    return Statement(
        id="remark-5",
        source=f"Remark 5, {PAPER}",
        text="m-clusterings: the tokens are at m points.",
        paper=Form(
            text="as read: in an m-clustering x_i in {p_1, ..., p_m} with 2 <= m <= n; the "
            "clusters are kept by the map.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="With full attention tokens that are equal stay equal, so m never grows, and the "
            "tokens follow a system of m points whose attention weighs them by their sizes n_s. "
            "Not so under a causal mask.",
            expected="supported",
            clauses=(clause,),
        ),
    )


def _one_point_fixed(shape: Shape, case: Case) -> Margin:
    """The paper: f(x) = x at x_i = p."""
    system, x = instances.single_head(shape, case), case["x"]
    return identity(system(x) - x, scale=1.0, size=x.size)


def _one_point_turns(shape: Shape, case: Case) -> Margin:
    """All tokens turn by the same angle, sin = alpha |Pi V p| / |p + alpha V p|, which is not 0."""
    system, p = instances.single_head(shape, case), case["direction"]
    moved = system(case["x"])
    along = einsum("ab,b->a", system.value, p)
    y = sphere.norm(p + system.alpha * along)
    claimed = system.alpha * sphere.norm(sphere.tangent_projection(p, along)) / y
    turned = sphere.norm(sphere.tangent_projection(case["x"], moved))
    worst = lin.conditioning(system, case["x"], case["query_key"])
    return every(
        identity(turned - claimed, scale=worst, size=moved.size, conditioning=worst),
        # Equal tokens have a sum of attention that is 1 to rounding: p turns by itself.
        differs(jnp.min(turned), scale=1.0, size=shape.d),
    )


@numbered
def remark_6() -> Statement:
    """One cluster."""
    off = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.moderate_step(),
            hyp.query_key(),
            clusters.off_axis_point(),
        ),
        (Shape(2, 2), Shape(4, 3, 1, "causal")),
    )
    return Statement(
        id="remark-6",
        source=f"Remark 6, {PAPER}",
        text="Equilibria with all tokens at one point.",
        paper=Form(
            text="as read: besides consensus at an eigenvector there are 1-clusterings, x_i = p "
            "for all i, that are not aligned with an eigenvector.",
            expected="refuted",
            clauses=(
                Clause(
                    name="1-clustering",
                    text="x_i = p off the eigenvectors is fixed",
                    hypotheses=off,
                    conclusion=_one_point_fixed,
                    explicit=(told.OFF_AXIS,),
                ),
            ),
        ),
        corrected=Form(
            text="x_i = p for all i gives z_i = p, so it is fixed only if V p = c p: off the "
            "eigenvectors all tokens turn by the angle with sine alpha |Pi V p|/|p + alpha V p|, "
            "whatever Q'K and the mask are.",
            expected="supported",
            clauses=(
                Clause(
                    name="turns",
                    text="x_i = p off the eigenvectors turns by that angle, which is not 0",
                    hypotheses=off,
                    conclusion=_one_point_turns,
                    explicit=(told.OFF_AXIS,),
                    twin=Twin("p no eigenvector", told.ON_AXIS),
                ),
            ),
        ),
    )


def _singular_only_at_equilibria(shape: Shape, case: Case) -> Margin:
    """The paper, for C = λ_1 I: A ⊗ V − C ⊗ I is singular iff X is an equilibrium.

    Singular by its kernel: |(A ⊗ V − λ_1 I) (1 ⊗ v_1)| = 0.
    """
    system, x = instances.single_head(shape, case), case["x"]
    worst = lin.conditioning(system, x, case["query_key"])
    size = instances.norm_of(case)
    kernel = jnp.broadcast_to(case["frame"][:, 0][None, :], x.shape) / np.sqrt(shape.n)
    moved = einsum("ij,ab,jb->ia", system.attention(x), system.value, kernel)
    defect = moved - case["eigenvalues"][0] * kernel
    return equivalent(
        identity(defect, scale=size, size=x.size),
        identity(system(x) - x, scale=worst, size=x.size, conditioning=worst),
    )


def coefficients(system: object, x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """c_i = x_iᵀ V z_i, and what (A ⊗ V) x − (C ⊗ I) x then leaves of every token."""
    update = system.update(x)  # type: ignore[attr-defined]
    along = jnp.sum(x * update, axis=1)
    return along, update - along[:, None] * x


def _kernel_holds_the_state(shape: Shape, case: Case) -> Margin:
    """x_iᵀ f(x)_i = (1 + alpha c_i)/|y_i|, and the rest of f(x)_i is alpha/|y_i| of the residual.

    So f(x) = x iff the residual of the linear system vanishes at the state itself and all
    1 + alpha c_i are positive.
    """
    system, x = instances.single_head(shape, case), case["x"]
    along, rest = coefficients(system, x)
    moved, length = system(x), sphere.norm(system.unnormalized(x))
    worst = lin.conditioning(system, x, case["query_key"])
    facing = jnp.sum(x * moved, axis=1) - (1.0 + system.alpha * along) / length
    across = sphere.tangent_projection(x, moved) - system.alpha * rest / length[:, None]
    return every(
        identity(facing, scale=worst, size=x.size, conditioning=worst),
        identity(across, scale=worst, size=x.size, conditioning=worst),
    )


@numbered
def proposition_1() -> Statement:
    """The linear system behind clustering equilibria."""
    anywhere = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step("norm"),
            hyp.tokens(),
            hyp.query_key(),
            hyp.full_attention(),
        ),
        (Shape(2, 2), Shape(4, 3)),
    )
    long_token = Explicit(
        name="a token of length 2",
        text="V = diag(1, 1/2), Q'K = [[2, 1], [0, 0]], alpha = 1/4, tokens 2 e_1 and (3, 4)/5: "
        "c_i is no longer the component of the update",
        shape=Shape(2, 2),
        case=dict(told.SINGULAR_ANYWHERE.case) | {"x": np.array([[2.0, 0.0], [0.6, 0.8]])},
    )
    return Statement(
        id="proposition-1",
        source=f"Proposition 1, {PAPER}",
        text="Clustering equilibria and the matrix A(X) (x) V - C (x) I, C = diag(c_i).",
        paper=Form(
            text="as read: X is a clustering equilibrium for some c_1, ..., c_n iff the matrix "
            "A(X) (x) V - C (x) I of (A (x) V - C (x) I) x = 0 is singular.",
            expected="refuted",
            clauses=(
                Clause(
                    name="singular only at equilibria",
                    text="with c_i = lambda_1, where the matrix is singular the state is fixed",
                    hypotheses=anywhere,
                    conclusion=_singular_only_at_equilibria,
                    explicit=(told.SINGULAR_ANYWHERE,),
                ),
            ),
        ),
        corrected=Form(
            text="The matrix is singular at every state (c_i = lambda_l: 1 is an eigenvalue of A). "
            "X is an equilibrium iff its kernel contains the state itself, (A(X) (x) V) x = "
            "(C (x) I) x, for some diagonal C with 1 + alpha c_i > 0; then c_i = x_i'V z_i.",
            expected="supported",
            clauses=(
                Clause(
                    name="kernel holds the state",
                    text="x_i'f(x)_i = (1 + alpha c_i)/|y_i| and Pi_i f(x)_i = alpha/|y_i| times "
                    "the residual of token i",
                    hypotheses=anywhere,
                    conclusion=_kernel_holds_the_state,
                    explicit=(told.SINGULAR_ANYWHERE,),
                    twin=Twin("unit tokens", long_token),
                ),
            ),
        ),
    )


def _antipode_and_coefficients(shape: Shape, case: Case) -> Margin:
    """At a constructed clustering x and −x are fixed, and V z_i = (x_iᵀ V z_i) x_i."""
    system, x = instances.single_head(shape, case), case["x"]
    worst = clusters.conditioning(case)
    _, rest = coefficients(system, x)
    moved = system(x)
    size = lin.frobenius(system.value)
    return every(
        identity(moved - x, scale=2.0, size=x.size, conditioning=worst),
        identity(rest, scale=size, size=x.size, conditioning=worst),
        identity(system(-x) + moved, scale=1.0, size=x.size),
    )


def fixed_clusters(*shapes: Shape) -> Hypotheses:
    """Two clusters that are an equilibrium by construction, alpha < 1/|V|."""
    return Hypotheses((clusters.fixed_two_clusters(), hyp.full_attention()), shapes)


def flipped_clusters() -> Explicit:
    """A clustering with c_1 < 0 and a step for which 1 + alpha c_1 < 0."""
    return Explicit(
        name="a step that flips a cluster",
        text="the 2-clustering e_1, (3, 4)/5 of Q'K = diag(1, 0) with V such that c = (-1, -1) "
        "times the overlaps, and alpha = 10: tokens go to the other side",
        shape=Shape(2, 2),
        case=_negative_clusters(10.0),
    )


def _negative_clusters(alpha: float) -> dict[str, np.ndarray]:
    points, logits = np.array([[1.0, 0.0], [0.6, 0.8]]), np.diag([1.0, 0.0])
    weights = np.exp(points @ logits @ points.T)
    means = (weights / weights.sum(axis=1, keepdims=True)) @ points
    across = means @ points.T
    wanted = -np.array([across[0, 1], across[1, 0]])[:, None] * points
    value = np.linalg.solve(means, wanted).T
    return {
        "value": (value + value.T) / 2,
        "query_key": logits,
        "alpha": np.array(alpha),
        "points": points,
        "member": np.arange(2),
        "x": points,
    }


@numbered
def remark_7() -> Statement:
    """The coefficients c_i, and antipodes."""
    clause = Clause(
        name="coefficients and antipode",
        text="c_i = x_i'V z_i at an equilibrium, and -X is one too: f(-X) = -f(X)",
        hypotheses=fixed_clusters(Shape(2, 2), Shape(4, 3)),
        conclusion=_antipode_and_coefficients,
        twin=Twin("1 + alpha c > 0", flipped_clusters()),
    )
    return Statement(
        id="remark-7",
        source=f"Remark 7, {PAPER}",
        text="The coefficients of a clustering equilibrium, and its antipode.",
        paper=Form(
            text="as read: at an equilibrium c_i = x_i'V z_i; the antipode -X of an equilibrium X "
            "is an equilibrium.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper, with 1 + alpha c_i > 0: f(-X) = -f(X) at every state, so that "
            "the antipode of any equilibrium, or cycle, is one.",
            expected="supported",
            clauses=(clause,),
        ),
    )

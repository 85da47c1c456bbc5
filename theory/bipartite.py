"""Supplementary D.3: bipartite points of the softmax system, Lemma 14, Remarks 8 and 10."""

import jax.numpy as jnp
import numpy as np

from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, every, identity
from theory.self_attention import PAPER, SMALL
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


def _lemma_14_paper(shape: Shape, case: Case) -> Margin:
    """Classes 2 and 3 on the tangent space, class 1 for the paper's extension of the map."""
    system = instances.single_head(shape, case)
    x = instances.signed_state(case)
    n, d = x.shape
    extended = jacobian.extrinsic(lin.alternative_extension(system), x)
    normal = einsum("ij,d->idj", jnp.eye(n), case["direction"]).reshape(n * d, n)
    single = conclusions.bipartite_classes(case).single
    own = jnp.where(case["signs"] > 0, single[0], single[1])
    moved = einsum("ab,bk->ak", extended, normal) - normal * (own**2)[None, :]
    amplification = lin.conditioning(system, x, case["query_key"]) ** 2
    return every(
        _lemma_14_corrected(shape, case),
        identity(moved, scale=amplification, size=n * d, conditioning=amplification),
    )


def _lemma_14_corrected(shape: Shape, case: Case) -> Margin:
    """The intrinsic spectrum, and that tau_l and Delta_l of (14) are sum and product of mu_l."""
    system = instances.single_head(shape, case)
    matrix, amplification = conclusions.bipartite_jacobian(system, case)
    tau, delta = _equation_14(case)
    pair = conclusions.bipartite_classes(case).pair
    size = matrix.shape[0]
    scale = amplification**2
    return every(
        lin.spectrum_identity(
            matrix, conclusions.bipartite_table(case), conditioning=amplification
        ),
        identity(pair[:, 0] + pair[:, 1] - tau, scale=scale, size=size, conditioning=amplification),
        identity(pair[:, 0] * pair[:, 1] - delta, scale=scale, size=size, conditioning=scale),
    )


def _equation_14(case: Case) -> tuple[jnp.ndarray, jnp.ndarray]:
    """tau_l and Delta_l as (14) has them, from p_i = n_i e^theta/(n_i e^theta + n_j e^-theta)."""
    n1, n2 = instances.group_sizes(case)
    theta, alpha = instances.theta_of(case), case["alpha"]
    p1 = 1.0 / (1.0 + n2 / n1 * jnp.exp(-2.0 * theta))
    p2 = 1.0 / (1.0 + n1 / n2 * jnp.exp(-2.0 * theta))
    own = alpha * instances.principal_eigenvalue(case)
    g1, g2 = 1.0 + own * (2.0 * p1 - 1.0), 1.0 + own * (2.0 * p2 - 1.0)
    step = alpha * instances.other_eigenvalues(case)
    tau = (1.0 + step * p1) / g1 + (1.0 + step * p2) / g2
    delta = (1.0 + step * p1) * (1.0 + step * p2) - step**2 * (1.0 - p1) * (1.0 - p2)
    return tau, delta / (g1 * g2)


_BIPARTITE = (hyp.eigenpair("any"), hyp.split_signs(), hyp.query_key())


@numbered
def lemma_14() -> Statement:
    """The spectrum at a bipartite point."""
    causal = Explicit(
        name="causal attention",
        text="V = diag(1, -1/2), Q'K = diag(1, 0), alpha = 1/4 with causal attention, tokens "
        "{v_1, -v_1}: the first token sees only itself",
        shape=Shape(2, 2, 1, "causal"),
        case=witnesses.antipodal_pair() | {"query_key": np.diag([1.0, 0.0])},
    )
    return Statement(
        id="lemma-14",
        source=f"Lemma 14, {PAPER}",
        text="The multipliers at bipartite points of the softmax system.",
        paper=Form(
            text="as read: with alpha < 1/|V| the eigenvalues at x_i = s_i v_k are 1. 1/g_i^2, n_i "
            "times (for the map continued off the sphere by x_i'x_i := 1); 2. mu_l^+- = (tau_l +- "
            "sqrt(tau_l^2 - 4 Delta_l))/2, l != k, with (14); 3. 1/g_i, (n_i - 1)(d - 1) times.",
            expected="supported",
            clauses=(
                Clause(
                    name="three classes",
                    text="classes 2 and 3 are the intrinsic spectrum, class 1 is that of e_i (x) "
                    "v_k",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            *_BIPARTITE,
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=_lemma_14_paper,
                    twin=Twin("full attention", causal),
                ),
            ),
        ),
        corrected=Form(
            text="Classes 2 and 3 are the intrinsic spectrum for every alpha with g_i > 0, i = 1, "
            "2, and all of it is real: tau_l^2 - 4 Delta_l is a sum of squares.",
            expected="supported",
            clauses=(
                Clause(
                    name="intrinsic classes",
                    text="classes 2 and 3 are the intrinsic spectrum, multiplicities counted",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("none"),
                            *_BIPARTITE,
                            hyp.existing_bipartite(),
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=_lemma_14_corrected,
                    twin=Twin("full attention", causal),
                ),
            ),
        ),
        covers=("equation-14",),
    )


def _class_structure(shape: Shape, case: Case) -> Margin:
    """J in the basis e_i (x) v_l: the tangent part splits by l, the normal part is apart."""
    system = instances.single_head(shape, case)
    x = instances.signed_state(case)
    n, d = x.shape
    signs, v = case["signs"], case["direction"]
    frame = jnp.concatenate([v[:, None], case["frame"][:, instances.other_indices(case)]], axis=1)
    own = instances.principal_eigenvalue(case)
    eigenvalues = jnp.concatenate([own[None], instances.other_eigenvalues(case)])
    weights = jacobian.signed_attention(system, v, signs)[0]
    factors = jacobian.signed_factors(system, v, signs)
    identity_matrix = jnp.eye(n)
    # T_l = G^-1 (I + alpha lambda_l A) for l != k, and nothing on e_i (x) v_k.
    acting = identity_matrix[None] + system.alpha * eigenvalues[:, None, None] * weights[None]
    acting = (acting / factors[None, :, None]).at[0].set(0.0)
    claimed = einsum("lij,lm->iljm", acting, jnp.eye(d))
    # The paper's extension adds the first class.
    first_class = einsum("ij,i->ij", identity_matrix, factors**-2)
    claimed_paper = claimed.at[:, 0, :, 0].add(first_class)

    def in_basis(matrix: jnp.ndarray) -> jnp.ndarray:
        return einsum("al,iajb,bm->iljm", frame, matrix.reshape(n, d, n, d), frame)

    amplification = lin.conditioning(system, x, case["query_key"]) ** 2
    own_error = in_basis(jacobian.extrinsic(system, x)) - claimed
    paper_error = in_basis(jacobian.extrinsic(lin.alternative_extension(system), x)) - claimed_paper
    return every(
        identity(own_error, scale=amplification, size=n * d, conditioning=amplification),
        identity(paper_error, scale=amplification, size=n * d, conditioning=amplification),
    )


@numbered
def remark_8() -> Statement:
    """Which classes are tangent at a bipartite point."""
    tilted = witnesses.antipodal_pair() | {
        "query_key": np.diag([2.0, 0.0]),
        "direction": np.array([0.6, 0.8]),
        "frame": np.eye(2),
    }
    clause = Clause(
        name="classes",
        text="J maps e_j (x) v_l to sum_i (G^-1 (I + alpha lambda_l A))_ij e_i (x) v_l for l != k, "
        "which are tangent; e_i (x) v_k is normal and an eigenvector of its own",
        hypotheses=Hypotheses(
            (hyp.symmetric_value(), hyp.step("norm"), *_BIPARTITE, hyp.full_attention()), SMALL
        ),
        conclusion=_class_structure,
        twin=Twin(
            "V v = lambda v",
            Explicit(
                "tokens off the eigenvectors",
                "V = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4, tokens at +-(3, 4)/5",
                Shape(2, 2),
                tilted,
            ),
        ),
    )
    return Statement(
        id="remark-8",
        source=f"Remark 8, {PAPER}",
        text="Which eigenvectors at a bipartite point belong to the tangent space.",
        paper=Form(
            text="as read: in Lemma 14 the first class of eigenvectors is extrinsic and the other "
            "two belong to the tangent space; only they decide.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper; the first class has the eigenvalue 0 for the map as written and "
            "1/g_i^2 for the paper's series, so condition 1 of Theorem 3 says nothing about "
            "stability.",
            expected="supported",
            clauses=(clause,),
        ),
    )


@numbered
def remark_10() -> Statement:
    """Bipartite points at negative eigenvalues."""

    def clause(text: str, logits: Piece, **more: object) -> Clause:
        return Clause(
            name="unstable",
            text=text,
            hypotheses=Hypotheses(
                (
                    hyp.symmetric_value(last="negative"),
                    hyp.step("norm"),
                    hyp.eigenpair("negative"),
                    hyp.split_signs(),
                    logits,
                    hyp.full_attention(),
                ),
                SMALL,
            ),
            conclusion=conclusions.bipartite_unstable,
            **more,  # type: ignore[arg-type]
        )

    return Statement(
        id="remark-10",
        source=f"Remark 10, {PAPER}",
        text="Bipartite points at eigenvectors with a negative eigenvalue.",
        paper=Form(
            text="as read: if lambda_k < 0 the bipartite equilibria at v_k are unstable for all "
            "admissible alpha (1/(1 + alpha lambda_k gamma_i) > 1).",
            expected="refuted",
            clauses=(
                clause(
                    "lambda_k < 0 gives a multiplier above 1",
                    hyp.query_key(),
                    explicit=(witnesses.REMARK_10,),
                ),
            ),
        ),
        corrected=Form(
            text="If lambda_k < 0 and theta_k >= 0 they are unstable. If theta_k < 0, gamma_i can "
            "be negative, and they are stable iff lambda_d < 0 is simple, k = d and lambda_1/"
            "|lambda_d| < Psi(|theta_d|) (Theorem 3, corrected).",
            expected="supported",
            clauses=(
                clause(
                    "lambda_k < 0 and theta_k >= 0 give a multiplier above 1",
                    hyp.query_key("non-negative"),
                    twin=Twin("theta >= 0", witnesses.REMARK_10),
                ),
            ),
        ),
    )

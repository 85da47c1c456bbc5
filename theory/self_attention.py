"""Supplementary D.3, single-head softmax: Lemmas 10 to 14, Remarks 8 and 10, Theorem 3."""

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import conditions, jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, equivalent, every, identity, inequality
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

PAPER = "arXiv 2605.25619"
SMALL = (Shape(2, 2), Shape(3, 3), Shape(5, 4))
MASKED = (Shape(3, 2), Shape(3, 3, 1, "causal"), Shape(5, 4, 1, "window"))


def _lemma_10_paper(shape: Shape, case: Case) -> Margin:
    return conclusions.paper_jacobian(instances.single_head(shape, case), case)


def _lemma_10_corrected(shape: Shape, case: Case) -> Margin:
    system = instances.single_head(shape, case)
    return conclusions.exact_jacobian(system, jacobian.extrinsic_formula(system, case["x"]), case)


_ANY_STATE = (
    hyp.any_value(),
    hyp.moderate_step(),
    hyp.query_key(),
    hyp.tokens(),
    hyp.nonzero_update(instances.single_head),
)


@numbered
def lemma_10() -> Statement:
    """The Jacobian of the softmax system."""
    radial = Explicit(
        name="a radial direction",
        text="V = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4, w = x at tokens e_1 and e_2: the "
        "two extensions of the map differ off the sphere",
        shape=Shape(2, 2),
        case={
            "value": np.diag([1.0, -0.5]),
            "query_key": np.diag([2.0, 0.0]),
            "alpha": np.array(0.25),
            "x": np.eye(2),
            "w": np.eye(2),
        },
    )
    cancelled = Explicit(
        name="an update that cancels",
        text="V = diag(-2, 1), alpha = 1/2, both tokens at e_1: y_i = 0, and no Jacobian",
        shape=Shape(2, 2),
        case={
            "value": np.diag([-2.0, 1.0]),
            "query_key": np.zeros((2, 2)),
            "alpha": np.array(0.5),
            "x": np.array([[1.0, 0.0], [1.0, 0.0]]),
        },
    )
    return Statement(
        id="lemma-10",
        source=f"Lemma 10, {PAPER}",
        text="The Jacobian of the softmax system (8) at any state.",
        paper=Form(
            text="as read: J_ij = (1/|y_i|) dy_i/dx_j + y_i d(1/|y_i|)/dx_j, eq. (15), with (16) "
            "for dy_i/dx_j and x_i'x_i := 1 before differentiating |y_i|: right on the tangent "
            "space.",
            expected="supported",
            clauses=(
                Clause(
                    name="tangent",
                    text="(15), (16) act on tangent vectors as the derivative of the map",
                    hypotheses=Hypotheses((*_ANY_STATE, hyp.tangent_direction()), SMALL),
                    conclusion=_lemma_10_paper,
                    twin=Twin("w tangent", radial),
                ),
            ),
        ),
        corrected=Form(
            text="J_ij = (1/|y_i|)(I - yhat_i yhat_i') dy_i/dx_j with (16), exactly, at every "
            "state with y_i != 0, for any V, Q'K and mask.",
            expected="supported",
            clauses=(
                Clause(
                    name="entrywise",
                    text="the closed form is the Jacobian, entry by entry, for full, causal and "
                    "window attention",
                    hypotheses=Hypotheses(_ANY_STATE, MASKED),
                    conclusion=_lemma_10_corrected,
                    twin=Twin("y != 0", cancelled),
                ),
            ),
        ),
    )


def _lemma_11_paper(shape: Shape, case: Case) -> Margin:
    """The softmax system's Jacobian is that of the Oja system at consensus, eq. (12)."""
    formula = jacobian.signed_consensus(
        instances.oja(shape, case), case["direction"], jnp.ones(shape.n)
    )
    return conclusions.signed_jacobian(instances.single_head(shape, case), formula, case)


def _lemma_11_corrected(shape: Shape, case: Case) -> Margin:
    system = instances.multi_head(shape, case)
    formula = jacobian.signed_consensus(system, case["direction"], case["signs"])
    return conclusions.signed_jacobian(system, formula, case)


@numbered
def lemma_11() -> Statement:
    """At consensus softmax and Oja have the same Jacobian."""
    opposite = Explicit(
        name="opposite tokens",
        text="V = diag(1, -1/2), Q'K = diag(1, 0), alpha = 1/4, tokens {v_1, -v_1}: the attention "
        "is not uniform",
        shape=Shape(2, 2),
        case=witnesses.antipodal_pair() | {"query_key": np.diag([1.0, 0.0])},
    )
    tilted = Explicit(
        name="equal tokens off the eigenvectors",
        text="F = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4, all tokens at (3, 4)/5: no "
        "equilibrium, and the closed form is not the Jacobian",
        shape=Shape(2, 2, 1),
        case={
            "value": np.diag([1.0, -0.5]),
            "heads": np.diag([1.0, -0.5])[None],
            "query_keys": np.diag([2.0, 0.0])[None],
            "alpha": np.array(0.25),
            "direction": np.array([0.6, 0.8]),
            "eigenvalue": np.array(1.0),
            "signs": np.ones(2),
        },
    )
    return Statement(
        id="lemma-11",
        source=f"Lemma 11, {PAPER}",
        text="The Jacobian of the softmax system at consensus.",
        paper=Form(
            text="as read: at a consensus point the Jacobian of (8) is that of the Oja system, "
            "eq. (12).",
            expected="supported",
            clauses=(
                Clause(
                    name="same as Oja",
                    text="the derivatives of the attention drop out at consensus",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("none"),
                            hyp.eigenpair("any"),
                            hyp.consensus_signs(),
                            hyp.query_key(),
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=_lemma_11_paper,
                    twin=Twin("equal tokens", opposite),
                ),
            ),
        ),
        corrected=Form(
            text="For any number of heads with any F = sum_h F_h that has a real eigenvector v, "
            "F v = lambda v, and any mask: J_ij = (1/|1 + alpha lambda|) Pi (delta_ij I + alpha "
            "sum_h a_ij F_h) at x_i = v.",
            expected="supported",
            clauses=(
                Clause(
                    name="any mask, any F",
                    text="the closed form is the Jacobian, entry by entry",
                    hypotheses=Hypotheses(
                        (
                            hyp.moderate_step(),
                            hyp.real_eigenvector(),
                            hyp.heads(symmetric_sum=False),
                            hyp.consensus_signs(),
                        ),
                        (Shape(3, 2, 3), Shape(3, 3, 2, "causal"), Shape(4, 3, 2, "window")),
                    ),
                    conclusion=_lemma_11_corrected,
                    twin=Twin("F v = lambda v", tilted),
                ),
            ),
        ),
    )


def _lemma_12(shape: Shape, case: Case) -> Margin:
    system = instances.single_head(shape, case)
    x = instances.signed_state(case)
    lengths = sphere.norm(system.unnormalized(x))
    factors = jnp.abs(jacobian.signed_factors(system, case["direction"], case["signs"]))
    formula = jacobian.signed_consensus(system, case["direction"], case["signs"])
    size = 1.0 + case["alpha"] * lin.frobenius(instances.value_matrix(case))
    size = size * (1.0 + lin.frobenius(case["query_key"]))
    return every(
        conclusions.signed_jacobian(system, formula, case),
        identity(lengths - factors, scale=size, size=x.size),
    )


@numbered
def lemma_12() -> Statement:
    """The Jacobian at a bipartite point."""
    text = "V = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4, tokens at +-(3, 4)/5: no equilibrium"
    tilted = witnesses.antipodal_pair() | {
        "query_key": np.diag([2.0, 0.0]),
        "direction": np.array([0.6, 0.8]),
    }
    off_axis = Explicit("tokens off the eigenvectors", text, Shape(2, 2), tilted)
    asymmetric = tilted | {"value": np.diag([1.0, -0.5]), "eigenvalue": np.array(1.0)}
    return Statement(
        id="lemma-12",
        source=f"Lemma 12, {PAPER}",
        text="The Jacobian of the softmax system at bipartite points.",
        paper=Form(
            text="as read: at x_i = s_i v_k, |y_i| = |1 + alpha lambda_k gamma_i| and J_ij = "
            "(1/g_i) Pi_k (delta_ij I + alpha a_ij V), eqs. (18), (19), with alpha < 1/|V|.",
            expected="supported",
            clauses=(
                Clause(
                    name="entrywise",
                    text="the closed form is the Jacobian, entry by entry, and |y_i| = g_i",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            hyp.eigenpair("any"),
                            hyp.split_signs(),
                            hyp.query_key(),
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=_lemma_12,
                    twin=Twin("V v = lambda v", off_axis),
                ),
            ),
        ),
        corrected=Form(
            text="The same with 1/|g_i| for any alpha with g_i != 0, any V with a real eigenvector "
            "v, and any mask.",
            expected="supported",
            clauses=(
                Clause(
                    name="any mask, any V",
                    text="the closed form is the Jacobian, entry by entry, and |y_i| = |g_i|",
                    hypotheses=Hypotheses(
                        (
                            hyp.moderate_step(),
                            hyp.real_eigenvector(),
                            hyp.split_signs(),
                            hyp.query_key(),
                        ),
                        MASKED,
                    ),
                    conclusion=_lemma_12,
                    twin=Twin(
                        "F v = lambda v",
                        Explicit("tokens off the eigenvectors", text, Shape(2, 2), asymmetric),
                    ),
                ),
            ),
        ),
    )


def _lemma_13(shape: Shape, case: Case) -> Margin:
    system = instances.single_head(shape, case)
    factors = jacobian.signed_factors(system, case["direction"], case["signs"])
    along = jnp.sum(
        system.unnormalized(instances.signed_state(case)) * instances.signed_state(case), axis=-1
    )
    logits = 1.0 + lin.frobenius(case["query_key"])
    return every(
        inequality(jnp.min(factors), size=shape.n * shape.d, conditioning=logits),
        identity(along - factors, scale=2.0, size=shape.n * shape.d, conditioning=logits),
    )


@numbered
def lemma_13() -> Statement:
    """Bipartite points keep their sides for small steps."""

    def clause(bound: hyp.Bound) -> Clause:
        return Clause(
            name="positive",
            text="1 + alpha lambda_k gamma_i > 0, and y_i = s_i (1 + alpha lambda_k gamma_i) v_k",
            hypotheses=Hypotheses(
                (
                    hyp.symmetric_value(),
                    hyp.step(bound),
                    hyp.eigenpair("any"),
                    hyp.split_signs(),
                    hyp.query_key(),
                    hyp.full_attention(),
                ),
                SMALL,
            ),
            conclusion=_lemma_13,
            twin=Twin("step bound", witnesses.BEYOND_NORM),
        )

    return Statement(
        id="lemma-13",
        source=f"Lemma 13, {PAPER}",
        text="The factors of y_i at bipartite points are positive for small steps.",
        paper=Form(
            text="as read: alpha < 1/|V| implies 1 + alpha lambda_k gamma_i > 0, i = 1, 2.",
            expected="supported",
            clauses=(clause("norm"),),
        ),
        corrected=Form(
            text="alpha <= 1/|V| suffices under full attention: 1 + alpha lambda_k gamma_i >= 1 - "
            "|gamma_i| > 0.",
            expected="supported",
            clauses=(clause("closed norm"),),
        ),
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
    system = instances.single_head(shape, case)
    matrix, amplification = conclusions.bipartite_jacobian(system, case)
    return lin.spectrum_identity(
        matrix, conclusions.bipartite_table(case), conditioning=amplification
    )


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

    def clause(text: str, logits: hyp.Piece, **more: object) -> Clause:
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


def _exact_criterion(shape: Shape, case: Case) -> Margin:
    """Stable iff theory II.4's criterion, which does not contain alpha, holds."""
    radius, agreement, amplification = conclusions.bipartite_radius(shape, case)
    size = shape.n * shape.d
    theta = hyp.theta_of(case)
    criterion = conditions.exact_bipartite_margin(
        instances.principal_eigenvalue(case),
        instances.other_eigenvalues(case),
        theta,
        *instances.group_sizes(case),
    )
    # Psi divides by 1 - e^(-4 theta): near theta = 0 both of its terms are large.
    sharpness = (1.0 + lin.frobenius(case["query_key"])) / jnp.minimum(1.0, jnp.abs(theta))
    bounded = criterion / (1.0 + jnp.abs(criterion))
    return every(
        agreement,
        equivalent(
            lin.stable(radius, size=size, conditioning=amplification),
            inequality(bounded, size=size, conditioning=sharpness),
        ),
    )


def _pair_spectrum(case: Case) -> jnp.ndarray:
    """Theory II.7 for d = 2: multipliers of n/2 tokens at u and n/2 at -u, uᵀBu = 0.

    1 + alpha b (Bu)_w, n - 2 times; 1 + alpha (V_ww + b (Bu)_w); 1 + alpha b ((B + Bᵀ)u)_w, with w
    across u and b = wᵀVu.
    """
    x, value, logits = case["x"], case["value"], case["query_key"]
    u = x[0]
    w = sphere.tangent_basis(u)[:, 0]
    b = einsum("a,ab,b->", w, value, u)
    down = b * einsum("a,ab,b->", w, logits, u)
    across = b * einsum("a,ab,b->", u, logits, w)
    own = einsum("a,ab,b->", w, value, w)
    n = x.shape[0]
    rates = jnp.concatenate([jnp.stack([own + down, down + across]), jnp.full(n - 2, 1.0) * down])
    return 1.0 + case["alpha"] * rates


def _pair_agreement(shape: Shape, case: Case) -> Margin:
    """The power sums of the intrinsic Jacobian are those of the closed form: the same spectrum.

    Not symmetric, and possibly defective; traces of powers need no eigensolver.
    """
    system, x = instances.single_head(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    claimed = _pair_spectrum(case)
    size = 1.0 + lin.frobenius(matrix)
    # Token i's tangent axis is the same at u and -u, so tokens at -u turn a sign each way.
    power, margins = jnp.eye(shape.n), []
    amplification = lin.conditioning(system, x, case["query_key"])
    for exponent in range(1, shape.n + 1):
        power = einsum("ab,bc->ac", power, matrix)
        error = jnp.trace(power) - jnp.sum(claimed**exponent)
        margins.append(
            identity(error, scale=size**exponent, size=shape.n**2, conditioning=amplification)
        )
    return every(*margins)


def _pair_unstable(shape: Shape, case: Case) -> Margin:
    radius = jnp.max(jnp.abs(_pair_spectrum(case)))
    amplification = lin.conditioning(
        instances.single_head(shape, case), case["x"], case["query_key"]
    )
    return every(
        _pair_agreement(shape, case),
        lin.unstable(radius, size=shape.n * shape.d, conditioning=amplification),
    )


def _consensus(which: hyp.Which) -> Hypotheses:
    return Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step("sharp"),
            hyp.eigenpair(which),
            hyp.consensus_signs(),
            hyp.query_key(),
            hyp.full_attention(),
        ),
        SMALL,
    )


def _consensus_clauses() -> tuple[Clause, ...]:
    return (
        Clause(
            name="principal",
            text="v_1 consensus is locally asymptotically stable",
            hypotheses=_consensus("first"),
            conclusion=conclusions.principal_stable,
            twin=Twin("step bound", witnesses.PRINCIPAL_BEYOND_BOUND),
        ),
        Clause(
            name="other consensus",
            text="v_k, k >= 2, has a multiplier above 1 (per step, where it is a 2-cycle)",
            hypotheses=_consensus("others"),
            conclusion=conclusions.others_unstable,
            twin=Twin("step bound", witnesses.CYCLE_BEYOND_BOUND),
        ),
    )


_PAIRS = Hypotheses(
    (
        hyp.symmetric_matrix(),
        hyp.step("half norm"),
        hyp.query_key(),
        hyp.isotropic_pairs(),
        hyp.full_attention(),
    ),
    (Shape(2, 2), Shape(4, 2)),
)


@numbered
def theorem_3() -> Statement:
    """What is stable in the softmax system."""
    small_logits = Explicit(
        name="logits below the threshold",
        text="V = diag(1, 1/2), alpha = 1/4, theta = .3 with tokens {v_1, -v_1}: tanh(.3) < 1/2",
        shape=Shape(2, 2),
        case=witnesses.antipodal_pair(second=0.5) | {"query_key": np.diag([0.3, 0.0])},
    )
    large_step = Explicit(
        name="step beyond 1/|V|",
        text="V = diag(1, -3), alpha = 1, theta = 1, tokens {v_1, -v_1}: the criterion holds but "
        "a multiplier is -2/(1 + tanh 1)",
        shape=Shape(2, 2),
        case=witnesses.antipodal_pair(alpha=1.0, second=-3.0) | {"query_key": np.diag([1.0, 0.0])},
    )
    not_isotropic = Explicit(
        name="a pair with u'Bu != 0",
        text="as the stable pair, but Q'K = [[1, -1], [-1, 0]]: no polygonal point",
        shape=Shape(2, 2),
        case=dict(witnesses.POLYGONAL.case) | {"query_key": np.array([[1.0, -1.0], [-1.0, 0.0]])},
    )
    return Statement(
        id="theorem-3",
        source=f"Theorem 3, {PAPER}",
        text="Stability of the equilibria of the softmax system.",
        paper=Form(
            text="as read: consensus as in Lemma 4; a bipartite point at v_k is asymptotically "
            "stable if alpha < 1/|V| and 1. 1/g_i^2 < 1, 2. |tau_l| < 1 + Delta_l and |Delta_l| < "
            "1, l != k, with (14), 3. 1/g_i < 1, i = 1, 2; all polygonal equilibria are unstable.",
            expected="refuted",
            clauses=(
                *_consensus_clauses(),
                Clause(
                    name="bipartite",
                    text="conditions 1 to 3 make the bipartite point stable",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            hyp.eigenpair("ends"),
                            hyp.split_signs(),
                            hyp.threshold_logits(conditions_hold=True),
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=conclusions.bipartite_stable,
                    twin=Twin("condition 2", small_logits),
                ),
                Clause(
                    name="polygonal",
                    text="polygonal pairs have a multiplier above 1",
                    hypotheses=_PAIRS,
                    conclusion=_pair_unstable,
                    explicit=(witnesses.POLYGONAL,),
                ),
            ),
        ),
        corrected=Form(
            text="Consensus as in the paper. For alpha < 1/|V| a bipartite point at v_k is stable "
            "iff k = 1, theta_1 > 0, lambda_2/lambda_1 < Psi(theta_1) and, if lambda_2 < 0 and "
            "both groups have two tokens, e^(2 theta_1) > max(n_1/n_2, n_2/n_1); or k = d, lambda_d"
            " < 0 simple, theta_d < 0 and lambda_1/|lambda_d| < Psi(|theta_d|). Polygonal pairs "
            "(u'Bu = 0, d = 2) have the multipliers of II.7 and can be stable.",
            expected="supported",
            clauses=(
                *_consensus_clauses(),
                Clause(
                    name="bipartite, exactly",
                    text="stable iff the criterion, which does not depend on alpha, holds",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            hyp.eigenpair("any"),
                            hyp.split_signs(),
                            hyp.threshold_logits(conditions_hold=False),
                            hyp.full_attention(),
                        ),
                        SMALL,
                    ),
                    conclusion=_exact_criterion,
                    explicit=(witnesses.NOT_NECESSARY, witnesses.REMARK_10),
                    twin=Twin("step bound", large_step),
                ),
                Clause(
                    name="polygonal pairs",
                    text="the multipliers of a balanced pair on the quadric u'Bu = 0",
                    hypotheses=_PAIRS,
                    conclusion=_pair_agreement,
                    explicit=(witnesses.POLYGONAL,),
                    twin=Twin("x'Bx = 0", not_isotropic),
                ),
            ),
        ),
    )

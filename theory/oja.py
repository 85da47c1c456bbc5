"""Supplementary D.2: the multi-agent Oja system, Lemmas 2 to 4 and Remark 2."""

import jax.numpy as jnp
import numpy as np

from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, every, identity
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


TWO_SHAPES = (Shape(2, 2), Shape(4, 3))


def _lemma_2_paper(shape: Shape, case: Case) -> Margin:
    return conclusions.paper_jacobian(instances.oja(shape, case), case)


def _lemma_2_corrected(shape: Shape, case: Case) -> Margin:
    formula = jacobian.extrinsic_formula(instances.oja(shape, case), case["x"])
    return every(
        conclusions.exact_jacobian(instances.oja(shape, case), formula, case),
        conclusions.exact_jacobian(instances.single_head(shape, case), formula, case),
    )


_ANY_STATE = (
    hyp.any_value(),
    hyp.moderate_step(),
    hyp.tokens(),
    hyp.nonzero_update(instances.oja),
)


@numbered
def lemma_2() -> Statement:
    """The Jacobian of the Oja system."""
    radial = Explicit(
        name="a radial direction",
        text="V = diag(1, -1/2), alpha = 1/4, w = x at tokens e_1 and e_2: the two extensions of "
        "the map differ off the sphere",
        shape=Shape(2, 2),
        case={
            "value": np.diag([1.0, -0.5]),
            "query_key": np.diag([0.0, 0.0]),
            "alpha": np.array(0.25),
            "x": np.diag([1.0, 1.0]),
            "w": np.diag([1.0, 1.0]),
        },
    )
    attentive = Explicit(
        name="softmax attention",
        text="V = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4 at tokens e_1 and e_2: the "
        "attention is not uniform",
        shape=Shape(2, 2),
        case=dict(radial.case) | {"query_key": np.diag([2.0, 0.0])},
    )
    return Statement(
        id="lemma-2",
        source=f"Lemma 2, {PAPER}",
        text="The Jacobian of the Oja system (9) at any state.",
        paper=Form(
            text="as read: J_ij = (1/|y_i|)(delta_ij I + (alpha/n) V) + y_i d(1/|y_i|)/dx_j, eq. "
            "(11), with x_i'x_i := 1 before differentiating: right on the tangent space.",
            expected="supported",
            clauses=(
                Clause(
                    name="tangent",
                    text="(11) acts on tangent vectors as the derivative of the map",
                    hypotheses=Hypotheses(
                        (*_ANY_STATE, hyp.uniform_attention(), hyp.tangent_direction()), SMALL
                    ),
                    conclusion=_lemma_2_paper,
                    twin=Twin("w tangent", radial),
                ),
            ),
        ),
        corrected=Form(
            text="J_ij = (1/|y_i|)(I - yhat_i yhat_i')(delta_ij I + (alpha/n) V), exactly and at "
            "every state with y_i != 0; V need not be symmetric, and no series is needed.",
            expected="supported",
            clauses=(
                Clause(
                    name="entrywise",
                    text="the closed form is the Jacobian, entry by entry; softmax with Q'K = 0 "
                    "has the same",
                    hypotheses=Hypotheses((*_ANY_STATE, hyp.uniform_attention()), SMALL),
                    conclusion=_lemma_2_corrected,
                    twin=Twin("uniform attention", attentive),
                ),
            ),
        ),
        covers=("equation-11",),
    )


_CONSENSUS = (hyp.consensus_signs(), hyp.uniform_attention(), hyp.full_attention())


def consensus_point(bound: hyp.Bound, which: hyp.Which) -> Hypotheses:
    """All tokens at an eigenvector of the Oja system, with a bound on the step."""
    return Hypotheses(
        (hyp.symmetric_value(), hyp.step(bound), hyp.eigenpair(which), *_CONSENSUS),
        SMALL if bound == "none" else TWO_SHAPES,
    )


def _lemma_3_fixed(shape: Shape, case: Case) -> Margin:
    return conclusions.is_fixed(instances.oja(shape, case), case)


def _lemma_3_fixed_or_cycle(shape: Shape, case: Case) -> Margin:
    return conclusions.fixed_or_cycle(instances.oja(shape, case), case)


def _lemma_3_spectrum(shape: Shape, case: Case) -> Margin:
    return conclusions.consensus_spectrum(instances.oja(shape, case), shape, case)


def _lemma_3_jacobian(shape: Shape, case: Case) -> Margin:
    system = instances.oja(shape, case)
    formula = jacobian.signed_consensus(system, case["direction"], case["signs"])
    return every(
        conclusions.signed_jacobian(system, formula, case),
        conclusions.consensus_spectrum(system, shape, case),
    )


@numbered
def lemma_3() -> Statement:
    """The spectrum at a consensus point."""
    anywhere = consensus_point("none", "any")
    causal = Explicit(
        name="causal attention",
        text="V = diag(1, -1/2), alpha = 1/4 at v_1 with causal attention: the second token sees "
        "half of itself and half of the first",
        shape=Shape(2, 2, 1, "causal"),
        case=witnesses.antipodal_pair() | {"signs": witnesses.signs(2, 0)},
    )
    return Statement(
        id="lemma-3",
        source=f"Lemma 3, {PAPER}",
        text="Jacobian and multipliers at the consensus points x_i = v_k of the Oja system.",
        paper=Form(
            text="as read: for every k and alpha > 0, x_i = v_k is an equilibrium, and the "
            "eigenvalues of (12) on the tangent space are (1 + alpha lambda_l)/|1 + alpha lambda_k|"
            ", l != k, and 1/|1 + alpha lambda_k|, (n - 1)(d - 1) times. (The first, extrinsic "
            "class depends on how the map is continued off the sphere and is not compared.)",
            expected="refuted",
            clauses=(
                Clause(
                    name="equilibrium",
                    text="x_i = v_k is fixed",
                    hypotheses=anywhere,
                    conclusion=_lemma_3_fixed,
                    explicit=(witnesses.TWO_CYCLE,),
                ),
                Clause(
                    name="spectrum",
                    text="classes 2 and 3 are the intrinsic spectrum",
                    hypotheses=anywhere,
                    conclusion=_lemma_3_spectrum,
                    twin=Twin("full attention", causal),
                ),
            ),
        ),
        corrected=Form(
            text="x_i = v_k is an equilibrium iff 1 + alpha lambda_k > 0; if it is negative "
            "{v_k, -v_k} is a 2-cycle and the same classes are its multipliers per step. J_ij = "
            "(1/|1 + alpha lambda_k|) Pi_k (delta_ij I + (alpha/n) V).",
            expected="supported",
            clauses=(
                Clause(
                    name="equilibrium or 2-cycle",
                    text="f(x) = x iff 1 + alpha lambda_k > 0, otherwise f(x) = -x",
                    hypotheses=anywhere,
                    conclusion=_lemma_3_fixed_or_cycle,
                    explicit=(witnesses.TWO_CYCLE,),
                ),
                Clause(
                    name="jacobian and spectrum",
                    text="the closed form is the Jacobian, and classes 2 and 3 its intrinsic "
                    "spectrum, for both signs of 1 + alpha lambda_k",
                    hypotheses=anywhere,
                    conclusion=_lemma_3_jacobian,
                    explicit=(witnesses.TWO_CYCLE,),
                    twin=Twin("full attention", causal),
                ),
            ),
        ),
        covers=("equation-12",),
    )


@numbered
def lemma_4() -> Statement:
    """Which consensus points are stable."""
    principal = Clause(
        name="principal",
        text="v_1 is locally asymptotically stable",
        hypotheses=consensus_point("sharp", "first"),
        conclusion=conclusions.principal_stable,
        twin=Twin("step bound", witnesses.PRINCIPAL_BEYOND_BOUND),
    )
    others = consensus_point("sharp", "others")
    return Statement(
        id="lemma-4",
        source=f"Lemma 4, {PAPER}",
        text="Stability of the consensus points of the Oja system.",
        paper=Form(
            text="as read: v_1 is locally asymptotically stable for all alpha > 0 if lambda_d >= "
            "-lambda_1, else for alpha < -2/(lambda_1 + lambda_d); every x_i = v_k, k >= 2, is an "
            "unstable equilibrium (situation 1: 1 + alpha lambda_k > 0; situation 2: < 0).",
            expected="refuted",
            clauses=(
                principal,
                Clause(
                    name="others",
                    text="x_i = v_k, k >= 2, is an equilibrium with a multiplier above 1",
                    hypotheses=others,
                    conclusion=conclusions.others_unstable_equilibria,
                    explicit=(witnesses.TWO_CYCLE,),
                ),
            ),
        ),
        corrected=Form(
            text="v_1 as in the paper, and the bound is sharp; x_i = v_k, k >= 2, is an unstable "
            "equilibrium if 1 + alpha lambda_k > 0, and half of an unstable 2-cycle if it is "
            "negative.",
            expected="supported",
            clauses=(
                principal,
                Clause(
                    name="others",
                    text="x_i = v_k, k >= 2, is fixed or half of a 2-cycle, with a multiplier "
                    "above 1 per step",
                    hypotheses=others,
                    conclusion=conclusions.others_unstable,
                    explicit=(witnesses.TWO_CYCLE,),
                    twin=Twin("step bound", witnesses.CYCLE_BEYOND_BOUND),
                ),
            ),
        ),
    )


def _eigenvectors(shape: Shape, case: Case) -> Margin:
    """Explicit eigenvectors of all three classes: where they lie, and what J does to them."""
    system = instances.oja(shape, case)
    x = instances.signed_state(case)
    n, d = x.shape
    v = case["direction"]
    others = case["frame"][:, instances.other_indices(case)]
    # Class 2: 1 ⊗ v_l; class 3: (e_1 − e_j) ⊗ v_l, j >= 2.
    profiles = jnp.concatenate([jnp.ones((1, n)), jnp.eye(n)[:1] - jnp.eye(n)[1:]])
    vectors = einsum("pi,dl->idpl", profiles, others).reshape(n * d, n * (d - 1))
    claimed = conclusions.consensus_classes(shape, case)
    matrix = jacobian.extrinsic(system, x)
    factor = 1.0 + case["alpha"] * instances.principal_eigenvalue(case)
    normal = einsum("ij,d->idj", jnp.eye(n), v).reshape(n * d, n)
    extended = jacobian.extrinsic(lin.alternative_extension(system), x)
    amplification = lin.conditioning(system, x) * (1.0 + 1.0 / jnp.abs(factor))
    # Tangent: w_i ⟂ x_i. Class 1: w_i parallel to x_i, so no part of it is tangent.
    radial = einsum("id,idk->ik", x, vectors.reshape(n, d, -1))
    moved = einsum("ab,bk->ak", matrix, vectors) - vectors * claimed[None, :]
    killed = einsum("ab,bk->ak", matrix, normal)
    scaled = einsum("ab,bk->ak", extended, normal) - normal / (jnp.abs(factor) * factor)
    gram = einsum("ak,al->kl", normal, vectors)
    parts = (radial, moved, killed, scaled, gram)
    return every(
        *(
            identity(part, scale=amplification, size=n * d, conditioning=amplification)
            for part in parts
        )
    )


@numbered
def remark_2() -> Statement:
    """Which classes are tangent."""
    clause = Clause(
        name="classes",
        text="1 (x) v_l and (e_1 - e_j) (x) v_l, l != k, are n(d - 1) tangent eigenvectors with "
        "the multipliers of classes 2 and 3; e_i (x) v_k is normal",
        hypotheses=consensus_point("none", "any"),
        conclusion=_eigenvectors,
        explicit=(witnesses.TWO_CYCLE,),
        twin=Twin(
            "full attention",
            Explicit(
                name="causal attention",
                text="V = diag(1, -1/2), alpha = 1/4 with causal attention: (e_1 - e_2) (x) v_2 is "
                "no eigenvector",
                shape=Shape(2, 2, 1, "causal"),
                case=witnesses.antipodal_pair() | {"signs": witnesses.signs(2, 0)},
            ),
        ),
    )
    return Statement(
        id="remark-2",
        source=f"Remark 2, {PAPER}",
        text="Which eigenvectors at a consensus point belong to the tangent space.",
        paper=Form(
            text="as read: the first class of eigenvectors of Lemma 3 does not belong to the "
            "tangent space, of dimension n(d - 1), the other two always do; only they decide.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper, for either sign of 1 + alpha lambda_k and for every extension "
            "of the map off the sphere: the first class is normal, with eigenvalue 0 for the map "
            "as written and 1/(|q| q), q = 1 + alpha lambda_k, for the paper's series.",
            expected="supported",
            clauses=(clause,),
        ),
    )

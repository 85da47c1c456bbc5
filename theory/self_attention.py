"""Supplementary D.3: the single-head softmax system and its Jacobians, Lemmas 10 to 13."""

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.stability import jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, every, identity, inequality
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
        covers=("equation-15", "equation-16", "equation-17"),
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
        covers=("equation-18", "equation-19"),
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

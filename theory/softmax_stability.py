"""Supplementary D.3: what is stable in the softmax system, Theorem 3."""

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import conditions, jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, equivalent, every, identity, inequality
from theory.self_attention import PAPER, SMALL
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


def _exact_criterion(shape: Shape, case: Case) -> Margin:
    """Stable iff theory II.4's criterion, which does not contain alpha, holds."""
    radius, agreement, amplification = conclusions.bipartite_radius(shape, case)
    size = shape.n * shape.d
    theta = instances.theta_of(case)
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


def _conditions_necessary(shape: Shape, case: Case) -> Margin:
    """Conditions 1 to 3 read as a characterisation: the point is stable iff all of them hold."""
    # Lemma 14's closed form decides: the other clauses compare it with the map's own Jacobian.
    radius = jnp.max(jnp.abs(conclusions.bipartite_table(case)))
    size = shape.n * shape.d
    amplification = 1.0 + lin.frobenius(case["query_key"])
    found = conditions.theorem_3_margins(
        case["alpha"],
        instances.principal_eigenvalue(case),
        instances.other_eigenvalues(case),
        instances.theta_of(case),
        *instances.group_sizes(case),
    )
    worst = jnp.min(jnp.stack([found.extrinsic, jnp.min(found.schur_cohn), found.single]))
    bounded = worst / (1.0 + jnp.abs(worst))
    return equivalent(
        lin.stable(radius, size=size, conditioning=amplification),
        inequality(bounded, size=size, conditioning=amplification**2),
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
        (Shape(2, 2), Shape(4, 3)),
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


_THRESHOLD = Hypotheses(
    (
        hyp.symmetric_value(),
        hyp.step("norm"),
        hyp.eigenpair("any"),
        hyp.split_signs(),
        hyp.threshold_logits(conditions_hold=False),
        hyp.full_attention(),
    ),
    SMALL,
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
                    name="bipartite, conditions necessary too",
                    text="read as a characterisation, which the theorem does not claim: a point "
                    "at which a condition fails is not stable",
                    hypotheses=_THRESHOLD,
                    conclusion=_conditions_necessary,
                    explicit=(witnesses.NOT_NECESSARY,),
                    share=0.25,
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
                    hypotheses=_THRESHOLD,
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

"""Supplementary D.4.3: when the leading consensus is stable for every step, and when not."""

import jax.numpy as jnp
import numpy as np

from pmt import attention
from pmt.stability import jacobian
from theory import hypotheses as hyp
from theory import instances
from theory import linearization as lin
from theory import witnesses_softmax as told
from theory.any_mask import consensus_jacobian
from theory.hypotheses import spectra
from theory.margin import Margin, equivalent, every, identity, inequality
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


def _leading_stable(shape: Shape, case: Case) -> tuple[Margin, Margin]:
    """That the Jacobian is the closed form, and that all multipliers are below 1.

    Multipliers: (1 + alpha λ_2)/q and its conjugate, and 1/q, q = 1 + alpha λ_1.
    """
    system = instances.single_head(shape, case)
    x = jnp.broadcast_to(case["direction"][None], (shape.n, shape.d))
    weights = attention.uniform_weights(shape.n, instances.mask_of(shape), x.dtype)
    claimed = consensus_jacobian(weights, case["value"][None], case["alpha"], case["direction"])
    worst = lin.conditioning(system, x, case["query_key"])
    error = jacobian.intrinsic(system, x) - claimed
    alpha, pair, mu = case["alpha"], case["pair"], instances.attention_eigenvalues(shape)
    step = alpha * mu
    moduli = (1.0 + step * pair[0]) ** 2 + (step * pair[1]) ** 2
    radius = jnp.sqrt(jnp.max(moduli)) / (1.0 + alpha * case["eigenvalue"])
    return (
        identity(error, scale=worst, size=x.size, conditioning=worst),
        lin.stable(radius, size=x.size, conditioning=worst),
    )


def _always_stable(shape: Shape, case: Case) -> Margin:
    return every(*_leading_stable(shape, case))


def _stable_iff(shape: Shape, case: Case) -> Margin:
    """Stable iff alpha (|λ_2|² − λ_1²) < 2 (λ_1 − Re λ_2)."""
    agreement, stable = _leading_stable(shape, case)
    own, pair, alpha = case["eigenvalue"], case["pair"], case["alpha"]
    room = 2.0 * (own - pair[0]) - alpha * (jnp.sum(pair**2) - own**2)
    size = own + jnp.sqrt(jnp.sum(pair**2))
    worst = 1.0 + alpha * size
    bound = inequality(room / (size * worst), size=shape.n * shape.d, conditioning=worst)
    return every(agreement, equivalent(stable, bound))


ROTATING_AWAY = Explicit(
    name="a complex pair with a smaller real part",
    text="F = (1) + (.9, -2; 2, .9), alpha = .06 > 2(1 - .9)/(.9^2 + 4 - 1) = .0525: |1 + alpha "
    "(.9 + 2i)| = 1.0608 > 1.06",
    shape=Shape(2, 3),
    case={
        "value": np.array([[1.0, 0.0, 0.0], [0.0, 0.9, -2.0], [0.0, 2.0, 0.9]]),
        "direction": np.array([1.0, 0.0, 0.0]),
        "eigenvalue": np.array(1.0),
        "pair": np.array([0.9, 2.0]),
        "alpha": np.array(0.06),
        "query_key": np.zeros((3, 3)),
    },
    numbers=lambda shape, case: (
        told.spectrum(shape, {**case, "x": np.tile([1.0, 0.0, 0.0], (shape.n, 1))})
        | {"bound": 2 * (1 - 0.9) / (0.9**2 + 4 - 1)}
    ),
)


@numbered
def section_d_4_3() -> Statement:
    """Consensus for layer matrices that are not symmetric."""
    hypotheses = Hypotheses(
        (spectra.asymmetric_value(), hyp.query_key(), hyp.full_attention()),
        (Shape(2, 3), Shape(4, 3)),
    )
    swapped = Explicit(
        name="each token attends only to the other",
        text="F = (1) + (-3, -.1; .1, -3), alpha = 1/2: the bound holds, and (1 + 3/2)/(3/2) > 1",
        shape=Shape(2, 3, 1, "others"),
        case=dict(ROTATING_AWAY.case)
        | {
            "value": np.array([[1.0, 0.0, 0.0], [0.0, -3.0, -0.1], [0.0, 0.1, -3.0]]),
            "pair": np.array([-3.0, 0.1]),
            "alpha": np.array(0.5),
        },
    )
    return Statement(
        id="section-d.4.3",
        source=f"Sec. D.4.3, {PAPER}",
        text="Consensus for asymmetric layer matrices with a real leading eigenvalue.",
        paper=Form(
            text="as read: if lambda_1 is real, simple and the largest by real part, consensus at "
            "v_1 is locally asymptotically stable for any alpha > 0.",
            expected="refuted",
            clauses=(
                Clause(
                    name="stable",
                    text="all multipliers at v_1 are below 1",
                    hypotheses=hypotheses,
                    conclusion=_always_stable,
                    explicit=(ROTATING_AWAY,),
                ),
            ),
        ),
        corrected=Form(
            text="It is iff |1 + alpha lambda_l| < 1 + alpha lambda_1 for all l, that is alpha "
            "(|lambda_l|^2 - lambda_1^2) < 2 (lambda_1 - Re lambda_l): for all alpha if lambda_1 "
            "dominates in modulus. The multipliers are those of II.6.",
            expected="supported",
            clauses=(
                Clause(
                    name="stable, exactly",
                    text="stable iff the bound holds",
                    hypotheses=hypotheses,
                    conclusion=_stable_iff,
                    explicit=(ROTATING_AWAY,),
                    twin=Twin("full attention", swapped),
                ),
            ),
        ),
    )

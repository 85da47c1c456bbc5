"""Theory II.4: exactly when bipartite points are stable, for full and for causal attention."""

import jax.numpy as jnp
import numpy as np

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


def _scaled_action(shape: Shape, case: Case) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """S_ij = e^{θ s_i s_j} scaled to Z^{-1/2} S Z^{-1/2}, Γ = diag(γ_i), and 1 + alpha λ_k γ_i.

    Z = diag(S 1), so the first has its eigenvalues in [−1, 1].
    """
    del shape
    signs, theta = case["signs"], instances.theta_of(case)
    logits = theta * signs[:, None] * signs[None, :]
    # One factor e^{-|θ|} for all entries: it drops out.
    mass = jnp.exp(logits - jnp.abs(theta))
    root = jnp.sqrt(jnp.sum(mass, axis=1))
    scaled = mass / (root[:, None] * root[None, :])
    gamma = signs * einsum("ij,j->i", mass, signs) / root**2
    factors = 1.0 + case["alpha"] * instances.principal_eigenvalue(case) * gamma
    return scaled, gamma, factors


def _sizes(shape: Shape, case: Case) -> tuple[int, jnp.ndarray]:
    return shape.n * shape.d, (1.0 + lin.frobenius(case["query_key"])) * (
        1.0 + case["alpha"] * instances.norm_of(case)
    )


def _closed_criterion(shape: Shape, case: Case) -> Margin:
    """alpha < 1/|V|: |G⁻¹(I + alpha λ_l A)| < 1 for all l ≠ k iff the closed form says so."""
    scaled, _, factors = _scaled_action(shape, case)
    others = instances.other_eigenvalues(case)
    root = jnp.sqrt(factors)
    matrices = jnp.eye(shape.n)[None] + case["alpha"] * others[:, None, None] * scaled[None]
    radius = lin.symmetric_radius(matrices / (root[:, None] * root[None, :])[None])
    size, worst = _sizes(shape, case)
    theta = instances.theta_of(case)
    criterion = conditions.exact_bipartite_margin(
        instances.principal_eigenvalue(case), others, theta, *instances.group_sizes(case)
    )
    sharpness = worst / jnp.minimum(1.0, jnp.abs(theta))
    return equivalent(
        lin.stable(radius, size=size, conditioning=worst / jnp.min(factors)),
        inequality(criterion / (1.0 + jnp.abs(criterion)), size=size, conditioning=sharpness),
    )


def _any_step_criterion(shape: Shape, case: Case) -> Margin:
    """Any alpha with G > 0: stable iff λ_k Γ Z − λ_l S > 0 and (I + G) Z + alpha λ_l S > 0.

    The multipliers come from autodiff of the map.
    """
    radius, agreement, amplification = conclusions.bipartite_radius(shape, case)
    scaled, gamma, factors = _scaled_action(shape, case)
    own, others = instances.principal_eigenvalue(case), instances.other_eigenvalues(case)
    step = case["alpha"] * others[:, None, None] * scaled[None]
    upper = jnp.diag(own * gamma)[None] - others[:, None, None] * scaled[None]
    lower = jnp.diag(1.0 + factors)[None] + step
    size, norm = shape.n * shape.d, instances.norm_of(case)
    room = jnp.minimum(
        jnp.min(jnp.linalg.eigvalsh(upper)) / norm,
        jnp.min(jnp.linalg.eigvalsh(lower)) / (1.0 + case["alpha"] * norm),
    )
    return every(
        agreement,
        equivalent(
            lin.stable(radius, size=size, conditioning=amplification),
            inequality(room, size=size, conditioning=amplification),
        ),
    )


def _causal_criterion(shape: Shape, case: Case) -> Margin:
    """Causal attention at v_1: stable iff (p_i − λ_2/λ_1) e^{2θ_1} > q_i for every token.

    p_i and q_i count the tokens j <= i of the same and of the other sign. The Jacobian is block
    triangular with the blocks (I + alpha a_ii Pi V Pi)/(1 + alpha λ_1 γ_i).
    """
    system, x = instances.single_head(shape, case), instances.signed_state(case)
    blocks, defect = lin.triangular_blocks(jacobian.intrinsic(system, x), shape.n)
    radius = lin.symmetric_radius(blocks)
    worst = lin.conditioning(system, x, case["query_key"])
    signs = case["signs"]
    seen = jnp.tril(jnp.ones((shape.n, shape.n)))
    same = jnp.sum(jnp.where(signs[:, None] == signs[None, :], seen, 0.0), axis=1)
    other = jnp.sum(seen, axis=1) - same
    theta, values = instances.theta_of(case), case["eigenvalues"]
    # Divided by e^{2|θ|} to survive large logits of either sign.
    large, small = jnp.exp(2.0 * jnp.minimum(theta, 0.0)), jnp.exp(-2.0 * jnp.maximum(theta, 0.0))
    room = jnp.min((same - values[1] / values[0]) * large - other * small) / shape.n
    size = x.size
    return every(
        identity(defect, scale=worst, size=size, conditioning=worst),
        equivalent(
            lin.stable(radius, size=size, conditioning=worst),
            inequality(room / (1.0 + jnp.abs(room)), size=size, conditioning=worst),
        ),
    )


def pair_at(theta: float, ratio: float, *, n1: int = 1, n2: int = 1) -> Explicit:
    """(n_1, n_2) tokens at ±v_1 of V = diag(1, ratio) with θ_1 = theta, alpha = 1/4."""
    return Explicit(
        name=f"theta = {theta}, lambda_2 = {ratio}, ({n1}, {n2})",
        text=f"V = diag(1, {ratio}), Q'K = diag({theta}, 0), alpha = 1/4, ({n1}, {n2}) at v_1",
        shape=Shape(n1 + n2, 2),
        case=witnesses.symmetric(
            [1.0, ratio], 0.25, signs=witnesses.signs(n1, n2), query_key=np.diag([theta, 0.0])
        ),
    )


def _pair(alpha: float) -> dict[str, np.ndarray]:
    """Tokens {v_1, −v_1} of V = diag(1, −3) with θ_1 = 1."""
    return witnesses.symmetric(
        [1.0, -3.0], alpha, signs=witnesses.signs(1, 1), query_key=np.diag([1.0, 0.0])
    )


@numbered
def ii_4() -> Statement:
    """Exact stability of bipartite points."""
    point = (hyp.eigenpair("any"), hyp.split_signs())
    full = hyp.full_attention()
    large_step = Explicit(
        name="step beyond 1/|V|",
        text="V = diag(1, -3), alpha = 1, theta = 1, tokens {v_1, -v_1}: the criterion holds but "
        "a multiplier is -2/(1 + tanh 1)",
        shape=Shape(2, 2),
        case=_pair(1.0),
    )
    flipped = Explicit(
        name="a step that flips the tokens",
        text="V = diag(1, -2), alpha = 3, theta = 3 at v_2: 1 + alpha lambda_2 gamma_i = -5, and "
        "the multipliers of the 2-cycle are below 1 though the matrices are indefinite",
        shape=Shape(2, 2),
        case=witnesses.symmetric(
            [1.0, -2.0],
            3.0,
            index=1,
            signs=witnesses.signs(1, 1),
            query_key=np.diag([0.0, 3.0]),
        ),
    )
    causal_large = Explicit(
        name="step beyond 1/|V|, causal",
        text="V = diag(1, -3), alpha = 3/2, theta = 1, causal, tokens {v_1, -v_1}: the first has "
        "the multiplier -3.5/2.5",
        shape=Shape(2, 2, 1, "causal"),
        case=_pair(1.5),
    )
    return Statement(
        id="ii.4",
        source="Theory II.4",
        text="Exactly when bipartite points of the single-head system are stable.",
        paper=None,
        corrected=Form(
            text="For alpha < 1/|V| and full attention, independent of alpha: at v_1 iff theta_1 > "
            "0, lambda_2/lambda_1 < Psi(theta_1) = (cosh 2 theta_1 - r/2)/sinh 2 theta_1 and, if "
            "lambda_2 < 0 and both groups have two tokens, e^(2 theta_1) > max(n_1/n_2, n_2/n_1); "
            "at v_d iff lambda_d < 0 simple, theta_d < 0, lambda_1/|lambda_d| < Psi(|theta_d|); "
            "never in between. For any alpha with G > 0: iff lambda_k Gamma Z - lambda_l S > 0 and "
            "(I + G) Z + alpha lambda_l S > 0, l != k. Causal attention at v_1, alpha < 1/|V|: iff "
            "(p_i - lambda_2/lambda_1) e^(2 theta_1) > q_i for every token.",
            expected="supported",
            clauses=(
                Clause(
                    name="closed form",
                    text="the n x n actions G^-1 (I + alpha lambda_l A) are inside the unit circle "
                    "iff the closed form holds",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            *point,
                            hyp.threshold_logits(conditions_hold=False),
                            full,
                        ),
                        (Shape(2, 2), Shape(3, 3), Shape(6, 4)),
                    ),
                    conclusion=_closed_criterion,
                    explicit=(pair_at(0.54, 0.5), pair_at(0.56, 0.5), witnesses.REMARK_10),
                    twin=Twin("step bound", large_step),
                ),
                Clause(
                    name="any alpha",
                    text="stable iff the two families of matrices are positive definite",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("none"),
                            *point,
                            hyp.threshold_logits(conditions_hold=False),
                            hyp.existing_bipartite(),
                            full,
                        ),
                        (Shape(2, 2), Shape(4, 3)),
                    ),
                    conclusion=_any_step_criterion,
                    twin=Twin("bipartite point exists", flipped),
                ),
                Clause(
                    name="causal",
                    text="causal attention at v_1: stable iff the inequality holds for every token",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("norm"),
                            hyp.eigenpair("first"),
                            hyp.split_signs(),
                            hyp.query_key(),
                        ),
                        (Shape(3, 2, 1, "causal"), Shape(4, 3, 1, "causal")),
                    ),
                    conclusion=_causal_criterion,
                    twin=Twin("step bound", causal_large),
                ),
            ),
        ),
    )

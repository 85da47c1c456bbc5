"""Theory II.6 and Supplementary D.4.3: consensus for any mask and asymmetric F; rates."""

import jax
import jax.numpy as jnp
import numpy as np

from pmt import attention, sphere
from pmt.dynamics import MultiHead
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.hypotheses import spectra
from theory.margin import Margin, every, identity, inequality
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


def consensus_jacobian(
    weights: jnp.ndarray, heads: jnp.ndarray, alpha: jnp.ndarray, v: jnp.ndarray
) -> jnp.ndarray:
    """(1/|q|)(I ⊗ I + alpha Σ_h A_h ⊗ Pi F_h Pi) on the tangent space at x_i = v, q = 1 + alpha λ.

    ``weights`` is A_h at equal tokens, (h, n, n) or one for all heads, (n, n).
    """
    basis = sphere.tangent_basis(v)
    blocks = einsum("ae,hab,bf->hef", basis, heads, basis)
    common = jnp.broadcast_to(weights, (heads.shape[0], *weights.shape[-2:]))
    size = weights.shape[-1] * blocks.shape[-1]
    value = einsum("a,hab,b->", v, heads, v)
    matrix = alpha * einsum("hij,hef->iejf", common, blocks)
    matrix = matrix.reshape(size, size) + jnp.eye(size)
    return matrix / jnp.abs(1.0 + alpha * value)


def _any_mask_jacobian(shape: Shape, case: Case) -> Margin:
    """The autodiff Jacobian is the closed form; its power sums are those of the multipliers.

    Σ (1 + alpha μ λ_l)/|q| and the sum of their squares, from Σ μ, Σ μ², tr F and tr F².
    """
    system, x = instances.multi_head(shape, case), instances.signed_state(case)
    weights = attention.uniform_weights(shape.n, instances.mask_of(shape), x.dtype)
    matrix = jacobian.intrinsic(system, x)
    claimed = consensus_jacobian(weights, case["heads"], case["alpha"], case["direction"])
    worst = lin.conditioning(system, x, case["query_keys"])
    mu, own, alpha = instances.attention_eigenvalues(shape), case["eigenvalue"], case["alpha"]
    total = jnp.sum(case["heads"], axis=0)
    one = jnp.trace(total) - own
    two = jnp.sum(total * total.T) - own**2
    q, count = jnp.abs(1.0 + alpha * own), shape.n * (shape.d - 1)
    first = (count + alpha * jnp.sum(mu) * one) / q
    second = (count + 2 * alpha * jnp.sum(mu) * one + alpha**2 * jnp.sum(mu**2) * two) / q**2
    size = x.size
    return every(
        identity(matrix - claimed, scale=worst, size=size, conditioning=worst),
        identity(jnp.trace(matrix) - first, scale=size * worst, size=size, conditioning=worst),
        identity(
            jnp.sum(matrix * matrix.T) - second,
            scale=size * worst**2,
            size=size,
            conditioning=worst,
        ),
    )


def _own_masks_jacobian(shape: Shape, case: Case) -> Margin:
    """Every head with a mask of its own: full, causal, each the others and itself in turn."""
    n, kinds = shape.n, [np.ones((shape.n, shape.n), bool), np.tri(shape.n, dtype=bool)]
    kinds.append(~np.tri(n, k=-1, dtype=bool))
    masks = attention.Boolean(jnp.asarray(np.stack([kinds[h % 3] for h in range(shape.h)])))
    system = MultiHead.from_maps(case["heads"], case["query_keys"], alpha=case["alpha"], mask=masks)
    x = instances.signed_state(case)
    weights = attention.uniform_weights(n, masks, x.dtype)
    error = jacobian.intrinsic(system, x) - consensus_jacobian(
        weights, case["heads"], case["alpha"], case["direction"]
    )
    worst = lin.conditioning(system, x, case["query_keys"])
    return identity(error, scale=worst, size=x.size, conditioning=worst)


def _swapped_unstable(shape: Shape, case: Case) -> Margin:
    """v_1 consensus is unstable for every alpha > 0."""
    system = instances.single_head(shape, case)
    return conclusions.consensus_stability(system, shape, case, stable=False)


_RATE_STEPS, _NEAR = 8, 1e-6


def _rates(shape: Shape, case: Case) -> Margin:
    """Near v_1: the spread shrinks by 1/|q| a step, the mean along v_l by |1 + alpha λ_l|/|q|.

    Over 8 steps from 1e-6 away: the spread's rate to 1e-3 of itself; each mean, which may be as
    small as what the map's second order adds, to 1e-3 of the distance at the start.
    """
    system, v = instances.single_head(shape, case), case["direction"]
    x = sphere.retract(jnp.broadcast_to(v[None], case["w"].shape), _NEAR * case["w"])

    def measure(state: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        across = sphere.tangent_projection(jnp.broadcast_to(v[None], state.shape), state)
        mean = jnp.mean(across, axis=0)
        spread = jnp.sqrt(jnp.sum((across - mean[None]) ** 2))
        return spread, einsum("a,al->l", mean, case["frame"])[1:]

    end = jax.lax.fori_loop(0, _RATE_STEPS, lambda _i, state: system(state), x)
    (before, mean_before), (after, mean_after) = measure(x), measure(end)
    values, alpha = case["eigenvalues"], case["alpha"]
    q = 1.0 + alpha * values[0]
    spread = (after / before) ** (1.0 / _RATE_STEPS) * q - 1.0
    rates = ((1.0 + alpha * values[1:]) / q) ** _RATE_STEPS
    alignment = (mean_after - rates * mean_before) / (_NEAR * sphere.norm(case["w"].reshape(-1)))
    worst = jnp.maximum(jnp.abs(spread), jnp.max(jnp.abs(alignment)))
    return inequality(1.0 - worst / 1e-3, size=1e4)


def _rotating(shape: Shape, case: Case) -> Margin:
    """Case 2: consensus in E_1 stays there and turns; what the map does across is exact.

    Df(x)(1 ⊗ u_3) = (1 + alpha λ_3)/|1 + alpha λ_1| (1 ⊗ u_3), and differences w, Σ w_i = 0, go to
    Pi w / |1 + alpha λ_1|: the attention, whatever Q'K, has no part in it.
    """
    system, x = instances.single_head(shape, case), case["x"]
    frame, pair, alpha = case["frame"], case["pair"], case["alpha"]
    size = jnp.sqrt((1.0 + alpha * pair[0]) ** 2 + (alpha * pair[1]) ** 2)
    moved = system(x)
    third = jnp.broadcast_to(frame[:, 2][None], x.shape)
    onward = lin.directional(system, x, third)
    across = onward - (1.0 + alpha * case["eigenvalue"]) / size * third
    pattern = jnp.sin(1.0 + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    w = pattern - jnp.mean(pattern, axis=0, keepdims=True)
    w = sphere.tangent_projection(x, w)
    apart = lin.directional(system, x, w) - sphere.tangent_projection(moved, w) / size
    worst = lin.conditioning(system, x, case["query_key"])
    stays = einsum("ia,a->i", moved, frame[:, 2])
    return every(
        identity(stays, scale=1.0, size=x.size, conditioning=worst),
        identity(across, scale=worst, size=x.size, conditioning=worst),
        identity(apart, scale=x.size * worst, size=x.size, conditioning=worst),
    )


def _tilted() -> Explicit:
    return Explicit(
        name="equal tokens off the eigenvectors",
        text="F = diag(1, -1/2), Q'K = diag(2, 0), alpha = 1/4, all tokens at (3, 4)/5",
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


def _consensus_tokens() -> Piece:
    """x_i = v for all i."""
    return Piece(
        lambda _noise, _kind, shape, case: {
            "x": jnp.broadcast_to(case["direction"][None], (shape.n, shape.d))
        }
    )


def _swapped_example() -> Explicit:
    return Explicit(
        name="each token attends only to the other",
        text="V = diag(1, -3), alpha = .01: the multiplier 1.03/1.01 = 1.0198 at v_1",
        shape=Shape(2, 2, 1, "others"),
        case=witnesses.symmetric(
            [1.0, -3.0], 0.01, signs=witnesses.signs(2, 0), query_key=np.zeros((2, 2))
        ),
    )


@numbered
def ii_6() -> Statement:
    """Consensus for any mask and any F."""
    heads = (
        hyp.moderate_step(),
        hyp.real_eigenvector(),
        hyp.heads(symmetric_sum=False),
        hyp.consensus_signs(),
    )
    swapped = Hypotheses(
        (
            spectra.dominated_value(),
            hyp.consensus_signs(),
            hyp.query_key(),
            spectra.others_mask(),
        ),
        (Shape(2, 2, 1, "others"), Shape(2, 3, 1, "others")),
    )
    harmless = Explicit(
        name="lambda_d above -lambda_1",
        text="V = diag(1, -1/2), alpha = .1, each token attends only to the other: stable",
        shape=Shape(2, 2, 1, "others"),
        case=witnesses.symmetric(
            [1.0, -0.5], 0.1, signs=witnesses.signs(2, 0), query_key=np.zeros((2, 2))
        ),
    )
    outside = Explicit(
        name="consensus outside the plane",
        text="F = (1, -1; 1, 1) + (.5), alpha = 1/2, Q'K = 0, both tokens at (e_1 + e_3)/sqrt 2",
        shape=Shape(2, 3),
        case={
            "value": np.array([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]),
            "frame": np.eye(3),
            "pair": np.array([1.0, 1.0]),
            "eigenvalue": np.array(0.5),
            "alpha": np.array(0.5),
            "query_key": np.zeros((3, 3)),
            "x": np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]) / np.sqrt(2.0),
        },
    )
    return Statement(
        id="ii.6",
        source="Theory II.6",
        text="Multipliers at consensus for any mask and any F, and the rates they give.",
        paper=None,
        corrected=Form(
            text="At x_i = v, F v = lambda_k v, heads that share a mask with the attention A at "
            "equal tokens: J = (1/|q_k|)(I + alpha A (x) Pi F Pi), with the multipliers (1 + alpha "
            "mu lambda_l)/|q_k|, mu in spec A, l != k, multiplicities counted; with masks of their "
            "own A (x) F is replaced by sum_h A_h (x) F_h. If A has the eigenvalue -1 and lambda_d "
            "< -lambda_1, v_1 is unstable for every alpha > 0. Rates: spread 1/|q_1|, alignment "
            "|1 + alpha lambda_l|/|q_1|; a complex leading pair: rotating consensus in its plane "
            "with the rates |1 + alpha lambda_3|/|1 + alpha lambda_1| and 1/|1 + alpha lambda_1|.",
            expected="supported",
            clauses=(
                Clause(
                    name="common mask",
                    text="the closed form is the Jacobian, for full, causal, window and "
                    "all-but-itself attention, and its first power sums are the multipliers'",
                    hypotheses=Hypotheses(
                        heads,
                        (
                            Shape(3, 3, 2),
                            Shape(4, 2, 2, "causal"),
                            Shape(4, 3, 2, "window"),
                            Shape(3, 3, 2, "others"),
                        ),
                    ),
                    conclusion=_any_mask_jacobian,
                    twin=Twin("F v = lambda v", _tilted()),
                ),
                Clause(
                    name="masks of their own",
                    text="the same with a mask for every head",
                    hypotheses=Hypotheses(heads, (Shape(3, 3, 3),)),
                    conclusion=_own_masks_jacobian,
                ),
                Clause(
                    name="attention eigenvalue -1",
                    text="two tokens that see only each other: v_1 is unstable for every alpha",
                    hypotheses=swapped,
                    conclusion=_swapped_unstable,
                    explicit=(_swapped_example(),),
                    twin=Twin("lambda_d < -lambda_1", harmless),
                ),
                Clause(
                    name="rates",
                    text="near v_1 spread and alignment change at their rates",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("half norm"),
                            hyp.eigenpair("first"),
                            _consensus_tokens(),
                            hyp.tangent_direction(),
                            hyp.query_key(),
                            hyp.full_attention(),
                        ),
                        (Shape(4, 3),),
                    ),
                    conclusion=_rates,
                ),
                Clause(
                    name="rotating consensus",
                    text="a complex leading pair: both transversal rates, exactly",
                    hypotheses=Hypotheses(
                        (spectra.rotating_value(), hyp.query_key(), hyp.full_attention()),
                        (Shape(4, 3),),
                    ),
                    conclusion=_rotating,
                    twin=Twin("x in E_1", outside),
                ),
            ),
        ),
    )

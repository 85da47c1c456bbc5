"""Which theorem speaks about a point, and its inequalities one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt import attention
from pmt.condition import Condition
from pmt.dynamics.systems import MultiHead, Oja, head_maps
from pmt.equilibria import Classification, Equilibrium
from pmt.numerics import epsilon
from pmt.stability import conditions as margins

_theorem_3 = jax.jit(margins.theorem_3_margins)
_exact = jax.jit(margins.exact_bipartite_margin)


def theorem_conditions(system: Any, point: Equilibrium | Classification) -> tuple[Condition, ...]:
    """The inequalities of Theorems 1 to 3, arXiv 2605.25619, that apply to a point.

    Consensus: Theorem 1 (Lemma 4) for every map. Bipartite points of ``Oja``: Theorem 2, which
    says they are unstable for n ≥ 3 or λ_2 > 0 (corrected). Bipartite points of ``SingleHead``:
    Theorem 3 as read, and the exact criterion of theory II.4. The theorems are for symmetric F and
    full attention (consensus: for masks without an attention eigenvalue of −1, see theory II.6);
    where a hypothesis fails, its own condition says so. Empty for other kinds and for d = 1.
    """
    matrix = np.asarray(system.layer_matrix, np.float64)
    if len(matrix) < 2 or point.kind not in ("consensus", "bipartite") or point.signs is None:
        return ()
    eps = epsilon(system.layer_matrix.dtype)
    size = max(float(np.linalg.norm(matrix, 2)), np.finfo(float).tiny)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    asymmetry = float(np.abs(matrix - matrix.T).max()) / size
    alpha = float(system.alpha)
    tolerance = 64 * eps * len(matrix)
    hypotheses = (
        Condition("symmetric", "F = Fᵀ (within rounding)", tolerance - asymmetry),
        Condition("alpha > 0", "the step size is positive", alpha),
        Condition("λ1 > 0", "the largest eigenvalue is positive", values[0] / size, tolerance),
        Condition(
            "λ1 simple", "λ1 > λ2, relative to |F|", (values[0] - values[1]) / size, tolerance
        ),
    )
    if point.kind == "consensus":
        return hypotheses + _consensus(system, point, values, alpha, size, tolerance)
    full = Condition(
        "full attention",
        "every token attends to every token",
        1.0 if isinstance(system.mask, attention.Full) else -1.0,
    )
    if isinstance(system, MultiHead):
        return (*hypotheses, full)
    return (*hypotheses, full, *_bipartite(system, point, values, alpha, tolerance))


def _consensus(
    system: Any,
    point: Equilibrium | Classification,
    values: np.ndarray,
    alpha: float,
    size: float,
    tolerance: float,
) -> tuple[Condition, ...]:
    n = len(np.asarray(point.signs))
    step = float(margins.consensus_step_margin(alpha, values[0], values[-1]))
    principal = (point.eigenvalue - values[0]) / size + tolerance
    found = [
        Condition("theorem 1, principal", "the point lies along v1", principal),
        Condition(
            "theorem 1, step",
            "alpha < -2/(λ1 + λd), needed only if λd < -λ1 (relative to the bound)",
            step,
            tolerance,
        ),
    ]
    if isinstance(system, Oja):
        found += _theorem_2(values, alpha, n, size, tolerance)
    return tuple(found)


def _theorem_2(
    values: np.ndarray, alpha: float, n: int, size: float, tolerance: float
) -> list[Condition]:
    spectrum = jnp.asarray(values)
    corrected = 1.0 if n >= 3 else values[1] / size
    return [
        Condition(
            "theorem 2, step (paper)",
            "alpha < 1/(2|V|) (relative to the bound)",
            float(margins.norm_step_margin(alpha, spectrum, 2.0)),
            tolerance,
        ),
        Condition(
            "theorem 2, step (corrected)",
            "alpha < 1/|V| (relative to the bound), or V > 0 with any alpha",
            max(float(margins.norm_step_margin(alpha, spectrum, 1.0)), values[-1] / size),
            tolerance,
        ),
        Condition(
            "theorem 2, tokens (corrected)",
            "n >= 3, or n = 2 and λ2 > 0; for n = 2 and λ2 < 0 antipodal pairs attract",
            corrected,
            tolerance,
        ),
    ]


def _bipartite(
    system: Any,
    point: Equilibrium | Classification,
    values: np.ndarray,
    alpha: float,
    tolerance: float,
) -> tuple[Condition, ...]:
    signs = np.asarray(point.signs)
    n1, n2 = int((signs > 0).sum()), int((signs < 0).sum())
    size = max(float(np.abs(values).max()), np.finfo(float).tiny)
    if isinstance(system, Oja):
        return tuple(_theorem_2(values, alpha, n1 + n2, size, tolerance))
    v = np.asarray(point.eigenvector, np.float64)
    theta = float(v @ np.asarray(head_maps(system)[1][0], np.float64) @ v)
    own = int(np.argmin(np.abs(values - point.eigenvalue)))
    others = jnp.asarray(np.delete(values, own))
    found = _theorem_3(alpha, values[own], others, theta, float(n1), float(n2))
    exact = _exact(values[own], others, theta, float(n1), float(n2))
    return (
        Condition(
            "theorem 3, step",
            "alpha < 1/|V| (relative to the bound)",
            float(found.step),
            tolerance,
        ),
        Condition(
            "theorem 3, condition 1", "1/g_i² < 1, i = 1, 2", float(found.extrinsic), tolerance
        ),
        Condition(
            "theorem 3, condition 2",
            "|τ_l| < 1 + Δ_l and |Δ_l| < 1 for every l ≠ k",
            float(np.min(found.schur_cohn)),
            tolerance,
        ),
        Condition("theorem 3, condition 3", "1/g_i < 1, i = 1, 2", float(found.single), tolerance),
        Condition(
            "exact criterion (II.4)",
            "necessary and sufficient for 0 < alpha < 1/|V|: at v1 λ2/λ1 < Ψ(θ1), at vd "
            "λ1/|λd| < Ψ(|θd|), never in between",
            float(exact),
            tolerance,
        ),
    )

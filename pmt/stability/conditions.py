"""The inequalities of Theorems 1, 2 and 3 and of the exact criterion, as signed margins.

The ``*_margins`` functions are pure JAX, positive where the inequality holds. Step-size bounds are
given relative to the bound, so that a margin of 0.1 means ten per cent away from it.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from pmt.stability.spectrum import bipartite_multipliers


def consensus_step_margin(alpha: Any, largest: Any, smallest: Any) -> Float[Array, ""]:
    """1 − alpha (−(λ_1 + λ_d)) / 2: positive iff alpha < −2/(λ_1 + λ_d), where that is needed.

    If λ_d ≥ −λ_1 no bound is needed (any alpha > 0) and the value is at least 1. Theorem 1 and
    Lemma 4, arXiv 2605.25619; the bound is sharp.
    """
    return 1.0 + jnp.asarray(alpha) * (largest + smallest) / 2.0


def norm_step_margin(alpha: Any, eigenvalues: Float[Array, " d"], factor: float) -> Array:
    """1 − factor * alpha * |V|: positive iff alpha < 1/(factor |V|), V symmetric.

    factor 2 is Theorem 2 as read, factor 1 its corrected form and Theorem 3.
    """
    return 1.0 - factor * alpha * jnp.max(jnp.abs(eigenvalues))


@register_dataclass
@dataclass(frozen=True)
class Theorem3Margins:
    """Theorem 3 for a bipartite point, arXiv 2605.25619; each positive iff it holds.

    Attributes:
      step: alpha < 1/|V|.
      extrinsic: condition 1, 1/g_i² < 1 (a redundant, extrinsic class).
      schur_cohn: condition 2, |τ_l| < 1 + Δ_l and |Δ_l| < 1, per l ≠ k; the smaller of the two.
      single: condition 3, 1/g_i < 1. Sufficient, not necessary: a group of one token has no
        vector of this class.
      single_needed: condition 3 for the groups of at least two tokens, the necessary form.
    """

    step: Float[Array, ""]
    extrinsic: Float[Array, ""]
    schur_cohn: Float[Array, " p"]
    single: Float[Array, ""]
    single_needed: Float[Array, ""]


def theorem_3_margins(
    alpha: Any,
    eigenvalue: Any,
    others: Float[Array, " p"],
    theta: Any,
    n1: Any,
    n2: Any,
) -> Theorem3Margins:
    """The inequalities of Theorem 3 at x_i = s_i v_k for symmetric V and full attention.

    Arguments as for ``bipartite_multipliers``.
    """
    spectrum = bipartite_multipliers(alpha, eigenvalue, others, theta, n1, n2)
    everything = jnp.concatenate([others, jnp.asarray(eigenvalue, others.dtype)[None]])
    tau, delta = spectrum.trace, spectrum.determinant
    margins = 1.0 - 1.0 / spectrum.factors
    sizes = jnp.stack([jnp.asarray(n1, others.dtype), jnp.asarray(n2, others.dtype)])
    return Theorem3Margins(
        step=norm_step_margin(alpha, everything, 1.0),
        extrinsic=jnp.min(1.0 - 1.0 / spectrum.factors**2),
        schur_cohn=jnp.minimum(1.0 + delta - jnp.abs(tau), 1.0 - jnp.abs(delta)),
        single=jnp.min(margins),
        single_needed=jnp.min(jnp.where(sizes >= 2, margins, jnp.inf)),
    )


def psi(theta: Any, n1: Any, n2: Any) -> Float[Array, "..."]:
    """Ψ(θ) = (cosh 2θ − r/2) / sinh 2θ, r = n_1/n_2 + n_2/n_1: the exact boundary of theory II.4.

    For θ > 0 and alpha < 1/|V| a bipartite point at v_1 needs λ_2/λ_1 < Ψ(θ); balanced,
    Ψ = tanh θ. Tends to 1 for large θ and to −∞ (unbalanced) or 0 (balanced) at θ = 0, where it
    is not defined.
    """
    theta = jnp.asarray(theta)
    q = jnp.exp(-4.0 * theta)
    r = n1 / n2 + n2 / n1
    # Numerator and denominator divided by e^{2θ}/2, to survive large θ.
    return (1.0 + q - r * jnp.exp(-2.0 * theta)) / (1.0 - q)


def exact_bipartite_margin(
    eigenvalue: Any,
    others: Float[Array, " p"],
    theta: Any,
    n1: Any,
    n2: Any,
) -> Float[Array, ""]:
    """Theory II.4: positive iff the bipartite point at v_k is stable, for 0 < alpha < 1/|V|.

    For symmetric V, single head and full attention. Stability does not depend on alpha there.

    - k = 1 (λ_k > 0 the largest): θ > 0, λ_2/λ_1 < Ψ(θ) and, if λ_2 < 0 and both groups have two
      tokens or more, e^{2θ} > max(n_1/n_2, n_2/n_1).
    - k = d (λ_k < 0 the smallest, simple): θ < 0 and λ_1/|λ_d| < Ψ(|θ|).
    - otherwise never: the margin is minus the spectral distance to the violated case.

    The value is the smallest of the margins that apply; for d = 1 those with other eigenvalues
    drop out.
    """
    theta = jnp.asarray(theta, others.dtype)
    lam = jnp.asarray(eigenvalue, others.dtype)
    high = jnp.max(others, initial=-jnp.inf)
    low = jnp.min(others, initial=jnp.inf)
    size = jnp.maximum(jnp.max(jnp.abs(others), initial=0.0), jnp.abs(lam))
    scale = jnp.where(size > 0, size, 1.0)
    safe = jnp.where(theta == 0, 1.0, jnp.abs(theta))
    bound = psi(safe, n1, n2)
    rho = jnp.maximum(n1 / n2, n2 / n1)
    both = (jnp.minimum(n1, n2) >= 2) & (high < 0)
    crowd = jnp.where(both, 1.0 - rho * jnp.exp(-2.0 * safe), jnp.inf)
    gap_top = (lam - high) / scale
    gap_bottom = (low - lam) / scale
    top = jnp.minimum(jnp.minimum(theta, crowd), bound - high / jnp.where(lam == 0, 1.0, lam))
    top = jnp.where(jnp.isneginf(high), jnp.minimum(theta, crowd), top)
    bottom = jnp.minimum(-theta, bound - high / jnp.abs(jnp.where(lam == 0, 1.0, lam)))
    bottom = jnp.where(jnp.isneginf(high), -theta, bottom)
    at_top = (gap_top > 0) & (lam > 0)
    at_bottom = (gap_bottom > 0) & (lam < 0)
    never = -jnp.maximum(jnp.minimum(-gap_top, -gap_bottom), jnp.finfo(others.dtype).tiny)
    # A single negative eigenvalue above all others (V negative) is both k = 1 and k = d.
    answer = jnp.where(at_bottom, bottom, never)
    return jnp.where(at_top, top, answer)

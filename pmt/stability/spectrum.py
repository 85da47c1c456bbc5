"""Eigenvalues of the intrinsic Jacobian at signed consensus points, without an (nd × nd) matrix.

At x_i = s_i v the tangent map acts on the components along the other eigenvectors v_l of F as
G⁻¹ (I + alpha λ_l A), an n × n matrix (theory II.4, II.6). These functions are pure JAX: ``jit``,
``vmap`` and ``grad`` act on them. Asymmetric F uses JAX's general eigensolver, which needs a CPU.
The host-side version with error bounds, which ``analyze`` uses, is in ``closed_form``.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Inexact

from pmt import attention, sphere
from pmt.dynamics.systems import MultiHead
from pmt.errors import RequestError
from pmt.numerics import einsum
from pmt.stability.jacobian import signed_attention, signed_factors


def consensus_multipliers(
    alpha: Any,
    eigenvalue: Any,
    others: Inexact[Array, " p"],
    attention_eigenvalues: Inexact[Array, " n"],
) -> Inexact[Array, "n p"]:
    """(1 + alpha μ λ_l) / |1 + alpha λ_k| for μ in spec A, l ≠ k: theory II.6, Lemma 3.

    Full attention has μ = 1, 0, ..., 0; causal uniform attention μ = 1, 1/2, ..., 1/n.
    """
    dtype = (
        jnp.result_type(others.dtype, 1j) if _any_complex(others, attention_eigenvalues) else None
    )
    mu, lam = (jnp.asarray(a, dtype) for a in (attention_eigenvalues, others))
    products = mu[:, None] * lam[None, :]
    size = jnp.abs(1.0 + alpha * eigenvalue)
    return (1.0 + _like(alpha, products) * products) / _like(size, products)


def _any_complex(*arrays: Array) -> bool:
    return any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in arrays)


def _like(real: Any, other: Inexact[Array, "..."]) -> Array:
    """A real number as the dtype of what it multiplies: strict promotion mixes no kinds."""
    return jnp.asarray(real).astype(other.dtype)


@register_dataclass
@dataclass(frozen=True)
class BipartiteSpectrum:
    """Lemma 14 for single-head full attention, group 1 at +v_k and group 2 at −v_k.

    Attributes:
      pair: μ_l^±, shape ``(p, 2)``: the second class, real whenever λ_l is.
      single: 1/|g_1|, 1/|g_2|: the third class, with multiplicities (n_1 − 1)(d − 1) and
        (n_2 − 1)(d − 1).
      trace, determinant: τ_l and Δ_l of eq. (14).
      factors: g_1, g_2; concentration: p_1, p_2; order: γ_1, γ_2 (Lemma 9).
    """

    pair: Inexact[Array, "p 2"]
    single: Float[Array, " 2"]
    trace: Inexact[Array, " p"]
    determinant: Inexact[Array, " p"]
    factors: Float[Array, " 2"]
    concentration: Float[Array, " 2"]
    order: Float[Array, " 2"]


def bipartite_multipliers(
    alpha: Any,
    eigenvalue: Any,
    others: Inexact[Array, " p"],
    theta: Any,
    n1: Any,
    n2: Any,
) -> BipartiteSpectrum:
    """The intrinsic classes of Lemma 14 (eqs. (13), (14)), both group sizes at least 1.

    p_1 = n_1 e^θ / (n_1 e^θ + n_2 e^−θ), p_2 likewise; γ_i = 2 p_i − 1; g_i = 1 + alpha λ_k γ_i;
    μ_l^± are the eigenvalues of [[1 + αλ_l p_1, αλ_l (1 − p_1)], [αλ_l (1 − p_2), 1 + αλ_l p_2]]
    with row i divided by |g_i|; the paper has g_i > 0.

    Args:
      alpha: step size.
      eigenvalue: λ_k.
      others: λ_l, l ≠ k, real or complex.
      theta: θ_k = v_kᵀ B v_k, logit scale included; 0 for ``Oja``.
      n1, n2: group sizes.
    """
    dtype = jnp.real(others).dtype
    ratio = jnp.log(jnp.asarray(n1, dtype) / jnp.asarray(n2, dtype))
    concentration = jax.nn.sigmoid(jnp.stack([2.0 * theta + ratio, 2.0 * theta - ratio]))
    away = jax.nn.sigmoid(-jnp.stack([2.0 * theta + ratio, 2.0 * theta - ratio]))
    order = concentration - away
    factors = 1.0 + alpha * eigenvalue * order
    size = jnp.abs(factors)
    step = _like(alpha, others) * others
    scale, inside, across = (_like(a, others) for a in (size, concentration, away))
    m11 = (1.0 + step * inside[0]) / scale[0]
    m22 = (1.0 + step * inside[1]) / scale[1]
    coupling = step**2 * (across[0] * across[1] / (scale[0] * scale[1]))
    trace, determinant = m11 + m22, m11 * m22 - coupling
    # (m11 − m22)² + 4 coupling is τ² − 4Δ without its cancellation: non-negative for real λ_l.
    root = jnp.sqrt((m11 - m22) ** 2 + 4.0 * coupling)
    pair = jnp.stack([(trace + root) / 2.0, (trace - root) / 2.0], axis=-1)
    return BipartiteSpectrum(
        pair=pair,
        single=1.0 / size,
        trace=trace,
        determinant=determinant,
        factors=factors,
        concentration=concentration,
        order=order,
    )


def transverse(matrix: Float[Array, "d d"], v: Float[Array, " d"]) -> Float[Array, "d_1 d_1"]:
    """Uᵀ F U with U an orthonormal basis of v^⊥: its spectrum is that of F without v's eigenvalue.

    For F v = λ v; F need not be symmetric, since F is block triangular in the basis (v, U).
    """
    basis = sphere.tangent_basis(v)
    return einsum("ae,ab,bf->ef", basis, matrix, basis)


def consensus_spectrum(
    system: Any, v: Float[Array, " d"], tokens: int, *, symmetric: bool = False
) -> Inexact[Array, " m"]:
    """The n(d − 1) multipliers at x_i = v for any mask that the heads share (theory II.6).

    Cost d³ for the eigenvalues of F, plus n³ for a mask that is neither full nor causal.

    Args:
      system: an autonomous map without biases, F v = λ v.
      v: unit eigenvector.
      tokens: n.
      symmetric: F is symmetric; its eigenvalues are then real and the solver cheaper.

    Raises:
      RequestError: a boolean mask per head.
    """
    others = _transverse_eigenvalues(system, v, symmetric)
    value = einsum("a,ab,b->", v, system.layer_matrix, v)
    mu = attention_spectrum(system.mask, tokens, v.dtype)
    return consensus_multipliers(system.alpha, value, others, mu).reshape(-1)


def attention_spectrum(mask: Any, n: int, dtype: Any) -> Inexact[Array, " n"]:
    """Eigenvalues of the uniform attention over a mask: attention at consensus.

    Full: 1, 0, ..., 0; causal: 1, 1/2, ..., 1/n. Causal windows are triangular too, so their
    diagonal is read off: exact where a numerical solver loses digits to Jordan blocks.
    """
    if isinstance(mask, attention.Full):
        return jnp.zeros(n, dtype).at[0].set(1.0)
    if isinstance(mask, attention.Causal):
        return 1.0 / jnp.arange(1, n + 1, dtype=dtype)
    weights = attention.uniform_weights(n, mask, dtype)
    if weights.ndim != 2:
        raise RequestError(
            "heads with masks of their own have no common attention matrix at consensus; "
            "use the dense spectrum"
        )
    return jnp.diagonal(weights) if is_triangular(mask) else jnp.linalg.eigvals(weights)


def is_triangular(mask: Any) -> bool:
    """Whether no token attends to a later one, known from the kind of mask alone."""
    return isinstance(mask, attention.Causal) or (
        isinstance(mask, attention.LocalWindow) and mask.causal
    )


def bipartite_spectrum(
    system: Any, v: Float[Array, " d"], signs: Float[Array, " n"], *, symmetric: bool = False
) -> Inexact[Array, " m"]:
    """The n(d − 1) multipliers at x_i = s_i v for ``Oja`` and ``SingleHead`` (Lemma 14, II.4).

    Full attention: the two classes of Lemma 14, cost d³ + n. Causal: the tangent map is
    triangular, (1 + alpha λ_l a_ii) / |g_i|. Other masks: d − 1 eigenproblems of size n.

    Args:
      system: ``Oja`` or ``SingleHead`` with V v = λ v.
      v: unit eigenvector.
      signs: ±1 for every token, both present.
      symmetric: V is symmetric; its eigenvalues are then real and the solver cheaper.

    Raises:
      RequestError: a ``MultiHead``, whose heads act apart: use ``analyze``.
    """
    if isinstance(system, MultiHead):
        raise RequestError("bipartite_spectrum is for one head; use pmt.stability.analyze")
    others = _transverse_eigenvalues(system, v, symmetric)
    weights = signed_attention(system, v, signs)[0]
    factors = jnp.abs(signed_factors(system, v, signs))
    if isinstance(system.mask, attention.Full):
        return _two_group_spectrum(system, v, signs, others, factors)
    if is_triangular(system.mask):
        own = _like(system.alpha * jnp.diagonal(weights), others)
        return ((1.0 + own[:, None] * others[None, :]) / _like(factors, others)[:, None]).reshape(
            -1
        )
    identity = jnp.eye(signs.shape[0], dtype=others.dtype)[None]
    blocks = identity + others[:, None, None] * _like(system.alpha * weights, others)[None]
    return jnp.linalg.eigvals(blocks / _like(factors, others)[None, :, None]).reshape(-1)


def _two_group_spectrum(
    system: Any,
    v: Float[Array, " d"],
    signs: Float[Array, " n"],
    others: Inexact[Array, " p"],
    factors: Float[Array, " n"],
) -> Inexact[Array, " m"]:
    positive = signs > 0
    n1 = jnp.sum(positive.astype(v.dtype))
    query_key = getattr(system, "query_key", None)
    theta = jnp.zeros((), v.dtype)
    if query_key is not None:
        theta = system.scale * einsum("a,ab,b->", v, query_key, v)
    value = einsum("a,ab,b->", v, system.layer_matrix, v)
    classes = bipartite_multipliers(system.alpha, value, others, theta, n1, signs.shape[0] - n1)
    # One token of each group carries the pair; the others carry the third class.
    table = jnp.broadcast_to((1.0 / factors)[:, None], (signs.shape[0], others.shape[0]))
    table = table.astype(classes.pair.dtype)
    table = table.at[jnp.argmax(positive)].set(classes.pair[:, 0])
    return table.at[jnp.argmin(positive)].set(classes.pair[:, 1]).reshape(-1)


def _transverse_eigenvalues(
    system: Any, v: Float[Array, " d"], symmetric: bool
) -> Inexact[Array, " p"]:
    reduced = transverse(system.layer_matrix, v)
    return jnp.linalg.eigvalsh(reduced) if symmetric else jnp.linalg.eigvals(reduced)

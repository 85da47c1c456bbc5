"""Jacobians of the maps: by autodiff at any state, and in closed form.

The *extrinsic* Jacobian lives in R^(nd): it differentiates the map as written, with the full
|y|⁻¹ (extension E1 of theory, Lemma 2), so it annihilates nothing but the direction of f(x)_i in
its image. The *intrinsic* one acts on the tangent space of the product of spheres, of dimension
n(d − 1), and alone decides stability (Remarks 2 and 8, arXiv 2605.25619).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import attention, sphere
from pmt.dynamics.linearization import tangent_jacobian as intrinsic
from pmt.dynamics.systems import MultiHead, head_attention, head_maps
from pmt.errors import RequestError
from pmt.numerics import einsum

__all__ = [
    "extrinsic",
    "extrinsic_formula",
    "intrinsic",
    "restrict",
    "signed_attention",
    "signed_consensus",
    "signed_factors",
]


def extrinsic(system: Any, x: Float[Array, "n d"]) -> Float[Array, "nd nd"]:
    """Df(x) on R^(nd), token-major, by forward-mode autodiff. For any map and any state."""
    return jax.jacfwd(system)(x).reshape(x.size, x.size)


def extrinsic_formula(system: Any, x: Float[Array, "n d"]) -> Float[Array, "nd nd"]:
    """Df(x) on R^(nd) by Lemma 2 (``Oja``) and Lemma 10 (softmax), with several heads.

    J_ij = |y_i|⁻¹ (I − ŷ_i ŷ_iᵀ) D_ij with, eq. (16),
    D_ij = δ_ij (I + alpha Σ_h F_h C^h_i B_hᵀ) + alpha Σ_h a^h_ij F_h (I + (x_j − z^h_i) x_iᵀ B_h),
    C^h_i = Σ_l a^h_il x_l x_lᵀ − z^h_i z^h_iᵀ. Any F_h, B_h and mask.

    Raises:
      RequestError: a ``MultiHead`` with biases, which eq. (16) does not cover.
    """
    _require_plain(system)
    n, d = x.shape
    value, query_key = head_maps(system)
    weights = head_attention(system, x)
    mean = einsum("hij,jd->hid", weights, x)
    identity = jnp.eye(d, dtype=x.dtype)
    covariance = einsum("hil,la,lb->hiab", weights, x, x) - einsum("hia,hib->hiab", mean, mean)
    diagonal = identity[None] + system.alpha * einsum(
        "hab,hibc,hdc->iad", value, covariance, query_key
    )
    offsets = einsum("hab,hijb->hija", value, x[None, None] - mean[:, :, None])
    probes = einsum("ia,hab->hib", x, query_key)
    blocks = system.alpha * (
        einsum("hij,hab->iajb", weights, value)
        + einsum("hij,hija,hib->iajb", weights, offsets, probes)
    )
    token = jnp.arange(n)
    blocks = blocks.at[token, :, token, :].add(diagonal)
    y = system.unnormalized(x)
    direction = sphere.normalize(y)
    projector = identity[None] - direction[:, :, None] * direction[:, None, :]
    scaled = projector / sphere.norm(y)[:, None, None]
    return einsum("iab,ibjc->iajc", scaled, blocks).reshape(n * d, n * d)


def signed_attention(
    system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]
) -> Float[Array, "h n n"]:
    """Attention at x_i = s_i v (eq. (13)): logits θ_h s_i s_j with θ_h = vᵀ B_h v."""
    _, query_key = head_maps(system)
    theta = einsum("a,hab,b->h", v, query_key, v)
    logits = theta[:, None, None] * (signs[:, None] * signs[None, :])[None]
    return attention.softmax_weights(logits, system.mask)


def signed_factors(
    system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]
) -> Float[Array, " n"]:
    """g_i = 1 + alpha Σ_h λ_h γ^h_i, where y_i = s_i g_i v at x_i = s_i v (Lemma 12, eq. (18)).

    λ_h = vᵀ F_h v and γ^h_i = s_i Σ_j a^h_ij s_j, which is 1 at consensus.
    """
    value, _ = head_maps(system)
    strength = einsum("a,hab,b->h", v, value, v)
    gamma = signs[None] * einsum("hij,j->hi", signed_attention(system, v, signs), signs)
    return 1.0 + system.alpha * einsum("h,hi->i", strength, gamma)


def signed_consensus(
    system: Any, v: Float[Array, " d"], signs: Float[Array, " n"]
) -> Float[Array, "nd nd"]:
    """Df at x_i = s_i v in closed form: Lemmas 3, 11 and 12 and theory II.6.

    J_ij = |g_i|⁻¹ Π (δ_ij I + alpha Σ_h a^h_ij F_h), Π = I − v vᵀ: the derivatives of the attention
    produce only multiples of F_h v and drop out. Any mask, asymmetric F.

    Valid at consensus if v is a real eigenvector of F = Σ_h F_h, and at other signs if v is an
    eigenvector of every F_h. At a 2-cycle (all g_i < 0) it is the Jacobian of one step.

    Args:
      system: an autonomous map without biases and rotary positions.
      v: unit eigenvector.
      signs: ±1 for every token.

    Raises:
      RequestError: a ``MultiHead`` with biases or rotary positions.
    """
    _require_plain(system)
    n, d = signs.shape[0], v.shape[0]
    value, _ = head_maps(system)
    weights = signed_attention(system, v, signs)
    heads = jnp.broadcast_to(weights, (value.shape[0], n, n))
    blocks = system.alpha * einsum("hij,hab->iajb", heads, value)
    token = jnp.arange(n)
    blocks = blocks.at[token, :, token, :].add(jnp.eye(d, dtype=v.dtype)[None])
    projector = jnp.eye(d, dtype=v.dtype) - v[:, None] * v[None, :]
    scale = 1.0 / jnp.abs(signed_factors(system, v, signs))
    return einsum("i,ab,ibjc->iajc", scale, projector, blocks).reshape(n * d, n * d)


def restrict(matrix: Float[Array, "nd nd"], x: Float[Array, "n d"]) -> Float[Array, "m m"]:
    """B(x)ᵀ J B(x): an extrinsic Jacobian in tangent coordinates, m = n(d − 1).

    For a state with f(x) = ±x; then it equals ``intrinsic``.
    """
    n, d = x.shape
    basis = sphere.tangent_basis(x)
    blocks = matrix.reshape(n, d, n, d)
    size = n * (d - 1)
    return einsum("iae,iajb,jbf->iejf", basis, blocks, basis).reshape(size, size)


def _require_plain(system: Any) -> None:
    if isinstance(system, MultiHead) and not system.is_plain:
        raise RequestError(
            "the closed forms are for maps without biases and rotary positions, as eq. (1); "
            "drop them or use the autodiff Jacobian"
        )

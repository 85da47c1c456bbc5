"""Null models: the same attention with value-output maps that know nothing of the training.

Whatever a layer's own F shows, and these do not, is a property of the trained weights; the rest
any matrix under that attention shows. Both act on the same states X^(l-1) as the layer itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pmt import sphere
from pmt.attention import Boolean
from pmt.dynamics import MultiHead
from pmt.numerics import einsum

# Streams of random numbers; tokens have the plain seed.
_GAUSSIAN, _ROTATION = 1, 2


def gaussian_maps(layer: MultiHead, *key: int) -> Iterator[np.ndarray]:
    """For each head a Gaussian ``(d, d)`` matrix with the Frobenius norm of its O_h V_h.

    One at a time, since all of them are h times the layer matrix; the same again for the same
    ``key``, which is any sequence of integers.
    """
    d = layer.query.shape[-1]
    for head, norm in enumerate(_norms(layer)):
        rng = np.random.default_rng([_GAUSSIAN, *key, head])
        draw = rng.standard_normal((d, d))
        draw *= norm / np.linalg.norm(draw)
        yield draw


def adding_up(maps: Iterable[np.ndarray], total: Float[np.ndarray, "d d"]) -> Iterator[np.ndarray]:
    """The same maps, each added to ``total`` as it is handed on: their layer matrix at the end."""
    for each in maps:
        np.add(total, each, out=total)
        yield each


def random_rotation(d: int, *key: int) -> np.ndarray:
    """A rotation drawn from the Haar measure of SO(d): QR of a Gaussian matrix, signs fixed."""
    rng = np.random.default_rng([_ROTATION, *key])
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    signs = np.sign(np.diag(r))
    q = q * signs
    # LAPACK's q is a product of d - 1 reflections.
    if np.prod(signs) != (-1.0) ** (d - 1):
        q[:, 0] = -q[:, 0]
    return q


@jax.jit
def attention_weights(
    layer: MultiHead, x: Float[Array, "batch n d"], present: Bool[Array, "batch n"] | None
) -> Float[Array, "batch h n n"]:
    """The layer's own; no token attends to one that is not there. ``present`` None: all are."""
    if present is None:
        return jax.vmap(layer.attention)(x)

    def one(tokens: Array, there: Array) -> Array:
        return replace(layer, mask=padded(layer.mask, there)).attention(tokens)

    return jax.vmap(one)(x, present)


def padded(mask: Any, present: Bool[Array, "n"]) -> Boolean:
    """The mask, and no token attends to one that is not there."""
    n = present.shape[0]
    seen = jnp.broadcast_to(present[None, :], (n, n))
    own = mask.allowed(n)
    return Boolean(seen if own is None else seen & own)


def gaussian_update(
    layer: MultiHead,
    maps: Iterator[np.ndarray],
    x: Float[Array, "batch n d"],
    weights: Float[Array, "batch h n n"],
) -> Float[Array, "batch n d"]:
    """Σ_h G_h Σ_j a^h_ij x_j with the ``weights`` a, and biases as they are."""
    total = jnp.zeros_like(x)
    for head, matrix in enumerate(maps):
        # A copy of NumPy's, in half the time of JAX's.
        total = _add_head(total, weights[:, head], x, jnp.asarray(matrix.astype(x.dtype)))
    return _with_biases(layer, total)


def rotated_update(
    layer: MultiHead,
    rotation: np.ndarray,
    x: Float[Array, "batch n d"],
    weights: Float[Array, "batch h n n"],
) -> Float[Array, "batch n d"]:
    """Σ_h R O_h V_h Rᵀ Σ_j a^h_ij x_j with the ``weights`` a, and biases as they are."""
    r = jnp.asarray(rotation, x.dtype)
    return _with_biases(layer, _rotated(layer.output, layer.value, r, weights, x))


def apply_gaussian(
    layer: MultiHead, maps: Iterator[np.ndarray], x: Float[Array, "batch n d"]
) -> Float[Array, "batch n d"]:
    """One step with Σ_h G_h Σ_j a^h_ij x_j in place of the layer's own sum, biases as they are."""
    update = gaussian_update(layer, maps, x, attention_weights(layer, x, None))
    return sphere.normalize(x + layer.alpha * update)


def apply_rotated(
    layer: MultiHead, rotation: np.ndarray, x: Float[Array, "batch n d"]
) -> Float[Array, "batch n d"]:
    """One step with R O_h V_h Rᵀ in place of O_h V_h, biases as they are."""
    update = rotated_update(layer, rotation, x, attention_weights(layer, x, None))
    return sphere.normalize(x + layer.alpha * update)


@jax.jit
def _add_head(
    total: Float[Array, "batch n d"],
    weights: Float[Array, "batch n n"],
    x: Float[Array, "batch n d"],
    matrix: Float[Array, "d d"],
) -> Float[Array, "batch n d"]:
    seen = einsum("bij,bjd->bid", weights, x)
    return total + einsum("bie,de->bid", seen, matrix)


@jax.jit
def _rotated(output: Array, value: Array, r: Array, weights: Array, x: Array) -> Array:
    values = einsum("hke,bne->bhnk", value, einsum("bnd,de->bne", x, r))
    mixed = einsum("bhij,bhjk->bhik", weights, values)
    return einsum("bne,de->bnd", einsum("hdk,bhnk->bnd", output, mixed), r)


def _with_biases(layer: MultiHead, update: Array) -> Array:
    # Attention sums to one, so the value biases add the same vector to every token.
    if layer.value_bias is not None:
        update = update + einsum("hdk,hk->d", layer.output, layer.value_bias)[None, None, :]
    if layer.output_bias is not None:
        update = update + layer.output_bias[None, None, :]
    return update


def _norms(layer: MultiHead) -> np.ndarray:
    """|O_h V_h| for every head, from the small products: |O V|² = tr(OᵀO V Vᵀ)."""
    output, value = (np.asarray(a, np.float64) for a in (layer.output, layer.value))
    inner = np.swapaxes(output, -1, -2) @ output
    outer = value @ np.swapaxes(value, -1, -2)
    return np.sqrt(np.sum(inner * outer, axis=(-2, -1)))

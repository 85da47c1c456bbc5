"""Null models: the same attention with value-output maps that know nothing of the training.

Whatever a layer's own F shows, and these do not, is a property of the trained weights; the rest
any matrix under that attention shows. Both act on the same states X^(l-1) as the layer itself.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
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
        yield draw * (norm / np.linalg.norm(draw))


def random_rotation(d: int, *key: int) -> np.ndarray:
    """A rotation drawn from the Haar measure of SO(d): QR of a Gaussian matrix, signs fixed."""
    rng = np.random.default_rng([_ROTATION, *key])
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    q = q * np.sign(np.diag(r))
    if np.linalg.slogdet(q)[0] < 0:
        q[:, 0] = -q[:, 0]
    return q


def apply_gaussian(
    layer: MultiHead, maps: Iterator[np.ndarray], x: Float[Array, "batch n d"]
) -> Float[Array, "batch n d"]:
    """One step with Σ_h G_h Σ_j a^h_ij x_j in place of the layer's own sum, biases as they are."""
    d = x.shape[-1]
    identity = jnp.eye(d, dtype=x.dtype)[None]
    total = jnp.zeros_like(x)
    for head, matrix in enumerate(maps):
        one = replace(
            _single_head(layer, head),
            value=identity,
            output=jnp.asarray(matrix, x.dtype)[None],
        )
        total = total + _update(one, x)
    return _step(layer, x, total)


def apply_rotated(
    layer: MultiHead, rotation: np.ndarray, x: Float[Array, "batch n d"]
) -> Float[Array, "batch n d"]:
    """One step with R O_h V_h Rᵀ in place of O_h V_h, biases as they are."""
    r = jnp.asarray(rotation, x.dtype)
    turned = replace(
        layer,
        output=einsum("de,hek->hdk", r, layer.output),
        value=einsum("hke,de->hkd", layer.value, r),
        value_bias=None,
        output_bias=None,
    )
    return _step(layer, x, _update(turned, x))


def _single_head(layer: MultiHead, head: int) -> MultiHead:
    return replace(
        layer,
        query=layer.query[head][None],
        key=layer.key[head][None],
        value=layer.value[head][None],
        output=layer.output[head][None],
        query_bias=None if layer.query_bias is None else layer.query_bias[head][None],
        key_bias=None if layer.key_bias is None else layer.key_bias[head][None],
        value_bias=None,
        output_bias=None,
    )


@jax.jit
def _update(layer: MultiHead, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
    return jax.vmap(layer.update)(x)


def _step(
    layer: MultiHead, x: Float[Array, "batch n d"], update: Float[Array, "batch n d"]
) -> Float[Array, "batch n d"]:
    # Attention sums to one, so the value biases add the same vector to every token.
    if layer.value_bias is not None:
        update = update + einsum("hdk,hk->d", layer.output, layer.value_bias)[None, None, :]
    if layer.output_bias is not None:
        update = update + layer.output_bias[None, None, :]
    return sphere.normalize(x + layer.alpha * update)


def _norms(layer: MultiHead) -> np.ndarray:
    """|O_h V_h| for every head, from the small products: |O V|² = tr(OᵀO V Vᵀ)."""
    output, value = (np.asarray(a, np.float64) for a in (layer.output, layer.value))
    inner = np.swapaxes(output, -1, -2) @ output
    outer = value @ np.swapaxes(value, -1, -2)
    return np.sqrt(np.sum(inner * outer, axis=(-2, -1)))

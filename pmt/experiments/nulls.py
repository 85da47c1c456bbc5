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
_REFLECTIONS = 64


def gaussian_maps(
    layer: MultiHead, *key: int, norms: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """For each head a Gaussian ``(d, d)`` matrix with the Frobenius norm of its O_h V_h.

    In single precision, or in double where the layer is. One at a time, since all of them are h
    times the layer matrix; the same again for the same ``key``, which is any sequence of integers.
    ``norms`` are those of ``head_norms`` where they are known.
    """
    d, dtype = layer.query.shape[-1], layer.query.dtype
    for head, norm in enumerate(head_norms(layer) if norms is None else norms):
        yield gaussian_map(d, dtype, norm, *key, head)


def gaussian_map(d: int, dtype: Any, norm: float, *key: int) -> np.ndarray:
    """A Gaussian ``(d, d)`` matrix scaled to that Frobenius norm."""
    draw = _normal(np.random.default_rng([_GAUSSIAN, *key]), d * d).reshape(d, d)
    draw = draw.astype(dtype if np.dtype(dtype).itemsize == 8 else np.float32, copy=False)
    squares = np.einsum("ij,ij->i", draw, draw).sum(dtype=np.float64)
    draw *= np.asarray(norm / np.sqrt(squares), draw.dtype)
    return draw


def _normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Standard normal numbers in single precision, up to 6.8, by Box and Muller's formula.

    In a quarter of the time of NumPy's, since whole arrays go through log, cos and sin.
    """
    half = (count + 1) // 2
    bits = rng.integers(0, 2**64, size=half, dtype=np.uint64).view(np.uint32).reshape(2, half)
    # In (0, 1], and an angle in [-π, π].
    radius = bits[0].astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = bits[1].view(np.int32).astype(np.float32)
    angle *= np.float32(np.pi / 2**31)
    drawn = np.empty((2, half), np.float32)
    np.cos(angle, out=drawn[0])
    np.sin(angle, out=drawn[1])
    drawn *= radius
    return drawn.reshape(-1)[:count]


def adding_up(maps: Iterable[np.ndarray], total: Float[np.ndarray, "d d"]) -> Iterator[np.ndarray]:
    """The same maps, each added to ``total`` as it is handed on: their layer matrix at the end."""
    for each in maps:
        np.add(total, each, out=total)
        yield each


def random_rotation(d: int, *key: int) -> np.ndarray:
    """A rotation drawn from the Haar measure of SO(d), in float64.

    The factor Q of a Gaussian matrix, with the signs that make R's diagonal positive. What each
    reflection of the QR factorization leaves is Gaussian again and independent of it, so that the
    reflections are drawn and nothing is factorized (Stewart, SIAM J. Numer. Anal. 17 (1980) 403).
    They are applied in blocks, I - V T^-1 V' with T the upper triangle of V'V, its diagonal halved.
    """
    rng = np.random.default_rng([_ROTATION, *key])
    q, signs = np.eye(d), np.ones(d)
    for begin in range((d - 1) // _REFLECTIONS * _REFLECTIONS, -1, -_REFLECTIONS):
        end = min(begin + _REFLECTIONS, d)
        v = np.tril(rng.standard_normal((d - begin, end - begin)))
        diagonal = np.arange(end - begin)
        away = np.where(v[diagonal, diagonal] < 0, -1.0, 1.0)
        v[diagonal, diagonal] += away * np.linalg.norm(v, axis=0)
        signs[begin:end] = -away
        t = np.triu(v.T @ v)
        t[diagonal, diagonal] /= 2
        if end == d:
            # A single number is left, and nothing to reflect.
            signs[-1], v[-1, -1], t[-1, -1] = away[-1], 0.0, 1.0
            t[:-1, -1] = 0.0
        rest = q[begin:, begin:]
        rest -= v @ np.linalg.solve(t, v.T @ rest)
    q *= signs
    # A product of d - 1 reflections.
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
    return with_biases(layer, total)


def rotated_update(
    layer: MultiHead,
    rotation: np.ndarray,
    x: Float[Array, "batch n d"],
    weights: Float[Array, "batch h n n"],
) -> Float[Array, "batch n d"]:
    """Σ_h R O_h V_h Rᵀ Σ_j a^h_ij x_j with the ``weights`` a, and biases as they are."""
    r = jnp.asarray(rotation, x.dtype)
    return with_biases(layer, _rotated(layer.output, layer.value, r, weights, x))


def apply_gaussian(
    layer: MultiHead,
    maps: Iterator[np.ndarray],
    x: Float[Array, "batch n d"],
    present: Bool[Array, "batch n"] | None = None,
) -> Float[Array, "batch n d"]:
    """One step with Σ_h G_h Σ_j a^h_ij x_j in place of the layer's own sum, biases as they are.

    ``present`` as in ``attention_weights``.
    """
    update = gaussian_update(layer, maps, x, attention_weights(layer, x, present))
    return sphere.normalize(x + layer.alpha * update)


def apply_rotated(
    layer: MultiHead,
    rotation: np.ndarray,
    x: Float[Array, "batch n d"],
    present: Bool[Array, "batch n"] | None = None,
) -> Float[Array, "batch n d"]:
    """One step with R O_h V_h Rᵀ in place of O_h V_h, biases as they are; ``present`` likewise."""
    update = rotated_update(layer, rotation, x, attention_weights(layer, x, present))
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
    update = turned_update(output, value, weights, einsum("bnd,de->bne", x, r))
    return einsum("bne,de->bnd", update, r)


@jax.jit
def turned_update(
    output: Float[Array, "h d k"],
    value: Float[Array, "h k d"],
    weights: Float[Array, "batch h n n"],
    x: Float[Array, "batch n d"],
) -> Float[Array, "batch n d"]:
    """Σ_h O_h V_h Σ_j a^h_ij x_j: with Rᵀ x, the rotated null's update in the frame of R."""
    mixed = einsum("bhij,bhjk->bhik", weights, einsum("hke,bne->bhnk", value, x))
    return einsum("hdk,bhnk->bnd", output, mixed)


def with_biases(layer: MultiHead, update: Any) -> Any:
    """The update of every token, and what the layer's biases add to it."""
    # Attention sums to one, so the value biases add the same vector to every token.
    if layer.value_bias is not None:
        update = update + einsum("hdk,hk->d", layer.output, layer.value_bias)[None, None, :]
    if layer.output_bias is not None:
        update = update + layer.output_bias[None, None, :]
    return update


def head_norms(layer: MultiHead) -> np.ndarray:
    """|O_h V_h| for every head, from the small products: |O V|² = tr(OᵀO V Vᵀ)."""
    output, value = (np.asarray(a, np.float64) for a in (layer.output, layer.value))
    inner = np.swapaxes(output, -1, -2) @ output
    outer = value @ np.swapaxes(value, -1, -2)
    return np.sqrt(np.sum(inner * outer, axis=(-2, -1)))

"""Draws of both null models on the states before one layer, on the host or on an accelerator.

Of either a draw gives what the layer adds to the tokens in its place, before the step; that under
a rotation R in the frame that R turns, where the layer's own maps act on Rᵀ x.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.dynamics import MultiHead
from pmt.experiments.nulls import (
    adding_up,
    gaussian_maps,
    gaussian_update,
    head_norms,
    random_rotation,
    turned_update,
    with_biases,
)
from pmt.numerics import einsum, on_host
from pmt.parallel.pool import side_by_side

T = TypeVar("T")


def null_draws(
    layer: MultiHead,
    x: Float[Array, "batch n d"],
    weights: Float[Array, "batch h n n"],
    seed: int,
    block: int,
) -> "HostDraws | DeviceDraws":
    """The draws of a layer where its arrays are.

    Args:
      layer: with its own maps.
      x: what its attention reads.
      weights: that attention.
      seed, block: the integers that name its draws, with the number of the draw between them.
    """
    return (HostDraws if on_host(x) else DeviceDraws)(layer, x, weights, seed, block)


@jax.jit
def turn(x: Float[Array, "batch n d"], rotation: Float[Array, "d d"]) -> Float[Array, "batch n d"]:
    """Rᵀ x of every token."""
    return einsum("bnd,de->bne", x, rotation)


class DeviceDraws:
    """By JAX, one after the other on the caller's thread. Arguments as of ``null_draws``."""

    def __init__(self, layer: MultiHead, x: Any, weights: Any, seed: int, block: int) -> None:
        self._layer, self._x, self._weights = layer, x, weights
        self._seed, self._block = seed, block

    def gaussian(self, draw: int, *, summed: bool) -> tuple[Any, np.ndarray]:
        """Σ_h G_h Σ_j a^h_ij x_j and biases ``(batch, n, d)``, and F = Σ_h G_h in float64.

        F is empty unless ``summed``.
        """
        maps: Iterator[np.ndarray] = gaussian_maps(self._layer, self._seed, draw, self._block)
        matrix = np.zeros((self._x.shape[-1] if summed else 0,) * 2)
        maps = adding_up(maps, matrix) if summed else maps
        update = gaussian_update(self._layer, maps, self._x, self._weights)
        # Else the maps of all draws would wait in the device's memory.
        return jax.block_until_ready(update), matrix

    def rotated(self, draw: int) -> tuple[Any, Any, Any]:
        """R, what is read as Rᵀ x, and Rᵀ times the update with R O_h V_h Rᵀ and biases."""
        drawn = random_rotation(self._x.shape[-1], self._seed, draw, self._block)
        r = jnp.asarray(drawn, self._x.dtype)
        turned = turn(self._x, r)
        update = turned_update(self._layer.output, self._layer.value, self._weights, turned)
        bias = with_biases(self._layer, jnp.zeros_like(self._x[:1, :1]))
        return r, turned, update + turn(bias, r)

    def each(
        self, work: Iterable[Callable[[], T]], threads: int
    ) -> AbstractContextManager[Iterator[T]]:
        """The answers of these methods, in their order, each computed when it is asked for."""
        del threads
        return nullcontext(one() for one in work)


class HostDraws:
    """By NumPy, side by side. Arguments as of ``null_draws``.

    Nothing here calls JAX, whose settings belong to a thread. A BLAS library takes about half the
    processor time of XLA for the products, which are nearly all there is to do.
    """

    def __init__(self, layer: MultiHead, x: Any, weights: Any, seed: int, block: int) -> None:
        self._x, self._weights = np.asarray(x), np.asarray(weights)
        self._seed, self._block = seed, block
        # Of the layer itself threads read nothing but the shape and the dtype.
        self._layer, self._norms = layer, head_norms(layer)
        output, value = np.asarray(layer.output), np.asarray(layer.value)
        d = value.shape[-1]
        self._value = value.reshape(-1, d)
        self._output = np.moveaxis(output, 0, 1).reshape(d, -1)
        self._bias = np.asarray(with_biases(layer, np.zeros((1, 1, d), x.dtype)))[0]

    def gaussian(self, draw: int, *, summed: bool) -> tuple[Any, np.ndarray]:
        """As of ``DeviceDraws``."""
        x, d = self._x, self._x.shape[-1]
        matrix = np.zeros((d if summed else 0,) * 2)
        update, product = np.zeros((2, x.size // d, d), x.dtype)
        seen = np.empty_like(x)
        key = (self._seed, draw, self._block)
        for head, drawn in enumerate(gaussian_maps(self._layer, *key, norms=self._norms)):
            np.matmul(self._weights[:, head], x, out=seen)
            np.matmul(seen.reshape(-1, d), drawn.T, out=product)
            update += product
            if summed:
                np.add(matrix, drawn, out=matrix)
        update += self._bias
        return update.reshape(x.shape), matrix

    def rotated(self, draw: int) -> tuple[Any, Any, Any]:
        """As of ``DeviceDraws``."""
        x, (batch, n, d) = self._x, self._x.shape
        heads = self._weights.shape[1]
        r = random_rotation(d, self._seed, draw, self._block).astype(x.dtype, copy=False)
        turned = x.reshape(-1, d) @ r
        values = (turned @ self._value.T).reshape(batch, n, heads, -1).transpose(0, 2, 1, 3)
        mixed = np.matmul(self._weights, values).transpose(0, 2, 1, 3).reshape(batch * n, -1)
        update = mixed @ self._output.T
        update += self._bias @ r
        return r, turned.reshape(x.shape), update.reshape(x.shape)

    def each(
        self, work: Iterable[Callable[[], T]], threads: int
    ) -> AbstractContextManager[Iterator[T]]:
        """The answers of these methods, in their order, so many at work at a time; from now on."""
        return side_by_side(work, threads)

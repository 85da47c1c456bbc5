"""Random numbers from a counter: as many as a conclusion needs, from one number of the instance.

An instance holds some three hundred random numbers; a stack of layers, or a sample of tokens,
takes more. These come from mixing the bits of a counter (the finalizer of MurmurHash3, twice),
which is exact integer arithmetic, the same on every device, and compiles to a few operations.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def _mixed(bits: Array) -> Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)


def uniforms(seed: Any, *shape: int) -> Float[Array, "..."]:
    """Numbers in (0, 1) with 32 random bits; ``seed`` is an integer array."""
    size = int(np.prod(shape, dtype=int))
    stream = _mixed(jnp.asarray(seed).astype(jnp.uint32) + jnp.uint32(0x9E3779B9))
    bits = _mixed(_mixed(jnp.arange(size, dtype=jnp.uint32) + stream) ^ stream)
    scaled = (bits.astype(jnp.result_type(float)) + 0.5) / 2.0**32
    return scaled.reshape(shape)


def normals(seed: Any, *shape: int) -> Float[Array, "..."]:
    """Standard normal numbers, by Box and Muller."""
    size = int(np.prod(shape, dtype=int))
    pairs = uniforms(seed, 2, size)
    radius = jnp.sqrt(-2.0 * jnp.log(pairs[0]))
    return (radius * jnp.cos(2.0 * jnp.pi * pairs[1])).reshape(shape)

"""Normalisations with their gains, as checkpoints have them."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis.

    The variance is that of the deviations, not E x² - (E x)², which cancels. Flax's own module
    promotes dtypes in a way that strict promotion refuses in float64.
    """

    def __init__(self, features: int, *, epsilon: float, dtype: Any) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(features, dtype))
        self.bias = nnx.Param(jnp.zeros(features, dtype))

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Every token normalised by itself."""
        deviation = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(deviation * deviation, axis=-1, keepdims=True)
        normal = deviation * lax.rsqrt(variance + self.epsilon)
        return normal * self.scale[...][None, :] + self.bias[...][None, :]


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x²) + epsilon) * scale over the last axis (arXiv 1910.07467)."""

    def __init__(self, features: int, *, epsilon: float, dtype: Any) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(features, dtype))

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Every token normalised by itself."""
        square = jnp.mean(x * x, axis=-1, keepdims=True)
        return x * lax.rsqrt(square + self.epsilon) * self.scale[...][None, :]

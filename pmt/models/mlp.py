"""Feed-forward blocks and the activations that checkpoints name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

# Names as in Hugging Face configs.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "gelu": partial(jax.nn.gelu, approximate=False),
        "gelu_fast": partial(jax.nn.gelu, approximate=True),
        "gelu_new": partial(jax.nn.gelu, approximate=True),
        "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
        "swish": jax.nn.silu,
        "tanh": jnp.tanh,
    }
)


class Mlp(nnx.Module):
    """down(activation(up(x))), both with biases."""

    def __init__(
        self, features: int, hidden: int, *, activation: str, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        self.activation = activation
        self.up = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.down = linear(hidden, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The block without its residual connection."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class GatedMlp(nnx.Module):
    """down(activation(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        activation: str,
        biases: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.activation = activation
        self.gate = linear(features, hidden, bias=biases, dtype=dtype, rngs=rngs)
        self.up = linear(features, hidden, bias=biases, dtype=dtype, rngs=rngs)
        self.down = linear(hidden, features, bias=biases, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The block without its residual connection."""
        return self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x))


def linear(into: int, out: int, *, bias: bool = True, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """x W + b with W ``(into, out)``, at the highest matmul precision of the device."""
    return nnx.Linear(
        into,
        out,
        use_bias=bias,
        param_dtype=dtype,
        precision=lax.Precision.HIGHEST,
        kernel_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )


def embedding(rows: int, features: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Embed:
    """A table with one row a token, position or segment."""
    init = nnx.initializers.normal(0.02)
    return nnx.Embed(rows, features, embedding_init=init, param_dtype=dtype, rngs=rngs)

"""Self-attention as a module: the parameters of a map of `pmt.dynamics`, and nothing twice."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pmt.dynamics import MultiHead


class SelfAttention(nnx.Module):
    """Σ_h O_h Σ_j a^h_ij V_h x_j with biases: the update of `pmt.dynamics.MultiHead`.

    Attributes:
      query, key, value: ``(h, k, d)``, and their biases ``(h, k)``.
      output: ``(h, d, k)``, and its bias ``(d,)``.
      scale: of the logits.
    """

    def __init__(
        self, features: int, heads: int, *, head_dim: int, scale: float, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        init = nnx.initializers.normal(0.02)
        inward, bias = (heads, head_dim, features), (heads, head_dim)
        self.scale = scale
        self.query = nnx.Param(init(rngs.params(), inward, dtype))
        self.key = nnx.Param(init(rngs.params(), inward, dtype))
        self.value = nnx.Param(init(rngs.params(), inward, dtype))
        self.output = nnx.Param(init(rngs.params(), (heads, features, head_dim), dtype))
        self.query_bias = nnx.Param(jnp.zeros(bias, dtype))
        self.key_bias = nnx.Param(jnp.zeros(bias, dtype))
        self.value_bias = nnx.Param(jnp.zeros(bias, dtype))
        self.output_bias = nnx.Param(jnp.zeros(features, dtype))

    def as_map(self, *, mask: Any = "full", biases: bool = True, alpha: float = 1.0) -> MultiHead:
        """The layer as the theory sees it: x_i <- normalize(x_i + alpha * update_i(x))."""
        kept: dict[str, Any] = {}
        if biases:
            kept = {
                name: getattr(self, name)[...]
                for name in ("query_bias", "key_bias", "value_bias", "output_bias")
            }
        return MultiHead(
            query=self.query[...],
            key=self.key[...],
            value=self.value[...],
            output=self.output[...],
            alpha=alpha,
            scale=self.scale,
            mask=mask,
            **kept,
        )

    def __call__(self, x: Float[Array, "n d"], mask: Any) -> Float[Array, "n d"]:
        """The block without its residual connection."""
        return self.as_map(mask=mask).update(x)

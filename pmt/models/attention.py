"""Self-attention as a module: the parameters of a map of `pmt.dynamics`, and nothing twice."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from pmt.attention import Boolean, Causal, Full, LocalWindow, Mask, Rotary
from pmt.dynamics import MultiHead
from pmt.models.rotary import RotaryFrequencies


class SelfAttention(nnx.Module):
    """Σ_h O_h Σ_j a^h_ij V_h x_j with biases: the update of `pmt.dynamics.MultiHead`.

    Attributes:
      query: ``(h, k, d)``. key, value: ``(g, k, d)``; each of the g key-value heads serves h / g
        consecutive heads. Their biases: ``(h, k)`` and ``(g, k)``, or None.
      output: ``(h, d, k)``, and its bias ``(d,)`` or None.
      scale: of the logits.
      causal, window: whether a token sees itself and those before it only, and how many of them.
      rotary: None where the model has no rotary positions.
    """

    def __init__(
        self,
        d: int,
        heads: int,
        *,
        head_dim: int,
        key_value_heads: int | None = None,
        scale: float,
        causal: bool = False,
        window: int | None = None,
        biases: bool = True,
        output_bias: bool = True,
        rotary: RotaryFrequencies | None = None,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        groups = heads if key_value_heads is None else key_value_heads
        init = nnx.initializers.normal(0.02)

        def draw(*shape: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), shape, dtype))

        def zeros(wanted: bool, *shape: int) -> nnx.Param | None:
            return nnx.Param(jnp.zeros(shape, dtype)) if wanted else None

        self.scale, self.causal, self.window, self.rotary = scale, causal, window, rotary
        self.query = draw(heads, head_dim, d)
        self.key = draw(groups, head_dim, d)
        self.value = draw(groups, head_dim, d)
        self.output = draw(heads, d, head_dim)
        self.query_bias = zeros(biases, heads, head_dim)
        self.key_bias = zeros(biases, groups, head_dim)
        self.value_bias = zeros(biases, groups, head_dim)
        self.output_bias = zeros(output_bias, d)

    @property
    def mask(self) -> Mask:
        """Which tokens see which, padding aside."""
        if self.window is not None:
            return LocalWindow(self.window, self.causal)
        return Causal() if self.causal else Full()

    def as_map(
        self,
        *,
        mask: Mask | None = None,
        biases: bool = True,
        rotary: bool = True,
        alpha: float = 1.0,
    ) -> MultiHead:
        """The layer as the theory sees it: x_i <- normalize(x_i + alpha * update_i(x)).

        Key-value heads that several heads share are repeated for each of them.

        Args:
          mask: its own if None.
          biases, rotary: whether to keep them; eq. (1) of arXiv 2605.25619 has neither.
          alpha: step size.
        """
        repeats = self.query.shape[0] // self.key.shape[0]

        def shared(parameter: Any) -> Array:
            array = parameter[...]
            return jnp.repeat(array, repeats, axis=0) if repeats > 1 else array

        kept: dict[str, Any] = {}
        if biases and self.query_bias is not None:
            kept |= {
                "query_bias": self.query_bias[...],
                "key_bias": shared(self.key_bias),
                "value_bias": shared(self.value_bias),
            }
        if biases and self.output_bias is not None:
            kept["output_bias"] = self.output_bias[...]
        if rotary and self.rotary is not None:
            frequencies = jnp.asarray(self.rotary.values(), self.query.dtype)
            kept["rotary"] = Rotary(frequencies)
        return MultiHead(
            query=self.query[...],
            key=shared(self.key),
            value=shared(self.value),
            output=self.output[...],
            alpha=alpha,
            scale=self.scale,
            mask=self.mask if mask is None else mask,
            **kept,
        )

    def __call__(self, x: Float[Array, "n d"], present: Bool[Array, "n"]) -> Float[Array, "n d"]:
        """The block without its residual connection; no token attends to one that is not there."""
        seen = jnp.broadcast_to(present[None, :], (x.shape[0], x.shape[0]))
        own = self.mask.allowed(x.shape[0])
        mask = Boolean(seen if own is None else seen & own)
        return self.as_map(mask=mask).update(x)

"""The looped linear transformer as a Flax NNX module."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from pmt.errors import RequestError
from pmt.looped.core import Weights, apply
from pmt.looped.norms import Norm, check_norm
from pmt.looped.start import initial_weights


class LoopedTransformer(nnx.Module):
    """y_L for data and queries: L loops of E ← Norm(E + V E Eᵀ W E) that share V and W.

    Attributes:
      value, key: V and W, full ``(2d, 2d)`` matrices.
      gain: of the normalisation, ``(2d,)``; a variable that is not trained where it has none.
      loops, norm: L and one of ``pmt.looped.NORMS``.
    """

    def __init__(
        self,
        d: int,
        loops: int = 10,
        norm: Norm = "l2",
        *,
        weights: Weights | None = None,
        rngs: nnx.Rngs | None = None,
        **start: Any,
    ) -> None:
        """From given weights, or from ``initial_weights(d, key=rngs.params(), **start)``."""
        check_norm(norm)
        if loops < 1:
            raise RequestError(f"loops is {loops}; it must be at least 1")
        if weights is None:
            key = None if rngs is None else rngs.params()
            weights = initial_weights(d, key=key, **start)
        if weights.value.shape != (2 * d, 2 * d) or weights.key.shape != (2 * d, 2 * d):
            raise RequestError(
                f"V is {weights.value.shape} and W is {weights.key.shape}; "
                f"for d = {d} both must be {(2 * d, 2 * d)}"
            )
        self.loops, self.norm = loops, norm
        self.value, self.key = nnx.Param(weights.value), nnx.Param(weights.key)
        self.gain = nnx.Param(weights.gain)

    @property
    def weights(self) -> Weights:
        """The three arrays, for the functions of ``pmt.looped``."""
        return Weights(self.value[...], self.key[...], self.gain[...])

    def __call__(
        self, data: Float[Array, "*batch n d"], query: Float[Array, "*batch d"]
    ) -> Float[Array, "*batch d"]:
        """y_L, for one sample or for a batch of them."""
        if data.ndim == 2:
            return apply(self.weights, data[None], query[None], self.loops, self.norm)[0]
        return apply(self.weights, data, query, self.loops, self.norm)

"""From token ids to the initial state."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from pmt.models.mlp import embedding, linear
from pmt.models.norm import LayerNorm


class Embeddings(nnx.Module):
    """P norm(token + segment + position), each of them but the first only where a family has it.

    Args:
      vocabulary: how many token ids.
      e: width of the tables.
      positions: how many learned positions, or None.
      segments: how many segments, or None.
      epsilon: of the norm; no norm if None.
      padding_index: in RoBERTa the position of a padding token, whose id is the same number; the
        other tokens of a text count up from there. None where positions are 0, 1, 2, ...
      project_to: width of the model, where a linear map P leads to it.
    """

    def __init__(
        self,
        vocabulary: int,
        e: int,
        *,
        positions: int | None = None,
        segments: int | None = None,
        epsilon: float | None = None,
        padding_index: int | None = None,
        project_to: int | None = None,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        def table(rows: int | None) -> nnx.Embed | None:
            return None if rows is None else embedding(rows, e, dtype=dtype, rngs=rngs)

        self.padding_index = padding_index
        self.token = embedding(vocabulary, e, dtype=dtype, rngs=rngs)
        self.position = table(positions)
        self.segment = table(segments)
        self.norm = None if epsilon is None else LayerNorm(e, epsilon=epsilon, dtype=dtype)
        self.project = None if project_to is None else linear(e, project_to, dtype=dtype, rngs=rngs)

    def __call__(self, ids: Int[Array, "n"], segments: Int[Array, "n"]) -> Float[Array, "n d"]:
        """The initial state of a text."""
        x = self.token(ids)
        if self.segment is not None:
            x = x + self.segment(segments)
        if self.position is not None:
            x = x + self.position(self._positions(ids))
        if self.norm is not None:
            x = self.norm(x)
        return x if self.project is None else self.project(x)

    def _positions(self, ids: Int[Array, "n"]) -> Int[Array, "n"]:
        if self.padding_index is None:
            return jnp.arange(ids.shape[0])
        there = (ids != self.padding_index).astype(ids.dtype)
        return jnp.cumsum(there) * there + self.padding_index

"""What all families share: embeddings, blocks applied in order, a last norm, and a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float, Int

from pmt.dynamics import LayerStack, MultiHead
from pmt.errors import RequestError
from pmt.models.config import Dimensions
from pmt.models.tokens import Tokenizer, Tokens
from pmt.numerics import AnyArray, is_concrete


@register_dataclass
@dataclass(frozen=True)
class Output:
    """What a call returns; ``*batch`` is the leading axis of the tokens' ids, if there is one.

    Attributes:
      hidden_states: the residual-stream state after the embeddings and after every layer. In
        pre-norm models these are un-normalised sums.
      final: the state that the head reads: after the last norm in pre-norm models, the last of
        ``hidden_states`` in the others.
      logits: over the vocabulary, or None where the checkpoint has no language head.
      pooled: tanh(W x_1 + b) of the first token, or None where there is no pooler.
    """

    hidden_states: Float[Array, "layers_1 *batch n d"]
    final: Float[Array, "*batch n d"]
    logits: Float[Array, "*batch n vocabulary"] | None
    pooled: Float[Array, "*batch d"] | None


class Transformer(nnx.Module):
    """A transformer of any family.

    Attributes:
      family: the name that config.json gives it as ``model_type``.
      config: what it was built from.
      parts: the optional parts that it has, such as ``"pooler"``.
      checkpoint: the files its weights come from, or None.
      embeddings: ids and segments to the initial state.
      blocks: the distinct blocks. ``schedule`` says which one is layer l: in ALBERT one block is
        all layers.
      final_norm, head, pooler: or None.
    """

    def __init__(
        self,
        *,
        family: str,
        config: Any,
        parts: frozenset[str],
        embeddings: nnx.Module,
        blocks: Sequence[nnx.Module],
        schedule: Sequence[int] | None = None,
        final_norm: nnx.Module | None = None,
        head: nnx.Module | None = None,
        pooler: nnx.Module | None = None,
    ) -> None:
        self.family = family
        self.config = config
        self.parts = parts
        self.checkpoint: Any = None
        self.embeddings = embeddings
        self.blocks = nnx.List(blocks)
        self.schedule = tuple(range(len(blocks)) if schedule is None else schedule)
        self.final_norm = final_norm
        self.head = head
        self.pooler = pooler

    @property
    def dimensions(self) -> Dimensions:
        """d, heads, layers and the like."""
        return self.config.dimensions

    @property
    def token_table(self) -> Float[Array, "vocabulary e"]:
        """The embeddings of all tokens; e is d but in ALBERT."""
        table: Any = self.embeddings
        return table.token.embedding[...]

    def layer(self, index: int) -> Any:
        """The block that is layer ``index``, from 0."""
        return self.blocks[self.schedule[index]]

    def __call__(
        self,
        ids: Int[AnyArray, "..."] | Tokens,
        *,
        present: Bool[AnyArray, "..."] | None = None,
        segments: Int[AnyArray, "..."] | None = None,
        logits: bool = True,
    ) -> Output:
        """All hidden states of one text, ``(n,)``, or of several padded to one length.

        The blocks are compiled one by one, so equal ones compile once; inside ``jax.jit`` they
        become part of what is compiled there.

        Args:
          ids: token ids, special tokens included; or what `tokenize` returns, which has the two
            next arguments in it.
          present: False for padding, which no token attends to; all True if None. Padding stands
            at the end of a text. What is computed for it means nothing.
          segments: segment of each token, in families that have them; all 0 if None.
          logits: whether to compute them, where there is a head.

        Raises:
          RequestError: ids outside the vocabulary, texts that are empty or longer than the
            position embeddings reach, segments that do not exist, shapes that differ, padding
            before a token.
        """
        given = (ids.ids, ids.present, ids.segments) if isinstance(ids, Tokens) else ()
        rows, there, parts = self._arrays(*(given or (ids, present, segments)))
        single = rows.ndim == 1
        if single:
            rows, there, parts = rows[None], there[None], parts[None]
        states = [_embed(self.embeddings, rows, parts)]
        for index in self.schedule:
            states.append(_apply(self.blocks[index], states[-1], there))
        final = states[-1] if self.final_norm is None else _normalize(self.final_norm, states[-1])
        scores = pooled = None
        if logits and self.head is not None:
            scores = _decode(self.head, final, self.token_table)
        if self.pooler is not None:
            pooled = _pool(self.pooler, final)
        hidden = jnp.stack(states)
        if single:
            hidden, final = hidden[:, 0], final[0]
            scores = None if scores is None else scores[0]
            pooled = None if pooled is None else pooled[0]
        return Output(hidden_states=hidden, final=final, logits=scores, pooled=pooled)

    def tokenize(self, texts: Sequence[str], *, special_tokens: bool = True) -> Tokens:
        """Texts as the model's own tokenizer reads them; see `Tokenizer`.

        Raises:
          RequestError: a model that came from no checkpoint, and as `Tokenizer`.
        """
        if self.checkpoint is None:
            raise RequestError("the model came from no checkpoint, so it has no tokenizer")
        return Tokenizer(self.checkpoint)(texts, special_tokens=special_tokens)

    def layer_map(
        self, index: int, *, biases: bool = False, rotary: bool = False, alpha: float = 1.0
    ) -> MultiHead:
        """Layer ``index``, from 0, in stripped mode: see ``layer_stack``."""
        return self.layer(index).attention.as_map(biases=biases, rotary=rotary, alpha=alpha)

    def layer_stack(
        self, *, biases: bool = False, rotary: bool = False, alpha: float = 1.0
    ) -> LayerStack:
        """The layers in stripped mode: x <- normalize(x + alpha * Attention(x)), one after another.

        Attention has the layer's own weights, logit scale and mask; key-value heads that several
        heads share are repeated. Dropped are the embeddings, the feed-forward blocks and all
        norms: the l2 norm stands after the attention's residual connection.

        Args:
          biases: keep those of query, key, value and output; eq. (1) of arXiv 2605.25619 has none.
          rotary: keep rotary positions, in families that have them; eq. (1) has no positions.
          alpha: step size; 1 in the trained model.
        """
        return LayerStack.from_layers(
            [
                self.layer_map(index, biases=biases, rotary=rotary, alpha=alpha)
                for index in range(len(self.schedule))
            ]
        )

    def _arrays(self, ids: Any, present: Any, segments: Any) -> tuple[Array, Array, Array]:
        ids = jnp.asarray(ids)
        present = jnp.ones(ids.shape, bool) if present is None else jnp.asarray(present)
        segments = jnp.zeros_like(ids) if segments is None else jnp.asarray(segments)
        self._check(ids, present, segments)
        return ids, present, segments

    def _check(self, ids: Array, present: Array, segments: Array) -> None:
        shape = self.dimensions
        if ids.ndim not in (1, 2) or present.shape != ids.shape or segments.shape != ids.shape:
            raise RequestError(
                f"ids have shape {ids.shape}, present {present.shape} and segments "
                f"{segments.shape}; all must be (n,), or (batch, n) for several texts"
            )
        longest = ids.shape[-1] if shape.positions is None else shape.positions
        if not 1 <= ids.shape[-1] <= longest or ids.size == 0:
            raise RequestError(
                f"the text has {ids.shape[-1]} tokens; this model takes 1 to "
                f"{'any number' if shape.positions is None else shape.positions}"
            )
        if not is_concrete((ids, present, segments)):
            return
        for what, array, size in (
            ("token id", ids, shape.vocabulary),
            ("segment", segments, shape.segments),
        ):
            low, high = int(np.min(np.asarray(array))), int(np.max(np.asarray(array)))
            if low < 0 or high >= size:
                wrong = low if low < 0 else high
                raise RequestError(f"there is no {what} {wrong}; this model has 0 to {size - 1}")
        there = np.asarray(present)
        if not there.any(axis=-1).all():
            raise RequestError("a text consists of padding only; every text needs a token")
        if (there[..., 1:] & ~there[..., :-1]).any():
            raise RequestError("a text has padding before a token; pad texts at their end")


@nnx.jit
def _embed(embeddings: Any, ids: Array, segments: Array) -> Array:
    return jax.vmap(lambda *text: embeddings(*text))(ids, segments)


@nnx.jit
def _apply(block: Any, x: Array, present: Array) -> Array:
    return jax.vmap(lambda *text: block(*text))(x, present)


@nnx.jit
def _normalize(norm: Any, x: Array) -> Array:
    return jax.vmap(lambda text: norm(text))(x)


@nnx.jit
def _decode(head: Any, x: Array, table: Array) -> Array:
    return jax.vmap(lambda text: head(text, table))(x)


@nnx.jit
def _pool(pooler: Any, x: Array) -> Array:
    return jnp.tanh(pooler(x[:, 0]))

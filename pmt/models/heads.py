"""From the last state to logits over the vocabulary."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pmt.models.family import Parts, Rule, linear_rules, norm_rules
from pmt.models.layouts import TRANSPOSED
from pmt.models.mlp import ACTIVATIONS, linear
from pmt.models.norm import LayerNorm
from pmt.numerics import einsum


class Decode(nnx.Module):
    """logits = T x + b, with T the table of token embeddings or a table of its own.

    Attributes:
      table: ``(vocabulary, e)``, or None where it is tied to the embeddings.
      bias: ``(vocabulary,)`` or None.
    """

    def __init__(
        self, e: int, vocabulary: int, *, tied: bool, bias: bool, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        init = nnx.initializers.normal(0.02)
        self.table = None if tied else nnx.Param(init(rngs.params(), (vocabulary, e), dtype))
        self.bias = nnx.Param(jnp.zeros(vocabulary, dtype)) if bias else None

    @classmethod
    def of(cls, config: Any, parts: Parts, *, dtype: Any, rngs: nnx.Rngs) -> "Decode | None":
        """The head of a decoder: tied, or with a table of its own, or none in the checkpoint."""
        tied, sizes = config.tie_word_embeddings, config.dimensions
        if not tied and "head" not in parts:
            return None
        return cls(sizes.d, sizes.vocabulary, tied=tied, bias=False, dtype=dtype, rngs=rngs)

    @staticmethod
    def rules(stored: str, config: Any, parts: Parts) -> list[Rule]:
        """The rule for the head of a decoder, if it has a table of its own."""
        own = "head" in parts and not config.tie_word_embeddings
        return [Rule(stored, "head.table")] if own else []

    def __call__(
        self, x: Float[Array, "n e"], embeddings: Float[Array, "vocabulary e"]
    ) -> Float[Array, "n vocabulary"]:
        """The logits of every token."""
        table = embeddings if self.table is None else self.table[...]
        logits = einsum("ne,ve->nv", x, table)
        return logits if self.bias is None else logits + self.bias[...][None, :]


class MaskedLanguageHead(nnx.Module):
    """logits = T norm(activation(W x + c)) + b: the head of masked language models.

    Args:
      d: width of the model.
      e: width of the token embeddings, which W maps to.
    """

    def __init__(
        self,
        d: int,
        e: int,
        vocabulary: int,
        *,
        activation: str,
        epsilon: float,
        tied: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.activation = activation
        self.dense = linear(d, e, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(e, epsilon=epsilon, dtype=dtype)
        self.decode = Decode(e, vocabulary, tied=tied, bias=True, dtype=dtype, rngs=rngs)

    @staticmethod
    def rules(
        dense: str, norm: str, bias: str, decoder: str, config: Any, parts: Parts
    ) -> list[Rule]:
        """The rules of the head, if the checkpoint has it; else none.

        A decoder that is not tied may have a bias of its own, the optional part
        ``"decoder_bias"``; the other one is then not used.
        """
        if "head" not in parts:
            return []
        own = "decoder_bias" in parts
        rules = [
            *linear_rules(dense, "head.dense", TRANSPOSED),
            *norm_rules(norm, "head.norm"),
            Rule(f"{decoder}.bias" if own else bias, "head.decode.bias"),
        ]
        if not config.tie_word_embeddings:
            rules.append(Rule(f"{decoder}.weight", "head.decode.table"))
        return rules

    def __call__(
        self, x: Float[Array, "n d"], embeddings: Float[Array, "vocabulary e"]
    ) -> Float[Array, "n vocabulary"]:
        """The logits of every token."""
        hidden = self.norm(ACTIVATIONS[self.activation](self.dense(x)))
        return self.decode(hidden, embeddings)

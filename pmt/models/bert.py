"""BERT, the post-norm encoder of Devlin et al. (arXiv 1810.04805), and its checkpoints' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float, Int

from pmt.attention import Boolean
from pmt.checkpoints import Checkpoint
from pmt.dynamics import LayerStack
from pmt.errors import RequestError
from pmt.models.attention import SelfAttention
from pmt.models.config import (
    HARMLESS,
    build_config,
    require_positive,
)
from pmt.models.loading import INTO_HEADS, OUT_OF_HEADS, TRANSPOSED, Rule
from pmt.models.mlp import ACTIVATIONS, Mlp, linear
from pmt.models.norm import LayerNorm
from pmt.numerics import AnyArray


@dataclass(frozen=True)
class BertConfig:
    """The attributes of config.json that change what BERT computes, under their names there.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width,
        an activation that is not known.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "layer_norm_eps",
        )
        if self.hidden_size % self.num_attention_heads:
            raise RequestError(
                f"{self.num_attention_heads} attention heads do not divide the width "
                f"{self.hidden_size}; the config is not that of a BERT"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise RequestError(
                f"hidden_act is {self.hidden_act!r}; supported are {', '.join(ACTIVATIONS)}"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "BertConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            # Dropout is off outside of training, and chunking is a matter of memory.
            harmless=HARMLESS
            | {
                "attention_probs_dropout_prob",
                "chunk_size_feed_forward",
                "classifier_dropout",
                "directionality",
                "hidden_dropout_prob",
                "pooler_fc_size",
                "pooler_num_attention_heads",
                "pooler_num_fc_layers",
                "pooler_size_per_head",
                "pooler_type",
            },
            only={
                "position_embedding_type": ("absolute",),
                "is_decoder": (False,),
                "is_encoder_decoder": (False,),
                "add_cross_attention": (False,),
                "cross_attention_hidden_size": (None,),
                "pruned_heads": ({},),
                "quantization_config": (None,),
            },
        )


@register_dataclass
@dataclass(frozen=True)
class BertOutput:
    """What a call returns; ``*batch`` is the leading axis of the tokens' ids, if there is one.

    Attributes:
      hidden_states: after the embeddings and after every layer.
      pooled: tanh(W x_1 + b) of the first token, or None for a checkpoint without a pooler.
    """

    hidden_states: Float[Array, "layers_1 *batch n d"]
    pooled: Float[Array, "*batch d"] | None


class Embeddings(nnx.Module):
    """LayerNorm(token + position + segment)."""

    def __init__(self, config: BertConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> nnx.Embed:
            init = nnx.initializers.normal(0.02)
            return nnx.Embed(
                rows, config.hidden_size, embedding_init=init, param_dtype=dtype, rngs=rngs
            )

        self.token = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.segment = table(config.type_vocab_size)
        self.norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, dtype=dtype)

    def __call__(self, ids: Int[Array, "n"], segments: Int[Array, "n"]) -> Float[Array, "n d"]:
        """The initial state of a text."""
        positions = self.position.embedding[...][: ids.shape[0]]
        return self.norm(self.token(ids) + self.segment(segments) + positions)


class Layer(nnx.Module):
    """x <- LayerNorm(x + Attention(x)), x <- LayerNorm(x + Mlp(x))."""

    def __init__(self, config: BertConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        d, head_dim = config.hidden_size, config.hidden_size // config.num_attention_heads
        self.attention = SelfAttention(
            d,
            config.num_attention_heads,
            head_dim=head_dim,
            scale=1.0 / sqrt(head_dim),
            dtype=dtype,
            rngs=rngs,
        )
        self.attention_norm = LayerNorm(d, epsilon=config.layer_norm_eps, dtype=dtype)
        self.mlp = Mlp(
            d, config.intermediate_size, activation=config.hidden_act, dtype=dtype, rngs=rngs
        )
        self.mlp_norm = LayerNorm(d, epsilon=config.layer_norm_eps, dtype=dtype)

    def __call__(self, x: Float[Array, "n d"], mask: Any) -> Float[Array, "n d"]:
        """The next state of a text."""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.mlp_norm(x + self.mlp(x))


class Bert(nnx.Module):
    """The encoder: embeddings, layers and, if the checkpoint has one, the pooler.

    Attributes:
      config: what it was built from.
      checkpoint: the files its weights come from, or None.
    """

    family = "bert"

    def __init__(
        self,
        config: BertConfig,
        *,
        pooler: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.embeddings = Embeddings(config, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(
            Layer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)
        )
        d = config.hidden_size
        self.pooler = linear(d, d, dtype=dtype, rngs=rngs) if pooler else None

    def __call__(
        self,
        ids: Int[AnyArray, "..."],
        *,
        present: Bool[AnyArray, "..."] | None = None,
        segments: Int[AnyArray, "..."] | None = None,
    ) -> BertOutput:
        """All hidden states of one text, ``(n,)``, or of several padded to one length.

        Args:
          ids: token ids, special tokens included.
          present: False for padding, which no token attends to; all True if None.
          segments: segment of each token; all 0 if None.

        Raises:
          RequestError: ids outside the vocabulary, texts that are empty or longer than the
            position embeddings reach, segments that do not exist, shapes that differ.
        """
        ids = jnp.asarray(ids)
        present = jnp.ones(ids.shape, bool) if present is None else jnp.asarray(present)
        segments = jnp.zeros_like(ids) if segments is None else jnp.asarray(segments)
        self._check(ids, present, segments)
        return _forward(self, ids, present, segments)

    def layer_stack(self, *, biases: bool = False, alpha: float = 1.0) -> LayerStack:
        """The layers in stripped mode: x <- normalize(x + alpha * Attention(x)), one after another.

        No embedding, no feed-forward block; the l2 norm takes the place of the layer norm after
        attention.

        Args:
          biases: keep those of query, key, value and output; eq. (1) of arXiv 2605.25619 has none.
          alpha: step size; 1 in the trained model.
        """
        return LayerStack.from_layers(
            [layer.attention.as_map(biases=biases, alpha=alpha) for layer in self.layers]
        )

    def _check(self, ids: Array, present: Array, segments: Array) -> None:
        if ids.ndim not in (1, 2) or present.shape != ids.shape or segments.shape != ids.shape:
            raise RequestError(
                f"ids have shape {ids.shape}, present {present.shape} and segments "
                f"{segments.shape}; all must be (n,), or (batch, n) for several texts"
            )
        if not 1 <= ids.shape[-1] <= self.config.max_position_embeddings:
            raise RequestError(
                f"the text has {ids.shape[-1]} tokens; this model takes 1 to "
                f"{self.config.max_position_embeddings}"
            )
        if any(isinstance(array, jax.core.Tracer) for array in (ids, present, segments)):
            return
        for what, array, size in (
            ("token id", ids, self.config.vocab_size),
            ("segment", segments, self.config.type_vocab_size),
        ):
            low, high = int(np.min(np.asarray(array))), int(np.max(np.asarray(array)))
            if low < 0 or high >= size:
                wrong = low if low < 0 else high
                raise RequestError(f"there is no {what} {wrong}; this model has 0 to {size - 1}")
        if not np.asarray(present).any(axis=-1).all():
            raise RequestError("a text consists of padding only; every text needs a token")


@nnx.jit
def _forward(model: Bert, ids: Array, present: Array, segments: Array) -> BertOutput:
    if ids.ndim == 2:
        states, pooled = jax.vmap(lambda *text: _forward_one(model, *text), out_axes=(1, 0))(
            ids, present, segments
        )
    else:
        states, pooled = _forward_one(model, ids, present, segments)
    return BertOutput(hidden_states=states, pooled=pooled if model.pooler is not None else None)


def _forward_one(
    model: Bert, ids: Int[Array, "n"], present: Bool[Array, "n"], segments: Int[Array, "n"]
) -> tuple[Float[Array, "layers_1 n d"], Float[Array, "d"]]:
    mask = Boolean(jnp.broadcast_to(present[None, :], (ids.shape[0], ids.shape[0])))
    states = [model.embeddings(ids, segments)]
    for layer in model.layers:
        states.append(layer(states[-1], mask))
    first = states[-1][0]
    return jnp.stack(states), first if model.pooler is None else jnp.tanh(model.pooler(first))


PREFIX = "bert."

# A torch Linear stores (out, in), and Q, K, V of all heads one below the other.
TABLE = (
    Rule("embeddings.word_embeddings.weight", "embeddings.token.embedding"),
    Rule("embeddings.position_embeddings.weight", "embeddings.position.embedding"),
    Rule("embeddings.token_type_embeddings.weight", "embeddings.segment.embedding"),
    Rule("embeddings.LayerNorm.weight", "embeddings.norm.scale"),
    Rule("embeddings.LayerNorm.bias", "embeddings.norm.bias"),
    *(
        rule
        for name in ("query", "key", "value")
        for rule in (
            Rule(
                f"encoder.layer.{{}}.attention.self.{name}.weight",
                f"layers.{{}}.attention.{name}",
                INTO_HEADS,
            ),
            Rule(
                f"encoder.layer.{{}}.attention.self.{name}.bias",
                f"layers.{{}}.attention.{name}_bias",
                INTO_HEADS,
            ),
        )
    ),
    Rule(
        "encoder.layer.{}.attention.output.dense.weight",
        "layers.{}.attention.output",
        OUT_OF_HEADS,
    ),
    Rule("encoder.layer.{}.attention.output.dense.bias", "layers.{}.attention.output_bias"),
    Rule("encoder.layer.{}.attention.output.LayerNorm.weight", "layers.{}.attention_norm.scale"),
    Rule("encoder.layer.{}.attention.output.LayerNorm.bias", "layers.{}.attention_norm.bias"),
    Rule("encoder.layer.{}.intermediate.dense.weight", "layers.{}.mlp.up.kernel", TRANSPOSED),
    Rule("encoder.layer.{}.intermediate.dense.bias", "layers.{}.mlp.up.bias"),
    Rule("encoder.layer.{}.output.dense.weight", "layers.{}.mlp.down.kernel", TRANSPOSED),
    Rule("encoder.layer.{}.output.dense.bias", "layers.{}.mlp.down.bias"),
    Rule("encoder.layer.{}.output.LayerNorm.weight", "layers.{}.mlp_norm.scale"),
    Rule("encoder.layer.{}.output.LayerNorm.bias", "layers.{}.mlp_norm.bias"),
)

POOLER = (
    Rule("pooler.dense.weight", "pooler.kernel", TRANSPOSED),
    Rule("pooler.dense.bias", "pooler.bias"),
)

IGNORED: Mapping[str, str] = MappingProxyType(
    {
        r"embeddings\.position_ids": "a buffer that holds 0, 1, 2, ...",
        r"embeddings\.token_type_ids": "a buffer that holds zeros",
        r"cls\..*": "the heads of pretraining are not part of the encoder",
        r"classifier\..*": "the head of a classifier is not part of the encoder",
        r"qa_outputs\..*": "the head of a question answerer is not part of the encoder",
    }
)

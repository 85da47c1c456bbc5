"""BERT, the post-norm encoder of Devlin et al. (arXiv 1810.04805), and its checkpoints' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any

from flax import nnx

from pmt.models.attention import SelfAttention
from pmt.models.blocks import PostNormBlock
from pmt.models.config import (
    Dimensions,
    build_config,
    require_divides,
    require_known,
    require_positive,
)
from pmt.models.embeddings import Embeddings
from pmt.models.family import GAMMA_BETA, Family, Parts, Rule, linear_rules, norm_rules
from pmt.models.heads import MaskedLanguageHead
from pmt.models.layouts import INTO_HEADS, OUT_OF_HEADS, TRANSPOSED
from pmt.models.mlp import ACTIVATIONS, Mlp, linear
from pmt.models.norm import LayerNorm
from pmt.models.transformer import Transformer

# Dropout is off outside of training, and chunking is a matter of memory.
UNUSED = frozenset(
    {
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
    }
)


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
    tie_word_embeddings: bool = True

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
        require_divides(self.num_attention_heads, self.hidden_size)
        require_known("hidden_act", self.hidden_act, ACTIVATIONS)

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return Dimensions(
            d=self.hidden_size,
            heads=self.num_attention_heads,
            key_value_heads=self.num_attention_heads,
            head_dim=self.hidden_size // self.num_attention_heads,
            layers=self.num_hidden_layers,
            vocabulary=self.vocab_size,
            segments=self.type_vocab_size,
            positions=self.max_position_embeddings,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "BertConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            harmless=UNUSED,
            only={"position_embedding_type": ("absolute",)},
        )


def block(config: BertConfig, *, dtype: Any, rngs: nnx.Rngs) -> PostNormBlock:
    """One layer."""
    d, sizes = config.hidden_size, config.dimensions
    return PostNormBlock(
        SelfAttention(
            d,
            sizes.heads,
            head_dim=sizes.head_dim,
            scale=1.0 / sqrt(sizes.head_dim),
            dtype=dtype,
            rngs=rngs,
        ),
        LayerNorm(d, epsilon=config.layer_norm_eps, dtype=dtype),
        Mlp(d, config.intermediate_size, activation=config.hidden_act, dtype=dtype, rngs=rngs),
        LayerNorm(d, epsilon=config.layer_norm_eps, dtype=dtype),
    )


def build_encoder(
    family: str,
    config: BertConfig,
    parts: Parts,
    *,
    padding_index: int | None = None,
    head_activation: str | None = None,
    dtype: Any,
    rngs: nnx.Rngs,
) -> Transformer:
    """The encoder of BERT or RoBERTa; optional parts are ``"pooler"`` and ``"head"``."""
    d = config.hidden_size
    head = None
    if "head" in parts:
        head = MaskedLanguageHead(
            d,
            d,
            config.vocab_size,
            activation=head_activation or config.hidden_act,
            epsilon=config.layer_norm_eps,
            tied=config.tie_word_embeddings,
            dtype=dtype,
            rngs=rngs,
        )
    return Transformer(
        family=family,
        config=config,
        parts=parts,
        embeddings=Embeddings(
            config.vocab_size,
            d,
            positions=config.max_position_embeddings,
            segments=config.type_vocab_size,
            epsilon=config.layer_norm_eps,
            padding_index=padding_index,
            dtype=dtype,
            rngs=rngs,
        ),
        blocks=[block(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)],
        head=head,
        pooler=linear(d, d, dtype=dtype, rngs=rngs) if "pooler" in parts else None,
    )


def build(config: BertConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """BERT; its head is that for masked tokens."""
    return build_encoder("bert", config, parts, dtype=dtype, rngs=rngs)


def encoder_rules(prefix: str, config: BertConfig, parts: Parts) -> list[Rule]:
    """The tensor names of all but the head, which RoBERTa has with another prefix."""
    embeddings = f"{prefix}embeddings"
    rules = [
        Rule(f"{embeddings}.word_embeddings.weight", "embeddings.token.embedding"),
        Rule(f"{embeddings}.position_embeddings.weight", "embeddings.position.embedding"),
        Rule(f"{embeddings}.token_type_embeddings.weight", "embeddings.segment.embedding"),
        *norm_rules(f"{embeddings}.LayerNorm", "embeddings.norm"),
    ]
    for i in range(config.num_hidden_layers):
        stored, block = f"{prefix}encoder.layer.{i}", f"blocks.{i}"
        for name in ("query", "key", "value"):
            base = f"{stored}.attention.self.{name}"
            rules += [
                Rule(f"{base}.weight", f"{block}.attention.{name}", INTO_HEADS),
                Rule(f"{base}.bias", f"{block}.attention.{name}_bias", INTO_HEADS),
            ]
        dense = f"{stored}.attention.output.dense"
        rules += [
            Rule(f"{dense}.weight", f"{block}.attention.output", OUT_OF_HEADS),
            Rule(f"{dense}.bias", f"{block}.attention.output_bias"),
            *norm_rules(f"{stored}.attention.output.LayerNorm", f"{block}.attention_norm"),
            *linear_rules(f"{stored}.intermediate.dense", f"{block}.mlp.up", TRANSPOSED),
            *linear_rules(f"{stored}.output.dense", f"{block}.mlp.down", TRANSPOSED),
            *norm_rules(f"{stored}.output.LayerNorm", f"{block}.mlp_norm"),
        ]
    if "pooler" in parts:
        rules += linear_rules(f"{prefix}pooler.dense", "pooler", TRANSPOSED)
    return rules


def table(config: BertConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``BertForPreTraining``."""
    return encoder_rules("bert.", config, parts) + MaskedLanguageHead.rules(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder",
        config,
        parts,
    )


# What checkpoints of encoders hold besides; none of it changes what is computed here.
BUFFERS: Mapping[str, str] = MappingProxyType(
    {
        r"embeddings\.position_ids": "a buffer that holds 0, 1, 2, ...",
        r"embeddings\.token_type_ids": "a buffer that holds zeros",
    }
)
OTHER_HEADS: Mapping[str, str] = MappingProxyType(
    {
        r"classifier\..*": "the head of a classifier is not part of the encoder",
        r"qa_outputs\..*": "the head of a question answerer is not part of the encoder",
    }
)

FAMILY = Family(
    name="bert",
    architecture="BertForPreTraining",
    read_config=BertConfig.from_dict,
    build=build,
    table=table,
    prefix="bert.",
    parts={
        "pooler": "bert.pooler.dense.weight",
        "head": "cls.predictions.transform.dense.weight",
        "decoder_bias": "cls.predictions.decoder.bias",
    },
    ties=lambda config: (
        {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
        if config.tie_word_embeddings
        else {}
    ),
    ignored={
        **BUFFERS,
        r"cls\.predictions\.bias": "the decoder has a bias of its own",
        r"cls\.seq_relationship\..*": "the head of next-sentence prediction is not used",
        **OTHER_HEADS,
    },
    spellings=GAMMA_BETA,
)

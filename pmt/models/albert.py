"""ALBERT (arXiv 1909.11942): few blocks, each applied many times, and narrow embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from flax import nnx

from pmt.errors import RequestError
from pmt.models.attention import SelfAttention
from pmt.models.bert import BUFFERS, OTHER_HEADS
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


@dataclass(frozen=True)
class AlbertConfig:
    """The attributes of config.json that change what ALBERT computes, under their names there.

    The ``num_hidden_layers`` are dealt out to ``num_hidden_groups`` in order; all layers of a group
    apply the same ``inner_group_num`` blocks. All published models have one of each.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width,
        more groups than layers, an activation that is not known.
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "embedding_size",
            "hidden_size",
            "num_hidden_layers",
            "num_hidden_groups",
            "inner_group_num",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "layer_norm_eps",
        )
        require_divides(self.num_attention_heads, self.hidden_size)
        require_known("hidden_act", self.hidden_act, ACTIVATIONS)
        if self.num_hidden_groups > self.num_hidden_layers:
            raise RequestError(
                f"the config has {self.num_hidden_groups} groups for {self.num_hidden_layers} "
                "layers; every group needs a layer"
            )

    @property
    def schedule(self) -> tuple[int, ...]:
        """The block that is applied at each layer, group by group."""
        # In floating point, as the reference implementation divides.
        layers_per_group = self.num_hidden_layers / self.num_hidden_groups
        return tuple(
            int(layer / layers_per_group) * self.inner_group_num + inner
            for layer in range(self.num_hidden_layers)
            for inner in range(self.inner_group_num)
        )

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return Dimensions(
            d=self.hidden_size,
            heads=self.num_attention_heads,
            key_value_heads=self.num_attention_heads,
            head_dim=self.hidden_size // self.num_attention_heads,
            layers=self.num_hidden_layers * self.inner_group_num,
            vocabulary=self.vocab_size,
            segments=self.type_vocab_size,
            positions=self.max_position_embeddings,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "AlbertConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            # Dropout is off outside of training.
            harmless={
                "attention_probs_dropout_prob",
                "classifier_dropout_prob",
                "hidden_dropout_prob",
            },
            only={
                "down_scale_factor": (1,),
                "gap_size": (0,),
                "layers_to_keep": ([],),
                "net_structure_type": (0,),
                "num_memory_blocks": (0,),
                "position_embedding_type": ("absolute",),
            },
        )


def build(config: AlbertConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The encoder; its optional parts are ``"pooler"`` and ``"head"``, for masked tokens."""
    d, epsilon, sizes = config.hidden_size, config.layer_norm_eps, config.dimensions

    def block() -> PostNormBlock:
        return PostNormBlock(
            SelfAttention(
                d,
                sizes.heads,
                head_dim=sizes.head_dim,
                scale=1.0 / sqrt(sizes.head_dim),
                dtype=dtype,
                rngs=rngs,
            ),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
            Mlp(d, config.intermediate_size, activation=config.hidden_act, dtype=dtype, rngs=rngs),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
        )

    head = None
    if "head" in parts:
        head = MaskedLanguageHead(
            d,
            config.embedding_size,
            config.vocab_size,
            activation=config.hidden_act,
            epsilon=epsilon,
            tied=config.tie_word_embeddings,
            dtype=dtype,
            rngs=rngs,
        )
    return Transformer(
        family="albert",
        config=config,
        parts=parts,
        embeddings=Embeddings(
            config.vocab_size,
            config.embedding_size,
            positions=config.max_position_embeddings,
            segments=config.type_vocab_size,
            epsilon=epsilon,
            project_to=d,
            dtype=dtype,
            rngs=rngs,
        ),
        blocks=[block() for _ in range(config.num_hidden_groups * config.inner_group_num)],
        schedule=config.schedule,
        head=head,
        pooler=linear(d, d, dtype=dtype, rngs=rngs) if "pooler" in parts else None,
    )


def table(config: AlbertConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``AlbertForPreTraining``."""
    embeddings = "albert.embeddings"
    mapping = "albert.encoder.embedding_hidden_mapping_in"
    rules = [
        Rule(f"{embeddings}.word_embeddings.weight", "embeddings.token.embedding"),
        Rule(f"{embeddings}.position_embeddings.weight", "embeddings.position.embedding"),
        Rule(f"{embeddings}.token_type_embeddings.weight", "embeddings.segment.embedding"),
        *norm_rules(f"{embeddings}.LayerNorm", "embeddings.norm"),
        *linear_rules(mapping, "embeddings.project", TRANSPOSED),
    ]
    for group in range(config.num_hidden_groups):
        for inner in range(config.inner_group_num):
            stored = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
            block = f"blocks.{group * config.inner_group_num + inner}"
            for name in ("query", "key", "value"):
                base, parameter = f"{stored}.attention.{name}", f"{block}.attention.{name}"
                rules += [
                    Rule(f"{base}.weight", parameter, INTO_HEADS),
                    Rule(f"{base}.bias", f"{parameter}_bias", INTO_HEADS),
                ]
            rules += [
                Rule(f"{stored}.attention.dense.weight", f"{block}.attention.output", OUT_OF_HEADS),
                Rule(f"{stored}.attention.dense.bias", f"{block}.attention.output_bias"),
                *norm_rules(f"{stored}.attention.LayerNorm", f"{block}.attention_norm"),
                *linear_rules(f"{stored}.ffn", f"{block}.mlp.up", TRANSPOSED),
                *linear_rules(f"{stored}.ffn_output", f"{block}.mlp.down", TRANSPOSED),
                *norm_rules(f"{stored}.full_layer_layer_norm", f"{block}.mlp_norm"),
            ]
    if "pooler" in parts:
        rules += linear_rules("albert.pooler", "pooler", TRANSPOSED)
    return rules + MaskedLanguageHead.rules(
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.bias",
        "predictions.decoder",
        config,
        parts,
    )


FAMILY = Family(
    name="albert",
    architecture="AlbertForPreTraining",
    read_config=AlbertConfig.from_dict,
    build=build,
    table=table,
    prefix="albert.",
    parts={
        "pooler": "albert.pooler.weight",
        "head": "predictions.dense.weight",
        "decoder_bias": "predictions.decoder.bias",
    },
    ties=lambda config: (
        {
            "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
            "predictions.decoder.bias": "predictions.bias",
        }
        if config.tie_word_embeddings
        else {}
    ),
    ignored={
        **BUFFERS,
        **OTHER_HEADS,
        r"predictions\.bias": "the decoder has a bias of its own",
        r"sop_classifier\..*": "the head of sentence order is not used",
    },
    spellings=GAMMA_BETA,
)

"""DistilBERT (arXiv 1910.01108): BERT's layers under other names, without segments."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from flax import nnx

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
from pmt.models.mlp import ACTIVATIONS, Mlp
from pmt.models.norm import LayerNorm
from pmt.models.transformer import Transformer

# No attribute of the config: the reference implementation has it in its code.
EPSILON = 1e-12


@dataclass(frozen=True)
class DistilBertConfig:
    """The attributes of config.json that change what DistilBERT computes, under their names there.

    Whether positions are sinusoidal says only how they were initialised: they are stored.

    Raises:
      RequestError: sizes that are not positive, heads that do not divide the width, an activation
        that is not known.
    """

    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    max_position_embeddings: int = 512
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "dim",
            "n_layers",
            "n_heads",
            "hidden_dim",
            "max_position_embeddings",
        )
        require_divides(self.n_heads, self.dim)
        require_known("activation", self.activation, ACTIVATIONS)

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return Dimensions(
            d=self.dim,
            heads=self.n_heads,
            key_value_heads=self.n_heads,
            head_dim=self.dim // self.n_heads,
            layers=self.n_layers,
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "DistilBertConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            # Dropout is off outside of training.
            harmless={
                "attention_dropout",
                "dropout",
                "qa_dropout",
                "seq_classif_dropout",
                "sinusoidal_pos_embds",
            },
        )


def build(config: DistilBertConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The encoder; its optional part is ``"head"``, for masked tokens."""
    d, sizes = config.dim, config.dimensions

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
            LayerNorm(d, epsilon=EPSILON, dtype=dtype),
            Mlp(d, config.hidden_dim, activation=config.activation, dtype=dtype, rngs=rngs),
            LayerNorm(d, epsilon=EPSILON, dtype=dtype),
        )

    head = None
    if "head" in parts:
        head = MaskedLanguageHead(
            d,
            d,
            config.vocab_size,
            activation=config.activation,
            epsilon=EPSILON,
            tied=config.tie_word_embeddings,
            dtype=dtype,
            rngs=rngs,
        )
    return Transformer(
        family="distilbert",
        config=config,
        parts=parts,
        embeddings=Embeddings(
            config.vocab_size,
            d,
            positions=config.max_position_embeddings,
            epsilon=EPSILON,
            dtype=dtype,
            rngs=rngs,
        ),
        blocks=[block() for _ in range(config.n_layers)],
        head=head,
    )


def table(config: DistilBertConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``DistilBertForMaskedLM``."""
    embeddings = "distilbert.embeddings"
    rules = [
        Rule(f"{embeddings}.word_embeddings.weight", "embeddings.token.embedding"),
        Rule(f"{embeddings}.position_embeddings.weight", "embeddings.position.embedding"),
        *norm_rules(f"{embeddings}.LayerNorm", "embeddings.norm"),
    ]
    for i in range(config.n_layers):
        stored, block = f"distilbert.transformer.layer.{i}", f"blocks.{i}"
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            base, parameter = f"{stored}.attention.{short}_lin", f"{block}.attention.{name}"
            rules += [
                Rule(f"{base}.weight", parameter, INTO_HEADS),
                Rule(f"{base}.bias", f"{parameter}_bias", INTO_HEADS),
            ]
        rules += [
            Rule(f"{stored}.attention.out_lin.weight", f"{block}.attention.output", OUT_OF_HEADS),
            Rule(f"{stored}.attention.out_lin.bias", f"{block}.attention.output_bias"),
            *norm_rules(f"{stored}.sa_layer_norm", f"{block}.attention_norm"),
            *linear_rules(f"{stored}.ffn.lin1", f"{block}.mlp.up", TRANSPOSED),
            *linear_rules(f"{stored}.ffn.lin2", f"{block}.mlp.down", TRANSPOSED),
            *norm_rules(f"{stored}.output_layer_norm", f"{block}.mlp_norm"),
        ]
    return rules + MaskedLanguageHead.rules(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.bias",
        "vocab_projector",
        config,
        parts,
    )


FAMILY = Family(
    name="distilbert",
    architecture="DistilBertForMaskedLM",
    read_config=DistilBertConfig.from_dict,
    build=build,
    table=table,
    prefix="distilbert.",
    parts={"head": "vocab_transform.weight"},
    ties=lambda config: (
        {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
        if config.tie_word_embeddings
        else {}
    ),
    ignored={
        **BUFFERS,
        **OTHER_HEADS,
        r"pre_classifier\..*": "the head of a classifier is not part of the encoder",
    },
    spellings=GAMMA_BETA,
)

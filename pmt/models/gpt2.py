"""GPT-2 (Radford et al., 2019): a pre-norm decoder; weights stored as Conv1D, (in, out)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from flax import nnx

from pmt.models.attention import SelfAttention
from pmt.models.blocks import PreNormBlock
from pmt.models.config import (
    Dimensions,
    build_config,
    require_divides,
    require_known,
    require_positive,
)
from pmt.models.embeddings import Embeddings
from pmt.models.family import Family, Parts, Rule, linear_rules, norm_rules
from pmt.models.heads import Decode
from pmt.models.layouts import AS_IS, CONV_OUT_OF_HEADS, conv_part
from pmt.models.mlp import ACTIVATIONS, Mlp
from pmt.models.norm import LayerNorm
from pmt.models.transformer import Transformer


@dataclass(frozen=True)
class Gpt2Config:
    """The attributes of config.json that change what GPT-2 computes, under their names there.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width,
        an activation that is not known.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "n_positions",
            "n_embd",
            "n_layer",
            "n_head",
            "inner",
            "layer_norm_epsilon",
        )
        require_divides(self.n_head, self.n_embd)
        require_known("activation_function", self.activation_function, ACTIVATIONS)

    @property
    def inner(self) -> int:
        """Width of the feed-forward blocks: ``n_inner``, or four times that of the model."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return Dimensions(
            d=self.n_embd,
            heads=self.n_head,
            key_value_heads=self.n_head,
            head_dim=self.n_embd // self.n_head,
            layers=self.n_layer,
            vocabulary=self.vocab_size,
            positions=self.n_positions,
        )

    def scale(self, layer: int) -> float:
        """The logit scale of a layer, counted from 0."""
        scale = 1.0 / sqrt(self.dimensions.head_dim) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Gpt2Config":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            # Dropout is off outside of training; upcasting changes rounding only; summaries belong
            # to heads that are not read, and the special tokens to the tokenizer.
            harmless={
                "attn_pdrop",
                "embd_pdrop",
                "n_ctx",
                "n_special",
                "predict_special_tokens",
                "reorder_and_upcast_attn",
                "resid_pdrop",
                "summary_activation",
                "summary_first_dropout",
                "summary_proj_to_labels",
                "summary_type",
                "summary_use_proj",
            },
        )


def build(config: Gpt2Config, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The decoder; its optional part is ``"head"``, where the output table is not tied."""
    d, epsilon, sizes = config.n_embd, config.layer_norm_epsilon, config.dimensions

    def block(layer: int) -> PreNormBlock:
        return PreNormBlock(
            SelfAttention(
                d,
                sizes.heads,
                head_dim=sizes.head_dim,
                scale=config.scale(layer),
                causal=True,
                dtype=dtype,
                rngs=rngs,
            ),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
            Mlp(d, config.inner, activation=config.activation_function, dtype=dtype, rngs=rngs),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
        )

    return Transformer(
        family="gpt2",
        config=config,
        parts=parts,
        embeddings=Embeddings(
            config.vocab_size, d, positions=config.n_positions, dtype=dtype, rngs=rngs
        ),
        blocks=[block(layer) for layer in range(config.n_layer)],
        final_norm=LayerNorm(d, epsilon=epsilon, dtype=dtype),
        head=Decode.of(config, parts, dtype=dtype, rngs=rngs),
    )


def table(config: Gpt2Config, parts: Parts) -> list[Rule]:
    """Tensor names of ``GPT2LMHeadModel``."""
    rules = [
        Rule("transformer.wte.weight", "embeddings.token.embedding"),
        Rule("transformer.wpe.weight", "embeddings.position.embedding"),
        *norm_rules("transformer.ln_f", "final_norm"),
    ]
    for i in range(config.n_layer):
        stored, block = f"transformer.h.{i}", f"blocks.{i}"
        for part, name in enumerate(("query", "key", "value")):
            rules += [
                Rule(f"{stored}.attn.c_attn.weight", f"{block}.attention.{name}", conv_part(part)),
                Rule(
                    f"{stored}.attn.c_attn.bias", f"{block}.attention.{name}_bias", conv_part(part)
                ),
            ]
        rules += [
            Rule(f"{stored}.attn.c_proj.weight", f"{block}.attention.output", CONV_OUT_OF_HEADS),
            Rule(f"{stored}.attn.c_proj.bias", f"{block}.attention.output_bias"),
            *norm_rules(f"{stored}.ln_1", f"{block}.attention_norm"),
            *norm_rules(f"{stored}.ln_2", f"{block}.mlp_norm"),
            *linear_rules(f"{stored}.mlp.c_fc", f"{block}.mlp.up", AS_IS),
            *linear_rules(f"{stored}.mlp.c_proj", f"{block}.mlp.down", AS_IS),
        ]
    return rules + Decode.rules("lm_head.weight", config, parts)


FAMILY = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    read_config=Gpt2Config.from_dict,
    build=build,
    table=table,
    prefix="transformer.",
    parts={"head": "lm_head.weight"},
    ties=lambda config: (
        {"lm_head.weight": "transformer.wte.weight"} if config.tie_word_embeddings else {}
    ),
    ignored={
        r"h\.\d+\.attn\.(masked_)?bias": "a buffer that holds the causal mask",
        r"score\.weight": "the head of a classifier is not part of the decoder",
    },
)

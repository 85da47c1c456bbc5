"""GPT-NeoX (arXiv 2204.06745) and Pythia: parallel residual branches, partly rotary positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from flax import nnx

from pmt.errors import RequestError
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
from pmt.models.layouts import OUT_OF_HEADS, TRANSPOSED, interleaved_part
from pmt.models.mlp import ACTIVATIONS, Mlp
from pmt.models.norm import LayerNorm
from pmt.models.rotary import RotaryFrequencies, take_rotary
from pmt.models.transformer import Transformer


@dataclass(frozen=True)
class GptNeoxConfig:
    """The attributes of config.json that change what GPT-NeoX computes, under their names there.

    ``rotary_pct`` is the part of a head's dimensions that is turned; newer configs call it
    ``partial_rotary_factor``.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width,
        an activation that is not known, a number of turned dimensions that is odd or too large.
    """

    vocab_size: int = 50432
    hidden_size: int = 6144
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    intermediate_size: int = 24576
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    rotary_pct: float = 0.25
    rope_theta: float = 10000.0
    rope_scaling: tuple = ("default",)
    attention_bias: bool = True
    use_parallel_residual: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "layer_norm_eps",
            "rotary_pct",
            "rope_theta",
        )
        require_divides(self.num_attention_heads, self.hidden_size)
        require_known("hidden_act", self.hidden_act, ACTIVATIONS)
        turned = self.turned
        if turned % 2 or not 0 < turned <= self.dimensions.head_dim:
            raise RequestError(
                f"rotary positions turn {turned} of the {self.dimensions.head_dim} dimensions of "
                f"a head (rotary_pct is {self.rotary_pct}); it must be an even number, at least 2"
            )

    @property
    def turned(self) -> int:
        """How many dimensions of a head rotary positions turn."""
        return int(self.dimensions.head_dim * self.rotary_pct)

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
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "GptNeoxConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        rest = dict(raw)
        if "rotary_emb_base" in rest:
            rest.setdefault("rope_theta", rest.pop("rotary_emb_base"))
            rest.pop("rotary_emb_base", None)
        rest, rotary = take_rotary(rest, "partial_rotary_factor")
        if "partial_rotary_factor" in rotary:
            rotary["rotary_pct"] = rotary.pop("partial_rotary_factor")
        return build_config(
            cls,
            rest | rotary,
            # Dropout is off outside of training; rotary positions bound no length.
            harmless={
                "attention_dropout",
                "classifier_dropout",
                "hidden_dropout",
                "max_position_embeddings",
            },
        )


def build(config: GptNeoxConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The decoder; its optional part is ``"head"``."""
    d, sizes = config.hidden_size, config.dimensions

    def norm() -> LayerNorm:
        return LayerNorm(d, epsilon=config.layer_norm_eps, dtype=dtype)

    def block() -> PreNormBlock:
        return PreNormBlock(
            SelfAttention(
                d,
                sizes.heads,
                head_dim=sizes.head_dim,
                scale=1.0 / sqrt(sizes.head_dim),
                causal=True,
                biases=config.attention_bias,
                output_bias=config.attention_bias,
                rotary=RotaryFrequencies(
                    config.turned // 2, config.rope_theta, config.rope_scaling
                ),
                dtype=dtype,
                rngs=rngs,
            ),
            norm(),
            Mlp(d, config.intermediate_size, activation=config.hidden_act, dtype=dtype, rngs=rngs),
            norm(),
            parallel=config.use_parallel_residual,
        )

    return Transformer(
        family="gpt_neox",
        config=config,
        parts=parts,
        embeddings=Embeddings(config.vocab_size, d, dtype=dtype, rngs=rngs),
        blocks=[block() for _ in range(config.num_hidden_layers)],
        final_norm=norm(),
        head=Decode.of(config, parts, dtype=dtype, rngs=rngs),
    )


def table(config: GptNeoxConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``GPTNeoXForCausalLM``."""
    rules = [
        Rule("gpt_neox.embed_in.weight", "embeddings.token.embedding"),
        *norm_rules("gpt_neox.final_layer_norm", "final_norm"),
    ]
    for i in range(config.num_hidden_layers):
        stored, block = f"gpt_neox.layers.{i}", f"blocks.{i}"
        fused, dense = f"{stored}.attention.query_key_value", f"{stored}.attention.dense"
        for part, name in enumerate(("query", "key", "value")):
            layout = interleaved_part(part)
            rules.append(Rule(f"{fused}.weight", f"{block}.attention.{name}", layout))
            if config.attention_bias:
                rules.append(Rule(f"{fused}.bias", f"{block}.attention.{name}_bias", layout))
        rules.append(Rule(f"{dense}.weight", f"{block}.attention.output", OUT_OF_HEADS))
        if config.attention_bias:
            rules.append(Rule(f"{dense}.bias", f"{block}.attention.output_bias"))
        rules += [
            *norm_rules(f"{stored}.input_layernorm", f"{block}.attention_norm"),
            *norm_rules(f"{stored}.post_attention_layernorm", f"{block}.mlp_norm"),
            *linear_rules(f"{stored}.mlp.dense_h_to_4h", f"{block}.mlp.up", TRANSPOSED),
            *linear_rules(f"{stored}.mlp.dense_4h_to_h", f"{block}.mlp.down", TRANSPOSED),
        ]
    return rules + Decode.rules("embed_out.weight", config, parts)


FAMILY = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    read_config=GptNeoxConfig.from_dict,
    build=build,
    table=table,
    prefix="gpt_neox.",
    parts={"head": "embed_out.weight"},
    ties=lambda config: (
        {"embed_out.weight": "gpt_neox.embed_in.weight"} if config.tie_word_embeddings else {}
    ),
    ignored={
        r"layers\.\d+\.attention\.(masked_)?bias": "a buffer that holds the causal mask",
        r"layers\.\d+\.attention\.rotary_emb\.inv_freq": "a buffer; the config says the same",
        r"rotary_emb\.inv_freq": "a buffer; the config says the same",
    },
)

"""Llama (arXiv 2302.13971) and its layout, which Mistral and Qwen2 share.

Pre-norm with RMSNorm, rotary positions, key-value heads shared by groups of heads, gated
feed-forward blocks.
"""

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
from pmt.models.layouts import INTO_HEADS, OUT_OF_HEADS, TRANSPOSED
from pmt.models.mlp import ACTIVATIONS, GatedMlp
from pmt.models.norm import RMSNorm
from pmt.models.rotary import RotaryFrequencies, take_rotary
from pmt.models.transformer import Transformer

# Dropout is off outside of training; rotary positions do not bound the length of a text.
UNUSED = frozenset({"attention_dropout", "max_position_embeddings", "pretraining_tp"})


@dataclass(frozen=True)
class LlamaConfig:
    """The attributes of config.json that change what Llama computes, under their names there.

    ``rope_theta`` and ``rope_scaling`` (as `RotaryFrequencies.scaling`) stand for all that a
    config may say of rotary positions, see `pmt.models.rotary.take_rotary`.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width
        or that their key-value heads do not divide, an odd head dimension, an activation that is
        not known.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: tuple = ("default",)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        check_grouped(self)

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return grouped_dimensions(self)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How far each layer looks back; None for all the way."""
        return (None,) * self.num_hidden_layers

    @property
    def biases(self) -> tuple[bool, bool, bool]:
        """Whether queries, keys and values, the output, and the feed-forward blocks have biases."""
        return self.attention_bias, self.attention_bias, self.mlp_bias

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "LlamaConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        rest, rotary = take_rotary(raw)
        return build_config(cls, rest | rotary, harmless=UNUSED)


def check_grouped(config: Any) -> None:
    """Refuse the config of a model of this layout that cannot be built.

    Raises:
      RequestError: see ``LlamaConfig``.
    """
    require_positive(
        config,
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rms_norm_eps",
        "rope_theta",
    )
    for name in ("num_key_value_heads", "head_dim"):
        if getattr(config, name, None) is not None:
            require_positive(config, name)
    if getattr(config, "head_dim", None) is None:
        require_divides(config.num_attention_heads, config.hidden_size)
    require_known("hidden_act", config.hidden_act, ACTIVATIONS)
    sizes = config.dimensions
    if sizes.heads % sizes.key_value_heads:
        raise RequestError(
            f"{sizes.heads} attention heads cannot share {sizes.key_value_heads} key-value heads "
            "evenly; check that the config is that of the checkpoint"
        )
    if sizes.head_dim % 2:
        raise RequestError(
            f"a head has {sizes.head_dim} dimensions; rotary positions need an even number"
        )


def grouped_dimensions(config: Any) -> Dimensions:
    """The sizes of a model of this layout under the names of every family."""
    heads, own = config.num_attention_heads, getattr(config, "head_dim", None)
    return Dimensions(
        d=config.hidden_size,
        heads=heads,
        key_value_heads=config.num_key_value_heads or heads,
        head_dim=own or config.hidden_size // heads,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
    )


def build_as(family: str) -> Any:
    """The builder for a family of this layout; its optional part is ``"head"``."""

    def build(config: Any, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
        d, sizes = config.hidden_size, config.dimensions
        inward, outward, feed_forward = config.biases

        def norm() -> RMSNorm:
            return RMSNorm(d, epsilon=config.rms_norm_eps, dtype=dtype)

        def block(window: int | None) -> PreNormBlock:
            return PreNormBlock(
                SelfAttention(
                    d,
                    sizes.heads,
                    head_dim=sizes.head_dim,
                    key_value_heads=sizes.key_value_heads,
                    scale=1.0 / sqrt(sizes.head_dim),
                    causal=True,
                    window=window,
                    biases=inward,
                    output_bias=outward,
                    rotary=RotaryFrequencies(
                        sizes.head_dim // 2, config.rope_theta, config.rope_scaling
                    ),
                    dtype=dtype,
                    rngs=rngs,
                ),
                norm(),
                GatedMlp(
                    d,
                    config.intermediate_size,
                    activation=config.hidden_act,
                    biases=feed_forward,
                    dtype=dtype,
                    rngs=rngs,
                ),
                norm(),
            )

        return Transformer(
            family=family,
            config=config,
            parts=parts,
            embeddings=Embeddings(config.vocab_size, d, dtype=dtype, rngs=rngs),
            blocks=[block(window) for window in config.windows],
            final_norm=norm(),
            head=Decode.of(config, parts, dtype=dtype, rngs=rngs),
        )

    return build


def table(config: Any, parts: Parts) -> list[Rule]:
    """Tensor names of ``LlamaForCausalLM``, and of Mistral's and Qwen2's."""
    inward, outward, feed_forward = config.biases
    rules = [
        Rule("model.embed_tokens.weight", "embeddings.token.embedding"),
        *norm_rules("model.norm", "final_norm", bias=False),
    ]
    for i in range(config.num_hidden_layers):
        stored, block = f"model.layers.{i}", f"blocks.{i}"
        attention = f"{stored}.self_attn"
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            base, parameter = f"{attention}.{short}_proj", f"{block}.attention.{name}"
            rules.append(Rule(f"{base}.weight", parameter, INTO_HEADS))
            if inward:
                rules.append(Rule(f"{base}.bias", f"{parameter}_bias", INTO_HEADS))
        rules.append(Rule(f"{attention}.o_proj.weight", f"{block}.attention.output", OUT_OF_HEADS))
        if outward:
            rules.append(Rule(f"{attention}.o_proj.bias", f"{block}.attention.output_bias"))
        rules += norm_rules(f"{stored}.input_layernorm", f"{block}.attention_norm", bias=False)
        rules += norm_rules(f"{stored}.post_attention_layernorm", f"{block}.mlp_norm", bias=False)
        for name in ("gate", "up", "down"):
            rules += linear_rules(
                f"{stored}.mlp.{name}_proj", f"{block}.mlp.{name}", TRANSPOSED, bias=feed_forward
            )
    return rules + Decode.rules("lm_head.weight", config, parts)


def family_of_this_layout(name: str, architecture: str, read_config: Any) -> Family:
    """A family whose tensors have the names of Llama's."""
    return Family(
        name=name,
        architecture=architecture,
        read_config=read_config,
        build=build_as(name),
        table=table,
        prefix="model.",
        parts={"head": "lm_head.weight"},
        ties=lambda config: (
            {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
        ),
        ignored={
            r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "a buffer; the config says the same",
            r"rotary_emb\.inv_freq": "a buffer; the config says the same",
            r"score\.weight": "the head of a classifier is not part of the decoder",
        },
    )


FAMILY = family_of_this_layout("llama", "LlamaForCausalLM", LlamaConfig.from_dict)

"""GPT-Neo (Black et al., 2021): as GPT-2, with local windows in some layers and unscaled logits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from pmt.models.mlp import ACTIVATIONS, Mlp
from pmt.models.norm import LayerNorm
from pmt.models.transformer import Transformer


@dataclass(frozen=True)
class GptNeoConfig:
    """The attributes of config.json that change what GPT-Neo computes, under their names there.

    ``attention_types`` is ``[[["global", "local"], 12]]``: kinds of layers, and how often they are
    repeated; ``attention_layers`` says the same layer by layer.

    Raises:
      RequestError: sizes or an epsilon that are not positive, heads that do not divide the width,
        an activation that is not known, kinds of layers that are not known, contradict each other
        or do not make up all layers.
    """

    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    hidden_size: int = 2048
    num_layers: int = 24
    num_heads: int = 16
    intermediate_size: int | None = None
    window_size: int = 256
    attention_types: list = field(default_factory=lambda: [[["global", "local"], 12]])
    attention_layers: list | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self,
            "vocab_size",
            "max_position_embeddings",
            "hidden_size",
            "num_layers",
            "num_heads",
            "inner",
            "window_size",
            "layer_norm_epsilon",
        )
        require_divides(self.num_heads, self.hidden_size)
        require_known("activation_function", self.activation_function, ACTIVATIONS)
        kinds = self.kinds
        if self.attention_layers not in (None, list(kinds)):
            raise RequestError(
                f"attention_layers is {self.attention_layers} in the config, but attention_types "
                f"makes it {list(kinds)}; both must say the same"
            )
        if len(kinds) != self.num_layers or set(kinds) - {"global", "local"}:
            raise RequestError(
                f"attention_types is {self.attention_types} in the config; it must name "
                f"'global' or 'local' for each of the {self.num_layers} layers"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """``"global"`` or ``"local"`` for every layer."""
        try:
            return tuple(
                kind
                for kinds, times in self.attention_types
                for _ in range(times)
                for kind in kinds
            )
        except (TypeError, ValueError) as error:
            raise RequestError(
                f"attention_types is {self.attention_types} in the config; expected "
                '[[["global", "local"], TIMES], ...]'
            ) from error

    @property
    def inner(self) -> int:
        """Width of the feed-forward blocks, four times that of the model by default."""
        return 4 * self.hidden_size if self.intermediate_size is None else self.intermediate_size

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return Dimensions(
            d=self.hidden_size,
            heads=self.num_heads,
            key_value_heads=self.num_heads,
            head_dim=self.hidden_size // self.num_heads,
            layers=self.num_layers,
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "GptNeoConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        return build_config(
            cls,
            raw,
            # Dropout is off outside of training; summaries belong to heads that are not read.
            harmless={
                "attention_dropout",
                "classifier_dropout",
                "embed_dropout",
                "resid_dropout",
                "summary_activation",
                "summary_first_dropout",
                "summary_proj_to_labels",
                "summary_type",
                "summary_use_proj",
            },
        )


def build(config: GptNeoConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The decoder; its optional part is ``"head"``, where the output table is not tied."""
    d, epsilon, sizes = config.hidden_size, config.layer_norm_epsilon, config.dimensions

    def block(kind: str) -> PreNormBlock:
        return PreNormBlock(
            SelfAttention(
                d,
                sizes.heads,
                head_dim=sizes.head_dim,
                scale=1.0,
                causal=True,
                window=config.window_size if kind == "local" else None,
                biases=False,
                dtype=dtype,
                rngs=rngs,
            ),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
            Mlp(d, config.inner, activation=config.activation_function, dtype=dtype, rngs=rngs),
            LayerNorm(d, epsilon=epsilon, dtype=dtype),
        )

    return Transformer(
        family="gpt_neo",
        config=config,
        parts=parts,
        embeddings=Embeddings(
            config.vocab_size,
            d,
            positions=config.max_position_embeddings,
            dtype=dtype,
            rngs=rngs,
        ),
        blocks=[block(kind) for kind in config.kinds],
        final_norm=LayerNorm(d, epsilon=epsilon, dtype=dtype),
        head=Decode.of(config, parts, dtype=dtype, rngs=rngs),
    )


def table(config: GptNeoConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``GPTNeoForCausalLM``."""
    rules = [
        Rule("transformer.wte.weight", "embeddings.token.embedding"),
        Rule("transformer.wpe.weight", "embeddings.position.embedding"),
        *norm_rules("transformer.ln_f", "final_norm"),
    ]
    for i in range(config.num_layers):
        stored, block = f"transformer.h.{i}", f"blocks.{i}"
        attention = f"{stored}.attn.attention"
        rules += [
            Rule(f"{attention}.q_proj.weight", f"{block}.attention.query", INTO_HEADS),
            Rule(f"{attention}.k_proj.weight", f"{block}.attention.key", INTO_HEADS),
            Rule(f"{attention}.v_proj.weight", f"{block}.attention.value", INTO_HEADS),
            Rule(f"{attention}.out_proj.weight", f"{block}.attention.output", OUT_OF_HEADS),
            Rule(f"{attention}.out_proj.bias", f"{block}.attention.output_bias"),
            *norm_rules(f"{stored}.ln_1", f"{block}.attention_norm"),
            *norm_rules(f"{stored}.ln_2", f"{block}.mlp_norm"),
            *linear_rules(f"{stored}.mlp.c_fc", f"{block}.mlp.up", TRANSPOSED),
            *linear_rules(f"{stored}.mlp.c_proj", f"{block}.mlp.down", TRANSPOSED),
        ]
    return rules + Decode.rules("lm_head.weight", config, parts)


FAMILY = Family(
    name="gpt_neo",
    architecture="GPTNeoForCausalLM",
    read_config=GptNeoConfig.from_dict,
    build=build,
    table=table,
    prefix="transformer.",
    parts={"head": "lm_head.weight"},
    ties=lambda config: (
        {"lm_head.weight": "transformer.wte.weight"} if config.tie_word_embeddings else {}
    ),
    ignored={
        r"h\.\d+\.attn\.attention\.(masked_)?bias": "a buffer that holds the mask",
        r"score\.weight": "the head of a classifier is not part of the decoder",
    },
)

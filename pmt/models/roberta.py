"""RoBERTa (arXiv 1907.11692): BERT's layers, with positions that start behind that of padding."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flax import nnx

from pmt.errors import RequestError
from pmt.models.bert import (
    BUFFERS,
    OTHER_HEADS,
    UNUSED,
    BertConfig,
    build_encoder,
    encoder_rules,
)
from pmt.models.config import Dimensions, build_config
from pmt.models.family import GAMMA_BETA, Family, Parts, Rule
from pmt.models.heads import MaskedLanguageHead
from pmt.models.transformer import Transformer


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """As BERT's; ``pad_token_id`` is also the position that padding has.

    Raises:
      RequestError: as for BERT, or a padding token outside of the tables.
    """

    vocab_size: int = 50265
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pad_token_id < min(self.vocab_size, self.max_position_embeddings - 1):
            raise RequestError(
                f"pad_token_id is {self.pad_token_id} in the config; it must be a token, and leave "
                f"some of the {self.max_position_embeddings} positions for the others"
            )

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        taken = self.pad_token_id + 1
        return replace(super().dimensions, positions=self.max_position_embeddings - taken)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "RobertaConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        only = {"position_embedding_type": ("absolute",)}
        return build_config(cls, raw, harmless=UNUSED, only=only)


def build(config: RobertaConfig, parts: Parts, dtype: Any, rngs: nnx.Rngs) -> Transformer:
    """The encoder; the activation of its head is GELU whatever that of its layers."""
    return build_encoder(
        "roberta",
        config,
        parts,
        padding_index=config.pad_token_id,
        head_activation="gelu",
        dtype=dtype,
        rngs=rngs,
    )


def table(config: RobertaConfig, parts: Parts) -> list[Rule]:
    """Tensor names of ``RobertaForMaskedLM``."""
    return encoder_rules("roberta.", config, parts) + MaskedLanguageHead.rules(
        "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder", config, parts
    )


FAMILY = Family(
    name="roberta",
    architecture="RobertaForMaskedLM",
    read_config=RobertaConfig.from_dict,
    build=build,
    table=table,
    prefix="roberta.",
    parts={
        "pooler": "roberta.pooler.dense.weight",
        "head": "lm_head.dense.weight",
        "decoder_bias": "lm_head.decoder.bias",
    },
    ties=lambda config: (
        {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }
        if config.tie_word_embeddings
        else {}
    ),
    ignored={
        **BUFFERS,
        **OTHER_HEADS,
        r"lm_head\.bias": "the decoder has a bias of its own",
    },
    spellings=GAMMA_BETA,
)

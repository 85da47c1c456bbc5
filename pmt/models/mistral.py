"""Mistral (arXiv 2310.06825): Llama's layout, with a window on all layers in its first versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pmt.models.config import Dimensions, build_config, require_positive
from pmt.models.llama import UNUSED, check_grouped, family_of_this_layout, grouped_dimensions
from pmt.models.rotary import take_rotary


@dataclass(frozen=True)
class MistralConfig:
    """The attributes of config.json that change what Mistral computes, under their names there.

    Raises:
      RequestError: as for `pmt.models.llama.LlamaConfig`, or a window that is not positive.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: tuple = ("default",)
    sliding_window: int | None = 4096
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        check_grouped(self)
        if self.sliding_window is not None:
            require_positive(self, "sliding_window")

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return grouped_dimensions(self)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How far each layer looks back; None for all the way."""
        return (self.sliding_window,) * self.num_hidden_layers

    @property
    def biases(self) -> tuple[bool, bool, bool]:
        """There are none."""
        return False, False, False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "MistralConfig":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        rest, rotary = take_rotary(raw)
        return build_config(cls, rest | rotary, harmless=UNUSED)


FAMILY = family_of_this_layout("mistral", "MistralForCausalLM", MistralConfig.from_dict)

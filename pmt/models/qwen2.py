"""Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama's layout, with biases on queries, keys and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pmt.errors import RequestError
from pmt.models.config import Dimensions, build_config, require_positive
from pmt.models.llama import UNUSED, check_grouped, family_of_this_layout, grouped_dimensions
from pmt.models.rotary import take_rotary

_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Qwen2Config:
    """The attributes of config.json that change what Qwen2 computes, under their names there.

    ``layer_types`` says which layers have the window, ``"sliding_attention"``; where it is absent
    these are the ones from ``max_window_layers`` on. Nothing has it unless ``use_sliding_window``.

    Raises:
      RequestError: as for `pmt.models.llama.LlamaConfig`, a window that is not positive, or kinds
        of layers that are not known or not as many as layers.
    """

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: tuple = ("default",)
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        check_grouped(self)
        if self.sliding_window is not None:
            require_positive(self, "sliding_window")
        kinds = self.layer_types
        if kinds is not None and (
            len(kinds) != self.num_hidden_layers or not _KINDS.issuperset(map(str, kinds))
        ):
            raise RequestError(
                f"layer_types is {kinds} in the config; it must name one of {sorted(_KINDS)} for "
                f"each of the {self.num_hidden_layers} layers"
            )

    @property
    def dimensions(self) -> Dimensions:
        """The sizes under the names of every family."""
        return grouped_dimensions(self)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How far each layer looks back; None for all the way."""
        window = self.sliding_window if self.use_sliding_window else None
        kinds = self.layer_types or [
            "sliding_attention" if i >= self.max_window_layers else "full_attention"
            for i in range(self.num_hidden_layers)
        ]
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)

    @property
    def biases(self) -> tuple[bool, bool, bool]:
        """On queries, keys and values only."""
        return True, False, False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Qwen2Config":
        """From the parsed config.json; see `pmt.models.config.build_config` for what is refused."""
        rest, rotary = take_rotary(raw)
        return build_config(cls, rest | rotary, harmless=UNUSED)


FAMILY = family_of_this_layout("qwen2", "Qwen2ForCausalLM", Qwen2Config.from_dict)

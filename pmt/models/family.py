"""What a family of models is: its config, its modules, and its table of tensor names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flax import nnx

from pmt.models.layouts import AS_IS, Layout

Parts = frozenset[str]


@dataclass(frozen=True)
class Rule:
    """One line of a family's weight table.

    Attributes:
      stored: the tensor's name in the checkpoint of the family's model with a language head.
      parameter: the path of the parameter in the module.
      layout: where the one is in the other; several rules may share one tensor.
    """

    stored: str
    parameter: str
    layout: Layout = AS_IS


@dataclass(frozen=True)
class Family:
    """A family of models; each has a file of its own that ends with one of these.

    Attributes:
      name: ``model_type`` in config.json.
      architecture: the class of transformers that a written checkpoint names.
      read_config: from the parsed config.json to a frozen config with ``dimensions``.
      build: the module, from the config, its optional parts, the dtype and the random streams.
      table: the rules for a config and its optional parts.
      prefix: what the names of all tensors but the head's start with; a checkpoint without a head
        may leave it out.
      ties: for a config, tensor -> the tensor that it repeats where a checkpoint stores it at all.
      parts: optional part -> the name of a tensor that only a checkpoint with that part holds.
      ignored: pattern of tensor names that are not used -> why.
      spellings: pattern -> replacement, for the names of older checkpoints.
    """

    name: str
    architecture: str
    read_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, Parts, Any, nnx.Rngs], Any]
    table: Callable[[Any, Parts], Sequence[Rule]]
    prefix: str
    ties: Callable[[Any], Mapping[str, str]]
    parts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ignored: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    spellings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def plain(self, name: str) -> str:
        """A tensor's name without the prefix and in the present spelling."""
        name = name.removeprefix(self.prefix)
        for pattern, replacement in self.spellings.items():
            name = re.sub(pattern, replacement, name)
        return name

    def why_ignored(self, name: str) -> str | None:
        """The reason why a tensor is not used, or None if there is none."""
        plain = self.plain(name)
        return next((why for how, why in self.ignored.items() if re.fullmatch(how, plain)), None)


# The layer norms of the first TensorFlow checkpoints.
GAMMA_BETA: Mapping[str, str] = MappingProxyType(
    {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}
)


def linear_rules(
    stored: str, parameter: str, kernel: Layout, *, bias: bool = True
) -> Iterable[Rule]:
    """The rules of a dense layer: ``weight`` and, if it has one, ``bias``."""
    yield Rule(f"{stored}.weight", f"{parameter}.kernel", kernel)
    if bias:
        yield Rule(f"{stored}.bias", f"{parameter}.bias")


def norm_rules(stored: str, parameter: str, *, bias: bool = True) -> Iterable[Rule]:
    """The rules of a norm: ``weight`` and, if it has one, ``bias``."""
    yield Rule(f"{stored}.weight", f"{parameter}.scale")
    if bias:
        yield Rule(f"{stored}.bias", f"{parameter}.bias")

"""What describes one tiny random model of the parity data."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Older:
    """How to turn a config of transformers 5 into one of transformers 4."""

    put: dict[str, Any]
    drop: tuple[str, ...]


@dataclass(frozen=True)
class Tiny:
    """One random model: the class of transformers, its config's fields, and what to feed it."""

    cls: str
    fields: dict[str, Any]
    length: int
    segments: int = 0
    """How many segment ids there are to draw from; 0 where the family is given none."""
    options: dict[str, Any] | None = None
    """Further arguments of the class."""
    older: Older | None = None
    """The config as transformers 4 wrote it, as most of the Hub still has it."""

    @property
    def lengths(self) -> tuple[int, int, int]:
        """How many tokens each of the three texts has; the rest of it is padding on the right."""
        half = self.length // 2 + (self.cls != "BertModel")
        return self.length, half, 1

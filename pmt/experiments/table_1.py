"""Table 1: the transformers of the paper, and beside them the model at hand."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
      model: its name.
      architecture: ``"encoder"`` or ``"decoder"``.
      attention: ``"full"`` or ``"causal"``.
      shared: whether all layers have the same weights.
      d, h, layers: dimension, heads, layers.
      head_width: k = d / h.
    """

    model: str
    architecture: str
    attention: str
    shared: bool
    d: int
    h: int
    layers: int

    @property
    def head_width(self) -> int:
        """k = d / h."""
        return self.d // self.h


@dataclass(frozen=True)
class Table1Config:
    """There is nothing to choose."""


@dataclass(frozen=True)
class Table1:
    """The rows of the paper, and one for the model at hand, if there is one."""

    rows: tuple[Row, ...]
    own: Row | None


_FAMILIES = (
    ("encoder", "full", True, ("ALBERT-base", 768, 12, 12), ("ALBERT-large", 1024, 16, 24)),
    ("encoder", "full", True, ("ALBERT-xlarge", 2048, 16, 24), ("ALBERT-xxlarge", 4096, 64, 12)),
    ("encoder", "full", False, ("BERT-base", 768, 12, 12), ("BERT-large", 1024, 16, 24)),
    ("decoder", "causal", False, ("GPT2 small", 768, 12, 12), ("GPT2 medium", 1024, 16, 24)),
    ("decoder", "causal", False, ("GPT2 large", 1280, 20, 36), ("GPT2 xlarge", 1600, 25, 48)),
    ("decoder", "causal", False, ("GPTNeo 125M", 768, 12, 12), ("GPTNeo 1.3B", 2048, 16, 24)),
    ("decoder", "causal", False, ("GPTNeo 2.7B", 2560, 20, 32)),
)
PAPER = tuple(
    Row(name, architecture, attention, shared, d, h, layers)
    for architecture, attention, shared, *models in _FAMILIES
    for name, d, h, layers in models
)
# Families whose tokens see all others.
_ENCODERS = ("albert", "bert", "distilbert", "roberta")


def run(config: Table1Config, given: Any) -> Table1:
    """The paper's rows, and that of ``given.model`` as its own config has it."""
    del config
    info, own = given.model, None
    if info is not None:
        encoder = info.family in _ENCODERS
        own = Row(
            model=info.name,
            architecture="encoder" if encoder else "decoder",
            attention="full" if encoder else "causal",
            shared=info.shared,
            d=info.d,
            h=info.h,
            layers=info.layers,
        )
    return Table1(PAPER, own)


def record(result: Table1) -> dict[str, Any]:
    """As JSON has it."""
    own = result.own
    return {
        "rows": [_row(row) for row in result.rows],
        "own": None if own is None else _row(own),
    }


def tables(result: Table1) -> dict[str, list[dict[str, Any]]]:
    """The CSV files."""
    rows = [*result.rows, *([] if result.own is None else [result.own])]
    return {"table-1": [_row(row) for row in rows]}


def sentences(result: Table1) -> list[str]:
    """What there is to say about it."""
    if result.own is None:
        return [f"{len(result.rows)} models of the paper"]
    own = result.own
    same = [r.model for r in result.rows if (r.d, r.h, r.layers) == (own.d, own.h, own.layers)]
    shape = f"{own.model}: d = {own.d}, h = {own.h}, {own.layers} layers"
    return [f"{shape}; of the shape of {', '.join(same) if same else 'none of the paper'}"]


def _row(row: Row) -> dict[str, Any]:
    return {**vars(row), "head_width": row.head_width}

"""What a statement is: two forms, each a list of clauses with hypotheses and a conclusion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Array

from theory.margin import Margin

Status = Literal["supported", "refuted", "proved", "undecided"]
FormName = Literal["paper", "corrected"]

# An instance: named arrays, on the host or traced. What does not vary within a batch is in `Shape`.
Case = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """What is static in a batch of instances.

    Attributes:
    ----------
    n, d, h
        Tokens, dimension, heads.
    mask
        ``"full"``, ``"causal"``, ``"window"`` (causal, two tokens wide) or ``"others"`` (every
        token but itself).
    """

    n: int
    d: int
    h: int = 1
    mask: Literal["full", "causal", "window", "others"] = "full"


@dataclass(frozen=True)
class Piece:
    """A part of the hypotheses: the fields it draws and the inequalities it promises.

    Attributes:
    ----------
    draw
        ``(noise, kind, shape, case) -> fields``: the new or changed fields of one instance,
        traced; ``noise`` hands out random numbers (``theory.noise``), ``kind`` is the class (see
        ``instances.KINDS``), ``case`` holds what the pieces before drew.
    margins
        ``(shape, case) -> {name: margin}``: every named hypothesis, normalised, >= 0 where it
        holds. Says about an explicit instance whether, and by how much, it satisfies them.
    degeneracy
        ``(shape, case) -> number``: small where the instance is nearly degenerate.
    """

    draw: Callable[[Any, Any, Shape, Case], dict[str, Array]]
    margins: Callable[[Shape, Case], dict[str, Array]] = field(default=lambda _shape, _case: {})
    degeneracy: Callable[[Shape, Case], Array] | None = None


@dataclass(frozen=True)
class Hypotheses:
    """What is assumed: pieces drawn one after another, at a small fixed set of shapes."""

    pieces: tuple[Piece, ...]
    shapes: tuple[Shape, ...]

    def margins(self, shape: Shape, case: Case) -> dict[str, Array]:
        """Every named hypothesis at an instance, >= 0 where it holds."""
        found: dict[str, Array] = {}
        for piece in self.pieces:
            found |= piece.margins(shape, case)
        return found


@dataclass(frozen=True)
class Explicit:
    """An instance written down: a witness against a paper's form, or a case to be covered.

    Attributes:
    ----------
    name, text
        What it is, in one line.
    shape, case
        The exact inputs, as NumPy arrays.
    numbers
        Computes what the text claims from shape and inputs, in float64.
    """

    name: str
    text: str
    shape: Shape
    case: Mapping[str, np.ndarray]
    numbers: Callable[[Shape, Case], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Twin:
    """The negative twin: without the hypothesis ``drops`` the conclusion fails at ``instance``."""

    drops: str
    instance: Explicit


@dataclass(frozen=True)
class Clause:
    """One assertion: whenever the hypotheses hold, so does the conclusion.

    Attributes:
    ----------
    name, text
        Identifier within the form, and the assertion in words.
    conclusion
        ``(shape, case) -> Margin`` at one instance, pure JAX.
    explicit
        Instances that are always evaluated besides the random ones.
    twin
        A hypothesis that cannot be dropped.
    share
        Relative number of instances among the clauses of its form.
    long
        Evaluation takes longer than compilation (simulations do).
    """

    name: str
    text: str
    hypotheses: Hypotheses
    conclusion: Callable[[Shape, Case], Margin]
    explicit: tuple[Explicit, ...] = ()
    twin: Twin | None = None
    share: float = 1.0
    long: bool = False


@dataclass(frozen=True)
class Form:
    """The paper's form or the corrected one: its clauses together, and the status expected."""

    text: str
    expected: Status
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class Statement:
    """A numbered item of a paper.

    Attributes:
    ----------
    id
        For the command line, for instance ``lemma-3``.
    source
        For instance ``Lemma 3, arXiv 2605.25619``.
    text
        What it is about.
    paper, corrected
        Both forms. The formulas of the paper's form are reconstructions: "as read". The first is
        None where the paper says nothing.
    covers
        Numbers of ``theory.numbers`` that it covers besides the one of its id, such as
        ``equation-11``; each is an alias of the id on the command line.
    """

    id: str
    source: str
    text: str
    paper: Form | None
    corrected: Form
    covers: tuple[str, ...] = ()

    @property
    def forms(self) -> dict[FormName, Form]:
        """The forms that there are, by name."""
        if self.paper is None:
            return {"corrected": self.corrected}
        return {"paper": self.paper, "corrected": self.corrected}


def numbered(function: Callable[[], Statement]) -> Callable[[], Statement]:
    """Marks the function that makes a statement, for ``registry`` to find."""
    function.makes_statement = True  # type: ignore[attr-defined]
    return function

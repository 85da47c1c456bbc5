"""What checking statements gave: for an instance, a clause, a form, a statement."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theory import margin
from theory.statement import FormName, Shape, Statement, Status

DECIDED_SHARE = 0.5
"""Without a violation, the share of decided instances that a form needs to be supported."""


@dataclass(frozen=True)
class Evaluated:
    """One instance with its margin.

    Attributes:
    ----------
    clause, name
        The clause it belongs to, and its own name where it is an explicit one.
    shape, case
        The exact inputs.
    value, tolerance
        The margin.
    text, numbers
        What an explicit instance says of itself, and what it claims computed.
    """

    clause: str
    name: str | None
    shape: Shape
    case: dict[str, np.ndarray]
    value: float
    tolerance: float
    text: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Status:
        """``supported``, ``refuted`` or ``undecided`` by this instance alone."""
        if margin.violated(self.value, self.tolerance):
            return "refuted"
        return "supported" if margin.holds(self.value, self.tolerance) else "undecided"


@dataclass(frozen=True)
class TwinResult:
    """A negative twin: the hypothesis it drops, and what became of the conclusion.

    Attributes:
    ----------
    drops
        The dropped hypothesis.
    hypotheses
        Margins of all hypotheses at the instance; exactly the dropped one must be negative.
    at
        The instance with the conclusion's margin, which must be a violation.
    """

    drops: str
    hypotheses: dict[str, float]
    at: Evaluated

    @property
    def fails(self) -> bool:
        """Whether the conclusion fails once this one hypothesis, and no other, is dropped."""
        broken = {name for name, value in self.hypotheses.items() if not value >= 0}
        return broken == {self.drops} and self.at.outcome == "refuted"


@dataclass(frozen=True)
class ClauseResult:
    """What one clause's instances gave.

    Attributes:
    ----------
    clause
        Its name.
    instances, undecided
        Numbers of random instances evaluated, and of those left undecided.
    worst
        The smallest margin among random and explicit instances.
    violations
        Every violated instance, worst first, explicit ones before random ones.
    explicit
        All explicit instances, evaluated.
    twin
        The negative twin, evaluated.
    """

    clause: str
    instances: int
    undecided: int
    worst: float
    violations: tuple[Evaluated, ...]
    explicit: tuple[Evaluated, ...]
    twin: TwinResult | None


@dataclass(frozen=True)
class FormResult:
    """What a form's clauses gave together.

    Attributes:
    ----------
    form
        ``paper`` or ``corrected``.
    text, expected
        As in the statement.
    clauses
        Their results.
    seconds
        Wall time, compilation included; what the other form compiled already is not paid again.
    """

    form: FormName
    text: str
    expected: Status
    clauses: tuple[ClauseResult, ...]
    seconds: float

    @property
    def status(self) -> Status:
        """``refuted`` by any violation; ``supported`` if every clause was mostly decided."""
        if self.violations:
            return "refuted"
        for clause in self.clauses:
            decided = clause.instances - clause.undecided
            if not decided or decided < DECIDED_SHARE * clause.instances:
                return "undecided"
        return "supported"

    @property
    def as_expected(self) -> bool:
        """Whether the status is the expected one."""
        return self.status == self.expected

    @property
    def instances(self) -> int:
        """Random instances of all clauses."""
        return sum(clause.instances for clause in self.clauses)

    @property
    def undecided(self) -> int:
        """Random instances that were left undecided."""
        return sum(clause.undecided for clause in self.clauses)

    @property
    def violations(self) -> tuple[Evaluated, ...]:
        """All violated instances, explicit ones first."""
        found = [v for clause in self.clauses for v in clause.violations]
        return tuple(sorted(found, key=lambda v: (v.name is None, v.value)))

    @property
    def worst_margin(self) -> float:
        """The smallest margin of all instances."""
        return min(clause.worst for clause in self.clauses)

    @property
    def twins(self) -> tuple[TwinResult, ...]:
        """The negative twins of all clauses."""
        return tuple(clause.twin for clause in self.clauses if clause.twin is not None)

    @property
    def witness(self) -> Evaluated | None:
        """The violation to show: an explicit one if there is any, else the worst."""
        return self.violations[0] if self.violations else None


@dataclass(frozen=True)
class StatementResult:
    """Both forms of a statement."""

    statement: Statement
    forms: tuple[FormResult, ...]

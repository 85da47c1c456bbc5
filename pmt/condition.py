"""Inequalities with signed margins: how every hypothesis and conclusion is stated and answered."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Condition:
    """One inequality, written so that it holds iff ``margin`` > 0.

    Attributes:
      name: short identifier, for instance ``"theorem 3, condition 2"``.
      text: the inequality in words or symbols.
      margin: signed distance to violation, in the units of the inequality.
      tolerance: rounding uncertainty of the margin; within it nothing is decided.
    """

    name: str
    text: str
    margin: float
    tolerance: float = 0.0

    @property
    def status(self) -> Literal["holds", "fails", "undecided"]:
        """``undecided`` where the margin is within its own tolerance (or is NaN)."""
        if self.margin > self.tolerance:
            return "holds"
        if self.margin < -self.tolerance:
            return "fails"
        return "undecided"

    @property
    def holds(self) -> bool:
        """Whether the inequality certainly holds."""
        return self.status == "holds"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the status."""
        return {**asdict(self), "status": self.status}

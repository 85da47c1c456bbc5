"""Result codes: what became of a computation, beside its value."""

from enum import IntEnum


class Outcome(IntEnum):
    """How a run ended. Arrays of codes hold these integers; ``Outcome(code)`` names one."""

    DONE = 0
    """All requested steps were made."""
    CONVERGED = 1
    """The residual max_i |f(x)_i − x_i| fell to the tolerance."""
    TWO_CYCLE = 2
    """f(f(x)) = x to the tolerance while f(x) differs from x."""
    BUDGET_ENDED = 3
    """The allowed steps were made without convergence: nothing is claimed about the limit."""
    CANCELLED = 4
    """x_i + alpha * update_i vanished for a token, so the map is undefined there."""
    NONFINITE = 5
    """NaN or infinity appeared, for instance by overflow of the logits."""
    SINGULAR = 6
    """I − J is singular to working precision: the equilibrium has no derivative."""

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    Outcome.DONE: "all steps were made",
    Outcome.CONVERGED: "converged to an equilibrium",
    Outcome.TWO_CYCLE: "converged to a 2-cycle",
    Outcome.BUDGET_ENDED: "the step budget ended before convergence",
    Outcome.CANCELLED: "the update of a token cancelled to zero, where the map is undefined",
    Outcome.NONFINITE: "a non-finite number appeared",
    Outcome.SINGULAR: "I - J is singular, so the equilibrium has no derivative",
}

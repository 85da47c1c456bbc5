"""Running a system for a command: in pieces, so that progress shows and an interrupt is heard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Steps between two looks at the clock and the keyboard.
_PIECE = 1000
# Bounds on what is recorded: states, numbers in all of them, and work for their distances.
_MOST_STATES = 4001
_MOST_NUMBERS = 2**26
_MOST_WORK = 2**34


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      steps: steps made.
      outcome: a `pmt.dynamics.Outcome`.
      recorded: the steps that were recorded, from 0 to ``steps``, increasing.
      path: (len(recorded), n, d), NumPy: the states there, x(0) first and the last state last.
    """

    steps: int
    outcome: Any
    recorded: Any
    path: Any


def run_steps(system: Any, x: Any, steps: int, advance: Callable[[int], None]) -> Run:
    """Exactly `steps` steps, or fewer where the map is undefined or a number overflows."""
    import jax.numpy as jnp
    import numpy as np

    from pmt.dynamics import Outcome, simulate

    stride = _stride(x.shape, steps)
    last = np.asarray(x)
    recorded, path = [0], [last[None]]
    outcome, made = Outcome.DONE, 0
    while made < steps and outcome == Outcome.DONE:
        # With every state kept a piece is many steps; else one step of the record.
        piece = min(stride if stride > 1 else _piece(x.shape), steps - made)
        answer = simulate(
            system, jnp.asarray(last), piece, keep="path" if stride == 1 else "last", observables={}
        )
        outcome, done = Outcome(int(answer.result)), int(answer.stopped_at)
        states = np.asarray(answer.x)
        new = states[1 : done + 1] if stride == 1 else states[None]
        if done:
            path.append(new)
            recorded += range(made + 1, made + done + 1) if stride == 1 else [made + done]
            last = new[-1]
        made += done
        advance(piece)
    return Run(made, outcome, np.array(recorded), np.concatenate(path))


def run_to_rest(system: Any, x: Any, budget: int, advance: Callable[[int], None]) -> Run:
    """Until the state is an equilibrium or a 2-cycle, at most `budget` steps."""
    import jax.numpy as jnp
    import numpy as np

    from pmt.dynamics import Outcome, run_to_equilibrium

    state, made = jnp.asarray(x), 0
    while True:
        answer = run_to_equilibrium(system, state, max_steps=min(_PIECE, budget - made))
        state, outcome = answer.x, Outcome(int(answer.result))
        made += int(answer.steps)
        advance(int(answer.steps))
        if outcome != Outcome.BUDGET_ENDED or made >= budget:
            break
    # The same steps once more for the path; their rounding may differ, so the end is kept.
    seen = run_steps(system, x, made, lambda _: advance(0))
    path = np.concatenate([seen.path[:-1], np.asarray(state)[None]])
    return Run(made, outcome, seen.recorded, path)


def _piece(shape: tuple[int, int]) -> int:
    return max(1, min(_PIECE, 2**24 // (shape[0] * shape[1])))


def _stride(shape: tuple[int, int], steps: int) -> int:
    """Every how many steps a state is recorded, so that memory and work stay bounded."""
    n, d = shape
    states = min(_MOST_STATES, _MOST_NUMBERS // (n * d), _MOST_WORK // (n * n * d))
    return -(-steps // max(1, states - 1)) if steps else 1

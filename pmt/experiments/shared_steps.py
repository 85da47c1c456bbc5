"""What a repeated layer has shown so far, so that a run that was stopped goes on from there."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.experiments.null_runs import NullDraw
from pmt.experiments.passage import distances_present
from pmt.experiments.states import rho_of, tokens_present
from pmt.parallel.store import UnitStore
from pmt.parallel.units import Payload, Unit
from pmt.spectral import Directions, average_over_directions

# Seconds between two writes: a state takes about as long as a step of a small layer.
_PAUSE = 1.0
_STATE, _ONLY = "state", Unit(0, 1)


class Watch:
    """The tokens' states and those of the null models, and what is measured of each.

    Args:
      x: the tokens ``(prompts, n, d)``.
      present: ``(prompts, n)``, False for padding; None where there is none.
      lines: directions of which every token's rho is kept; plane: likewise, or None.
      everything: all eigendirections.
      nulls: draws of the null models.

    Attributes:
      x: the last states.
      lines: rho ``(prompts, n)`` of every state, for each of the lines; planes: likewise.
      average, distance: over all eigendirections, and between tokens, of every state.
    """

    def __init__(
        self,
        x: jax.Array,
        present: np.ndarray | None,
        lines: Sequence[Directions],
        plane: Directions | None,
        everything: Directions,
        nulls: Sequence[NullDraw],
    ) -> None:
        self._lines, self._plane, self._everything = lines, plane, everything
        self._present, self._nulls = present, nulls
        self.lines: list[list[np.ndarray]] = [[] for _ in lines]
        self.planes: list[np.ndarray] = []
        self.average: list[float] = []
        self.distance: list[np.ndarray] = []
        self._take(x)

    @property
    def step(self) -> int:
        """How many steps there were."""
        return len(self.average) - 1

    def go_on(self, x: jax.Array) -> None:
        """The tokens are at x, and the null models go a step too."""
        for null in self._nulls:
            null.step()
        self._take(x)

    def _take(self, x: jax.Array) -> None:
        self.x = x
        for each, line in zip(self.lines, self._lines, strict=True):
            each.append(rho_of(x, line))
        if self._plane is not None:
            self.planes.append(rho_of(x, self._plane))
        there = tokens_present(x, self._present)
        self.average.append(average_over_directions(there, there, self._everything).rho_after)
        self.distance.append(distances_present(x, self._present))

    def state(self) -> Payload:
        """All of it, as numbers that read back exactly."""
        found: dict[str, Any] = {"x": self.x, "average": self.average, "distance": self.distance}
        found |= {f"line {number}": each for number, each in enumerate(self.lines)}
        found |= {"planes": self.planes} if self.planes else {}
        for number, null in enumerate(self._nulls):
            for name, value in null.state().items():
                found[f"null {number} {name}"] = value
        return {name: np.asarray(value) for name, value in found.items()}

    def restore(self, state: Payload) -> None:
        """The same again from ``state``."""
        self.x = jnp.asarray(state["x"])
        self.average = state["average"].tolist()
        self.distance = list(state["distance"])
        self.lines = [list(state[f"line {number}"]) for number in range(len(self.lines))]
        self.planes = list(state["planes"]) if self.planes else []
        for number, null in enumerate(self._nulls):
            start = f"null {number} "
            own = {name.removeprefix(start): each for name, each in state.items()}
            null.restore(own)


class Kept:
    """Where the last state of a run is kept; nowhere if there is no store."""

    def __init__(self, store: UnitStore | None) -> None:
        self._store, self._written = store, time.monotonic()

    def go_on(self, watch: Watch) -> None:
        """From the last state of an earlier run, if there is one."""
        state = None if self._store is None else self._store.get(_STATE, _ONLY)
        if state is not None:
            watch.restore(state)

    def keep(self, watch: Watch) -> None:
        """Keep the state, unless one was kept just now."""
        if self._store is not None and time.monotonic() - self._written > _PAUSE:
            self._store.put(_STATE, _ONLY, watch.state())
            self._written = time.monotonic()

"""Runs to their ends, side by side: what is over leaves, and others take its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import Outcome, detect_period, simulate
from pmt.equilibria.classify import KINDS
from pmt.stability.ending import measure, read_ends, real_axes

# Steps between two looks at a run.
_BLOCK = 64
# Slots from which on idle ones are avoided at the end.
_LARGE = 2048

# Kinds beside those of ``classify``.
_CYCLE, _UNDEFINED, _NONFINITE = len(KINDS), len(KINDS) + 1, len(KINDS) + 2


@dataclass(frozen=True)
class End:
    """A place where runs end; runs are counted apart by what two of these differ in.

    Attributes: as of ``pmt.stability.basin.Attractor``; ``index`` −1 for none, ``positive`` the
    number of tokens at +v, ``clusters`` and ``period`` 0 where they mean nothing.
    """

    kind: str
    index: int = -1
    positive: int = 0
    collinear: bool = False
    clusters: int = 0
    period: int = 0

    def name(self, tokens: int) -> str:
        """In words, different for different places."""
        line = " on one line" if self.collinear else ""
        where = f"v{self.index + 1}" if self.index >= 0 else "a repeated eigenspace"
        if self.kind == "consensus":
            side = "" if self.index < 0 else "+" if self.positive else "-"
            return f"consensus at {side}{where}" if side else f"consensus in {where}"
        if self.kind == "bipartite":
            place = f"along {where}" if self.index >= 0 else f"in {where}"
            return f"bipartite {self.positive}+{tokens - self.positive} {place}"
        if self.kind == "clustering":
            return f"{self.clusters} cluster{'' if self.clusters == 1 else 's'}{line}"
        return f"{self.period}-cycle" if self.kind == "cycle" else f"{self.kind}{line}"


@dataclass
class Seen:
    """How many runs ended at a place, and the one of smallest number among them."""

    count: int
    first: int
    state: np.ndarray


@dataclass
class Runs:
    """Runs of one system, each in a slot until it ends; the ends are counted by place.

    Attributes:
      system: an autonomous map.
      starts: from the numbers of runs to their initial conditions, NumPy ``(batch, n, d)``.
      shape: (n, d).
      max_steps: budget of a run, rounded up to whole blocks of at most 64 steps.
      tolerance, max_period: as for ``basin_fractions``.
      chunk: number of slots.
      progress: called with the number of runs that have just ended.
      ends: the places, and what was seen there.
      order: the places in the order in which they were first seen; ``labels`` counts by it.
      labels, states: for each run the number of its place and its last state, where arrays to be
        filled were given.
      steps: made in all, up to the looks that found the runs at their ends.
    """

    system: Any
    starts: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int]
    max_steps: int
    tolerance: float
    max_period: int
    chunk: int
    progress: Callable[[int], None] = lambda _done: None
    labels: np.ndarray | None = None
    states: np.ndarray | None = None
    ends: dict[End, Seen] = field(default_factory=dict)
    order: dict[End, int] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.blocks = ceil(self.max_steps / _BLOCK)
        self.block = ceil(self.max_steps / self.blocks)
        self.max_steps = self.block * self.blocks
        self.dtype = np.dtype(self.system.layer_matrix.dtype)
        self._axes = jnp.asarray(real_axes(self.system), self.dtype)

    def run(self, first: int, last: int) -> None:
        """Runs number ``first`` to ``last`` − 1, all to their ends."""
        number, age = np.zeros(0, np.int64), np.zeros(0, np.int64)
        x = np.zeros((0, *self.shape), self.dtype)
        late: list[tuple[np.ndarray, np.ndarray]] = []
        while first < last or len(number):
            new = np.arange(first, min(last, first + self.chunk - len(number)))
            if len(new):
                x = np.concatenate([x, self.starts(new)])
                number = np.concatenate([number, new])
                age = np.concatenate([age, np.zeros_like(new)])
                first += len(new)
            x, over, spent = self._advance(x, number, age)
            self.steps += self.block * len(number)
            age += 1
            late.append((number[spent], x[spent]))
            if sum(len(numbers) for numbers, _ in late) >= self.chunk:
                self._count_late(late)
                late = []
            self.progress(int(over.sum()))
            number, age, x = number[~over], age[~over], x[~over]
        self._count_late(late)

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Repeated up to one of two lengths, so that little is compiled and few slots idle."""
        small = self.chunk // 16
        # A second shape is worth its compilation only where a chunk is much work.
        worth = self.chunk >= _LARGE and len(values) <= small
        size = small if worth else self.chunk
        return np.resize(values, (size, *values.shape[1:]))

    def _advance(
        self, x: np.ndarray, number: np.ndarray, age: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A block of steps: the new states, which runs are over, and which only by their budget.

        Runs that ended at a place of their own are counted, those whose budget ended not yet.
        """
        count = len(x)
        moved = simulate(
            self.system, jnp.asarray(self.padded(x)), self.block, keep="last", observables={}
        )
        found = measure(self.system, moved.x, self._axes, jnp.asarray(self.tolerance, self.dtype))
        state, code = np.asarray(moved.x)[:count], np.asarray(moved.result)[:count]
        found = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], found)
        ends = read_ends(found, self.tolerance)
        kind = np.where(ends.settled, ends.kind, np.where(ends.cycle, _CYCLE, -1))
        kind[code == Outcome.CANCELLED] = _UNDEFINED
        kind[code == Outcome.NONFINITE] = _NONFINITE
        columns = (kind, found.index, found.positive, ends.collinear, found.clusters)
        table = np.stack(columns, axis=1)
        over = kind >= 0
        for row in np.unique(table[over], axis=0):
            here = over & (table == row).all(axis=1)
            self._count(_as_end(*(int(value) for value in row)), number[here], state[here])
        spent = ~over & (age + 1 >= self.blocks)
        return state, over | spent, spent

    def _count(self, end: End, numbers: np.ndarray, states: np.ndarray) -> None:
        least = int(np.argmin(numbers))
        first, state = int(numbers[least]), states[least].copy()
        seen = self.ends.setdefault(end, Seen(0, first, state))
        seen.count += len(numbers)
        if first < seen.first:
            seen.first, seen.state = first, state
        label = self.order.setdefault(end, len(self.order))
        if self.labels is not None:
            self.labels[numbers] = label
        if self.states is not None:
            self.states[numbers] = states

    def _count_late(self, late: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Looks for longer cycles where the budget ended."""
        if not sum(len(numbers) for numbers, _ in late):
            return
        all_numbers = np.concatenate([numbers for numbers, _ in late])
        all_states = np.concatenate([states for _, states in late])
        for start in range(0, len(all_numbers), self.chunk):
            numbers = all_numbers[start : start + self.chunk]
            states = all_states[start : start + self.chunk]
            run = detect_period(
                self.system,
                jnp.asarray(self.padded(states)),
                transient=0,
                max_period=self.max_period,
            )
            period = np.asarray(run.period)[: len(numbers)]
            for value in np.unique(period):
                # Period 1: at rest after all, but not clearly in one class.
                end = End("cycle", period=int(value)) if value > 1 else End("unresolved")
                self._count(end, numbers[period == value], states[period == value])


def _as_end(kind: int, index: int, positive: int, collinear: int, clusters: int) -> End:
    """Keeps of the measurements what matters for the kind."""
    if kind >= _CYCLE:
        names = {_CYCLE: "cycle", _UNDEFINED: "undefined", _NONFINITE: "non-finite"}
        return End(names[kind], period=2 if kind == _CYCLE else 0)
    name = KINDS[kind]
    if name in ("consensus", "bipartite"):
        return End(name, index, positive, collinear=True)
    if name == "polygonal":
        return End(name, collinear=bool(collinear))
    return End(name, collinear=bool(collinear), clusters=clusters)

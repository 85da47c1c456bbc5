"""Runs to their ends, side by side: what is over leaves, and others take its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from math import ceil
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import Outcome, chunked, detect_period, simulate
from pmt.equilibria.classify import KINDS
from pmt.parallel.units import Payload
from pmt.stability.ending import Measured, measure, read_ends, real_axes
from pmt.stability.tally import End, Seen, Tally

# Steps between two looks at a run.
_BLOCK = 64
# Slots from which on idle ones are avoided at the end.
_LARGE = 2048

Record = Literal["places", "states"] | None
"""What is kept of each run: nothing, where it ended, or its last state too."""

# Kinds beside those of ``classify``.
_CYCLE, _UNDEFINED, _NONFINITE = len(KINDS), len(KINDS) + 1, len(KINDS) + 2


class Waiting(NamedTuple):
    """Runs that are not over: their numbers, the blocks they have made, and their states."""

    number: np.ndarray
    age: np.ndarray
    x: np.ndarray

    def plus(self, other: "Waiting") -> "Waiting":
        """These and the others."""
        return Waiting(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def where(self, chosen: Any) -> "Waiting":
        """Some of them."""
        return Waiting(*(each[chosen] for each in self))


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
      record: what ``recorded`` is filled with.
      tally: where they ended.
      recorded: numbers of runs, the place where they ended, and their last states.
    """

    system: Any
    starts: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int]
    max_steps: int
    tolerance: float
    max_period: int
    chunk: int
    progress: Callable[[int], None] = lambda _done: None
    record: Record = None
    tally: Tally = field(default_factory=Tally)
    recorded: list[tuple[np.ndarray, End, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = ceil(self.max_steps / _BLOCK)
        self.block = ceil(self.max_steps / self.blocks)
        self.dtype = np.dtype(self.system.layer_matrix.dtype)
        self._axes = jnp.asarray(real_axes(self.system), self.dtype)
        some = jnp.zeros((self.chunk, *self.shape), self.dtype)
        # Where cache-sized chunks are run anyway, no more of them than needed.
        self.piece = chunked.size_for(self.system, some) or self.chunk

    def none(self) -> Waiting:
        """No runs."""
        return self.none_of(self.shape, self.dtype)

    @staticmethod
    def none_of(shape: tuple[int, int], dtype: Any) -> Waiting:
        """No runs, with states of this shape and dtype."""
        numbers = np.zeros(0, np.int64)
        return Waiting(numbers, numbers, np.zeros((0, *shape), dtype))

    def run(self, first: int, last: int, begun: Waiting | None = None, idle: int = 0) -> Waiting:
        """Runs those that have begun and numbers ``first`` to ``last`` − 1 to their ends.

        As soon as at most ``idle`` of them are left, these are returned as they are.
        """
        now = self.none() if begun is None else begun
        queue, now = now.where(slice(self.chunk, None)), now.where(slice(self.chunk))
        late = []
        while first < last or len(queue.number) or len(now.number) > idle:
            free = self.chunk - len(now.number)
            now, queue = now.plus(queue.where(slice(free))), queue.where(slice(free, None))
            free = self.chunk - len(now.number)
            new = np.arange(first, max(first, min(last, first + free)))
            if len(new):
                now = now.plus(Waiting(new, np.zeros_like(new), self.starts(new)))
                first += len(new)
            moved, over, spent = self._advance(now)
            self.tally.steps += self.block * len(now.number)
            late.append(moved.where(spent))
            if sum(len(each.number) for each in late) >= self.chunk:
                self._count_late(late)
                late = []
            self.progress(int(over.sum()))
            now = moved.where(~over)
        self._count_late(late)
        return now

    def arrays(self, waiting: Waiting) -> Payload:
        """The tally, what was recorded, and the runs that are not over, as arrays."""
        found = {**self.tally.arrays(self.shape, self.dtype), **waiting._asdict()}
        if self.record:
            places = {end: place for place, end in enumerate(self.tally.places())}
            numbers = [np.full(len(n), places[end]) for n, end, _ in self.recorded]
            found["place"] = np.concatenate([np.zeros(0, np.int64), *numbers])
            found["run"] = np.concatenate([self.none().number, *(n for n, _, _ in self.recorded)])
        if self.record == "states":
            found["last"] = np.concatenate([self.none().x, *(x for _, _, x in self.recorded)])
        return found

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Repeated up to whole pieces, so that little is compiled and few slots idle."""
        size = -(-len(values) // self.piece) * self.piece
        if self.piece == self.chunk >= _LARGE and len(values) <= self.chunk // 16:
            # A second shape is worth its compilation only where a chunk is much work.
            size = self.chunk // 16
        return np.resize(values, (size, *values.shape[1:]))

    def _advance(self, now: Waiting) -> tuple[Waiting, np.ndarray, np.ndarray]:
        """A block of steps: the runs after it, which are over, and which only by their budget.

        Runs that ended at a place of their own are counted, those whose budget ended not yet.
        """
        count = len(now.number)
        moved = simulate(
            self.system, jnp.asarray(self.padded(now.x)), self.block, keep="last", observables={}
        )
        state, code = np.asarray(moved.x), np.asarray(moved.result)[:count]
        found = self._measured(state, count)
        state = state[:count]
        ends = read_ends(found, self.tolerance)
        kind = np.where(ends.settled, ends.kind, np.where(ends.cycle, _CYCLE, -1))
        kind[code == Outcome.CANCELLED] = _UNDEFINED
        kind[code == Outcome.NONFINITE] = _NONFINITE
        columns = (kind, found.index, found.positive, ends.collinear, found.clusters)
        table = np.stack(columns, axis=1)
        over = kind >= 0
        for row in np.unique(table[over], axis=0):
            here = over & (table == row).all(axis=1)
            self._count(_as_end(*(int(value) for value in row)), now.number[here], state[here])
        spent = ~over & (now.age + 1 >= self.blocks)
        return Waiting(now.number, now.age + 1, state), over | spent, spent

    def _measured(self, states: np.ndarray, count: int) -> Measured:
        """``measure``, in pieces of one shape, of the first ``count`` states; NumPy."""
        size = min(self.piece, len(states))
        tolerance = jnp.asarray(self.tolerance, self.dtype)
        # All of them under way before the first is waited for.
        parts = [
            measure(self.system, states[at : at + size], self._axes, tolerance)
            for at in range(0, len(states), size)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)

    def _count(self, end: End, numbers: np.ndarray, states: np.ndarray) -> None:
        least = int(np.argmin(numbers))
        self.tally.count(end, Seen(len(numbers), int(numbers[least]), states[least].copy()))
        if self.record:
            kept = states if self.record == "states" else states[:0]
            self.recorded.append((numbers, end, kept))

    def _count_late(self, late: list[Waiting]) -> None:
        """Looks for longer cycles where the budget ended."""
        every = reduce(Waiting.plus, late, self.none())
        for start in range(0, len(every.number), self.piece):
            these = every.where(slice(start, start + self.piece))
            count = len(these.number)
            run = detect_period(
                self.system,
                jnp.asarray(self.padded(these.x)),
                transient=0,
                max_period=self.max_period,
            )
            period = np.asarray(run.period)[:count]
            for value in np.unique(period):
                # Period 1: at rest after all, but not clearly in one class.
                end = End("cycle", period=int(value)) if value > 1 else End("unresolved")
                here = period == value
                self._count(end, these.number[here], these.x[here])


def whole_blocks(max_steps: int) -> int:
    """The budget of a run, rounded up to blocks of equal length."""
    blocks = ceil(max_steps / _BLOCK)
    return blocks * ceil(max_steps / blocks)


def add(one: Payload, other: Payload) -> Payload:
    """The tally and the waiting runs of two units, as arrays; the same in whichever order."""
    tally = Tally.of(one).plus(Tally.of(other))
    waiting = waiting_of(one).plus(waiting_of(other))
    waiting = waiting.where(np.argsort(waiting.number))
    return {**tally.arrays(waiting.x.shape[1:], waiting.x.dtype), **waiting._asdict()}


def ended(arrays: Payload) -> int:
    """How many runs are over."""
    return int(arrays["count"].sum())


def waiting_of(arrays: Payload) -> Waiting:
    """The runs that are not over."""
    return Waiting(arrays["number"], arrays["age"], arrays["x"])


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

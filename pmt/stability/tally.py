"""Where runs ended, counted: by unit of work, as arrays that add up."""

from dataclasses import dataclass, field, replace

import numpy as np

from pmt.parallel.units import Payload


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
class Tally:
    """The ends of some runs.

    Attributes:
      ends: the places, and what was seen there.
      steps: made in all, up to the looks that found the runs at their ends.
    """

    ends: dict[End, Seen] = field(default_factory=dict)
    steps: int = 0

    def count(self, end: End, seen: Seen) -> None:
        """Adds what was seen at a place; the arrays of ``seen`` are kept, not copied."""
        known = self.ends.get(end)
        if known is None:
            self.ends[end] = replace(seen)
            return
        known.count += seen.count
        if seen.first < known.first:
            known.first, known.state = seen.first, seen.state

    def plus(self, other: "Tally") -> "Tally":
        """This and the other together."""
        for end, seen in other.ends.items():
            self.count(end, seen)
        self.steps += other.steps
        return self

    def places(self) -> list[End]:
        """In the order of the first runs."""
        return sorted(self.ends, key=lambda end: self.ends[end].first)

    def arrays(self, shape: tuple[int, ...], dtype: np.dtype) -> Payload:
        """All of it as arrays, in the order of ``places``; ``shape`` and ``dtype`` of a state."""
        places = self.places()
        seen = [self.ends[end] for end in places]
        numbers = [(e.index, e.positive, e.collinear, e.clusters, e.period) for e in places]
        return {
            "kind": np.array([end.kind for end in places], np.str_),
            "numbers": np.array(numbers, np.int64).reshape(-1, 5),
            "count": np.array([each.count for each in seen], np.int64),
            "first": np.array([each.first for each in seen], np.int64),
            "state": np.array([each.state for each in seen], dtype).reshape(-1, *shape),
            "steps": np.array(self.steps, np.int64),
        }

    @classmethod
    def of(cls, arrays: Payload) -> "Tally":
        """From ``arrays``."""
        tally = cls(steps=int(arrays["steps"]))
        names = ("kind", "numbers", "count", "first", "state")
        for kind, numbers, count, first, state in zip(*(arrays[n] for n in names), strict=True):
            index, positive, collinear, clusters, period = (int(value) for value in numbers)
            end = End(str(kind), index, positive, bool(collinear), clusters, period)
            tally.ends[end] = Seen(int(count), int(first), state)
        return tally

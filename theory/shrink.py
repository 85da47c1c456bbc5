"""Makes a violation readable: fewer tokens, lower dimension, short decimals.

A candidate replaces the instance if it is simpler, every named hypothesis still holds strictly and
the conclusion is still violated, by at least a quarter of what it was. Candidates come from
``theory.simplify``; where the hypotheses name no condition, numbers of the *noise* are rounded
instead, so that they hold by construction.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from theory import simplify
from theory.hunt.engine import Batch, Engine, score
from theory.hunt.hunter import Found
from theory.results import Evaluated
from theory.simplify import Arrays
from theory.statement import Clause, Shape

_PASSES = 6
_SHARE = 0.25
# Status and margin must survive other machines, whose rounding differs by the tolerance.
_CLEAR = 3.0


@dataclass(frozen=True)
class Shrunk:
    """A violation and what it was shrunk to.

    Attributes:
    ----------
    before, after
        The instances; the same where nothing simpler violates the conclusion.
    hypotheses
        The margin of every named hypothesis at ``after``.
    digits
        Complexity before and after: significant digits in all of the inputs.
    tried, accepted
        Numbers of candidates.
    seconds
        Time that it took.
    """

    before: Evaluated
    after: Evaluated
    hypotheses: dict[str, float]
    digits: tuple[int, int]
    tried: int
    accepted: int
    seconds: float


def shrink(
    engine: Engine,
    clause: Clause,
    found: Found,
    *,
    seconds: float = 30.0,
    plain: bool = False,
    done: Callable[[int], None] = lambda _: None,
) -> Shrunk:
    """The simplest violation that greedy steps from ``found`` reach.

    Parameters
    ----------
    engine
        The hunt's, with what it compiled.
    clause
        The violated clause.
    found
        The violation.
    seconds
        No candidate is tried after this time.
    plain
        Names of fields say nothing: for conjectures, whose named hypotheses are all that is known
        of them. Fields are then only rounded, each of them.
    done
        Called between batches of candidates; may raise.
    """
    return _Shrinker(engine, clause, found, seconds, plain, done).run()


class _Shrinker:
    def __init__(
        self,
        engine: Engine,
        clause: Clause,
        found: Found,
        seconds: float,
        plain: bool,
        done: Callable[[int], None],
    ) -> None:
        self._engine, self._clause, self._found = engine, clause, found
        self._plain, self._done = plain, done
        self._start = time.monotonic()
        self._end = self._start + seconds
        instance = found.instance
        self._needed = _SHARE * instance.value
        self._tried = self._accepted = 0
        shapes = clause.hypotheses.shapes
        self._smallest = (min(s.n for s in shapes), min(s.d for s in shapes))

    def run(self) -> Shrunk:
        before = self._found.instance
        named = self._hypotheses(before.shape, before.case)
        if named:
            shape, case = before.shape, dict(before.case)
            starts = [case]
            if not self._plain:
                shape, case = self._smaller(shape, case)
                starts = [case, *simplify.rotated(shape, case)]
            ends = [self._rounded(shape, start) for start in starts if self._holds(shape, [start])]
            case = min(ends, key=simplify.digits, default=case)
        else:
            shape, case = before.shape, self._from_noise()
        after = self._evaluated(shape, case)
        if not after.value + after.tolerance < 0:
            after = before
        return Shrunk(
            before=before,
            after=after,
            hypotheses=self._hypotheses(after.shape, after.case),
            digits=(simplify.digits(before.case), simplify.digits(after.case)),
            tried=self._tried,
            accepted=self._accepted,
            seconds=time.monotonic() - self._start,
        )

    def _smaller(self, shape: Shape, case: Arrays) -> tuple[Shape, Arrays]:
        """Without tokens and dimensions, as long as one can go."""
        while True:
            options = [
                (one, simplify.repaired(one, less))
                for one, less in simplify.reduced(shape, case)
                if one.n >= self._smallest[0] and one.d >= self._smallest[1]
            ]
            for smaller in sorted({one for one, _ in options}, key=lambda s: (s.n * s.d, s.d)):
                candidates = [less for one, less in options if one == smaller]
                chosen = self._holds(smaller, candidates)
                if chosen:
                    shape, case = smaller, candidates[chosen[0]]
                    break
            else:
                return shape, case

    def _rounded(self, shape: Shape, case: Arrays) -> Arrays:
        """Simpler field by field and number by number, until nothing more helps."""
        names = simplify.fields(case, plain=self._plain)
        for _ in range(_PASSES):
            before = simplify.digits(case)
            for name in names:
                case = self._simplest(shape, case, simplify.whole(shape, case, name, self._plain))
                for entry in simplify.entries(case, name, self._plain):
                    case = self._simplest(
                        shape, case, simplify.single(case, name, entry, self._plain)
                    )
            if simplify.digits(case) == before:
                break
        return case

    def _simplest(self, shape: Shape, case: Arrays, proposals: Iterable[Arrays]) -> Arrays:
        """The simplest of the candidates that hold, if it is simpler than ``case``."""
        size = simplify.digits(case)
        candidates = list(proposals)
        if not self._plain:
            candidates = [simplify.repaired(shape, one) for one in candidates]
        candidates = [one for one in candidates if simplify.digits(one) < size]
        candidates.sort(key=simplify.digits)
        chosen = self._holds(shape, candidates)
        return candidates[chosen[0]] if chosen else case

    def _holds(self, shape: Shape, candidates: list[Arrays]) -> list[int]:
        """Which candidates satisfy the hypotheses and violate the conclusion."""
        good: list[int] = []
        for first in range(0, len(candidates), self._engine.batch):
            if time.monotonic() > self._end:
                break
            some = candidates[first : first + self._engine.batch]
            stacked = self._stacked(some)
            values, tolerances = self._engine.conclude(self._clause, shape, stacked)
            inside = self._engine.allowed(self._clause, shape, stacked)
            fine = inside & self._clear(values, tolerances)
            good += [first + int(i) for i in np.flatnonzero(fine[: len(some)])]
            self._tried += len(some)
            self._done(0)
            if good:
                break
        self._accepted += bool(good)
        return good

    def _clear(self, values: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        least = np.maximum(self._needed, self._found.instance.value)
        ordinary = np.isfinite(score(values, tolerances))
        return ordinary & (values <= least) & (values + _CLEAR * tolerances < 0)

    def _stacked(self, cases: list[Arrays]) -> Arrays:
        """A full batch: the last is repeated."""
        padded = [*cases, *[cases[-1]] * (self._engine.batch - len(cases))]
        return {name: np.stack([case[name] for case in padded]) for name in cases[0]}

    def _hypotheses(self, shape: Shape, case: Arrays) -> dict[str, float]:
        found = self._engine.hypotheses(self._clause, shape, self._stacked([dict(case)]))
        return {name: float(value[0]) for name, value in found.items()}

    def _evaluated(self, shape: Shape, case: Arrays) -> Evaluated:
        values, tolerances = self._engine.conclude(self._clause, shape, self._stacked([case]))
        return Evaluated(
            clause=self._clause.name,
            name=None,
            shape=shape,
            case=case,
            value=float(values[0]),
            tolerance=float(tolerances[0]),
        )

    def _from_noise(self) -> Arrays:
        """The instance of shorter noise: zeros, halves and few digits, as far as one can go."""
        shape, best = self._found.instance.shape, self._found.noise
        case = dict(self._found.instance.case)
        for _ in range(_PASSES):
            size = simplify.digits(case)
            for proposals in simplify.noises(best):
                for first in range(0, len(proposals.score), self._engine.batch):
                    if time.monotonic() > self._end:
                        return case
                    some = proposals.take(slice(first, first + self._engine.batch))
                    chosen = self._drawn(shape, some, simplify.digits(case))
                    if chosen is not None:
                        case, best = chosen
                        break
            if simplify.digits(case) == size:
                break
        return case

    def _drawn(self, shape: Shape, some: Batch, size: int) -> tuple[Arrays, Batch] | None:
        count = len(some.score)
        full = some.take(np.minimum(np.arange(self._engine.batch), count - 1))
        _, cases, values, tolerances = self._engine.evaluate(self._clause, shape, full)
        self._tried += count
        self._done(0)
        good = np.flatnonzero(self._clear(values, tolerances)[:count])
        options = [
            ({name: np.asarray(value[i]) for name, value in cases.items()}, int(i)) for i in good
        ]
        case, index = min(options, key=lambda one: simplify.digits(one[0]), default=({}, -1))
        if index < 0 or simplify.digits(case) >= size:
            return None
        self._accepted += 1
        return case, full.take([index])

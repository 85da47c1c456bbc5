"""Where a hunt searches, for how long, and what came of it."""

import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field

import numpy as np

from theory.hunt.engine import Batch, Engine
from theory.instances import GENERIC
from theory.results import Evaluated
from theory.statement import Clause, Form, FormName, Shape, Status

Inspect = Callable[[Clause, Shape, dict[str, np.ndarray], np.ndarray], None]

_KEPT = 64
# Generations of offspring for each descent; many more where there is no gradient.
_GENERATIONS, _GENERATIONS_ALONE = 4, 16
_WORKERS = 2
# How much of the budget must be left, in times of a ground's first piece, to compile a gradient in
# haste and with care.
_GRADIENT, _CAREFUL = 2.0, 8.0


@dataclass(frozen=True)
class Found:
    """An instance met by a hunt.

    Attributes:
    ----------
    instance
        The inputs and the margin.
    noise
        The noise it was drawn from, a batch of one.
    """

    instance: Evaluated
    noise: Batch


@dataclass(eq=False)
class Ground:
    """A clause at one shape: what was tried there, and the best starts for what comes next.

    Attributes:
    ----------
    clause, shape
        What is attacked.
    random, starts, steps, offspring
        Random instances evaluated; starts of descents and steps of all of them; mutated instances.
    best
        The instance with the smallest margin.
    differentiable
        Whether descents are of use; None before the first.
    turns, seconds, first
        Pieces of work done here, the time that they took, and that of the first.
    pool
        The worst instances met: where descents and mutations start.
    """

    clause: Clause
    shape: Shape
    random: int = 0
    starts: int = 0
    steps: int = 0
    offspring: int = 0
    best: Found | None = None
    differentiable: bool | None = None
    turns: int = 0
    seconds: float = 0.0
    first: float = 0.0
    pool: Batch | None = field(default=None, repr=False)

    @property
    def violation(self) -> Found | None:
        """The worst violation met here."""
        refuted = self.best is not None and self.best.noise.score[0] < 0
        return self.best if refuted else None

    @property
    def evaluations(self) -> int:
        """Evaluations of the margin in all."""
        return self.random + self.starts + self.steps + self.offspring

    def keep(self, batch: Batch) -> None:
        """Remember the best starts met so far."""
        pool = batch if self.pool is None else Batch.joined(self.pool, batch)
        self.pool = pool.take(np.argsort(pool.score, kind="stable")[:_KEPT])


@dataclass(frozen=True)
class Hunted:
    """What a hunt came to.

    Attributes:
    ----------
    statement, form, expected
        What was attacked, and the status expected of it.
    budget, seconds
        Seconds allowed, and used until the end of the search.
    grounds
        What was tried, by clause and shape.
    found
        The violation that ended the search, at the smallest shape if there were several.
    """

    statement: str
    form: FormName
    expected: Status
    budget: float
    seconds: float
    grounds: tuple[Ground, ...]
    found: Found | None

    @property
    def status(self) -> Status:
        """``refuted`` by a violation; a search that finds none decides nothing."""
        return "undecided" if self.found is None else "refuted"

    @property
    def as_expected(self) -> bool:
        """A form was refuted if and only if that was expected."""
        return (self.found is not None) == (self.expected == "refuted")

    @property
    def best(self) -> Found | None:
        """The instance with the smallest margin of all clauses, a violation before all others."""
        if self.found is not None:
            return self.found
        met = [ground.best for ground in self.grounds if ground.best is not None]
        return min(met, key=lambda one: one.noise.score[0], default=None)


class Hunter:
    """Searches one form of a statement for a violation.

    Every clause is first sampled at every shape, small ones first. Then, in turn and until the
    budget ends: descents by Adam from the worst instances and from random ones, and generations
    of mutations of the worst, for margins that have no gradient or steps.
    Explicit instances are never looked at.
    """

    def __init__(
        self,
        statement: str,
        name: FormName,
        form: Form,
        *,
        seed: int = 0,
        random: int = 512,
        done: Callable[[int], None] = lambda _: None,
        inspect: Inspect = lambda *_: None,
    ) -> None:
        """Parameters are those of the search.

        Parameters
        ----------
        statement, name, form
            What is attacked.
        seed
            Of all random numbers.
        random
            Random instances that each clause and shape is sampled with at first.
        done
            Called between pieces of work, from the calling thread; may raise to end the search.
        inspect
            Sees every evaluated batch; may raise.
        """
        self.statement, self.name, self.form = statement, name, form
        self.engine = Engine()
        self.grounds = tuple(
            sorted(
                (
                    Ground(clause, shape)
                    for clause in form.clauses
                    for shape in clause.hypotheses.shapes
                ),
                key=lambda ground: ground.shape.n * ground.shape.d * ground.shape.h,
            )
        )
        self._seed = zlib.crc32(f"{seed}/{statement}/{name}".encode())
        self._generator = np.random.default_rng(self._seed)
        self._random = random
        self._done, self._inspect = done, inspect
        self._budget, self._start, self._end = 0.0, 0.0, 0.0
        self._met = threading.Event()

    def run(self, budget: float) -> Hunted:
        """Search until a violation is found or ``budget`` seconds are over.

        Pieces that are under way when the budget ends are finished first.
        """
        self._budget, self._start = budget, time.monotonic()
        pool = ThreadPoolExecutor(max_workers=_WORKERS)
        idle = list(self.grounds)
        running: dict[Future[None], Ground] = {}
        try:
            while running or not self._over():
                # One piece compiles while another computes; only one at a time for each ground.
                while idle and len(running) < _WORKERS and not self._over():
                    ground = min(idle, key=lambda one: (one.turns > 0, one.seconds))
                    idle.remove(ground)
                    running[pool.submit(self._piece, ground)] = ground
                finished, _ = wait_for(running, timeout=0.2, return_when="FIRST_COMPLETED")
                for future in finished:
                    idle.append(running.pop(future))
                    future.result()
                self._done(0)
        except BaseException:
            # Without waiting for what compiles, so that the best so far can be saved at once.
            self.engine.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            self._end = time.monotonic()
        pool.shutdown()
        return self.report()

    def report(self) -> Hunted:
        """What was tried and found so far; also after ``run`` was stopped by an exception."""
        met = (ground.violation for ground in self.grounds if ground.violation is not None)
        return Hunted(
            statement=self.statement,
            form=self.name,
            expected=self.form.expected,
            budget=self._budget,
            seconds=(self._end or time.monotonic()) - self._start,
            grounds=self.grounds,
            found=next(met, None),
        )

    def _left(self) -> float:
        return self._start + self._budget - time.monotonic()

    def _over(self) -> bool:
        return self._met.is_set() or self._left() <= 0

    def _piece(self, ground: Ground) -> None:
        start = time.monotonic()
        path = (self.grounds.index(ground), ground.turns)
        if ground.turns == 0:
            self._sample(ground, path)
        else:
            self._attack(ground, path)
        ground.turns += 1
        ground.seconds += time.monotonic() - start
        if ground.turns == 1:
            ground.first = ground.seconds

    def _sample(self, ground: Ground, path: tuple[int, int]) -> None:
        for chunk in range(-(-self._random // self.engine.batch)):
            if self._stopped():
                return
            self._look(ground, self.engine.fresh(self._seed, (*path, chunk)))
            ground.random += self.engine.batch

    def _attack(self, ground: Ground, path: tuple[int, int]) -> None:
        generator = np.random.default_rng((self._seed, *path, 1))
        # A gradient takes a few times longer to compile than the margin did.
        worth_it = ground.differentiable or self._left() > _GRADIENT * ground.first
        if ground.differentiable is not False and worth_it:
            self._descend(ground, path)
        alone = ground.differentiable is False
        for _ in range(_GENERATIONS_ALONE if alone else _GENERATIONS):
            if self._stopped() or ground.pool is None:
                return
            self._look(ground, self.engine.mutated(ground.pool, generator))
            ground.offspring += self.engine.batch

    def _descend(self, ground: Ground, path: tuple[int, int]) -> None:
        """From the worst instances met and from random ones; every other time from these only."""
        starts = self.engine.fresh(self._seed, (*path, 2))
        if ground.pool is not None and path[1] % 2:
            starts = Batch.joined(ground.pool, starts).take(slice(self.engine.batch))
        try:
            best, share, steps = self.engine.descended(
                ground.clause,
                ground.shape,
                starts,
                over=self._stopped,
                careful=self._left() > _CAREFUL * ground.first,
            )
        except ValueError as error:
            if "everse-mode differentiation" not in str(error):
                raise
            ground.differentiable = False
            return
        ground.differentiable = share > 0
        ground.starts += self.engine.batch
        ground.steps += self.engine.batch * steps
        if self._stopped():
            return
        self._look(ground, best)

    def _stopped(self) -> bool:
        return self.engine.stop.is_set() or self._over()

    def _look(self, ground: Ground, batch: Batch) -> None:
        """Evaluates a batch; keeps what is best, and ends the search at a violation."""
        scored, cases, values, tolerances = self.engine.evaluate(ground.clause, ground.shape, batch)
        self._inspect(ground.clause, ground.shape, cases, values)
        bad = scored.score < 0
        if np.any(bad):
            # Far out, a hypothesis may fail by rounding.
            inside = self.engine.allowed(ground.clause, ground.shape, cases)
            scored = scored._replace(score=np.where(bad & ~inside, np.inf, scored.score))
        ground.keep(scored)
        order = np.argsort(scored.score, kind="stable")
        if np.any(scored.score < 0):
            # Generic instances are easier to read than those within a hair of something.
            generic = np.flatnonzero((scored.score < 0) & (scored.kind == GENERIC))
            if len(generic):
                order = generic[np.argsort(scored.score[generic], kind="stable")]
        best = int(order[0])
        if not np.isfinite(scored.score[best]):
            return
        found = Found(
            Evaluated(
                clause=ground.clause.name,
                name=None,
                shape=ground.shape,
                case={name: np.asarray(value[best]) for name, value in cases.items()},
                value=float(values[best]),
                tolerance=float(tolerances[best]),
            ),
            scored.take([best]),
        )
        least = np.inf if ground.best is None else ground.best.noise.score[0]
        if ground.violation is None and scored.score[best] < least:
            ground.best = found
        if ground.violation is not None:
            self._met.set()

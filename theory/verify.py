"""Runs statements on random and explicit instances and lets the margins decide.

Instances are evaluated in batches of one fixed size, so that a conclusion compiles once for each
shape whatever the number of instances; explicit instances and negative twins ride in the same
compiled function. Everything is computed in float64.

Where there are many instances, all local devices share the batches of every clause. A batch is
drawn from its own number and runs the same program anywhere, so the numbers are those of one.
"""

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.errors import Interrupted
from pmt.parallel.devices import default_device, local_devices
from pmt.parallel.units import Payload, Report, Unit, split_units
from pmt.parallel.workers import Workers
from theory import instances, margin, noise
from theory.compilation import WORTH_OPTIMIZING, quick_options
from theory.results import ClauseResult, Evaluated, FormResult, StatementResult, TwinResult
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    FormName,
    Hypotheses,
    Shape,
    Statement,
    Twin,
)

_LARGE, _SMALL = 512, 64
_WORKERS = 4
# Instances that are worth compiling for one more shape.
_WORTH = 24
# Instances of one shape for each device: every device compiles for itself.
_SHARE = WORTH_OPTIMIZING
# Before the names of an instance's fields, where they stand beside other names.
_FIELD = "case."


def verify(
    statements: Iterable[Statement],
    *,
    count: int,
    seed: int,
    done: Callable[[int], None] = lambda _: None,
) -> list[StatementResult]:
    """Checks both forms of every statement on ``count`` random instances each.

    Parameters
    ----------
    statements
        What to check.
    count
        Random instances for each form, divided among its clauses and their shapes.
    seed
        The instances of a clause depend on it and on the clause's names, not on what else runs.
    done
        Called with 1 after every statement, from any thread.
    """
    runner = Runner(_LARGE if count > 20 * _SMALL else _SMALL, local_devices())

    def both(statement: Statement) -> StatementResult:
        forms = tuple(
            runner.form(statement.id, name, form, count, seed)
            for name, form in statement.forms.items()
        )
        done(1)
        return StatementResult(statement, forms)

    # Compilation leaves the interpreter to others, so a second core helps though this is Python.
    pool = ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1))
    try:
        return list(pool.map(both, statements))
    except BaseException:
        runner.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class Runner:
    """Evaluates clauses, keeping what it compiled for as long as it lives.

    Parameters
    ----------
    batch
        Instances evaluated at a time.
    devices
        To share the batches of every clause; None for the default device.
    """

    def __init__(self, batch: int, devices: Sequence[jax.Device] | None = None) -> None:
        self._batch = batch
        self._devices = devices or (default_device(),)
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._locks: dict[Any, threading.Lock] = {}
        self._guard = threading.Lock()
        self._running: dict[Any, threading.Lock] = {}
        self.stop = threading.Event()

    def form(self, statement: str, name: FormName, form: Form, count: int, seed: int) -> FormResult:
        """Checks one form on ``count`` random instances and its explicit ones."""
        start = time.perf_counter()
        shares = np.array([clause.share for clause in form.clauses])
        counts = _divide(count, shares)
        clauses = tuple(
            self.clause(clause, number, _key(seed, statement, clause.name))
            for clause, number in zip(form.clauses, counts, strict=True)
        )
        return FormResult(name, form.text, form.expected, clauses, time.perf_counter() - start)

    def clause(self, clause: Clause, count: int, key: Any) -> ClauseResult:
        """Checks one clause; ``key`` is a NumPy seed sequence's integer."""
        with jax.enable_x64(True):
            # A few instances are not worth compiling for every shape; the last is the largest.
            shapes = clause.hypotheses.shapes[-max(1, count // _WORTH) :]
            counts = _divide(count, np.ones(len(shapes)))
            found: list[Evaluated] = []
            undecided, worst = 0, np.inf
            for index, (shape, number) in enumerate(zip(shapes, counts, strict=True)):
                often = number >= WORTH_OPTIMIZING
                taken = (noise.UNIFORMS, noise.NORMALS)
                if often:
                    taken = instances.taken(clause.hypotheses, shape)
                work = partial(self._evaluate, clause, shape, (key, index), taken, often)
                units = split_units(0, number, self._batch)
                workers = Workers(self._devices[: max(1, number // _SHARE)])
                for batch in workers.collect(work, None, units, _unheard):
                    undecided += int(batch.pop("undecided"))
                    worst = min(worst, float(batch.pop("worst")))
                    values, tolerances = batch.pop("margin"), batch.pop("tolerance")
                    found += [
                        Evaluated(
                            clause=clause.name,
                            name=None,
                            shape=shape,
                            case={
                                name.removeprefix(_FIELD): np.asarray(value[i])
                                for name, value in batch.items()
                            },
                            value=float(values[i]),
                            tolerance=float(tolerances[i]),
                        )
                        for i in range(len(values))
                    ]
            explicit = tuple(self._told(clause, instance) for instance in clause.explicit)
            twin = None if clause.twin is None else self.twin(clause, clause.twin)
        known = [e for e in explicit if e.outcome == "refuted"]
        return ClauseResult(
            clause=clause.name,
            instances=int(sum(counts)),
            undecided=undecided,
            worst=min([worst, *(e.value for e in explicit)]),
            violations=(*known, *sorted(found, key=lambda e: e.value)),
            explicit=explicit,
            twin=twin,
        )

    def _evaluate(
        self,
        clause: Clause,
        shape: Shape,
        stream: tuple[Any, int],
        taken: tuple[int, int],
        often: bool,
        _shared: None,
        unit: Unit,
        _report: Report,
    ) -> Payload:
        """One batch, drawn from its number: how it went, and the instances that are violations."""
        if self.stop.is_set():
            message = "stopped before the statements were checked"
            raise Interrupted(message)
        numbered = np.random.SeedSequence((*stream, unit.first // self._batch))
        source = noise.raw(numbered, self._batch, taken)
        cases = self._draw(clause.hypotheses, shape, source, often)
        values, tolerances = self._conclude(clause, shape, cases, often)
        values, tolerances = values[: unit.size], tolerances[: unit.size]
        bad = margin.violated(values, tolerances)
        here = np.flatnonzero(bad)
        return {
            "undecided": np.asarray(np.sum(~bad & ~margin.holds(values, tolerances))),
            "worst": np.asarray(np.min(values, initial=np.inf)),
            "margin": values[here],
            "tolerance": tolerances[here],
            **{_FIELD + name: np.asarray(value)[here] for name, value in cases.items()},
        }

    def explicit(self, clause: Clause, instance: Explicit) -> Evaluated:
        """The conclusion at one instance that was written down."""
        case = {name: _exact(value) for name, value in instance.case.items()}
        with jax.enable_x64(True):
            repeated = {
                name: np.broadcast_to(value, (self._batch, *value.shape))
                for name, value in case.items()
            }
            values, tolerances = self._conclude(clause, instance.shape, repeated)
        return Evaluated(
            clause=clause.name,
            name=instance.name,
            shape=instance.shape,
            case=case,
            value=float(values[0]),
            tolerance=float(tolerances[0]),
            text=instance.text,
        )

    def _told(self, clause: Clause, instance: Explicit) -> Evaluated:
        """The explicit instance, with its numbers where it is a violation to be shown."""
        found = self.explicit(clause, instance)
        if instance.numbers is None or found.outcome != "refuted":
            return found
        case = {name: jnp.asarray(value) for name, value in found.case.items()}
        with self._one_at_a_time():
            return replace(found, numbers=instance.numbers(instance.shape, case))

    def twin(self, clause: Clause, twin: Twin) -> TwinResult:
        """The conclusion without one of the hypotheses, and that it is only this one."""
        with jax.enable_x64(True):
            shape, hypotheses = twin.instance.shape, clause.hypotheses
            # Compiled whole: one operation after the other takes many times as long.
            margins = self._call(
                ("margins", hypotheses, shape, frozenset(twin.instance.case)),
                lambda case: hypotheses.margins(shape, case),
                {name: _exact(value)[None] for name, value in twin.instance.case.items()},
            )
            values = {name: float(value[0]) for name, value in margins.items()}
        return TwinResult(twin.drops, values, self.explicit(clause, twin.instance))

    def _draw(self, hypotheses: Hypotheses, shape: Shape, source: noise.Raw, often: bool) -> Case:
        return self._call(
            ("draw", hypotheses, shape, often),
            lambda source, kind: instances.draw(hypotheses, source, kind, shape),
            source,
            instances.kinds(self._batch),
            often=often,
        )

    def _conclude(
        self, clause: Clause, shape: Shape, cases: Case, often: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        # An instance may carry more fields than the conclusion reads; they are part of its inputs.
        key = ("conclude", clause.conclusion, shape, frozenset(cases))
        often = often or (default_device(), *key, True) in self._compiled
        value, tolerance = self._call(
            (*key, often),
            lambda case: clause.conclusion(shape, case),
            cases,
            often=often,
            thorough=clause.long,
        )
        return np.asarray(value), np.asarray(tolerance)

    def _call(
        self,
        key: Any,
        function: Callable[..., Any],
        *arguments: Any,
        often: bool = False,
        thorough: bool = False,
    ) -> Any:
        """``function`` on a batch, compiled for this device at the first call with this key."""
        key = (default_device(), *key)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._compiled:
                # Most of the time goes into compiling: let the compiler do as little as pays.
                options = {} if thorough else quick_options(often)
                lowered = jax.jit(jax.vmap(function)).lower(*arguments)
                self._compiled[key] = lowered.compile(compiler_options=options)
        with self._one_at_a_time():
            return jax.block_until_ready(self._compiled[key](*arguments))

    def _one_at_a_time(self) -> threading.Lock:
        """Computations that share XLA's thread pool, as a host's do, can block each other."""
        device = default_device()
        with self._guard:
            place = None if device.platform == "cpu" else device
            return self._running.setdefault(place, threading.Lock())


def _unheard(_done: int) -> None:
    """Progress is told by statements."""


def _exact(value: Any) -> np.ndarray:
    """float64 and int32, as instances are drawn."""
    array = np.asarray(value)
    return array.astype({"f": np.float64, "i": np.int32}.get(array.dtype.kind, array.dtype))


def _key(seed: int, statement: str, clause: str) -> int:
    """An integer for ``jax.random.key`` that depends on nothing but its arguments."""
    return zlib.crc32(f"{seed}/{statement}/{clause}".encode())


def _divide(count: int, shares: np.ndarray) -> list[int]:
    """``count`` split in the given proportions, every part at least 1, the sum exact if it can."""
    exact = np.cumsum(shares) / np.sum(shares) * count
    parts = np.diff(np.concatenate([[0], np.round(exact)])).astype(int)
    return [max(1, int(part)) for part in parts]

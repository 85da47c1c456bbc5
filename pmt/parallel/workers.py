"""Whatever there is to work with, behind one interface: devices, hosts, and finished units."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax

from pmt.parallel.devices import default_device, local_devices, run_on_devices
from pmt.parallel.hosts import Hosts
from pmt.parallel.store import UnitStore
from pmt.parallel.units import Claim, Payload, Report, Unit, Walk, Work, one_by_one

# Seconds between two looks at what other processes have finished.
_NAP = 0.2


@dataclass(frozen=True)
class Workers:
    """Who runs the units.

    Attributes:
      devices: of this process; None for all local ones, or for the default device where one was
        chosen with ``jax.default_device``.
      store: where finished units are kept and looked for; with several processes that of process 0.
      hosts: the processes of the run; None for this one alone.
    """

    devices: Sequence[jax.Device] | None = None
    store: UnitStore | None = None
    hosts: Hosts | None = None

    @property
    def local(self) -> tuple[jax.Device, ...]:
        """The devices of this process that the units run on."""
        return local_devices() if self.devices is None else tuple(self.devices)

    @property
    def alone(self) -> bool:
        """Whether all units run in the calling thread, on the device that is the default there."""
        # One device needs no thread, unless this one has to listen to other hosts meanwhile.
        return self.hosts is None and self.local == (default_device(),)

    @property
    def count(self) -> int:
        """How many devices there are in all, if each process has as many as this one."""
        return len(self.local) * (1 if self.hosts is None else self.hosts.count)

    def unfinished(self, name: str, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units that are not known from an earlier run; the same in every process.

        Raises:
          RequestError, IncompleteError: as ``reduce``.
        """
        store = self.store
        left = [unit for unit in units if store is None or store.get(name, unit) is None]
        return left if self.hosts is None else self.hosts.agree(left)

    def forget(self, name: str, units: Sequence[Unit]) -> None:
        """What these units gave is kept no longer, once nobody will ask for it."""
        if self.store is not None:
            self.store.remove(name, units)

    def reduce(
        self,
        name: str,
        work: Work,
        shared: Any,
        units: Sequence[Unit],
        add: Callable[[Payload, Payload], Payload],
        report: Report,
        ended: Callable[[Payload], int] | None = None,
    ) -> Payload:
        """The sum of what all units give; the same in every process.

        Args:
          name: under which finished units are kept; different for different work of a run.
          work, shared: see ``run_on_devices``; the same in every process, with random numbers from
            the global indices of the items.
          units: at least one.
          add: of what two units give; units come in any order, so it is associative and
            commutative without rounding.
          report: called in this thread with the number of items finished since, 0 now and then;
            what it raises ends the run everywhere.
          ended: how many items have been finished by what a unit gave; all of it if None.

        Raises:
          RequestError: another process found that the request is wrong; its sentence.
          IncompleteError: another process stopped.
          Exception: what ``work`` raises, also JAX's error where a device is out of memory.
        """
        return self.walk(name, one_by_one(work), shared, units, add, report, ended)

    def walk(
        self,
        name: str,
        walk: Walk,
        shared: Any,
        units: Sequence[Unit],
        add: Callable[[Payload, Payload], Payload],
        report: Report,
        ended: Callable[[Payload], int] | None = None,
        found: Callable[[Payload], None] | None = None,
    ) -> Payload:
        """The same where a device may be at work on several of its units, or carries a state.

        Args:
          walk: run once on each device.
          name, shared, units, add, report, ended: as in ``reduce``.
          found: called in this thread with what each unit gave, as soon as it is known; where there
            are several processes, in process 0 alone.

        Raises:
          RequestError, IncompleteError, Exception: as ``reduce``.
        """
        try:
            return self._walk(name, walk, shared, units, add, report, ended, found)
        except BaseException as error:
            if self.hosts is not None and (said := self.hosts.stop(error)) is not error:
                raise said from said.__cause__
            raise

    def collect(
        self, work: Work, shared: Any, units: Sequence[Unit], report: Report
    ) -> list[Payload]:
        """What each unit gives, in their order; by the devices of this process alone."""
        found = dict(self._here(one_by_one(work), shared, _claims(units), report))
        return [found[unit] for unit in units]

    def _walk(
        self,
        name: str,
        walk: Walk,
        shared: Any,
        units: Sequence[Unit],
        add: Callable[[Payload, Payload], Payload],
        report: Report,
        ended: Callable[[Payload], int] | None,
        found: Callable[[Payload], None] | None,
    ) -> Payload:
        def plus(payload: Payload) -> Payload:
            if found is not None:
                found(payload)
            return payload if total is None else add(total, payload)

        def told(unit: Unit, payload: Payload) -> None:
            report(unit.size if ended is None else ended(payload))

        total: Payload | None = None
        left = []
        for unit in units:
            known = self.store.get(name, unit) if self.store is not None else None
            if known is None:
                left.append(unit)
            else:
                total = plus(known)
                told(unit, known)
        with closing(self._results(walk, shared, left, report, told)) as results:
            for unit, payload in results:
                if self.store is not None:
                    self.store.put(name, unit, payload)
                total = plus(payload)
        if self.hosts is not None:
            total = _same_everywhere(self.hosts, total, report)
        if total is None:
            message = "there are no units to add up"
            raise ValueError(message)
        return total

    def _results(
        self,
        walk: Walk,
        shared: Any,
        units: list[Unit],
        report: Report,
        told: Callable[[Unit, Payload], None],
    ) -> Generator[tuple[Unit, Payload], None, None]:
        """Process 0: all units; the others run some, and yield none."""
        hosts = self.hosts
        if hosts is None:
            yield from self._here(walk, shared, _claims(units), report)
            return
        todo = hosts.begin(units)
        missing = set(todo)

        def heed(done: int) -> None:
            hosts.heed()
            report(done)

        for each in self._events(walk, shared, lambda: hosts.claim(todo), heed):
            if each is not None and not hosts.first:
                hosts.publish(*each)
            elif each is not None:
                missing.discard(each[0])
                yield each
            if hosts.first:
                yield from _arrived(hosts, missing, told)
        while hosts.first and missing:
            _nap(hosts, report)
            yield from _arrived(hosts, missing, told)

    def _here(
        self, walk: Walk, shared: Any, claim: Claim, report: Report
    ) -> Iterator[tuple[Unit, Payload]]:
        for each in self._events(walk, shared, claim, report):
            if each is not None:
                yield each

    def _events(
        self, walk: Walk, shared: Any, claim: Claim, report: Report
    ) -> Iterator[tuple[Unit, Payload] | None]:
        if self.alone:
            return walk(shared, claim, report)
        return run_on_devices(walk, shared, claim, self.local, report)


def _arrived(
    hosts: Hosts, missing: set[Unit], told: Callable[[Unit, Payload], None]
) -> Iterator[tuple[Unit, Payload]]:
    for unit, payload in hosts.published():
        missing.discard(unit)
        told(unit, payload)
        yield unit, payload


def _same_everywhere(hosts: Hosts, total: Payload | None, report: Report) -> Payload | None:
    if hosts.first:
        if total is not None:
            hosts.end(total)
        return total
    while (known := hosts.total()) is None:
        _nap(hosts, report)
    return known


def _nap(hosts: Hosts, report: Report) -> None:
    time.sleep(_NAP)
    hosts.heed()
    report(0)


def _claims(units: Sequence[Unit]) -> Claim:
    """The units one after the other, to whoever asks."""
    left, lock = iter(units), threading.Lock()

    def claim() -> Unit | None:
        with lock:
            return next(left, None)

    return claim

"""Runs to their ends in units of work, by whatever devices and hosts there are.

A unit is a range of runs that share a device's slots. The last few runs of a unit would leave most
slots idle, so they are handed over and brought to their ends together with those of other units.
Which runs share slots depends on their numbers and on nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.parallel.units import Payload, Report, Unit, Work, split_units, union
from pmt.parallel.workers import Workers
from pmt.stability.runs import Record, Runs, Waiting, add, ended, waiting_of
from pmt.stability.tally import Tally

Starts = Callable[[np.ndarray], np.ndarray]

# Units, in slots: several, so that runs that are over can make room for others.
_UNIT = 2
# Units before the runs they leave over are brought to their ends, so that memory is bounded.
_ROUND = 256


@dataclass(frozen=True)
class RunSettings:
    """What the runs of a unit have in common, beside the system; see ``Runs``.

    Attributes:
      starts: makes, on the unit's device, the function from numbers to initial conditions.
      shape, max_steps, tolerance, max_period, chunk: as of ``Runs``.
      record: what is kept of each run; as of ``Runs``.
    """

    starts: Callable[[], Starts]
    shape: tuple[int, int]
    max_steps: int
    tolerance: float
    max_period: int
    chunk: int
    record: Record = None

    def runs(self, system: Any, report: Report) -> Runs:
        """Empty slots."""
        return Runs(
            system=system,
            starts=self.starts(),
            shape=self.shape,
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            max_period=self.max_period,
            chunk=self.chunk,
            progress=report,
            record=self.record,
        )


def run_samples(
    settings: RunSettings, system: Any, first: int, last: int, workers: Workers, report: Report
) -> Tally:
    """Where runs number ``first`` to ``last`` − 1 end; at least one."""
    total = Tally()
    for units in _rounds(settings, first, last):
        work = _beginning(settings, units)
        found = workers.reduce("runs", work, system, units, add, report, ended)
        total.plus(Tally.of(found))
        rest, work = _leftover(settings, waiting_of(found))
        if rest:
            name = f"rest-{units[0].first}-{units[-1].last}"
            total.plus(Tally.of(workers.reduce(name, work, system, rest, add, report, ended)))
    return total


def run_recorded(
    settings: RunSettings, system: Any, count: int, workers: Workers, report: Report
) -> list[Payload]:
    """What every unit gives, with the places of runs 0 to ``count`` − 1; in every process."""
    pieces = []
    for units in _rounds(settings, 0, count):
        work = _apart(_beginning(settings, units))
        found = _parts(workers.reduce("starts", work, system, units, union, report, _all_ended))
        waiting = Runs.none_of(settings.shape, found[0]["x"].dtype)
        for each in found:
            waiting = waiting.plus(waiting_of(each))
        pieces += found
        rest, work = _leftover(settings, waiting)
        if rest:
            name = f"startsrest-{units[0].first}-{units[-1].last}"
            work = _apart(work)
            pieces += _parts(workers.reduce(name, work, system, rest, union, report, _all_ended))
    return pieces


def _apart(work: Work) -> Work:
    """The same with its unit in the names of the arrays, so that units are put side by side."""

    def named(shared: Any, unit: Unit, report: Report) -> Payload:
        return {f"{unit.first}/{name}": a for name, a in work(shared, unit, report).items()}

    return named


def _parts(together: Payload) -> list[Payload]:
    """What each unit gave, in the order of the units."""
    parts: dict[int, Payload] = {}
    for name, array in together.items():
        first, _, of = name.partition("/")
        parts.setdefault(int(first), {})[of] = array
    return [parts[first] for first in sorted(parts)]


def _all_ended(together: Payload) -> int:
    return sum(ended(each) for each in _parts(together))


def _rounds(settings: RunSettings, first: int, last: int) -> list[list[Unit]]:
    units = split_units(first, last, _UNIT * settings.chunk)
    return [units[at : at + _ROUND] for at in range(0, len(units), _ROUND)]


def _beginning(settings: RunSettings, units: list[Unit]) -> Any:
    # A unit that is alone has nobody to leave its last runs to.
    idle = settings.chunk // 16 if len(units) > 1 else 0

    def work(system: Any, unit: Unit, report: Report) -> Payload:
        runs = settings.runs(system, report)
        return runs.arrays(runs.run(unit.first, unit.last, idle=idle))

    return work


def _leftover(settings: RunSettings, waiting: Waiting) -> tuple[list[Unit], Any]:
    """The units of runs that have begun, and how they are brought to their ends."""

    def work(system: Any, unit: Unit, report: Report) -> Payload:
        runs = settings.runs(system, report)
        return runs.arrays(runs.run(0, 0, begun=waiting.where(slice(*unit))))

    return split_units(0, len(waiting.number), max(1, settings.chunk // 2)), work

"""Units of work: ranges of items, and what running one gives, as bytes that read back exactly."""

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pmt.errors import RequestError

Payload = dict[str, np.ndarray]
"""What a unit gives: arrays by name, of numbers or text."""

Report = Callable[[int], None]
"""Called by a unit at work with the number of items that have just been finished."""

Work = Callable[[Any, "Unit", Report], Payload]
"""From arrays on the unit's device, the unit, and whom to report to, to what the unit gives."""


class Unit(NamedTuple):
    """The items ``first`` to ``last`` − 1."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many items."""
        return self.last - self.first


Claim = Callable[[], Unit | None]
"""The next unit to run; None where there is none left. Called by several threads."""

Walk = Callable[[Any, Claim, Report], Iterator[tuple[Unit, Payload]]]
"""A device's way through the units that it claims, yielding what each gave once it is finished.

From arrays on the device, what claims the next unit, and whom to report to. It may have begun the
next unit before it yields one, and keep a state between them: units are claimed in their order.
"""


def one_by_one(work: Work) -> Walk:
    """The way on which every unit is finished before the next one is claimed."""

    def walk(shared: Any, claim: Claim, report: Report) -> Iterator[tuple[Unit, Payload]]:
        while (unit := claim()) is not None:
            yield unit, work(shared, unit, report)

    return walk


def split_units(first: int, last: int, size: int) -> list[Unit]:
    """The items ``first`` to ``last`` − 1, cut at all multiples of ``size``.

    The cuts do not depend on ``first``, so that a range that is gone on with is cut as the whole.
    """
    if size < 1:
        raise RequestError(f"the size of a unit is {size}; it must be at least 1")
    starts = [first, *range((first // size + 1) * size, last, size)] if first < last else []
    return [Unit(a, b) for a, b in zip(starts, [*starts[1:], last], strict=True)] if starts else []


def union(one: Payload, other: Payload) -> Payload:
    """The arrays of both, whose names differ."""
    return one | other


def united(by: str) -> Callable[[Payload, Payload], Payload]:
    """Adds up payloads of the same arrays, one entry for each item, sorted by the array ``by``."""

    def add(one: Payload, other: Payload) -> Payload:
        both = {name: np.concatenate([one[name], other[name]]) for name in one}
        order = np.argsort(both[by])
        return {name: values[order] for name, values in both.items()}

    return add


def to_bytes(payload: Payload) -> bytes:
    """The arrays as an ``.npz`` file; no pickle."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **payload)
    return file.getvalue()


def from_bytes(data: bytes) -> Payload:
    """What ``to_bytes`` was given.

    Raises:
      ValueError, OSError, zipfile.BadZipFile: for anything else.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}

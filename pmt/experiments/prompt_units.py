"""The tokens' own way through the layers, and prompts as units of work that devices divide.

Attention does not couple prompts, so a chunk of them goes through any number of layers alone. A
chunk's size depends on the shape of the tokens and never on how many devices there are: every
device runs the same compiled programs, and what they give is equal bit by bit.

Where one device works alone it takes all chunks through a layer that it has at hand. Where there
are several, they first divide the chunks and take them through some layers; then each layer is
measured by whoever claims it, and the states before and after it are known. In between, the states
of all prompts after all of these layers are held by every process, so there are only so many.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.experiments.analysis import AnalysisConfig
from pmt.experiments.stage import Stage, require_matrices
from pmt.memory import Parts
from pmt.parallel.devices import default_device
from pmt.parallel.units import Claim, Payload, Report, Unit, Walk, split_units, union
from pmt.parallel.workers import Workers

# Enough rows for products at their full rate, and few enough that a thousand prompts are divided.
CHUNK_TOKENS = 4096
# Bytes of states that the prompts' way is gone ahead of the layers; every process holds them, and
# process 0 for a moment three times.
STATES = 2**30


@runtime_checkable
class Way(Protocol):
    """The tokens' own way through the layers, for one device."""

    @property
    def at_once(self) -> int | None:
        """How many prompts of a chunk the device has memory for; None for all."""

    def layer(self, index: int) -> tuple[MultiHead, jax.Array]:
        """A layer, none of them before one that was asked for already, and the states before it."""

    def step(self, index: int, layer: MultiHead) -> jax.Array:
        """The states after the layer that was asked for last."""


class OwnWay:
    """All prompts' way, gone by one device.

    Args:
      stage, config: of the analysis.
      report: called with 0 after each layer that nobody asks for.
    """

    def __init__(self, stage: Stage, config: AnalysisConfig, report: Report) -> None:
        self._stage, self._config, self._report = stage, config, report
        self._parts, self._next = Parts(), 0
        self._x: jax.Array

    @property
    def at_once(self) -> int | None:
        """As of a ``Way``."""
        return self._parts.size

    def layer(self, index: int) -> tuple[MultiHead, jax.Array]:
        """As of a ``Way``; the tokens pass by the layers before it."""
        while self._next < index:
            self._pass_by()
        layer = self._read()
        return layer, self._x

    def step(self, index: int, layer: MultiHead) -> jax.Array:
        """As of a ``Way``."""
        x, chunks = self._x, prompt_chunks(*self._x.shape[:2])
        self._x = joined(
            [
                _advance(self._stage, index, layer, _rows(x, unit), unit.first, self._parts)
                for unit in chunks
            ]
        )
        self._next = index + 1
        return self._x

    def _read(self) -> MultiHead:
        """The next layer; the first one says where the tokens begin."""
        layer = self._stage.layer(self._next)
        if self._next == 0:
            self._x = self._stage.start(layer)
        return layer

    def _pass_by(self) -> None:
        """The tokens through a layer that is measured elsewhere."""
        index, layer = self._next, self._read()
        try:
            self.step(index, layer)
        except RequestError:
            # Whoever measures these layers finds this out first, and one says the same for all.
            require_matrices(self._stage, range(index + 1), self._config)
            raise
        self._report(0)


class KnownWay:
    """The way through some layers that all prompts have gone already.

    Args:
      stage: on the device; gives the layers.
      first: the first of these layers.
      states: before it, and after each of them; on the host.
      at_once: as of a ``Way``.
    """

    def __init__(
        self, stage: Stage, first: int, states: Sequence[np.ndarray], at_once: int | None
    ) -> None:
        self._stage, self._first, self._states, self.at_once = stage, first, states, at_once

    def layer(self, index: int) -> tuple[MultiHead, jax.Array]:
        """As of a ``Way``."""
        return self._stage.layer(index), jnp.asarray(self._states[index - self._first])

    def step(self, index: int, layer: MultiHead) -> jax.Array:
        """As of a ``Way``."""
        del layer
        return jnp.asarray(self._states[index - self._first + 1])


def prompt_chunks(prompts: int, n: int) -> list[Unit]:
    """Prompts of n tokens in chunks of about ``CHUNK_TOKENS`` tokens, equal ones but the last."""
    chunks = max(1, -(-prompts * n // CHUNK_TOKENS))
    return split_units(0, prompts, max(1, -(-prompts // chunks)))


def blocks_of_layers(
    stage: Stage, config: AnalysisConfig, workers: Workers, report: Report
) -> Iterator[tuple[range, Callable[[Stage, Report], Way]]]:
    """Consecutive layers to be measured together, and the tokens' way for one device.

    All layers, and the way is each device's own, where there is one worker or one chunk of prompts,
    or all layers are known from an earlier run. Else the workers have divided the prompts' way
    through these layers when they are given.

    Args:
      stage, config: of the analysis.
      workers: each process goes through the same blocks.
      report: see ``Workers.reduce``; called with 0 only.

    Raises:
      RequestError: as ``analyze``; the same sentence for any division.
    """
    depth = stage.depth
    if workers.count > 1 and len(prompt_chunks(*stage.prompts)) > 1:
        left = workers.unfinished("layers", split_units(0, depth, 1))
        if left:
            yield from _Divided(stage, config, workers, report).blocks(left[-1].last)
            return
    yield range(depth), lambda stage, report: OwnWay(stage, config, report)


class _Divided:
    """All prompts' way, which the workers divide: block by block of consecutive layers."""

    def __init__(
        self, stage: Stage, config: AnalysisConfig, workers: Workers, report: Report
    ) -> None:
        self._stage, self._config, self._workers = stage, config, workers
        self._report, self._chunks = report, prompt_chunks(*stage.prompts)

    def blocks(self, stop: int) -> Iterator[tuple[range, Callable[[Stage, Report], Way]]]:
        """As ``blocks_of_layers``; from layer ``stop`` on all are known from an earlier run.

        The states are kept in the store until the next block is asked for.
        """
        with jax.default_device(self._workers.local[0]):
            here = self._stage.on(default_device())
            x = np.asarray(here.start(here.layer(0)))
        step = max(1, STATES // x.nbytes)
        for first in range(0, stop, step):
            layers = range(first, min(first + step, stop))
            name = f"states-{layers.start}-{layers.stop}"
            total = self._workers.walk(
                name, self._walk(x, layers), None, self._chunks, union, self._report, _no_items
            )
            self._require_done(total, here)
            states = [x, *(_taken(total, str(index), self._chunks) for index in layers)]
            sizes = [int(total[f"at once/{unit.first}"]) for unit in self._chunks]
            at_once = min((size for size in sizes if size), default=None)
            x = states[-1]
            measured = layers if layers.stop < stop else range(first, self._stage.depth)
            yield measured, partial(_known_way, first, states, at_once)
            # Whoever still has the way has no use for it, and there is memory for one block.
            states.clear()
            self._workers.forget(name, self._chunks)

    def _walk(self, x: np.ndarray, layers: range) -> Walk:
        """Chunks, of which a device takes its share through the layers, each read once."""
        share = -(-len(self._chunks) // self._workers.count)

        def walk(shared: Any, claim: Claim, report: Report) -> Iterator[tuple[Unit, Payload]]:
            del shared
            stage, parts = self._stage.on(default_device()), Parts()
            while units := list(islice(iter(claim, None), share)):
                found: dict[Unit, Payload] = {unit: {} for unit in units}
                going = {unit: x[unit.first : unit.last] for unit in units}
                for index in layers:
                    _through(stage, index, going, found, parts, report)
                for unit in units:
                    at_once = {f"at once/{unit.first}": np.array(parts.size or 0)}
                    yield unit, found.pop(unit) | at_once

        return walk

    def _require_done(self, total: Payload, stage: Stage) -> None:
        """Raises what one device that goes this way alone would have met first."""
        failures = [
            (int(value[0]), int(name.partition("/")[2]), str(value[1]))
            for name, value in total.items()
            if name.startswith("failed/")
        ]
        if failures:
            index, _, sentence = min(failures)
            with jax.default_device(self._workers.local[0]):
                require_matrices(stage, range(index + 1), self._config)
            raise RequestError(sentence)


def _known_way(
    first: int, states: Sequence[np.ndarray], at_once: int | None, stage: Stage, report: Report
) -> Way:
    del report
    return KnownWay(stage, first, states, at_once)


def _through(
    stage: Stage,
    index: int,
    going: dict[Unit, np.ndarray],
    found: dict[Unit, Payload],
    parts: Parts,
    report: Report,
) -> None:
    """Chunks through one layer; one that fails goes no further, and why is among what is found."""
    layer = stage.layer(index)
    for unit, x in list(going.items()):
        try:
            after = _advance(stage, index, layer, jnp.asarray(x), unit.first, parts)
        except RequestError as error:
            found[unit][f"failed/{unit.first}"] = np.array([str(index), str(error)])
            del going[unit]
        else:
            going[unit] = found[unit][f"{index}/{unit.first}"] = np.asarray(after)
        report(0)


def _advance(
    stage: Stage, index: int, layer: MultiHead, x: jax.Array, first: int, parts: Parts
) -> jax.Array:
    """A chunk of prompts, of which ``first`` is the first one's number, after a layer."""

    def step(rows: slice) -> jax.Array:
        some = _rows(x, Unit(rows.start, rows.stop))
        # So that it is found out here that there is no memory for it.
        return jax.block_until_ready(stage.advance(index, layer, some, first + rows.start))

    return joined(parts.run(len(x), step))


def joined(parts: Sequence[jax.Array]) -> jax.Array:
    """One array; put together on the host, since the device may be short of memory."""
    if len(parts) == 1:
        return parts[0]
    return jnp.asarray(np.concatenate([np.asarray(part) for part in parts]))


def _rows(x: jax.Array, rows: Unit) -> jax.Array:
    """Some of the states; all of them are not copied."""
    return x if rows == (0, len(x)) else x[rows.first : rows.last]


def _taken(total: Payload, name: str, chunks: Sequence[Unit]) -> np.ndarray:
    """The states of all chunks, which are taken out of the total: they are many."""
    return np.concatenate([total.pop(f"{name}/{unit.first}") for unit in chunks])


def _no_items(_payload: Payload) -> int:
    """What is reported are layers that are measured."""
    return 0

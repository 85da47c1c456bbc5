"""Several processes of one run, usually one a host, on JAX's distributed runtime.

The processes share nothing but the runtime's store of keys on process 0: from there each claims the
next unit when it has time for one, and puts back what the unit gave. There are no collective
operations, so no process waits for another one in the middle of its work, and a unit gives what it
gives on one host. The runtime watches that every process is alive. Where one has not been heard of
for the timeout it ends all of them by aborting; a process of the run therefore needs a parent that
says so (`pmt` has one for every process). A process that gives up says why, and the first to do so
is heard by all: where the request was wrong, each of them raises the same ``RequestError``.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from pmt.errors import IncompleteError, RequestError
from pmt.files import as_json
from pmt.parallel.again import AGAIN
from pmt.parallel.runtime import other_jax, require_methods, uncompressed
from pmt.parallel.units import Payload, Report, Unit, from_bytes, to_bytes

_STOP, _WRITTEN, _BYE = "pmt/stop", "pmt/written", "pmt/bye"
# What is handed on goes in pieces: a message holds less than 2 GiB, and small ones are the fastest.
_PIECES, _PIECE = "pieces", 2**20
# Seconds between two questions whether a process has given up.
_HEED = 1.0
# Seconds to wait at the end for processes that do not come, and for the runtime to end.
_LEAVE = 20
# Seconds between two looks at a key that is waited for.
_WAIT = 0.1


class _Said(NamedTuple):
    """Why a process gives up, as the others hear it.

    Attributes:
      process: its index.
      sentence: the error's.
      wrong: whether the request was wrong, and not this run of it stopped.
      may_succeed: whether the same request may, as of ``RequestError``.
    """

    process: int
    sentence: str
    wrong: bool
    may_succeed: bool

    def error(self) -> Exception:
        """For the other processes to raise."""
        stopped = IncompleteError(f"process {self.process} stopped ({self.sentence}); {AGAIN}")
        if not self.wrong:
            return stopped
        error = RequestError(self.sentence)
        error.__cause__ = stopped if self.may_succeed else None
        return error


@dataclass
class Hosts:
    """The processes of this run; made by ``join_hosts``.

    Attributes:
      index: of this process, from 0; process 0 keeps the results and writes the files.
      count: how many there are.
      client: the runtime's.
      round: of the reductions made so far; every process makes the same ones.
      heeded: when the others were last listened to.
      given: units that this process has run for process 0.
      unread: at process 0, rounds whose keys may still be asked for.
      refused: called with the sentence as soon as this process knows, by itself or from another
        one, that the request was wrong; from then on it may be aborted at any time, since process 0
        waits only so long for the others.

    Every method raises ``IncompleteError`` where process 0 cannot be reached.
    """

    index: int
    count: int
    client: Any
    round: int = 0
    heeded: float = 0.0
    given: int = 0
    unread: list[int] = field(default_factory=list)
    refused: Callable[[str], None] = lambda _sentence: None

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def begin(self, units: list[Unit]) -> list[Unit]:
        """Process 0 says which units are to be run; the others ask for it."""
        told = self.agree(units)
        if self.first:
            self._forget()
            self.unread.append(self.round)
        return told

    def agree(self, units: list[Unit]) -> list[Unit]:
        """What process 0 says, in every process."""
        self.round += 1
        if self.first:
            self._call("key_value_set", self._key("units"), json.dumps(units))
            return units
        return [Unit(*pair) for pair in json.loads(self._wait(self._key("units")))]

    def require_same(self, request: dict[str, Any]) -> None:
        """Refuses processes that were asked for different things.

        Raises:
          RequestError: this process was asked for something else than process 0.
        """
        digest = hashlib.sha256(json.dumps(as_json(request), sort_keys=True).encode()).hexdigest()
        if self.first:
            self._call("key_value_set", self._key("request"), digest)
        elif self._wait(self._key("request")).decode() != digest:
            message = (
                f"process {self.index} was given another command than process 0, or has other "
                "versions; give the same command on every host"
            )
            # What process 0 was asked for may be right, and what it has finished is worth keeping.
            raise RequestError(message) from IncompleteError("the processes do not go together")

    def claim(self, units: list[Unit]) -> Unit | None:
        """The next unit that no process has claimed."""
        place = int(self._call("key_value_increment", self._key("claimed"), 1)) - 1
        return units[place] if place < len(units) else None

    def publish(self, unit: Unit, payload: Payload) -> None:
        """Hands what a unit gave to process 0."""
        self._put(f"done/{unit.first}-{unit.last}", payload)
        self.given += 1

    def published(self) -> list[tuple[Unit, Payload]]:
        """At process 0: what the others have published since it was last asked for."""
        self._forget()
        found = []
        for key, size in self._call("key_value_dir_get_bytes", self._key("done/")) or ():
            unit = key.rpartition("/")[2]
            first, last = unit.split("-")
            found.append((Unit(int(first), int(last)), self._get(f"done/{unit}", size)))
            self._call("key_value_delete", key)
            self._call("key_value_delete", self._key(f"{_PIECES}/done/{unit}"))
        return found

    def end(self, total: Payload) -> None:
        """Process 0 says what all units together gave."""
        self._put("total", total)

    def total(self) -> Payload | None:
        """What all units together gave; None while some are at work.

        Not to be asked again once it has been told.
        """
        size = self._ask(self._key("total"))
        if size is None:
            return None
        total = self._get("total", size)
        self._call("key_value_increment", self._key("read"), 1)
        return total

    def stop(self, why: BaseException) -> BaseException:
        """Lets the other processes know that this one gives up, so that they end at once.

        Returns:
          What to raise: ``why``; or, where it is a ``RequestError`` and another process had found
          one before, that one, so that all of them say the same.
        """
        wrong = isinstance(why, RequestError)
        may_succeed = isinstance(why, RequestError) and why.may_succeed
        # XLA's lines about memory are many.
        sentence = str(why).strip().split("\n", 1)[0] or type(why).__name__
        with suppress(Exception):
            # The first to say so is heard, and there is no second one.
            said = json.dumps(_Said(self.index, sentence, wrong, may_succeed))
            with suppress(IncompleteError):
                self._call("key_value_set", _STOP, said)
            first = self._said()
            if wrong and first is not None and first.wrong and first.sentence != sentence:
                why, sentence = first.error(), first.sentence
        if wrong:
            self.refused(sentence)
        return why

    def end_writing(self) -> None:
        """Process 0 says that the result is written, so that the others may end."""
        with suppress(IncompleteError):
            self._call("key_value_set", _WRITTEN, "")

    def wait_for_writing(self, report: Report) -> None:
        """Until process 0 has written the result; ``report`` is called with 0 now and then."""
        while self._ask(_WRITTEN) is None:
            self.heed()
            report(0)
            time.sleep(_WAIT)

    def heed(self) -> None:
        """Raises what a process has said on giving up.

        Raises:
          RequestError: it found that the request was wrong; its sentence.
          IncompleteError: it stopped for anything else.
        """
        now = time.monotonic()
        if now - self.heeded < _HEED:
            return
        self.heeded = now
        said = self._said()
        if said is not None:
            if said.wrong:
                self.refused(said.sentence)
            raise said.error()

    def leave(self) -> None:
        """Ends the run for this process, once the others are ready to end too.

        The runtime aborts the process that leaves it while another one does not, so it is left
        only where all have said that they are about to. Where one does not say so in time, the
        runtime is left as it is, and the process is to end soon.
        """
        with suppress(Exception):
            self._call("key_value_set", f"{_BYE}/{self.index}", "")
            if self._all_leave():
                jax.distributed.shutdown()

    def _said(self) -> _Said | None:
        said = self._ask(_STOP)
        return None if said is None else _Said(*json.loads(said))

    def _all_leave(self) -> bool:
        deadline = time.monotonic() + _LEAVE
        missing = set(range(self.count))
        while missing and time.monotonic() < deadline:
            missing = {each for each in missing if self._ask(f"{_BYE}/{each}") is None}
            time.sleep(_WAIT if missing else 0.0)
        return not missing

    def _put(self, name: str, payload: Payload) -> None:
        """In pieces, and how many bytes they are under the name, which is there last."""
        data = to_bytes(payload)
        for place in range(0, len(data), _PIECE):
            key = self._key(f"{_PIECES}/{name}/{place}")
            self._call("key_value_set_bytes", key, data[place : place + _PIECE])
        self._call("key_value_set", self._key(name), str(len(data)))

    def _get(self, name: str, size: bytes) -> Payload:
        places = range(0, int(size), _PIECE)
        pieces = (self._ask(self._key(f"{_PIECES}/{name}/{place}")) for place in places)
        return from_bytes(b"".join(piece or b"" for piece in pieces))

    def _forget(self) -> None:
        """Deletes the keys of earlier rounds whose total every process has read."""
        for old in list(self.unread):
            if old == self.round:
                continue
            read = self._ask(f"pmt/{old}/read")
            if self.count == 1 or (read is not None and int(read) == self.count - 1):
                for name in ("units", "claimed", "total", f"{_PIECES}/total", "read"):
                    self._call("key_value_delete", f"pmt/{old}/{name}")
                self.unread.remove(old)

    def _wait(self, key: str) -> bytes:
        while (said := self._ask(key)) is None:
            self.heed()
            time.sleep(_WAIT)
        return said

    def _ask(self, key: str) -> bytes | None:
        found = self._call("key_value_try_get_bytes", key)
        return None if found is None else bytes(found)

    def _call(self, name: str, *arguments: Any) -> Any:
        """A method of the runtime's client; None where there is no such key."""
        method: Callable[..., Any] = getattr(self.client, name)
        try:
            return method(*arguments)
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith("NOT_FOUND"):
                return None
            reason = " ".join(str(error).split("\n", 1)[0].split())
            raise IncompleteError(f"process 0 cannot be reached ({reason}); {AGAIN}") from error

    def _key(self, name: str) -> str:
        return f"pmt/{self.round}/{name}"


def join_hosts(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    *,
    timeout: int = 60,
    patience: int = 300,
) -> Hosts:
    """Makes this process one of a run; before JAX has been used for anything.

    Args:
      coordinator: ``HOST:PORT`` of process 0, reachable from all; None: found out from the cluster
        (Slurm, Open MPI, Kubernetes, TPU pods), as by ``jax.distributed.initialize``.
      count: number of processes; None as before.
      index: which of them this is, from 0; None as before.
      timeout: seconds without a sign of life after which a process counts as dead.
      patience: seconds to wait for all processes to come.

    Raises:
      RequestError: numbers or an address that make no sense, no cluster that JAX knows, a JAX
        whose runtime has not the store of keys that is used here.
      IncompleteError: not all processes came.
    """
    if count is not None and index is not None and not 0 <= index < count:
        raise RequestError(
            f"process {index} of {count}: the processes are numbered from 0 to {count - 1}"
        )
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise RequestError(f"the coordinator is {coordinator!r}; expected HOST:PORT")
    try:
        # There is no public name for the client; Orbax takes it from here too.
        from jax._src import distributed
    except ImportError as error:
        raise other_jax("jax._src.distributed") from error
    # It would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    # What gRPC logs about its retries is for nobody.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        with uncompressed(distributed):
            jax.distributed.initialize(
                coordinator,
                count,
                index,
                initialization_timeout=patience,
                heartbeat_timeout_seconds=timeout,
                shutdown_timeout_seconds=min(timeout, _LEAVE),
            )
    except ValueError as error:
        raise RequestError(
            f"this process cannot tell its place in the run ({str(error).rstrip('.')}); give "
            "--coordinator HOST:PORT, --num-processes and --process-id, or start it by Slurm or "
            "Open MPI"
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 1)[0].split())
        raise IncompleteError(
            f"not all processes came within {patience} s, or process 0 could not be reached "
            f"({reason}); give the same command on every host again"
        ) from error
    client = getattr(getattr(distributed, "global_state", None), "client", None)
    require_methods(client)
    return Hosts(jax.process_index(), jax.process_count(), client)

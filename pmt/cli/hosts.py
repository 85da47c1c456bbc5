"""One command on several hosts: the options, and the parent that says why a process was ended.

JAX's distributed runtime ends a process by aborting it when another one has died. So the command
runs in a child, and its parent, which never starts JAX, turns that into one sentence and status 3.
What the child had finished by then stays finished: the parent ends with the child's own status.
"""

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

from pmt.cli.exits import AT_END
from pmt.errors import IncompleteError, Interrupted, RequestError

if TYPE_CHECKING:
    from pmt.parallel.hosts import Hosts

Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="HOST:PORT",
        help="Several hosts: the same command on each, with the address of process 0, which opens "
        "the port; 'auto' finds it out from Slurm, Open MPI, Kubernetes or a TPU pod.",
        show_default=False,
    ),
]
ProcessCount = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        metavar="N",
        help="Several hosts: how many processes there are in all.",
        show_default=False,
    ),
]
ProcessId = Annotated[
    int | None,
    typer.Option(
        "--process-id",
        min=0,
        metavar="I",
        help="Several hosts: which process this is, from 0; 0 writes the files.",
        show_default=False,
    ),
]
HostTimeout = Annotated[
    int,
    typer.Option(
        "--host-timeout",
        min=2,
        metavar="SECONDS",
        help="Several hosts: without a sign of life for so long a process counts as dead, and all "
        "others end with status 3.",
    ),
]
HOST_TIMEOUT = 60

# What the child leaves in the parent's log once nothing is left to be done.
_DONE = "pmt has done its work: status"
# The same once the request is known to be wrong, with the sentence as JSON.
_REFUSED = "pmt was asked for what it cannot do:"

# Seconds between two looks at the child, and how long it has after a request to end.
_LOOK, _GRACE = 0.05, 30.0


@dataclass(frozen=True)
class Place:
    """Which process of which run this is to be, as the options say it.

    Attributes: as of ``pmt.parallel.join_hosts``; all None for a run of one process.
    """

    coordinator: str | None
    count: int | None
    index: int | None
    timeout: int

    @property
    def several(self) -> bool:
        """Whether the run was asked to have several processes."""
        if self.coordinator is None and (self.count is not None or self.index is not None):
            option = "--num-processes" if self.count is not None else "--process-id"
            message = f"{option} is for several hosts, and --coordinator is missing"
            raise RequestError(message)
        return self.coordinator is not None

    @contextmanager
    def joined(self) -> "Iterator[Hosts | None]":
        """The processes of the run; None if there is one. Before anything starts JAX."""
        if not self.several:
            yield None
            return
        from pmt.parallel.hosts import join_hosts

        address = None if self.coordinator == "auto" else self.coordinator
        hosts = join_hosts(address, self.count, self.index, timeout=self.timeout)
        hosts.refused = _note_refusal
        try:
            yield hosts
        except BaseException as error:
            if (said := hosts.stop(error)) is not error:
                raise said from said.__cause__
            raise
        finally:
            hosts.leave()


def supervised(timeout: int) -> int | None:
    """Goes on in a child, where it returns None; in the parent, the child's exit status.

    To be called before JAX is imported. A request to end is handed on to the child, once.

    Raises:
      IncompleteError, Interrupted: in the parent, where a signal ended the child.
      RequestError: a port that is taken, or a system that cannot fork; in the parent, what the
        child knew to be wrong with the request when the runtime ended it.
    """
    if not hasattr(os, "fork"):
        message = "several hosts need a system that can fork; run it on one host, or under Linux"
        raise RequestError(message)
    log = tempfile.TemporaryFile()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(writer)
        _become_child(reader, log)
        return None
    os.close(reader)
    try:
        status, asked = _wait(child)
    finally:
        os.close(writer)
    said = _logged(log)
    if os.environ.get("PMT_DEBUG"):
        sys.stderr.write(said)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    done = re.search(rf"^{_DONE} (\d+)$", said, re.MULTILINE)
    if done is not None:
        return int(done[1])
    refused = re.search(rf"^{_REFUSED} (.+)$", said, re.MULTILINE)
    if refused is not None:
        raise RequestError(json.loads(refused[1]))
    from pmt.parallel.again import AGAIN

    if asked is not None:
        raise Interrupted(f"stopped by {asked.name}; {AGAIN}")
    _explain(signal.Signals(os.WTERMSIG(status)), said, timeout)


def _become_child(reader: int, log: BinaryIO) -> None:
    # Of its own group, so that a terminal interrupts the parent alone, which hands it on.
    os.setpgid(0, 0)
    # What C++ writes while it aborts says nothing to a user; Python keeps the real stream.
    real = os.dup(2)
    os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(real, "w", encoding="utf-8", errors="backslashreplace", buffering=1)

    def end_with_parent() -> None:
        with suppress(OSError):
            os.read(reader, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # At once: the runtime, if it was not left, may abort while Python takes itself apart.
    AT_END.append(_end_now)


def _end_now(status: int) -> NoReturn:
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def _wait(child: int) -> tuple[int, signal.Signals | None]:
    """How the child ended, and the request to end that was handed on to it, if any."""
    asked: list[tuple[signal.Signals, float]] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        if not asked:
            asked.append((signal.Signals(number), time.monotonic()))
            with suppress(ProcessLookupError):
                os.kill(child, number)

    before: dict[int, Any] = {}
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:
            before[each] = signal.signal(each, hand_on)
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status, asked[0][0] if asked else None
            # While it connects, or compiles for long, it does not heed anything.
            if asked and time.monotonic() - asked[0][1] > _GRACE:
                os.kill(child, signal.SIGKILL)
            time.sleep(_LOOK)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _logged(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode("utf-8", errors="replace")


def _explain(ended_by: signal.Signals, said: str, timeout: int) -> NoReturn:
    """Why the distributed runtime ended the child, by what it wrote last."""
    from pmt.parallel.again import AGAIN

    if "Failed to add port" in said:
        message = "process 0 cannot open the port that --coordinator names; take another one"
        raise RequestError(message)
    if "RegisterTask" in said:
        message = "not all processes of the run came in time, or process 0 could not be reached; "
    elif "oordination" in said:
        message = f"another process of the run has died, or was not heard of for {timeout} s; "
    else:
        message = f"the process of this host was ended by {ended_by.name}; "
    raise IncompleteError(message + AGAIN)


def _note_refusal(sentence: str) -> None:
    os.write(2, f"\n{_REFUSED} {json.dumps(sentence)}\n".encode())


def finished(hosts: "Hosts | None", status: int) -> int:
    """The status, once what was asked for is printed and written: no later end changes it."""
    if hosts is None:
        return status
    sys.stdout.flush()
    # The log of the parent, see `_become_child`.
    os.write(2, f"\n{_DONE} {int(status)}\n".encode())
    if hosts.first:
        hosts.end_writing()
    return status


def last_words(hosts: "Hosts", listen: Callable[[], None]) -> None:
    """Waits until process 0 has written the result, and says how much this process has done."""
    hosts.wait_for_writing(lambda _done: listen())
    units = f"{hosts.given} unit{'' if hosts.given == 1 else 's'} of work"
    print(f"process {hosts.index} of {hosts.count} is done after {units}; process 0 has the result")

"""Hearing an interrupt between pieces of work, and not in the middle of compiled code.

Python's handlers run wherever the main thread happens to be. Inside JAX, in a callback from C++ or
while something compiles, an exception from a handler can end the process with a segmentation
fault, and then nothing is said and the exit status is wrong.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# Seconds until a request to end that was lost is heard again.
_AGAIN = 0.02


@contextmanager
def between_pieces() -> Iterator[Callable[[], None]]:
    """Holds back requests to end until the function that it yields is called, or the block ends.

    A second request while one waits is obeyed at once::

        with between_pieces() as listen:
            for piece in pieces:
                work(piece)
                listen()
    """
    if threading.current_thread() is not threading.main_thread():
        yield _nothing
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}

    def obey(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            obey(number, frame)
        waiting.append((number, frame))

    def listen() -> None:
        if waiting:
            obey(*waiting.pop())

    for name in _SIGNALS:
        number = getattr(signal, name, None)
        # What is ignored, or ends the process without Python, stays as it is.
        if number is not None and callable(signal.getsignal(number)):
            before[number] = signal.signal(number, hold)
    try:
        yield listen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    listen()


@contextmanager
def heard_again() -> Iterator[None]:
    """Lets no request to end be lost where Python ignores exceptions.

    It does in destructors and in callbacks of the garbage collector, of which JAX has one. That is
    the first Python code to run after much compiled code, so that signals often arrive there: the
    program would go on as if nothing had been said.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or not hasattr(signal, "setitimer"):
        yield
        return
    before = sys.unraisablehook

    def hook(ignored: Any) -> None:
        error = ignored.exc_value
        if not isinstance(error, KeyboardInterrupt):
            before(ignored)
            return
        # As `pmt.errors.Interrupted` says which it was.
        name = next((each for each in _SIGNALS if each in str(error)), "SIGINT")
        # An exception from here would be ignored too.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(getattr(signal, name)))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    alarm = signal.getsignal(signal.SIGALRM)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        if signal.getsignal(signal.SIGALRM) is not alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm or signal.SIG_DFL)


def _nothing() -> None:
    pass

"""Hearing an interrupt between pieces of work, and not in the middle of compiled code.

Python's handlers run wherever the main thread happens to be. Inside JAX, in a callback from C++ or
while something compiles, an exception from a handler can end the process with a segmentation
fault, and then nothing is said and the exit status is wrong.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


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


def _nothing() -> None:
    pass

"""Pieces of work on threads of a pool, and their answers in order."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


class Pool(AbstractContextManager["Pool"]):
    """Threads for pieces of work, which several ``Ahead`` may share.

    Args:
      threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads)
        self._keyed: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def begin(self, work: Callable[[], Any], key: Hashable = None) -> Future[Any]:
        """The answer to come; of work with the same key, if there was some before.

        The answers of work with a key are kept as long as the pool.
        """
        if key is None:
            return self._executor.submit(work)
        with self._lock:
            if key not in self._keyed:
                self._keyed[key] = self._executor.submit(work)
            return self._keyed[key]

    def close(self) -> None:
        """Wait for what is at work, and drop the rest."""
        self._executor.shutdown(cancel_futures=True)
        self._keyed.clear()

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def side_by_side(
    work: Iterable[Callable[[], T]], threads: int, pieces: int | None = None
) -> Iterator[Iterator[T]]:
    """The answers of pieces of work in their order; begun at once, on threads of its own.

    At the end of the ``with`` statement no piece is at work. JAX's settings belong to a thread:
    pieces that use it need those of the caller, see `pmt.parallel.devices.callers_settings`.

    Args:
      work: the pieces.
      threads: how many are at work at a time.
      pieces: how many are at work or wait with their answers; as many as there are threads if None.
    """
    waiting = iter(work)

    def answers() -> Iterator[T]:
        while begun:
            answer = begun.popleft().result()
            begun.extend(pool.begin(piece) for piece in islice(waiting, 1))
            yield answer

    with Pool(threads) as pool:
        begun: deque[Future[T]] = deque(
            pool.begin(piece) for piece in islice(waiting, pieces or threads)
        )
        yield answers()

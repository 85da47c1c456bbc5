"""Work on other threads, a bounded number of pieces ahead of what is done with their answers."""

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
def side_by_side(work: Iterable[Callable[[], T]], threads: int) -> Iterator[Iterator[T]]:
    """The answers of pieces of work in their order; begun at once, on threads of its own.

    At the end of the ``with`` statement no piece is at work. They may not use JAX: see ``Ahead``.

    Args:
      work: the pieces.
      threads: how many are at work at a time, or wait with their answers.
    """
    waiting = iter(work)

    def answers() -> Iterator[T]:
        while begun:
            answer = begun.popleft().result()
            begun.extend(pool.begin(piece) for piece in islice(waiting, 1))
            yield answer

    with Pool(threads) as pool:
        begun: deque[Future[T]] = deque(pool.begin(piece) for piece in islice(waiting, threads))
        yield answers()


class Ahead(AbstractContextManager["Ahead"]):
    """Pieces of work side by side; what follows from each is done in order, on the caller's thread.

    So what follows may use JAX, whose settings (``jax.enable_x64``) belong to the thread that makes
    them, and the work itself may not. An answer is let go once what follows from it is done.

    Args:
      pieces: how many may be at work or wait with their answers.
      pool: whose threads work, closed by others; as many of its own as there are pieces if None.
    """

    def __init__(self, pieces: int, pool: Pool | None = None) -> None:
        self._pieces, self._shared = pieces, pool is not None
        self._pool = pool or Pool(pieces)
        self._begun: deque[tuple[Future[Any], list[Callable[[], None]]]] = deque()

    def add(
        self, work: Callable[[], Any], then: Callable[[Any], None], key: Hashable = None
    ) -> None:
        """Begin a piece of work; where there are too many, first be done with the oldest.

        Args:
          work: runs on another thread.
          then: called with its answer, after whatever was added before.
          key: see ``Pool.begin``.
        """
        while len(self._begun) >= self._pieces:
            self._be_done_with_oldest()
        future = self._pool.begin(work, key)
        self._begun.append((future, [lambda: then(future.result())]))

    def after(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was added before is done with; at once if it is."""
        if self._begun:
            self._begun[-1][1].append(then)
        else:
            then()

    def finish(self) -> None:
        """Be done with everything."""
        while self._begun:
            self._be_done_with_oldest()

    def _be_done_with_oldest(self) -> None:
        future, following = self._begun.popleft()
        future.result()
        del future
        while following:
            following.pop(0)()

    def __exit__(self, *_: object) -> None:
        if not self._shared:
            self._pool.close()
        self._begun.clear()

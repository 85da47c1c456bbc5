"""Work on other threads, a bounded number of pieces ahead of what is done with their answers."""

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from pmt.parallel.pool import Pool


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

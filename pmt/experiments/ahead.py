"""Work on other threads, a bounded number of pieces ahead of what is done with their answers."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Ahead:
    """Pieces of work side by side; what follows from each is done in order, on the caller's thread.

    So what follows may use JAX, whose settings (``jax.enable_x64``) belong to the thread that makes
    them, and the work itself may not. An answer is let go once what follows from it is done.

    Args:
      pieces: how many may be at work or wait with their answers.
    """

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._pool = ThreadPoolExecutor(pieces)
        self._begun: deque[tuple[Future[Any], list[Callable[[], None]]]] = deque()

    def add(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Begin a piece of work; where there are too many, first be done with the oldest.

        Args:
          work: runs on another thread.
          then: called with its answer, after whatever was added before.
        """
        while len(self._begun) >= self._pieces:
            self._be_done_with_oldest()
        future = self._pool.submit(work)
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

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._begun.clear()

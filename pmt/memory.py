"""A device out of memory: how it is recognised, and going on with less at a time.

JAX raises one error for everything that goes wrong on a device; its text says what.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Names of JAX's class, old and new: nothing here imports jax.
_ERRORS = frozenset({"JaxRuntimeError", "XlaRuntimeError"})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device has no memory left: JAX's RESOURCE_EXHAUSTED."""
    named = any(kind.__name__ in _ERRORS for kind in type(error).__mro__)
    return named and "RESOURCE_EXHAUSTED" in str(error)


class Parts:
    """A batch computed in parts: in one, until the device's memory is exhausted, then in halves.

    Attributes:
      size: how many fit at a time, as far as is known; None for any number.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def run(self, total: int, work: Callable[[slice], T]) -> list[T]:
        """The answers of ``work`` for consecutive rows that cover ``range(total)``.

        Args:
          total: rows of the batch.
          work: called with a slice of rows; it returns when the device is done, and is called again
            with fewer rows where the device ran out of memory.

        Raises:
          Exception: what ``work`` raises, also for a single row without memory for it.
        """
        start, found = 0, []
        while start < total:
            stop = min(start + (self.size or total), total)
            try:
                found.append(work(slice(start, stop)))
            except Exception as error:
                if stop - start == 1 or not is_out_of_memory(error):
                    raise
                self.size = (stop - start + 1) // 2
                continue
            start = stop
        return found

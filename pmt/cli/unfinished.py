"""How a command with --out keeps what it has finished, and goes on with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmt.errors import Interrupted

if TYPE_CHECKING:
    from pmt.parallel.store import UnitStore

# The folder in --out of what is finished before all is.
_UNFINISHED = "unfinished"


def unfinished(folder: Path, request: dict[str, Any], overwrite: bool) -> "UnitStore":
    """The finished units in --out.

    Raises:
      RequestError: units of another request, unless ``overwrite``.
    """
    from pmt.parallel.store import UnitStore

    return UnitStore(folder / _UNFINISHED, request, overwrite=overwrite)


@contextmanager
def resumable(store: "UnitStore | None") -> Iterator[None]:
    """Says of an interrupted run that it can be gone on with."""
    try:
        yield
    except KeyboardInterrupt as error:
        if store is None:
            raise
        message = f"stopped; what was finished is kept in {store.folder.parent}, "
        raise Interrupted(message + "and the same command goes on with it") from error

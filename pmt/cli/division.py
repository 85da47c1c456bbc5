"""What the commands share that divide their work among devices and hosts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmt.cli import screen
from pmt.cli.unfinished import resumable, unfinished
from pmt.errors import RequestError
from pmt.files import prepare_output_directory

if TYPE_CHECKING:
    from pmt.parallel.hosts import Hosts
    from pmt.parallel.store import UnitStore
    from pmt.parallel.workers import Workers


@dataclass(frozen=True)
class Division:
    """Who runs what a command asks for, and where it is kept until all is done.

    Attributes:
      hosts: the processes of the run; None for this one alone.
      folder: --out, in the process that writes it.
      store: the finished units in it.
    """

    hosts: "Hosts | None"
    folder: Path | None
    store: "UnitStore | None"

    @classmethod
    def of(
        cls,
        hosts: "Hosts | None",
        request: dict[str, Any],
        out: Path | None,
        writer: str,
        overwrite: bool,
    ) -> "Division":
        """For a command's request, see ``request_of``.

        Raises:
          RequestError: another process, or an unfinished run in --out, was asked for something
            else; a folder that cannot be used.
        """
        if hosts is not None:
            hosts.require_same(request)
        if out is None or (hosts is not None and not hosts.first):
            return cls(hosts, None, None)
        folder = prepare_output_directory(out, writer=writer, overwrite=overwrite)
        return cls(hosts, folder, unfinished(folder, request, overwrite))

    @property
    def writes(self) -> bool:
        """Whether this process shows and writes the result."""
        return self.hosts is None or self.hosts.first

    def workers(self, platform: str) -> "Workers":
        """All devices of the platform, and the other processes."""
        import jax

        from pmt.parallel.workers import Workers

        return Workers(tuple(jax.local_devices(backend=platform)), self.store, self.hosts)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Says of an interrupted run how to go on; of a request that must fail, nothing is kept."""
        try:
            with resumable(self.store):
                yield
        except RequestError as error:
            if not error.may_succeed:
                self.discard()
            raise

    def discard(self) -> None:
        """Removes the finished units, once what was made of them is safe."""
        if self.store is not None:
            self.store.discard()


def by_content(value: Any) -> Any:
    """An array by its digest, for a request; the rest as it is."""
    if not hasattr(value, "dtype"):
        return value
    import numpy as np

    array = np.asarray(value)
    digest = sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype} {array.shape} {digest}"


def request_of(
    schema: str, described: dict[str, Any], asked: dict[str, Any], dtype: str, platform: str
) -> dict[str, Any]:
    """All that the runs depend on: the system and what was asked of it, and the programs."""
    from importlib.metadata import version

    import jax

    from pmt import __version__

    versions = {"pmt": __version__, **{name: version(name) for name in ("jax", "jaxlib", "numpy")}}
    return {
        "schema": schema,
        "system": described,
        **{name: by_content(value) for name, value in asked.items()},
        "dtype": dtype,
        "platform": platform,
        # Decides which random numbers are drawn.
        "threefry_partitionable": bool(jax.threefry_partitionable.value),
        "versions": versions,
    }


@contextmanager
def heeding(what: str, total: int, listen: Callable[[], None]) -> Iterator[Callable[[int], None]]:
    """``progress``, and ``listen`` is called between the pieces."""
    with screen.progress(what, total=total) as advance:

        def heed(done: int) -> None:
            advance(done)
            listen()

        yield heed

"""The folder of one item: what was asked, results as they come, and a last file that closes it.

``request.json`` is written first and ``result.json`` last, each whole or not at all. So a folder
with both is complete, one without the last was interrupted and is gone on with, and neither is
ever taken for the answer to another request. Of a request that failed nothing is kept, and a folder
that holds a request and nothing else is free for any other.
"""

import hashlib
import json
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from pmt.errors import RequestError
from pmt.files import as_json, first_difference, remove_leftovers, write_atomically, write_json
from pmt.parallel.store import UnitStore

_REQUEST, _RESULT, _UNFINISHED = "request.json", "result.json", "unfinished"


class Chunks:
    """The files of one item.

    Args:
      folder: made where it is not there.
      request: all that the results depend on, as JSON has it.
      overwrite: whether results of another request are replaced.

    Attributes:
      folder: the same.

    Raises:
      RequestError: a folder with results of another request, finished or not, unless
        ``overwrite``.
    """

    def __init__(
        self, folder: str | PathLike[str], request: dict[str, Any], *, overwrite: bool = False
    ) -> None:
        self.folder, self._request = Path(folder), as_json(request)
        self.folder.mkdir(parents=True, exist_ok=True)
        before = _read(self.folder / _REQUEST)
        # What a killed run was writing.
        remove_leftovers(self.folder)
        if before == self._request and self.result is not None:
            # A run that was killed at its very end.
            self._forget_units()
        if before != self._request:
            if before is not None and not overwrite and self._holds_results():
                raise RequestError(
                    f"{self.folder} holds results for {first_difference(before, self._request)}; "
                    "choose another folder, or give --overwrite"
                )
            # The closing file first, so that at no moment it stands beside another request.
            (self.folder / _RESULT).unlink(missing_ok=True)
            self._forget()
            write_json(self.folder / _REQUEST, self._request)

    @property
    def result(self) -> Any:
        """What ``close`` was given, where it was; else None."""
        return _read(self.folder / _RESULT)

    def put(self, layer: int, value: Any) -> None:
        """What is known of a layer, from 1, so far as it goes.

        Raises:
          RequestError: another process took the folder for another request meanwhile. So do
            ``write`` and ``close``.
        """
        self._require_own()
        (self.folder / "layers").mkdir(exist_ok=True)
        write_json(self._layer(layer), value)

    def get(self, layer: int) -> Any:
        """What ``put`` was given for the layer, by this run or one before it; else None."""
        return _read(self._layer(layer))

    def units(self, name: str) -> UnitStore:
        """Where finished units of that name stay until ``close``; those of another run are gone on
        with.
        """
        # A run that lost the folder to another one meanwhile does not write among its units.
        asked = hashlib.sha256(json.dumps(self._request, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.folder / _UNFINISHED / f"{name}-{asked}"
        return UnitStore(folder, self._request, overwrite=True)

    def write(self, name: str, content: str | bytes) -> Path:
        """A file of the item."""
        self._require_own()
        return write_atomically(self.folder / name, content)

    def close(self, result: Any) -> None:
        """The result, after all other files."""
        self._require_own()
        write_json(self.folder / _RESULT, result)
        self._forget_units()

    def discard(self) -> None:
        """Remove what a run would go on from, unless another one took the folder."""
        if _read(self.folder / _REQUEST) == self._request:
            self._forget()

    def _forget(self) -> None:
        # Layers, checkpoints of a training, and units of work.
        for old in (*self.folder.glob("layers/*.json"), *self.folder.glob("checkpoint*.npz")):
            old.unlink(missing_ok=True)
        self._forget_units()

    def _holds_results(self) -> bool:
        """Whether there is anything that another request would replace."""
        return any(path.is_file() and path.name != _REQUEST for path in self.folder.rglob("*"))

    def _forget_units(self) -> None:
        for path in self.folder.glob(f"{_UNFINISHED}/*"):
            UnitStore(path, self._request, overwrite=True).discard()
        with suppress(OSError):
            (self.folder / _UNFINISHED).rmdir()

    def _require_own(self) -> None:
        if _read(self.folder / _REQUEST) != self._request:
            raise RequestError(
                f"another run took {self.folder} for another request meanwhile; choose another "
                "folder for one of them"
            )

    def _layer(self, layer: int) -> Path:
        return self.folder / "layers" / f"layer-{layer:03d}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # Not by us, whose files are whole: as if it were not there.
        return None

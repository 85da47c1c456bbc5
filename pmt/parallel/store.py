"""Finished units in a folder, so that a run that was stopped in any way is gone on with.

``request.json`` says what the units are results for; each unit is one file, there wholly or not at
all. A folder of another request is refused and never mixed with this one, and so is one that holds
anything without such a request: only files of our own names are ever removed.
"""

import json
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from pmt.errors import RequestError
from pmt.files import as_json, first_difference, remove_leftovers, write_atomically, write_json
from pmt.parallel.units import Payload, Unit, from_bytes, to_bytes

_REQUEST = "request.json"
# Of a unit: what it is of, and its range.
_UNIT = re.compile(r"[a-z]+(-\d+-\d+)?-\d+-\d+\.npz")


class UnitStore:
    """The folder of one run.

    Args:
      folder: made where it is not there.
      request: all that the units depend on, as JSON has it: settings and versions.
      overwrite: whether units of another request are thrown away.

    Raises:
      RequestError: units of another request, unless ``overwrite``; a folder with something in it
        and no request that can be read, whether or not it may be overwritten.
    """

    def __init__(
        self, folder: str | PathLike[str], request: dict[str, Any], *, overwrite: bool = False
    ) -> None:
        self.folder, wanted = Path(folder), as_json(request)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        before = _read_json(self.folder / _REQUEST)
        if before == wanted:
            return
        if before is None and any(self.folder.iterdir()):
            raise RequestError(
                f"{self.folder} is for the finished part of a run, and it holds something else, "
                f"without a {_REQUEST} that can be read; move it away, or choose another folder"
            )
        if before is not None and not overwrite:
            raise RequestError(
                f"{self.folder} holds an unfinished run with {first_difference(before, wanted)}; "
                "ask for the same again to go on with it, choose another folder, or give "
                "--overwrite"
            )
        # The units first, so that at no moment a request stands beside units of another one.
        self._remove_units()
        write_json(self.folder / _REQUEST, wanted)

    def get(self, name: str, unit: Unit) -> Payload | None:
        """What the unit gave, if it was finished by this run or one before it."""
        try:
            return from_bytes(self._path(name, unit).read_bytes())
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            # Not there, or not by us, whose files are whole.
            return None

    def put(self, name: str, unit: Unit, payload: Payload) -> None:
        """Keeps what the unit gave."""
        write_atomically(self._path(name, unit), to_bytes(payload))

    def remove(self, name: str, units: Iterable[Unit]) -> None:
        """Keeps what these units gave no longer."""
        for unit in units:
            self._path(name, unit).unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what is ours, once what was made of it is safe, and the folder if it is empty."""
        with suppress(OSError):
            self._remove_units()
            # Last: a folder of ours without it would be taken for somebody else's.
            (self.folder / _REQUEST).unlink(missing_ok=True)
            self.folder.rmdir()

    def _remove_units(self) -> None:
        for path in self.folder.iterdir():
            if _UNIT.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _path(self, name: str, unit: Unit) -> Path:
        return self.folder / f"{name}-{unit.first}-{unit.last}.npz"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

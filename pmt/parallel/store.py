"""Finished units in a folder, so that a run that was stopped in any way is gone on with.

``request.json`` says what the units are results for; each unit is one file, there wholly or not at
all. A folder of another request is refused and never mixed with this one.
"""

import json
import shutil
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

from pmt.errors import RequestError
from pmt.files import as_json, remove_leftovers, write_atomically, write_json
from pmt.parallel.units import Payload, Unit, from_bytes, to_bytes

_REQUEST = "request.json"


class UnitStore:
    """The folder of one run.

    Args:
      folder: made where it is not there.
      request: all that the units depend on, as JSON has it: settings and versions.
      overwrite: whether units of another request are thrown away.

    Raises:
      RequestError: units of another request, unless ``overwrite``.
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
        if before is not None and not overwrite:
            raise RequestError(
                f"{self.folder} holds an unfinished run with {_difference(before, wanted)}; ask "
                "for the same again to go on with it, choose another folder, or give --overwrite"
            )
        # The request last, so that at no moment it stands beside units of another one.
        (self.folder / _REQUEST).unlink(missing_ok=True)
        for old in self.folder.glob("*.npz"):
            old.unlink()
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

    def discard(self) -> None:
        """Removes the folder, once what was made of the units is safe."""
        # Without the request the rest is no longer an unfinished run.
        (self.folder / _REQUEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str, unit: Unit) -> Path:
        return self.folder / f"{name}-{unit.first}-{unit.last}.npz"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two requests differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
    return f"{where or 'request'} = {json.dumps(before)} and not {json.dumps(now)}"

"""Files that users hand over, read strictly: JSON, `.npz` and `.npy`, one sentence per fault."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pmt.errors import RequestError

# What NumPy raises on files that are damaged, of another kind, or hold pickled objects.
_DAMAGED = (
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def parse_json(text: str) -> Any:
    """`text` as strict JSON: no NaN, no infinity, no key twice.

    Raises:
      ValueError: with a message that says what is wrong.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error


def read_json(path: Path) -> Any:
    """The JSON in a file.

    Raises:
      RequestError: where it is not strict JSON in UTF-8.
      OSError: where the file cannot be opened.
    """
    data = path.read_bytes()
    try:
        return parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        reason = "it is empty" if not data.strip() else reason
        message = f"{path} cannot be read as JSON: {reason}"
        raise RequestError(message) from error


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of a `.npz` file by name; numbers and texts where the array has no axes.

    Raises:
      RequestError: where it is no such file, or holds pickled objects.
      OSError: where the file cannot be opened.
    """
    import numpy as np

    # Opened here, so that an error of the system's own names the file.
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except _DAMAGED as error:
            raise _unreadable(path, ".npz", error) from error
    return {
        name: value.item() if value.ndim == 0 and value.dtype.kind in "Ufiu" else value
        for name, value in arrays.items()
    }


def read_npy(path: Path) -> Any:
    """The array in a `.npy` file: real numbers, at least one.

    Raises:
      RequestError: where it is no such file, or holds something else.
      OSError: where the file cannot be opened.
    """
    import numpy as np

    with path.open("rb") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except _DAMAGED as error:
            raise _unreadable(path, ".npy", error) from error
    if array.dtype.kind not in "fiu" or array.size == 0:
        message = (
            f"{path} holds an array of {array.dtype} with shape {array.shape}; "
            "it must hold real numbers"
        )
        raise RequestError(message)
    return array


def _unreadable(path: Path, what: str, error: BaseException) -> RequestError:
    reason = " ".join(str(error).split("\n", 1)[0].split()).rstrip(".")
    return RequestError(f"{path} cannot be read as {what}: {reason or 'it ends too early'}")


def _refuse_constant(name: str) -> None:
    message = f"{name} is no number in JSON; every number must be finite"
    raise ValueError(message)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            message = f"the key {key!r} stands there twice"
            raise ValueError(message)
        found[key] = value
    return found

"""Safetensors files, checked and read one tensor at a time to NumPy.

The format's own library does the reading. What it lets pass (a tensor named twice, dtypes that
NumPy lacks) or words unclearly (a pickle, a pointer file) is checked here first, on the header.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from pmt.errors import RequestError

_LONGEST_HEADER = 100_000_000

# The dtypes of weights and buffers that NumPy, with ml_dtypes, represents exactly.
_DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype(np.float64),
        "F32": np.dtype(np.float32),
        "F16": np.dtype(np.float16),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "I64": np.dtype(np.int64),
        "I32": np.dtype(np.int32),
        "I16": np.dtype(np.int16),
        "I8": np.dtype(np.int8),
        "U8": np.dtype(np.uint8),
        "BOOL": np.dtype(np.bool_),
    }
)


@dataclass(frozen=True)
class Entry:
    """What the header says of a tensor.

    Attributes:
      shape: its axes.
      dtype: as NumPy knows it, or None for one that is not read (8-bit floats and the like).
      stored: the name of the dtype in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    stored: str


class Weights:
    """The tensors of a checkpoint: their entries at once, their numbers on request.

    Use it as a context manager, or call `close`. Nothing is read before `read` is called.

    Attributes:
      entries: name -> `Entry`, for all files together.
    """

    entries: Mapping[str, Entry]

    def __init__(self, files: Iterable[tuple[Path, Any]]) -> None:
        self._files = list(files)
        self._holder: dict[str, tuple[Path, Any]] = {}
        entries = {}
        for path, file in self._files:
            for name in file.keys():
                if name in entries:
                    raise RequestError(
                        f"the tensor {name!r} is in two files of the checkpoint, {path.name} and "
                        f"{self._holder[name][0].name}; fetch the checkpoint again"
                    )
                part = file.get_slice(name)
                stored = str(part.get_dtype())
                entries[name] = Entry(tuple(part.get_shape()), _DTYPES.get(stored), stored)
                self._holder[name] = (path, file)
        self.entries = MappingProxyType(entries)

    def read(self, name: str) -> np.ndarray:
        """One tensor, as stored.

        Raises:
          RequestError: no such tensor, a dtype that is not read, or a file that cannot be read.
        """
        if name not in self.entries:
            raise RequestError(f"the checkpoint has no tensor {name!r}")
        entry = self.entries[name]
        path, file = self._holder[name]
        if entry.dtype is None:
            raise RequestError(
                f"the tensor {name!r} in {path} is stored as {entry.stored}; supported are "
                f"{', '.join(_DTYPES)}: give a checkpoint that is not quantised"
            )
        try:
            return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"cannot read the tensor {name!r} in {path}: {error}") from error

    def close(self) -> None:
        """Let go of the files."""
        for _, file in self._files:
            file.__exit__(None, None, None)
        self._files, self._holder = [], {}

    def __enter__(self) -> "Weights":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_weights(paths: Iterable[str | os.PathLike[str]]) -> Weights:
    """Open safetensors files and check their headers.

    Raises:
      RequestError: a file that is missing, empty, truncated, a pickle, a pointer left by git-lfs,
        or no valid safetensors file, with the reason.
    """
    files: list[tuple[Path, Any]] = []
    for given in paths:
        path = Path(given)
        try:
            _check_header(path)
            files.append((path, safe_open(path, framework="numpy").__enter__()))
        except SafetensorError as error:
            reason = str(error).removeprefix("Error while deserializing header: ")
            raise _invalid(path, reason) from error
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
    return Weights(files)


def _invalid(path: Path, reason: str) -> RequestError:
    return RequestError(
        f"{path} is not a valid safetensors file ({reason}); fetch the checkpoint again"
    )


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise RequestError(
                f"{path} is only a pointer that git-lfs left in place of the weights; "
                "run 'git lfs pull' in its repository"
            )
        if start[:4] == b"PK\x03\x04" or (
            start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"
        ):
            raise RequestError(
                f"{path} is a pickle under the name of a safetensors file; pickles can run code "
                "when they are opened and are never read: convert it with transformers' "
                "save_pretrained(DIR, safe_serialization=True)"
            )
        if len(start) < 8:
            raise _invalid(path, f"it has {size} bytes, too few for a header")
        (length,) = struct.unpack("<Q", start[:8])
        if length > _LONGEST_HEADER:
            raise _invalid(path, f"its header claims {length} bytes, over the limit of 100 MB")
        if length > size - 8:
            raise _invalid(path, f"its header claims {length} bytes of a file of {size}")
        file.seek(8)
        header = file.read(length)
    try:
        json.loads(header, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"its header: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found

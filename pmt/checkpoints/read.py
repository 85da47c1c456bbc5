"""Safetensors files, checked and read one tensor at a time to NumPy.

Files are read, never mapped: one that another process shortens ends in a sentence, where a map
would end the process. What a file is instead of safetensors (a pickle, a pointer left by git-lfs)
is said.
"""

import os
import stat
import struct
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np

from pmt.checkpoints.header import DTYPES, LONGEST_HEADER, Entry, Place, parse_header
from pmt.errors import RequestError


@dataclass(frozen=True)
class Identity:
    """What tells a file apart from a later one under the same path.

    Attributes:
      device, inode: which file it is.
      size: in bytes.
      modified: when it was last written to, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int


def identity(status: os.stat_result) -> Identity:
    """The identity of a file from its status."""
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class _File:
    """One open safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Not waiting for the writer of a pipe, which is refused below.
        self._file = FileIO(path, "r", opener=_open_at_once)
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RequestError(f"{path} is no regular file; give a safetensors file")
            self.identity = identity(status)
            # Its position is shared by all threads.
            self._lock = threading.Lock()
            self.places, self._start = self._read_header()
            self._require_unchanged()
        except BaseException:
            self._file.close()
            raise

    def read(self, name: str) -> np.ndarray:
        place = self.places[name]
        entry = place.entry
        if entry.dtype is None:
            raise RequestError(
                f"the tensor {name!r} in {self.path} is stored as {entry.stored}; supported are "
                f"{', '.join(DTYPES)}: give a checkpoint that is not quantised"
            )
        array = np.empty(entry.shape, entry.dtype)
        # NumPy's buffers know no bfloat16.
        raw = array.reshape(-1).view(np.uint8)
        try:
            complete = self._fill(raw.data, self._start + place.start)
            self._require_unchanged()
        except OSError as error:
            raise RequestError(
                f"cannot read the tensor {name!r} in {self.path}: {error.strerror or error}"
            ) from error
        if not complete:
            raise _changed(self.path)
        if entry.stored == "BOOL" and raw.size and raw.max() > 1:
            raise RequestError(
                f"the tensor {name!r} in {self.path} is stored as BOOL and holds bytes other than "
                "0 and 1; fetch the checkpoint again"
            )
        return array

    def close(self) -> None:
        self._file.close()

    def _read_header(self) -> tuple[dict[str, Place], int]:
        size = self.identity.size
        start = bytearray(min(size, 64))
        if not self._fill(memoryview(start), 0):
            raise _changed(self.path)
        length = struct.unpack_from("<Q", start)[0] if size >= 8 else LONGEST_HEADER + 1
        if length > min(LONGEST_HEADER, size - 8):
            # Only now: the length of a valid header may begin as a pickle does.
            raise _refusal(self.path, bytes(start), size, length)
        header = bytearray(length)
        if not self._fill(memoryview(header), 8):
            raise _changed(self.path)
        try:
            return parse_header(bytes(header), size - 8 - length), 8 + length
        except ValueError as error:
            raise _invalid(self.path, str(error)) from error

    def _fill(self, target: memoryview, offset: int) -> bool:
        """Read as many bytes as `target` has, and say whether the file had them."""
        with self._lock:
            self._file.seek(offset)
            done = 0
            while done < len(target):
                # One call reads no more than two gigabytes.
                count = self._file.readinto(target[done:])
                if not count:
                    return False
                done += count
        return True

    def _require_unchanged(self) -> None:
        """The file that is open is as it was, and still the one that its path names."""
        try:
            found = {identity(os.fstat(self._file.fileno())), identity(os.stat(self.path))}
        except FileNotFoundError:
            found = set()
        if found != {self.identity}:
            raise _changed(self.path)


class Weights:
    """The tensors of a checkpoint: their entries at once, their numbers on request.

    Use it as a context manager, or call `close`. No numbers are read before `read` is called, and
    several threads may call it.

    Attributes:
      entries: name -> `Entry`, for all files together.
    """

    entries: Mapping[str, Entry]

    def __init__(self, files: Iterable[_File]) -> None:
        self._files = list(files)
        self._holder: dict[str, _File] = {}
        entries = {}
        for file in self._files:
            for name, place in file.places.items():
                if name in entries:
                    raise RequestError(
                        f"the tensor {name!r} is in two files of the checkpoint, {file.path.name} "
                        f"and {self._holder[name].path.name}; fetch the checkpoint again"
                    )
                entries[name] = place.entry
                self._holder[name] = file
        self.entries = MappingProxyType(entries)

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Of the files, in their order: what was opened, whatever the paths name now."""
        return tuple(file.identity for file in self._files)

    def read(self, name: str) -> np.ndarray:
        """One tensor, as stored, in an array of its own.

        Raises:
          RequestError: no such tensor, a dtype that is not read, a file that cannot be read, or
            one that was changed, truncated or replaced since it was opened.
        """
        if name not in self.entries:
            raise RequestError(f"the checkpoint has no tensor {name!r}")
        return self._holder[name].read(name)

    def close(self) -> None:
        """Let go of the files; nothing can be read any more."""
        for file in self._files:
            file.close()

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
        or no valid safetensors file, with the reason; a tensor that is in two of the files.
    """
    with ExitStack() as opened:
        files: list[_File] = []
        for given in paths:
            path = Path(given)
            try:
                file = _File(path)
            except OSError as error:
                raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
            opened.callback(file.close)
            files.append(file)
        weights = Weights(files)
        opened.pop_all()
    return weights


def _open_at_once(path: str | os.PathLike[str], flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _invalid(path: Path, reason: str) -> RequestError:
    return RequestError(
        f"{path} is not a valid safetensors file ({reason}); fetch or make it again"
    )


def _changed(path: Path) -> RequestError:
    return RequestError(
        f"{path} was changed while it was in use; wait until nothing writes to it and try again"
    )


def _refusal(path: Path, start: bytes, size: int, length: int) -> RequestError:
    """What is said of a file whose first eight bytes are not the length of its header."""
    if start.startswith(b"version https://git-lfs"):
        return RequestError(
            f"{path} is only a pointer that git-lfs left in place of the weights; "
            "run 'git lfs pull' in its repository"
        )
    if start[:4] == b"PK\x03\x04" or (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    ):
        return RequestError(
            f"{path} is a pickle under the name of a safetensors file; pickles can run code "
            "when they are opened and are never read: convert it with transformers, whose "
            "save_pretrained(DIR) writes safetensors"
        )
    if size < 8:
        return _invalid(path, f"it has {size} bytes, too few for a header")
    if length > LONGEST_HEADER:
        return _invalid(path, f"its header claims {length} bytes, over the limit of 100 MB")
    return _invalid(path, f"its header claims {length} bytes of a file of {size}")

"""Writing results so that a reader finds all of a file or none of it.

Standard library only, and nothing here knows what a result means. A file is written beside its
target under a temporary name, forced to disk, and renamed over the target: a full disk, a signal
or a killed process leaves the old file, or no file, but never half of one.
"""

import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from pmt.errors import RequestError

Content = bytes | str | Callable[[BinaryIO], object]

_MARKER = ".pmt-output.json"
TEMPORARY_START = ".pmt-tmp-"
_HOUR, _MINUTE = 3600.0, 60.0


def write_atomically(path: str | os.PathLike[str], content: Content) -> Path:
    """Write `content` to `path`, wholly or not at all, and return the path.

    Args:
      path: the target, in an existing folder. A symbolic link is followed. A pipe or device
        (`/dev/stdout`) is written to directly, since there is nothing to replace.
      content: bytes, text (written as UTF-8, newlines as they are), or a function that is handed
        the open binary file.

    Raises:
      RequestError: where the path is a folder.
      OSError: as the system reports it (disk full, no permission), naming the target.
    """
    target = Path(path)
    try:
        if _is_stream(target):
            # To append, so that what a redirected screen holds already stays.
            with open(target, "ab") as stream:
                _fill(stream, content)
        else:
            _replace(Path(os.path.realpath(target)), content)
    except OSError as error:
        # An error about another file is the content's own.
        about_another = error.filename is not None and TEMPORARY_START not in str(error.filename)
        if error.errno is None or about_another or isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    return target


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `value` as JSON, atomically, such that every number reads back as it was.

    Dataclasses become objects, arrays and NumPy scalars lists and numbers, complex numbers
    `[re, im]` pairs, enumerations their values and paths text. A number that is not finite has no
    form in JSON and is refused with the place where it stands, as is anything else that JSON
    cannot hold.
    """
    plain = as_json(value)
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False, indent=1)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        # A path that is no valid UTF-8 has a form in JSON all the same, as escapes.
        data = json.dumps(plain, allow_nan=False, indent=1).encode("ascii")
    return write_atomically(path, data + b"\n")


def as_json(value: Any, where: str = "$") -> Any:
    """`value` in the types that JSON has; `where` is its place, for the message of a refusal."""
    # First, since it also catches enumerations that are strings or numbers at the same time.
    if isinstance(value, Enum):
        return as_json(value.value, where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            message = f"the number at {where} is {value}, which JSON cannot hold"
            raise ValueError(message)
        return float(value)
    if isinstance(value, complex):
        return as_json([value.real, value.imag], where)
    if isinstance(value, Mapping):
        return {_key(key, where): as_json(item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: as_json(getattr(value, field.name), f"{where}.{field.name}")
            for field in fields(value)
        }
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return as_json(value.tolist(), where)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [as_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    message = f"the value at {where} is a {type(value).__name__}, which JSON cannot hold"
    raise TypeError(message)


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two requests, as JSON has them, differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            if before.get(key) != now.get(key):
                return first_difference(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
    if isinstance(before, list) and isinstance(now, list):
        # Texts, of which there may be many.
        for index, (old, new) in enumerate(zip(before, now, strict=False)):
            if old != new:
                return first_difference(old, new, f"{where}[{index}]")
        return f"{len(before)} {where or 'entries'} and not {len(now)}"
    return f"{where or 'request'} = {json.dumps(before)} and not {json.dumps(now)}"


def prepare_output_directory(
    path: str | os.PathLike[str], *, writer: str, overwrite: bool = False
) -> Path:
    """Make `path` a folder that `writer` may fill, and return it.

    A folder that is new or empty is taken and marked as the writer's. One that the same writer
    marked before is taken again, so that a command can be repeated. Any other folder with
    something in it is refused unless `overwrite` is given; even then nothing is deleted, only
    files of the same names are replaced.

    Raises:
      RequestError: where the folder holds something else, the path is a file, or it cannot be
        written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()) and _marked_by(folder) != writer:
            message = (
                f"the folder {folder} holds files that '{writer}' did not write; "
                "choose another folder, or give --overwrite"
            )
            raise RequestError(message)
        write_json(folder / _MARKER, {"schema": "pmt.output/1", "writer": writer})
    except (FileExistsError, NotADirectoryError) as error:
        message = f"cannot make the folder {folder}: there is a file in its way"
        raise RequestError(message) from error
    except OSError as error:
        message = f"cannot write to the folder {folder}: {error.strerror}"
        raise RequestError(message) from error
    return folder


def require_writable_file(path: str | os.PathLike[str]) -> Path:
    """Refuse, before any work is done, a path that could not be written to at the end of it."""
    target = Path(path)
    if target.is_dir():
        message = f"cannot write {target}: it is a folder"
        raise RequestError(message)
    if _is_stream(target):
        return target
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        message = f"cannot write {target}: there is no folder {folder}"
        raise RequestError(message)
    probe = folder / _temporary_name()
    try:
        # Asking for permission and having it differ (a superuser, a read-only disk), so try.
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        # Unlocked, and so a leftover to a process that clears the folder meanwhile.
        probe.unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise RequestError(message) from error
    return target


def remove_leftovers(folder: str | os.PathLike[str], *, below: bool = True) -> int:
    """Remove, in a folder and (unless not ``below``) those below it, what killed processes wrote.

    A file that is being written is locked by its writer, whose lock ends with it whatever the way;
    so the files of a living process, this one's too, are left alone. Where the system has no such
    locks, those of the last hour are left alone.

    Returns:
      How many there were.
    """
    removed = 0
    name = f"{TEMPORARY_START}*"
    for path in Path(folder).rglob(name) if below else Path(folder).glob(name):
        try:
            with open(path, "rb") as file:
                held = _lock(file.fileno())
                old = time.time() - os.fstat(file.fileno()).st_mtime > _HOUR
                if held if held is not None else old:
                    path.unlink()
                    removed += 1
        except OSError:
            # Renamed or removed meanwhile, or another user's.
            continue
    return removed


@contextmanager
def held_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """A temporary folder that `remove_leftover_folders` leaves alone until the end of the block."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        # Some systems do not open folders.
        yield
        return
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def remove_leftover_folders(folder: str | os.PathLike[str]) -> int:
    """Remove the temporary folders in a folder that killed processes left, as `remove_leftovers`.

    One of the last minute is left alone: its owner may be about to hold it.

    Returns:
      How many there were.
    """
    removed = 0
    for path in Path(folder).glob(f"{TEMPORARY_START}*"):
        try:
            age = time.time() - path.stat().st_mtime
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        except OSError:
            continue
        try:
            held = _lock(descriptor)
            if age > (_HOUR if held is None else _MINUTE) and held is not False:
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        finally:
            os.close(descriptor)
    return removed


def _lock(descriptor: int) -> bool | None:
    """Whether an open file is now locked here; False if it is elsewhere, None if none can be."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    message = f"a key at {where} is a {type(key).__name__}; JSON has only text for keys"
    raise TypeError(message)


def _marked_by(folder: Path) -> object:
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return marker.get("writer") if isinstance(marker, dict) else None


def _is_stream(path: Path) -> bool:
    """Whether there is something at `path` that takes bytes but cannot be replaced by a rename."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    # A shell's redirection makes /dev/stdout a regular file, which is not ours to replace.
    held_by_process = os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    return not stat.S_ISDIR(mode) and (held_by_process or not stat.S_ISREG(mode))


def _replace(target: Path, content: Content) -> None:
    if target.is_dir():
        message = f"cannot write {target}: it is a folder"
        raise RequestError(message)
    temporary, descriptor = _new_file(target.parent)
    try:
        # Renamed while it is open, and so locked: see `remove_leftovers`.
        with open(descriptor, "wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
            if os.name != "nt":
                os.replace(temporary, target)
        if os.name == "nt":
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _force_to_disk(target.parent)


def _new_file(folder: Path) -> tuple[Path, int]:
    """A temporary file of our own, open and locked."""
    while True:
        path = folder / _temporary_name()
        try:
            # As `open` would make the file, so that the umask decides about its mode.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        # Another process may have taken it for a leftover before it was locked.
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink > 0:
            return path, descriptor
        os.close(descriptor)


def _temporary_name() -> str:
    return TEMPORARY_START + secrets.token_hex(8)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def _force_to_disk(folder: Path) -> None:
    """Make the renaming itself survive a power cut, where the system lets folders be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot; the file itself is safe.
        pass
    finally:
        os.close(descriptor)

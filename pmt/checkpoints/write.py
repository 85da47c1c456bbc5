"""A checkpoint as a directory that ``transformers`` loads, written as a whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from pmt.checkpoints.directory import CONFIG, INDEX, WEIGHTS
from pmt.checkpoints.header import (
    DTYPES,
    LONGEST_HEADER,
    METADATA,
    Entry,
    Place,
    format_header,
    is_unicode,
)
from pmt.errors import RequestError
from pmt.files import (
    held_folder,
    prepare_output_directory,
    remove_leftover_folders,
    write_json,
)

Tensor = np.ndarray | Callable[[], np.ndarray]

# What marks the folders that may be overwritten.
WRITER = "pmt checkpoint"
FORMAT: Mapping[str, str] = MappingProxyType({"format": "pt"})

_STORED: Mapping[np.dtype, str] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_CHUNK = 2**24


def write_checkpoint(
    directory: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, np.ndarray]],
    copy: Sequence[str | os.PathLike[str]] = (),
    metadata: Mapping[str, str] = FORMAT,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Path:
    """Write config.json, the weights, and copies of other files; return the directory.

    The weights are one model.safetensors, or, beyond `max_shard_bytes`,
    ``model-00001-of-0000N.safetensors`` and so on with their index. Everything is written into a
    directory beside the target, forced to disk, and renamed at the end: after a full disk or an
    interrupt the target is as it was. One tensor is in memory at a time; the disk must have room
    for the checkpoint and one of its files besides.

    Args:
      directory: new or empty, or, with `overwrite`, one that this function wrote.
      config: as config.json is to hold it.
      tensors: name -> array, or a function that makes it when its turn comes; or pairs. Dtypes
        are kept, bfloat16 too (as ``ml_dtypes``).
      copy: files to be copied under their own names, such as the tokenizer's.
      metadata: of each weights file; ``transformers`` wants ``{"format": "pt"}``.
      max_shard_bytes: a file of weights has no more than this in data, unless one tensor has.
      overwrite: replace a checkpoint that this function wrote. Other files beside it stay.

    Raises:
      RequestError: a directory that holds something else, a dtype that safetensors has no name
        for, two tensors of one name, a config that JSON cannot hold, a file to copy that is
        missing or has the name of another, or a disk that is full or cannot be written to.
    """
    if max_shard_bytes < 1:
        raise RequestError(f"max_shard_bytes is {max_shard_bytes}; it must be positive")
    target = Path(os.path.realpath(os.path.expanduser(directory)))
    sources = _sources(copy)
    unique = secrets.token_hex(8)
    temporary = target.parent / f".pmt-tmp-{unique}"
    replaced = target.parent / f".pmt-old-{unique}"
    try:
        _require_free(target, overwrite)
        remove_leftover_folders(target.parent)
        # A file in the way has a sentence of its own there; any other error is to name the target.
        with suppress(FileExistsError, NotADirectoryError):
            os.makedirs(temporary)
        prepare_output_directory(temporary, writer=WRITER)
        with held_folder(temporary):
            _write_config(temporary, config)
            _Shards(temporary, metadata, max_shard_bytes).write(_pairs(tensors))
            for name, source in sources.items():
                shutil.copyfile(source, temporary / name)
            _keep_others(target, temporary)
            _force_to_disk(temporary)
            _put_in_place(temporary, target, replaced)
    except OSError as error:
        raise RequestError(
            f"cannot write the checkpoint {target}: {error.strerror or error}; it is as it was "
            "before: free some space or choose another directory, and try again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return target


class _Shards:
    """Weights files in the making.

    The header of a file comes before its data and says where everything is, while the tensors come
    one by one and in any order. So each tensor goes to a spool, and from there to the file.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, str], limit: int) -> None:
        self._folder = folder
        self._metadata = metadata
        self._limit = limit
        self._finished: list[list[str]] = []
        self._names: set[str] = set()
        self._total = 0

    def write(self, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
        """Write the files, and the index where there are several."""
        spooled: dict[str, Place] = {}
        path = self._folder / "spool"
        with open(path, "w+b") as spool:
            for name, array in tensors:
                entry, data = self._prepare(name, array)
                if spooled and spool.tell() + len(data) > self._limit:
                    self._finish(spool, spooled)
                    spooled = {}
                    spool.seek(0)
                    spool.truncate()
                start = spool.tell()
                spool.write(data)
                spooled[name] = Place(entry, start, start + len(data))
                self._total += len(data)
            if spooled or not self._finished:
                self._finish(spool, spooled)
        path.unlink()
        self._name_files()

    def _prepare(self, name: str, array: np.ndarray) -> tuple[Entry, memoryview]:
        if not name or name == METADATA or not is_unicode(name):
            raise RequestError(f"{name!r} is no name for a tensor; choose another")
        if name in self._names:
            raise RequestError(f"there are two tensors of the name {name!r}; give one")
        self._names.add(name)
        little = array.dtype.newbyteorder("<")
        stored = _STORED.get(little)
        if stored is None:
            raise RequestError(
                f"the tensor {name!r} has dtype {array.dtype}, which is not written; supported are "
                f"{', '.join(map(str, _STORED))}"
            )
        ordered = np.asarray(array, dtype=little, order="C")
        return Entry(array.shape, little, stored), ordered.reshape(-1).view(np.uint8).data

    def _finish(self, spool: BinaryIO, spooled: Mapping[str, Place]) -> None:
        # As the format's library does: wide dtypes first, so that all are aligned.
        order = sorted(spooled, key=lambda name: (-_width(spooled[name].entry), name))
        places, end = {}, 0
        for name in order:
            place = spooled[name]
            start, end = end, end + place.stop - place.start
            places[name] = Place(place.entry, start, end)
        header = format_header(places, self._metadata)
        if len(header) - 8 > LONGEST_HEADER:
            raise RequestError(
                f"the names of {len(places)} tensors are too much for one file; give a smaller "
                "max_shard_bytes"
            )
        spool.flush()
        with open(self._folder / f"part-{len(self._finished)}", "wb") as file:
            file.write(header)
            for name in order:
                _copy_range(spool, spooled[name].start, spooled[name].stop, file)
        self._finished.append(order)

    def _name_files(self) -> None:
        count = len(self._finished)
        if count == 1:
            (self._folder / "part-0").rename(self._folder / WEIGHTS)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._finished):
            shard = f"model-{number + 1:05}-of-{count:05}.safetensors"
            (self._folder / f"part-{number}").rename(self._folder / shard)
            weight_map |= dict.fromkeys(names, shard)
        index = {
            "metadata": {"total_size": self._total},
            "weight_map": dict(sorted(weight_map.items())),
        }
        write_json(self._folder / INDEX, index)


def _width(entry: Entry) -> int:
    return 0 if entry.dtype is None else entry.dtype.itemsize


def _copy_range(source: BinaryIO, start: int, stop: int, target: BinaryIO) -> None:
    source.seek(start)
    while start < stop:
        chunk = source.read(min(_CHUNK, stop - start))
        if not chunk:
            raise OSError("the spool is shorter than what was written to it")
        target.write(chunk)
        start += len(chunk)


def _pairs(
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, np.ndarray]],
) -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(tensors, Mapping):
        yield from tensors
        return
    for name, tensor in tensors.items():
        yield name, tensor() if callable(tensor) else tensor


def _sources(copy: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    sources: dict[str, Path] = {}
    for each in map(Path, copy):
        if not each.is_file():
            raise RequestError(f"cannot copy {each}: there is no such file")
        if each.name in sources or each.name in (CONFIG, INDEX) or _WEIGHTS.fullmatch(each.name):
            raise RequestError(
                f"cannot copy {each}: another file of the checkpoint has the name {each.name}"
            )
        sources[each.name] = each
    return sources


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    try:
        write_json(folder / CONFIG, dict(config))
    except (TypeError, ValueError) as error:
        raise RequestError(f"the config cannot be written as {CONFIG}: {error}") from error


def _require_free(target: Path, overwrite: bool) -> None:
    if not target.is_dir():
        if os.path.lexists(target):
            raise RequestError(f"cannot write the checkpoint {target}: there is a file in its way")
        return
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise RequestError(
            f"the directory {target} is not empty; choose another one, or allow that the "
            "checkpoint in it is overwritten (overwrite=True, or --overwrite)"
        )
    try:
        prepare_output_directory(target, writer=WRITER)
    except RequestError as error:
        raise RequestError(
            f"the directory {target} holds files that were not written as a checkpoint here, and "
            "only such a checkpoint is overwritten; choose another directory"
        ) from error


def _keep_others(target: Path, temporary: Path) -> None:
    """Copy what lies in the old directory and belongs to no checkpoint into the new one."""
    if not target.is_dir():
        return
    for path in target.iterdir():
        new = temporary / path.name
        if path.name == INDEX or _WEIGHTS.fullmatch(path.name) or new.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new, symlinks=True)
        else:
            shutil.copy2(path, new, follow_symlinks=False)


def _put_in_place(temporary: Path, target: Path, replaced: Path) -> None:
    try:
        if target.is_dir():
            os.rename(target, replaced)
        os.rename(temporary, target)
    except BaseException:
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)
        raise
    _synchronize(target.parent)


def _force_to_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _synchronize(path)
    _synchronize(folder)


def _synchronize(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        # Some systems do not open folders.
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot force a folder; the files in it are safe.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)

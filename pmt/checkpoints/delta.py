"""A steering edit as a small file: applied once, refused twice, reverted to the very bits.

The file is safetensors: the vectors ``w`` (direction), ``z`` (read vector) and ``a`` (its
coefficients in the heads' values) in float64, and under ``delta`` in the metadata a JSON object
with the operation, the layer, the tensor it changes, on which of its axes ``w`` lies, c, and the
SHA-256 of that tensor's bytes before and after. W' = W + c w aᵀ in float64, rounded once to the
stored dtype, so that whoever applies it gets the same bits.

What an edit of that size does to the low bits of a tensor cannot be undone by subtracting it; so a
revert takes the base tensor from the base checkpoint, where its hash tells that it is the one.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from pmt.checkpoints.checkpoint import Checkpoint
from pmt.checkpoints.header import METADATA, Entry, Place, format_header
from pmt.checkpoints.read import Weights, open_weights
from pmt.checkpoints.strict_json import parse_json
from pmt.checkpoints.write import write_checkpoint
from pmt.errors import RequestError
from pmt.files import write_atomically
from pmt.steering import add_rank_one

SCHEMA = "pmt.delta/1"
OPERATION = "rank-one"
# Three vectors; anything near this is no delta.
_LARGEST_FILE = 64 * 2**20
_VECTORS = ("w", "z", "a")
_F64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Delta:
    """W' = W + c w aᵀ of one tensor of one checkpoint.

    Attributes:
      w: ``(d,)``, float64. Where tokens are steered to.
      z: ``(d,)``, float64. The read vector; it explains ``a`` and is not needed to apply it.
      a: ``(h kv,)``, float64. Vᵀ a = z.
      strength: c.
      layer: from 1; with shared weights the first that has this tensor.
      tensor: its name in the checkpoint.
      axis: the axis of the tensor that ``w`` lies on: 0 for a Linear (out, in), 1 for a Conv1D.
      dtype: of the tensor, as safetensors names it.
      base_sha256, edited_sha256: of the tensor's bytes before and after.
      base: the name of the checkpoint, and ``revision``, what pins it, or None for a directory.
      model_sha256: of the base checkpoint's weights; informative, since only the tensor counts.
      operation: ``"rank-one"``.
    """

    w: np.ndarray
    z: np.ndarray
    a: np.ndarray
    strength: float
    layer: int
    tensor: str
    axis: int
    dtype: str
    base_sha256: str
    edited_sha256: str
    base: str
    revision: str | None
    model_sha256: str | None
    operation: str = OPERATION

    def apply(self, tensor: np.ndarray) -> np.ndarray:
        """The edited tensor, in the dtype of the base tensor.

        Raises:
          RequestError: a tensor that has this edit already, or is not the base of it.
        """
        found = tensor_sha256(tensor)
        if found == self.edited_sha256 and found != self.base_sha256:
            raise RequestError(
                f"the tensor {self.tensor!r} has this edit already, and it is applied only once; "
                "revert it first, or give the base checkpoint"
            )
        if found != self.base_sha256:
            raise RequestError(
                f"the edit was made for another checkpoint: the sha256 of {self.tensor!r} is "
                f"{found[:16]}... instead of {self.base_sha256[:16]}...; give {self._origin}"
            )
        edited = edit_tensor(tensor, self.strength, self.w, self.a, self.axis)
        if tensor_sha256(edited) != self.edited_sha256:
            raise RequestError(
                f"applied to its base, the edit of {self.tensor!r} does not give the tensor whose "
                "sha256 it states; the file was altered: make it again"
            )
        return edited

    def revert(self, tensor: np.ndarray, base: np.ndarray) -> np.ndarray:
        """The base tensor, for a tensor with this edit.

        Raises:
          RequestError: a tensor that has not this edit, or a base that is not that of it.
        """
        found, before = tensor_sha256(tensor), tensor_sha256(base)
        if before != self.base_sha256:
            raise RequestError(
                f"the base that was given is another one: the sha256 of its {self.tensor!r} is "
                f"{before[:16]}... instead of {self.base_sha256[:16]}...; give {self._origin}"
            )
        if found != self.edited_sha256:
            what = "is the base already" if found == self.base_sha256 else "has another edit"
            raise RequestError(
                f"the tensor {self.tensor!r} {what}, so there is nothing of this edit to revert"
            )
        return base

    @property
    def _origin(self) -> str:
        pinned = "" if self.revision is None else f" at {self.revision}"
        return f"the checkpoint it was made for, {self.base!r}{pinned}"


def tensor_sha256(tensor: np.ndarray) -> str:
    """SHA-256 of a tensor's bytes as safetensors stores them: little-endian, row by row."""
    ordered = np.asarray(tensor, dtype=tensor.dtype.newbyteorder("<"), order="C")
    return hashlib.sha256(ordered.reshape(-1).view(np.uint8).data).hexdigest()


def edit_tensor(
    tensor: np.ndarray, strength: float, w: np.ndarray, a: np.ndarray, axis: int
) -> np.ndarray:
    """W + c w aᵀ with ``w`` along ``axis``, in the tensor's dtype.

    Raises:
      RequestError: a shape that the vectors do not fit, an entry that overflows.
    """
    shape = (len(w), len(a)) if axis == 0 else (len(a), len(w))
    if tensor.shape != shape:
        raise RequestError(f"the tensor has shape {tensor.shape}, and the edit is for {shape}")
    if axis == 0:
        return add_rank_one(tensor, strength, w, a)
    return add_rank_one(tensor.T, strength, w, a).T


def write_delta(path: str | os.PathLike[str], delta: Delta) -> Path:
    """Write the file, wholly or not at all, and return its path.

    Raises:
      RequestError: a path that is a folder.
      OSError: as the system reports it.
    """
    vectors = {name: np.ascontiguousarray(getattr(delta, name), "<f8") for name in _VECTORS}
    stated = {name: value for name, value in vars(delta).items() if name not in _VECTORS}
    text = json.dumps({"schema": SCHEMA, **stated}, allow_nan=False)
    places, end = {}, 0
    for name, vector in vectors.items():
        start, end = end, end + vector.nbytes
        places[name] = Place(Entry(vector.shape, _F64, "F64"), start, end)
    header = format_header(places, {"format": "pt", "delta": text})
    return write_atomically(path, header + b"".join(v.tobytes() for v in vectors.values()))


def read_delta(path: str | os.PathLike[str]) -> Delta:
    """The edit in a file.

    Raises:
      RequestError: a file that is missing, no valid safetensors file, no delta, or one whose
        fields are missing, of another kind, or not finite.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror or error}") from error
    if size > _LARGEST_FILE and file.is_file():
        raise RequestError(f"{file} has {size} bytes, more than any steering edit; give its file")
    with open_weights([file]) as weights:
        stated = _stated(file)
        vectors: dict[str, Any] = {name: _vector(file, weights, name) for name in _VECTORS}
        if set(weights.entries) != set(_VECTORS):
            raise _no_delta(file, f"it holds the tensors {sorted(weights.entries)[:5]}")
    return Delta(**vectors, **stated)


def apply_delta(
    checkpoint: Checkpoint,
    delta: Delta,
    directory: str | os.PathLike[str],
    *,
    copy: Sequence[Path] = (),
    overwrite: bool = False,
) -> Path:
    """Write the checkpoint with the edit, all else the same bit for bit, as a new directory.

    Raises:
      RequestError: as `Delta.apply`, and where the directory cannot be written.
    """
    with checkpoint.open() as weights:
        edited = delta.apply(_tensor(checkpoint, weights, delta))
        return _write(checkpoint, weights, {delta.tensor: edited}, directory, copy, overwrite)


def revert_delta(
    checkpoint: Checkpoint,
    delta: Delta,
    base: Checkpoint,
    directory: str | os.PathLike[str],
    *,
    copy: Sequence[Path] = (),
    overwrite: bool = False,
) -> Path:
    """Write the edited checkpoint with its base tensor back in place, as a new directory.

    Raises:
      RequestError: as `Delta.revert`, and where the directory cannot be written.
    """
    with checkpoint.open() as weights, base.open() as before:
        original = delta.revert(_tensor(checkpoint, weights, delta), _tensor(base, before, delta))
        return _write(checkpoint, weights, {delta.tensor: original}, directory, copy, overwrite)


def _write(
    checkpoint: Checkpoint,
    weights: Weights,
    changed: dict[str, np.ndarray],
    directory: str | os.PathLike[str],
    copy: Sequence[Path],
    overwrite: bool,
) -> Path:
    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name in weights.entries:
            yield name, changed[name] if name in changed else weights.read(name)

    return write_checkpoint(
        directory, config=checkpoint.config(), tensors=tensors(), copy=copy, overwrite=overwrite
    )


def _tensor(checkpoint: Checkpoint, weights: Weights, delta: Delta) -> np.ndarray:
    entry = weights.entries.get(delta.tensor)
    if entry is None or entry.stored != delta.dtype:
        what = "has no such tensor" if entry is None else f"stores it as {entry.stored}"
        raise RequestError(
            f"the edit changes the tensor {delta.tensor!r} in {delta.dtype}, and the checkpoint "
            f"{checkpoint.name} {what}; give the checkpoint it was made for, {delta.base!r}"
        )
    return weights.read(delta.tensor)


def _stated(file: Path) -> dict[str, Any]:
    """What the metadata say, checked field by field."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = parse_json(stream.read(length))
    text = header.get(METADATA, {}).get("delta")
    if text is None:
        raise _no_delta(file, "its metadata have no 'delta'")
    try:
        found = parse_json(text.encode("utf-8"))
    except ValueError as error:
        raise _no_delta(file, f"its metadata are no JSON: {error}") from error
    if not isinstance(found, dict) or found.pop("schema", None) != SCHEMA:
        raise _no_delta(file, f"its schema is not {SCHEMA}")
    wanted = {field.name for field in fields(Delta)} - set(_VECTORS)
    if set(found) != wanted:
        differing = sorted(set(found) ^ wanted)
        raise _no_delta(file, f"the field {differing[0]!r} is missing or unknown")
    for name, value in found.items():
        if not _fits(name, value):
            raise _no_delta(file, f"the field {name!r} is {value!r:.40}")
    return found | {"strength": float(found["strength"])}


def _fits(name: str, value: Any) -> bool:
    if name == "strength":
        return type(value) in (int, float) and abs(value) < 1e308 and isfinite(value)
    if name == "layer":
        return type(value) is int and value >= 1
    if name == "axis":
        return type(value) is int and value in (0, 1)
    if name == "operation":
        return value == OPERATION
    if name in ("revision", "model_sha256"):
        return value is None or isinstance(value, str)
    if name in ("base_sha256", "edited_sha256"):
        return isinstance(value, str) and len(value) == 64
    return isinstance(value, str)


def _vector(file: Path, weights: Weights, name: str) -> np.ndarray:
    entry = weights.entries.get(name)
    if entry is None or entry.stored != "F64" or len(entry.shape) != 1 or entry.shape[0] < 1:
        raise _no_delta(file, f"it has no vector {name!r} in F64")
    vector = weights.read(name)
    if not np.isfinite(vector).all():
        raise _no_delta(file, f"the vector {name!r} holds NaN or infinity")
    return vector


def _no_delta(file: Path, reason: str) -> RequestError:
    return RequestError(f"{file} is no steering edit that can be read ({reason}); make it again")

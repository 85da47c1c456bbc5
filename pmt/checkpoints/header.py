"""The header of a safetensors file: names, dtypes, shapes and places, checked in full.

The format (github.com/huggingface/safetensors, "Format"): eight bytes, the length n of the header
as a little-endian integer; n bytes of JSON, name -> dtype, shape, data_offsets, with an optional
``__metadata__`` of texts; then the data, to which the offsets are relative and which they cover
without overlaps or holes.

The format's own library reads headers through a memory map, where a file that shrinks at that
moment kills the process. Here they are bytes already. The checks are the library's and these: a
name given twice, a field that the format does not know, more axes than NumPy has.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from pmt.checkpoints.strict_json import parse_json

LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"

# The dtypes of weights and buffers that NumPy, with ml_dtypes, represents exactly.
DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype(np.float64),
        "F32": np.dtype(np.float32),
        "F16": np.dtype(np.float16),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "C64": np.dtype(np.complex64),
        "I64": np.dtype(np.int64),
        "I32": np.dtype(np.int32),
        "I16": np.dtype(np.int16),
        "I8": np.dtype(np.int8),
        "U64": np.dtype(np.uint64),
        "U32": np.dtype(np.uint32),
        "U16": np.dtype(np.uint16),
        "U8": np.dtype(np.uint8),
        "BOOL": np.dtype(np.bool_),
    }
)

# All dtypes of the format, in bits, those that are not read too.
_BITS: Mapping[str, int] = MappingProxyType(
    {stored: 8 * dtype.itemsize for stored, dtype in DTYPES.items()}
    | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
)
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_MOST_AXES = 64
_LARGEST = 2**63 - 1


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


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes are, counted from the end of the header.

    Attributes:
      entry: what the header says of it.
      start: of its first byte.
      stop: after its last byte.
    """

    entry: Entry
    start: int
    stop: int


def parse_header(header: bytes, data_size: int) -> dict[str, Place]:
    """The tensors that a header names, in its order.

    Args:
      header: the JSON, without the eight bytes of its length.
      data_size: how many bytes follow it in the file.

    Raises:
      ValueError: with the reason, for a header that is not valid or does not fit the data.
    """
    if header[:1] != b"{":
        raise ValueError("its header does not begin with '{'")
    try:
        parsed = parse_json(header, parse_int=_natural)
    except ValueError as error:
        raise ValueError(f"its header: {error}") from error
    _check_metadata(parsed.pop(METADATA, {}))
    places = {name: _place(name, fields) for name, fields in parsed.items()}
    _check_cover(places, data_size)
    return places


def format_header(places: Mapping[str, Place], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file with these tensors, up to the data, which it aligns to 8 bytes."""
    described: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, place in places.items():
        described[name] = {
            "dtype": place.entry.stored,
            "shape": list(place.entry.shape),
            "data_offsets": [place.start, place.stop],
        }
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def is_unicode(text: str) -> bool:
    """Whether the text has a form in UTF-8, as names must."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _natural(text: str) -> int:
    if text.startswith("-"):
        raise ValueError(f"it holds {text[:40]}, and no number in it may be negative")
    return int(text)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError(f"its {METADATA} is no mapping from text to text")


def _place(name: str, fields: Any) -> Place:
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise ValueError(f"{name!r} has not exactly the fields dtype, shape and data_offsets")
    stored, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(stored, str) or stored not in _BITS:
        raise ValueError(f"{name!r} has the unknown dtype {stored!r:.40}")
    if not _are_integers(shape):
        raise ValueError(f"the shape of {name!r} is no list of integers")
    if not _are_integers(offsets) or len(offsets) != 2:
        raise ValueError(f"the offsets of {name!r} are no pair of integers")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"{name!r} has {len(shape)} axes, and NumPy has at most {_MOST_AXES}")
    start, stop = offsets
    bits = _bits(name, stored, shape)
    if bits % 8:
        raise ValueError(f"{name!r} ends within a byte")
    if stop - start != bits // 8:
        raise ValueError(
            f"{name!r} has the offsets {start} to {stop}, and {bits // 8} bytes by its shape"
        )
    return Place(Entry(tuple(shape), DTYPES.get(stored), stored), start, stop)


def _bits(name: str, stored: str, shape: list[int]) -> int:
    # Zero axes do not excuse the others: NumPy multiplies without them.
    extent = _BITS[stored]
    for axis in shape:
        extent *= max(axis, 1)
        if extent > _LARGEST:
            raise ValueError(f"the size of {name!r} overflows")
    return 0 if 0 in shape else extent


def _check_cover(places: Mapping[str, Place], data_size: int) -> None:
    end = 0
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != end:
            raise ValueError(
                f"{name!r} has the invalid offset {place.start}, and the tensor before it ends "
                f"at {end}"
            )
        end = place.stop
    if end != data_size:
        raise ValueError(
            f"its data are not fully covered: the tensors end at byte {end} of {data_size}"
        )


def _are_integers(values: Any) -> bool:
    # A boolean is an integer to Python, and none to the format.
    return isinstance(values, list) and all(type(value) is int for value in values)

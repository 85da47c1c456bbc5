"""Numbers, matrices and masks out of plain data (JSON, `.npz`, flags), each fault one sentence."""

import math
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

from pmt.errors import RequestError


def kind_of(value: Any) -> str:
    """What a value out of JSON is, in a word."""
    names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, int | float) else "value")


def as_number(value: Any, name: str) -> float:
    """A finite float from JSON or from a 0-d array.

    Raises:
      RequestError: anything else, naming it.
    """
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        shape = getattr(value, "shape", None)
        given = f"a {kind_of(value)}" if shape is None else f"an array of shape {shape}"
        message = f"{name} is {given}; it must be a number"
        raise RequestError(message)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        message = f"{name} is {number}; it must be a finite number"
        raise RequestError(message)
    return number


def as_array(value: Any, name: str, depth: int) -> Any:
    """A float64 array with `depth` axes, from nested lists, `diag:` texts or an array.

    Raises:
      RequestError: ragged, empty, not of numbers, or not finite, naming the entry.
    """
    import numpy as np

    if not hasattr(value, "shape"):
        value = _nested(value, name, depth)
    if value.dtype.kind not in "fiu" or value.ndim != depth or value.size == 0:
        message = (
            f"{name} is an array of {value.dtype} and shape {value.shape}; "
            f"it must hold real numbers and have {depth} axes"
        )
        raise RequestError(message)
    array = value.astype(np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(int(index) for index in bad[0])
        message = f"{name} holds {array[where]} at {where}; every entry must be a finite number"
        raise RequestError(message)
    return array


def parse_diagonal(text: str, name: str) -> list[float]:
    """The numbers of ``diag:1,0.5,-0.3``.

    Raises:
      RequestError: where the text is something else.
    """
    start, colon, rest = text.partition(":")
    try:
        numbers = [float(part) for part in rest.split(",")] if start == "diag" and colon else []
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        message = (
            f"{name} is {brief(text)}; a matrix is a list of rows such as [[1, 0], [0, 0.5]], "
            "or diag:1,0.5 with finite numbers"
        )
        raise RequestError(message)
    return numbers


def as_mask(value: Any) -> Any:
    """A mask in one of four forms, from any way of writing it.

    ``"full"``, ``"causal"``, ``{"window": K, "causal": bool}`` or a boolean NumPy array.

    Raises:
      RequestError: anything that is no mask.
    """
    import numpy as np

    if getattr(value, "shape", None) == () and value.dtype.kind == "U":
        value = value.item()
    if isinstance(value, str):
        if value in ("full", "causal"):
            return value
        start, _, size = value.partition(":")
        if start == "window" and size.isascii() and size.isdigit() and len(size) < 20:
            return _window({"window": int(size)})
    elif isinstance(value, Mapping):
        return _window(value)
    elif isinstance(value, list | np.ndarray):
        return _mask_matrix(value)
    message = (
        f"the mask is {brief(value)}; it must be full, causal, window:K, "
        '{"window": K, "causal": true} or a boolean matrix'
    )
    raise RequestError(message)


def _nested(value: Any, name: str, depth: int) -> Any:
    """A float array from lists in lists, with a message for the first place that is wrong."""
    import numpy as np

    if depth == 2 and isinstance(value, str):
        return np.diag(np.array(parse_diagonal(value, name)))
    wanted = {3: "a list of matrices", 2: "a list of rows", 1: "a list of numbers"}[depth]
    if not isinstance(value, list) or not value:
        given = "an empty list" if value == [] else f"a {kind_of(value)}"
        message = f"{name} is {given}; it must be {wanted}"
        raise RequestError(message)
    # Counted from 1, as people do.
    word = {3: "head", 2: "row", 1: "column"}[depth]
    places = [f"{name}, {word} {index + 1}" for index in range(len(value))]
    if depth == 1:
        return np.array([as_number(*each) for each in zip(value, places, strict=True)])
    parts = [_nested(*each, depth - 1) for each in zip(value, places, strict=True)]
    for place, part in zip(places, parts, strict=True):
        if part.shape != parts[0].shape:
            message = f"{place} has {_size(part)} but {word} 1 has {_size(parts[0])}"
            raise RequestError(message)
    return np.stack(parts)


def _mask_matrix(value: Any) -> Any:
    import numpy as np

    if not hasattr(value, "shape"):
        try:
            value = np.array(value)
        except ValueError:
            value = np.empty(0, object)
    square = value.ndim in (2, 3) and value.size and value.shape[-1] == value.shape[-2]
    if value.dtype != bool or not square:
        message = "the mask must be a square matrix of true and false, or one for every head"
        raise RequestError(message)
    empty = np.argwhere(~value.any(axis=-1))
    if len(empty):
        message = (
            f"row {int(empty[0][-1]) + 1} of the mask is all false; "
            "every token must attend to one at least"
        )
        raise RequestError(message)
    return value


def _window(value: Mapping[str, Any]) -> dict[str, Any]:
    size, causal = value.get("window"), value.get("causal", True)
    known = not set(value) - {"window", "causal"} and isinstance(causal, bool)
    if not known or not isinstance(size, int) or isinstance(size, bool):
        message = f'the mask is {brief(dict(value))}; a window is {{"window": K, "causal": true}}'
        raise RequestError(message)
    # Larger than any number of tokens, and still within the integers of the device.
    if not 1 <= size < 2**31:
        message = f"the window of the mask is {size}; it must be at least 1 and below 2^31"
        raise RequestError(message)
    return {"window": size, "causal": causal}


def _size(array: Any) -> str:
    return f"{len(array)} entries" if array.ndim == 1 else f"shape {array.shape}"

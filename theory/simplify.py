"""Simpler instances: what ``theory.shrink`` tries. Nothing here knows whether a violation stays.

The fields that the hypotheses of this package draw are known by name, with what they must satisfy
together (unit tokens, eigenvectors, heads that sum to V); other fields are only rounded.
"""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from theory.hunt.engine import Batch
from theory.statement import Shape

Arrays = dict[str, np.ndarray]

_MATRICES = ("value", "query_key", "query_keys", "heads")
_TOKENS = ("x", "w")
# What can be rounded, in the order in which it is tried.
_ROUNDED = ("eigenvalues", "frame", "query_key", "query_keys", "value", "x", "w", "alpha", "heads")
# Made from others, or choices.
_FIXED = ("direction", "index", "signs")
_EXACT = 1e-12
# Unit vectors of the plane with short coordinates.
_PLANE = ((1.0, 0.0), (0.6, 0.8), (0.8, 0.6), (0.28, 0.96), (0.96, 0.28))


def digits(case: Any) -> int:
    """Complexity: significant digits of all numbers; zeros are free, a sign costs nothing."""
    return sum(
        _length(float(value)) for array in case.values() for value in np.asarray(array).ravel()
    )


def _length(value: float) -> int:
    if value == 0:
        return 0
    mantissa, _, exponent = np.format_float_scientific(abs(value), trim="-").partition("e")
    # Leading zeros after the point are digits to read as well.
    return len(mantissa.replace(".", "")) + max(0, -int(exponent) - 1)


def fields(case: Arrays, *, plain: bool) -> list[str]:
    """The fields that may be rounded: those known by name or, if ``plain``, all real ones."""
    if plain:
        return [name for name, array in case.items() if np.asarray(array).dtype.kind == "f"]
    return [name for name in _ROUNDED if name in case]


def repaired(shape: Shape, case: Arrays) -> Arrays:
    """The instance with its fields made consistent again after one of them was changed."""
    case = dict(case)
    if {"frame", "direction", "index"} <= case.keys():
        own = case["frame"][:, int(case["index"])]
        case["direction"] = own * (1.0 if own @ case["direction"] >= 0 else -1.0) + 0.0
    if _has_tokens(shape, case, "x"):
        case["x"] = _normalized(case["x"])
        if _has_tokens(shape, case, "w"):
            along = np.sum(case["x"] * case["w"], axis=1, keepdims=True)
            w = np.where(np.abs(along) > _EXACT, case["w"] - along * case["x"], case["w"])
            size = np.linalg.norm(w)
            case["w"] = w if abs(size - 1.0) < _EXACT or size == 0 else w / size
    if "heads" in case and "value" not in case and {"eigenvalues", "frame"} <= case.keys():
        total = (case["frame"] * case["eigenvalues"]) @ case["frame"].T
        left = total - case["heads"].sum(axis=0)
        if np.max(np.abs(left)) > _EXACT * (1.0 + np.max(np.abs(case["heads"]))):
            heads = case["heads"].copy()
            heads[-1] += left
            case["heads"] = heads
    return case


def rotated(shape: Shape, case: Arrays) -> Iterator[Arrays]:
    """The same instance in other coordinates: eigenvectors of V, or tokens, as axes."""
    d = shape.d
    if "frame" in case:
        yield _turned(shape, case, case["frame"])
    elif "value" in case and np.allclose(case["value"], case["value"].T):
        vectors = np.linalg.eigh(case["value"])[1][:, ::-1]
        yield _turned(shape, case, vectors)
    if _has_tokens(shape, case, "x"):
        basis = np.linalg.qr(np.concatenate([case["x"], np.eye(d)]).T)[0]
        basis = basis * np.where(case["x"][:1] @ basis < 0, -1.0, 1.0)
        yield _turned(shape, case, basis)


def _turned(shape: Shape, case: Arrays, basis: np.ndarray) -> Arrays:
    """Every vector and matrix in the coordinates of an orthonormal basis (columns)."""
    case = dict(case)
    for name in _TOKENS:
        if _has_tokens(shape, case, name):
            case[name] = _clean(case[name] @ basis)
    for name in _MATRICES:
        if name in case:
            case[name] = _clean(basis.T @ case[name] @ basis)
    for name in ("frame", "direction"):
        if name in case:
            case[name] = _clean(basis.T @ case[name])
    if "value" in case and np.allclose(case["value"], np.swapaxes(case["value"], -1, -2)):
        case["value"] = (case["value"] + case["value"].T) / 2.0
    return repaired(shape, case)


def _clean(array: np.ndarray) -> np.ndarray:
    """Rounding errors next to 0 and ±1 removed."""
    near = np.round(array)
    return np.where((np.abs(array - near) < 1e-13) & (np.abs(near) <= 1), near, array) + 0.0


def reduced(shape: Shape, case: Arrays) -> Iterator[tuple[Shape, Arrays]]:
    """With one token less, or in the eigenvectors' coordinates with one dimension less.

    Nothing where a field of unknown meaning could depend on the shape.
    """
    if any(np.ndim(v) and k not in (*_ROUNDED, *_FIXED) for k, v in case.items()):
        return
    if shape.n > 1 and ("signs" in case or "x" in case):
        smaller = Shape(shape.n - 1, shape.d, shape.h, shape.mask)
        for i in range(shape.n):
            less = dict(case)
            for name in ("signs", *_TOKENS):
                if name in case:
                    less[name] = np.delete(case[name], i, axis=0)
            yield smaller, less
    if shape.d > 1:
        smaller = Shape(shape.n, shape.d - 1, shape.h, shape.mask)
        for turned in [case, *rotated(shape, case)]:
            for axis in range(shape.d):
                flat = _without(turned, axis)
                if flat is not None:
                    yield smaller, flat


def _without(case: Arrays, axis: int) -> Arrays | None:
    less = dict(case)
    if "frame" in case:
        if not np.array_equal(np.abs(case["frame"]), np.eye(len(case["frame"]))):
            return None
        if "index" in case and int(case["index"]) == axis:
            return None
        less["frame"] = np.delete(np.delete(case["frame"], axis, 0), axis, 1)
        less["eigenvalues"] = np.delete(case["eigenvalues"], axis)
        if "index" in case:
            less["index"] = case["index"] - np.asarray(int(case["index"]) > axis, np.int32)
    for name in _MATRICES:
        if name in case:
            less[name] = np.delete(np.delete(case[name], axis, -1), axis, -2)
    for name in (*_TOKENS, "direction"):
        if name in case:
            less[name] = np.delete(case[name], axis, -1)
    return less


def whole(shape: Shape, case: Arrays, name: str, plain: bool) -> Iterator[Arrays]:
    """One field simplified as a whole; ``plain`` as in ``fields``."""
    array = case[name]
    if not plain and name == "frame":
        return
    if not plain and name in _TOKENS and _has_tokens(shape, case, "x"):
        choices = _token_choices(array) if name == "x" else _directions(case["x"])
        yield from ({**case, name: choice} for choice in choices)
        return
    if not plain and name in _MATRICES:
        even = (array + np.swapaxes(array, -1, -2)) / 2.0
        diagonal = np.eye(array.shape[-1]) * array
        corners = [_only(array, (k, k)) for k in range(array.shape[-1])]
        for choice in (diagonal, even, *corners):
            yield {**case, name: choice}
    for grid in (np.zeros_like, *_GRIDS):
        yield {**case, name: np.asarray(grid(array) + 0.0)}


def _only(array: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    kept = np.zeros_like(array)
    kept[..., place[0], place[1]] = array[..., place[0], place[1]]
    return kept


_GRIDS = (
    np.sign,
    np.round,
    lambda v: np.round(2.0 * v) / 2.0,
    lambda v: np.round(4.0 * v) / 4.0,
    lambda v: np.round(v, 1),
    lambda v: np.round(v, 2),
    lambda v: np.round(v, 3),
)


def entries(case: Arrays, name: str, plain: bool) -> list[tuple[tuple[int, ...], ...]]:
    """Places that are changed together: single entries, or pairs of a symmetric matrix."""
    array = np.asarray(case[name])
    places = [tuple(int(k) for k in place) for place in np.ndindex(array.shape)]
    if plain:
        return [(place,) for place in places]
    if name in ("frame", "w"):
        return []
    if name == "value" and np.array_equal(array, array.T):
        return [(p, p[::-1]) for p in places if p[0] <= p[1]]
    if name == "x":
        return [tuple((i, k) for k in range(array.shape[1])) for i in range(array.shape[0])]
    return [(p,) for p in places]


def single(
    case: Arrays, name: str, places: tuple[tuple[int, ...], ...], plain: bool
) -> Iterator[Arrays]:
    """One number of a field simplified, or one token."""
    array = np.asarray(case[name])
    if name == "x" and not plain:
        token = places[0][0]
        for choice in _points(array[token]):
            changed = array.copy()
            changed[token] = choice
            yield {**case, name: changed}
        return
    value = array[places[0]]
    options = {0.0, *(float(grid(value)) for grid in _GRIDS), *_nearby(float(value))}
    for option in sorted(options, key=_length):
        changed = array.copy()
        for place in places:
            changed[place] = option
        yield {**case, name: changed}


def _nearby(value: float) -> Iterator[float]:
    """Multiples of short steps on either side, and few significant digits."""
    for parts in (1, 2, 4, 10, 100):
        yield from (math.floor(value * parts) / parts, math.ceil(value * parts) / parts)
    for count in (1, 2, 3, 4, 6):
        yield float(f"{value:.{count - 1}e}")


def _token_choices(x: np.ndarray) -> Iterator[np.ndarray]:
    """All tokens on one axis where they lie on one line; every token at its nearest short point."""
    signs = np.sign(x @ x[0])
    if np.all(np.abs(np.abs(x @ x[0]) - 1.0) < _EXACT):
        for axis in np.eye(x.shape[1]):
            yield signs[:, None] * axis + 0.0
        for point in _points(x[0]):
            yield signs[:, None] * point + 0.0
    for rank in range(2):
        yield np.stack([_points(token)[rank] for token in x])


def _points(token: np.ndarray) -> list[np.ndarray]:
    """Unit vectors with few and short coordinates, the nearest first."""
    d = len(token)
    found = []
    for pair in combinations(range(d), 2):
        for short in _PLANE:
            for turned in (short, short[::-1]):
                point = np.zeros(d)
                point[list(pair)] = turned * np.where(token[list(pair)] < 0, -1.0, 1.0)
                found.append(point + 0.0)
    if not found:
        found = [np.sign(token), np.sign(token)]
    return sorted(found, key=lambda point: -float(point @ token))


def _directions(x: np.ndarray) -> Iterator[np.ndarray]:
    """Unit tangent directions along axes that the tokens are orthogonal to."""
    n, d = x.shape
    free = [(i, a) for i in range(n) for a in range(d) if x[i, a] == 0]
    for weights in ((1.0,), (0.6, 0.8), (0.8, 0.6), (0.6, -0.8), (0.8, -0.6)):
        for places in combinations(free, len(weights)):
            w = np.zeros((n, d))
            for place, weight in zip(places, weights, strict=True):
                w[place] = weight
            yield w


def _has_tokens(shape: Shape, case: Arrays, name: str) -> bool:
    return name in case and np.shape(case[name]) == (shape.n, shape.d)


def _normalized(x: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(
        (np.abs(size - 1.0) < _EXACT) | (size == 0), x, x / np.where(size == 0, 1, size)
    )


def noises(noise: Batch) -> Iterator[Batch]:
    """Shorter noise: everything rounded, then one number after another."""
    uniform, normal = noise.uniform[0], noise.normal[0]
    rows = [(np.full_like(uniform, 0.5), normal * 0.0)]
    rows += [(_inside(grid(uniform)), grid(normal)) for grid in _GRIDS[1:]]
    yield _batch(noise, rows)
    rows = []
    for index, value in enumerate(uniform):
        for option in dict.fromkeys([0.5, *(float(_inside(grid(value))) for grid in _GRIDS[1:])]):
            rows.append((_with(uniform, index, option), normal))
    yield _batch(noise, rows)
    rows = []
    for index, value in enumerate(normal):
        for option in dict.fromkeys([0.0, *(float(grid(value)) for grid in _GRIDS)]):
            rows.append((uniform, _with(normal, index, option)))
    yield _batch(noise, rows)


def _with(array: np.ndarray, index: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


def _inside(values: Any) -> Any:
    return np.clip(values, 1e-3, 1.0 - 1e-3)


def _batch(noise: Batch, rows: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    uniform, normal = (np.stack(part) for part in zip(*rows, strict=True))
    kind = np.repeat(noise.kind, len(rows))
    return Batch(uniform, normal, kind, np.full(len(rows), np.inf))

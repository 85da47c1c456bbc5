"""A system as a file: what may stand in it, read and checked before anything is computed.

JSON, or `.npz` with the same names. Every file has ``kind``; ``alpha`` (1 if absent), ``mask``
(``"full"`` if absent) and ``schema`` may stand in all of them, ``scale`` where there are logits::

    {"kind": "single-head", "value": [[1, 0], [0, 0.5]], "query_key": "diag:2,0",
     "alpha": 0.2, "scale": 1, "mask": {"window": 4, "causal": true}}

==============  ==============================================================  ================
kind            matrices                                                        scale if absent
==============  ==============================================================  ================
``oja``         ``value`` (d, d)                                                none allowed
``single-head`` ``value``, ``query_key`` (d, d)                                 1
``multi-head``  ``value_output``, ``query_key`` (h, d, d): F_h and B_h          1
``multi-head``  ``query``, ``key`` (h, k, d), ``value`` (h, v, d) and           1/sqrt(k)
                ``output`` (h, d, v)
==============  ==============================================================  ================

In JSON a matrix is a list of rows or ``"diag:1,0.5,-0.3"``. A mask is ``"full"``, ``"causal"``,
``"window:K"``, ``{"window": K, "causal": true}`` or a boolean matrix (n, n); several heads may
have one each, (h, n, n).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from pmt.cli.plain_data import as_array, as_mask, as_number, kind_of
from pmt.cli.reading import read_json, read_npz
from pmt.errors import RequestError

SCHEMA = "pmt.system/1"

# The sets of matrices that make up each kind.
KINDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "oja": (("value",),),
    "single-head": (("value", "query_key"),),
    "multi-head": (("value_output", "query_key"), ("query", "key", "value", "output")),
}
_COMMON = ("schema", "kind", "alpha", "mask")
_SQUARE = frozenset({"value_output", "query_key"})


@dataclass(frozen=True)
class SystemDescription:
    """A system in the terms of its file, checked; `build` makes it a map.

    Attributes:
      kind: one of `KINDS`.
      arrays: the matrices by name, NumPy float64, of shapes that fit together.
      alpha: step size.
      scale: logit scale, or None for the default of the kind.
      mask: ``"full"``, ``"causal"``, ``{"window": K, "causal": bool}`` or a boolean NumPy array.
    """

    kind: str
    arrays: Mapping[str, Any]
    alpha: float = 1.0
    scale: float | None = None
    mask: Any = "full"

    @property
    def dimension(self) -> int:
        """d."""
        return int(next(iter(self.arrays.values())).shape[-1])

    @property
    def heads(self) -> int:
        """h, which is 1 unless the system is multi-head."""
        return len(next(iter(self.arrays.values()))) if self.kind == "multi-head" else 1

    @property
    def mask_size(self) -> int | None:
        """n where the mask is a matrix and so fixes the number of tokens, else None."""
        return int(self.mask.shape[-1]) if hasattr(self.mask, "shape") else None

    def document(self) -> dict[str, Any]:
        """What a file of this system holds; `as_description` reads it back."""
        scale = {} if self.scale is None else {"scale": self.scale}
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            **self.arrays,
            "alpha": self.alpha,
            **scale,
            "mask": self.mask,
        }

    def build(self, dtype: str) -> Any:
        """The map, in the precision `dtype`; JAX must have been started.

        Raises:
          RequestError: a number that the precision cannot hold, or matrices that do not fit.
        """
        import jax.numpy as jnp

        from pmt.attention import Boolean, LocalWindow
        from pmt.dynamics import MultiHead, Oja, SingleHead

        arrays = {name: _in_precision(name, each, dtype) for name, each in self.arrays.items()}
        _in_precision("alpha", self.alpha, dtype)
        _require_moderate(arrays, self.alpha)
        options: dict[str, Any] = {"alpha": self.alpha, "mask": self.mask}
        if isinstance(self.mask, dict):
            options["mask"] = LocalWindow(self.mask["window"], self.mask["causal"])
        elif self.mask_size is not None:
            options["mask"] = Boolean(jnp.asarray(self.mask))
        if self.scale is not None:
            _in_precision("scale", self.scale, dtype)
            options["scale"] = self.scale
        if self.kind == "oja":
            return Oja(**arrays, **options)
        if self.kind == "single-head":
            return SingleHead(**arrays, **options)
        build = MultiHead.from_maps if "value_output" in arrays else MultiHead
        return build(**arrays, **options)


def read_system(path: Path) -> SystemDescription:
    """The system in a JSON or `.npz` file.

    Raises:
      RequestError: anything that is not a system, in one sentence that names the file.
      OSError: a file that cannot be opened.
    """
    document = read_npz(path) if path.suffix.lower() == ".npz" else read_json(path)
    try:
        return as_description(document)
    except RequestError as error:
        message = f"{path}: {error}"
        raise RequestError(message) from error


def as_description(document: Any) -> SystemDescription:
    """The system in plain data or arrays, every part of it checked.

    Raises:
      RequestError: the first fault, naming the key.
    """
    if not isinstance(document, Mapping):
        message = f"the file holds a {kind_of(document)}; a system is an object with names"
        raise RequestError(message)
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        given = "there is no kind" if kind is None else f"the kind is {brief(kind)}"
        message = f"{given}; it must be 'oja', 'single-head' or 'multi-head'"
        raise RequestError(message)
    if document.get("schema", SCHEMA) != SCHEMA:
        message = f"the schema is {brief(document['schema'])}; this version reads {SCHEMA!r}"
        raise RequestError(message)
    names = _chosen_names(kind, document)
    depth = 3 if kind == "multi-head" else 2
    arrays = {name: as_array(document[name], name, depth) for name in names}
    _check_shapes(kind, arrays)
    scale = document.get("scale")
    mask = as_mask(document.get("mask", "full"))
    heads = len(arrays[names[0]]) if kind == "multi-head" else 1
    if getattr(mask, "ndim", 2) == 3 and (heads == 1 or len(mask) != heads):
        message = f"the mask has shape {mask.shape}, one matrix a head, but heads: {heads}"
        raise RequestError(message)
    return SystemDescription(
        kind=kind,
        arrays=arrays,
        alpha=as_number(document.get("alpha", 1.0), "alpha"),
        scale=None if scale is None else as_number(scale, "scale"),
        mask=mask,
    )


def _chosen_names(kind: str, document: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the sets of matrices of this kind the document holds."""
    others = _COMMON if kind == "oja" else (*_COMMON, "scale")
    known = {*others, *(name for names in KINDS[kind] for name in names)}
    given = [key for key in document if key not in others]
    unknown = [key for key in given if key not in known]
    if unknown:
        message = (
            f"unknown key {brief(unknown[0])}; a system of kind {kind} has {_listed(sorted(known))}"
        )
        raise RequestError(message)
    for names in KINDS[kind]:
        if set(given) == set(names):
            return names
    forms = ", or ".join(_listed(names) for names in KINDS[kind])
    message = f"a system of kind {kind} needs {forms}; given: {_listed(given)}"
    raise RequestError(message)


def _check_shapes(kind: str, arrays: Mapping[str, Any]) -> None:
    """Refuse matrices that are not square or do not fit together."""
    for name, array in arrays.items():
        square = kind != "multi-head" or name in _SQUARE
        if square and array.shape[-1] != array.shape[-2]:
            message = f"{name} has shape {array.shape}; it must be square"
            raise RequestError(message)
    # As (heads, d, inner) of the first and every other one.
    sizes = {name: _sizes(kind, name, array) for name, array in arrays.items()}
    first = next(iter(sizes))
    for name, (heads, d) in sizes.items():
        if (heads, d) != sizes[first]:
            message = (
                f"{first} has shape {arrays[first].shape} but {name} {arrays[name].shape}; "
                "heads and token dimension must agree"
            )
            raise RequestError(message)
    for one, other, axis in (("query", "key", -2), ("value", "output", -1)):
        if other in arrays and arrays[one].shape[-2] != arrays[other].shape[axis]:
            message = (
                f"{one} has shape {arrays[one].shape} but {other} {arrays[other].shape}; "
                "their head dimensions must agree"
            )
            raise RequestError(message)


def _sizes(kind: str, name: str, array: Any) -> tuple[int, int]:
    """Number of heads and d of one array."""
    heads = array.shape[0] if kind == "multi-head" else 1
    return heads, array.shape[-2] if name == "output" else array.shape[-1]


def _in_precision(name: str, value: Any, dtype: str) -> Any:
    import numpy as np

    with np.errstate(over="ignore"):
        cast = np.asarray(value).astype(dtype)
    if not np.isfinite(cast).all():
        largest = float(np.max(np.abs(value)))
        message = f"{name} holds {largest:g}, which {dtype} cannot hold; use --dtype float64"
        raise RequestError(message)
    return cast


def _require_moderate(arrays: Mapping[str, Any], alpha: float) -> None:
    """Refuse numbers whose squares overflow, since lengths of updates are made of squares."""
    import numpy as np

    for name, array in arrays.items():
        largest = float(np.max(np.abs(array)))
        bound = float(np.finfo(array.dtype).max) ** 0.5 / (4 * array.size)
        if largest > bound or (largest > 0 and abs(alpha) > bound / max(largest, 1.0)):
            message = (
                f"{name} reaches {largest:.3g} with alpha = {alpha:.3g}, too large for the "
                f"squares of {array.dtype} numbers; divide by a constant"
            )
            raise RequestError(message)


def _listed(names: Any) -> str:
    names = list(names)
    if len(names) < 2:
        return "".join(names) or "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"

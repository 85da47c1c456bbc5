"""Spectra as the arrays of plain numbers that a file of them holds, and back to the last bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pmt.linalg import Eigenpairs
from pmt.spectral import Leading, Principal, Spectrum


def of_width(basis: np.ndarray) -> np.ndarray:
    """A basis of a line or a plane.

    Raises:
      ValueError: where it is none.
    """
    if basis.ndim != 2 or basis.shape[1] not in (1, 2):
        message = f"a basis of shape {basis.shape}"
        raise ValueError(message)
    return basis


def pack_principal(found: Principal) -> dict[str, np.ndarray]:
    """Arrays of plain numbers; of a conjugate pair the real and the imaginary part of one."""
    packed = found.pairs.vectors.real.copy()
    first = np.flatnonzero(found.values.imag > 0)
    packed[:, first + 1] = found.pairs.vectors.imag[:, first]
    return _common(found) | {"packed": packed}


def _common(found: Spectrum) -> dict[str, np.ndarray]:
    def optional(number: Any) -> np.ndarray:
        return np.array([] if number is None else [number])

    return {
        "values": found.values,
        "residuals": found.residuals,
        "conditions": found.conditions,
        "basis": found.basis,
        "plane": np.zeros((0, 0)) if found.plane is None else found.plane,
        "order": np.array(found.order),
        "alpha": np.array(found.alpha),
        "case": np.array(found.case),
        "gap": optional(found.gap),
        "second": optional(found.second),
        "collinearity": optional(found.collinearity),
        "method": np.array(found.method),
        "fallback": np.array(found.fallback or ""),
    }


def unpack_principal(found: Mapping[str, np.ndarray]) -> Principal:
    """What ``pack_principal`` packed."""
    values, packed = found["values"], found["packed"]
    vectors = packed.astype(complex)
    first = np.flatnonzero(values.imag > 0)
    vectors[:, first + 1] = 0
    vectors[:, first] = packed[:, first]
    vectors.imag[:, first] = packed[:, first + 1]
    vectors[:, first + 1] = np.conj(vectors[:, first])
    pairs = Eigenpairs(values, vectors, found["residuals"], found["conditions"])
    return Principal(**_uncommon(found), pairs=pairs)


def pack_leading(found: Leading) -> dict[str, np.ndarray]:
    """Arrays of plain numbers."""
    return _common(found) | {"vectors": found.vectors, "products": np.array(found.products)}


def unpack_leading(found: Mapping[str, np.ndarray]) -> Leading:
    """What ``pack_leading`` packed."""
    return Leading(**_uncommon(found), vectors=found["vectors"], products=int(found["products"]))


def _uncommon(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    def optional(name: str) -> float | None:
        return float(found[name][0]) if len(found[name]) else None

    second = optional("second")
    return {
        "values": found["values"],
        "residuals": found["residuals"],
        "conditions": found["conditions"],
        "order": str(found["order"]),
        "alpha": float(found["alpha"]),
        "case": int(found["case"]),
        "gap": optional("gap"),
        "basis": of_width(found["basis"]),
        "second": None if second is None else int(second),
        "plane": found["plane"] if found["plane"].size else None,
        "collinearity": optional("collinearity"),
        "method": str(found["method"]),
        "fallback": str(found["fallback"]) or None,
    }

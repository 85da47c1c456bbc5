"""Routines of LAPACK, called so that other threads run meanwhile.

`scipy.linalg.lapack` has them too and stops all other threads of Python; NumPy has the eigensolver
of double precision only, and its inverse takes twice the time of LAPACK's. SciPy publishes the
addresses of LAPACK's routines for Cython; they serve here.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack


def eigenpairs_in_single(f: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Eigenvalues and unit right eigenvectors of a finite real matrix ``(d, d)``, by SGEEV.

    Returns:
      complex64, (d,): the values, a conjugate pair side by side, positive imaginary part first.
      float32, (d, d): v of a real eigenvalue in its row; Re v, Im v in the two rows of a pair. None
      where the QR algorithm fails.
    """
    d = len(f)
    matrix, rows = np.array(f, np.float32, order="F"), np.empty((d, d), np.float32)
    along, turning = np.empty((2, d), np.float32)
    # LAPACK's columns are our rows.
    given = (b"N", b"V", d, matrix, d, along, turning, rows, d, rows, d)
    if _with_work("sgeev", np.float32, *given) != 0:
        return None
    return along + np.complex64(1j) * turning, rows


def inverse(matrix: np.ndarray) -> np.ndarray | None:
    """Of a finite real matrix ``(d, d)`` in float64, by DGETRF and DGETRI; None if singular."""
    # The inverse of the transpose is the transpose of the inverse.
    found, d = np.array(matrix, np.float64, order="C"), len(matrix)
    pivots = np.empty(d, np.int32)
    if _call("dgetrf", d, d, found, d, pivots) != 0:
        return None
    return found if _with_work("dgetri", np.float64, d, found, d, pivots) == 0 else None


def pivots_in_single(matrix: np.ndarray) -> np.ndarray:
    """float32, (d,): of Gaussian elimination of a finite real ``(d, d)``, transposed, by SGETRF."""
    factors, d = np.array(matrix, np.float32, order="C"), len(matrix)
    # Where it meets a zero pivot it goes on, and the zero is among them.
    _call("sgetrf", d, d, factors, d, np.empty(d, np.int32))
    return np.asarray(np.diagonal(factors))


def _with_work(name: str, dtype: Any, *arguments: Any) -> int:
    """LAPACK's info, of a routine whose last arguments are a workspace and its length."""
    best = np.empty(1, dtype)
    # With a length of -1 it says which length is best.
    _call(name, *arguments, best, -1)
    length = int(best[0])
    return _call(name, *arguments, np.empty(length, dtype), length)


def _call(name: str, *arguments: Any) -> int:
    """LAPACK's info. Everything goes by reference, as Fortran has it."""
    info = ctypes.c_int(0)
    held = [ctypes.c_int(each) if isinstance(each, int) else each for each in arguments]
    _routine(name, len(held) + 1)(*map(_reference, held), ctypes.addressof(info))
    return info.value


def _reference(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return value if isinstance(value, bytes) else ctypes.addressof(value)


@cache
def _routine(name: str, arguments: int) -> Callable[..., None]:
    """A routine of LAPACK, by its address in SciPy."""
    api = ctypes.pythonapi
    named, pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    named.restype, named.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = cython_lapack.__pyx_capi__[name]
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    return kind(pointer(capsule, named(capsule)))

"""LAPACK's eigensolver in single precision, called so that other threads run meanwhile.

`scipy.linalg.lapack` has it too and stops all other threads of Python, and NumPy has that of double
precision only. SciPy publishes the addresses of LAPACK's routines for Cython; they serve here.
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

    def run(work: np.ndarray, length: int) -> int:
        # LAPACK's columns are our rows.
        return _sgeev(b"N", b"V", d, matrix, d, along, turning, rows, d, rows, d, work, length)

    # With a length of -1 it says which length is best.
    best = np.empty(1, np.float32)
    run(best, -1)
    length = int(best[0])
    if run(np.empty(length, np.float32), length) != 0:
        return None
    return along + np.complex64(1j) * turning, rows


def _sgeev(*arguments: Any) -> int:
    """LAPACK's info. Everything goes by reference, as Fortran has it."""
    info = ctypes.c_int(0)
    held = [ctypes.c_int(each) if isinstance(each, int) else each for each in arguments]
    _routine()(*map(_reference, held), ctypes.addressof(info))
    return info.value


def _reference(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return value if isinstance(value, bytes) else ctypes.addressof(value)


@cache
def _routine() -> Callable[..., None]:
    """SGEEV, by its address in SciPy."""
    api = ctypes.pythonapi
    named, pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    named.restype, named.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = cython_lapack.__pyx_capi__["sgeev"]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 14)(pointer(capsule, named(capsule)))

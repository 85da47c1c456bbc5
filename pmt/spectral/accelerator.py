"""All eigenpairs on an accelerator, believed only as far as the host can check them.

JAX has a solver for non-symmetric matrices on the CPU and, with cuSOLVER 11.7.1 (CUDA 12.6) or
newer, on NVIDIA GPUs; none on TPUs. A failure there shows as NaN in the answer and nowhere else.
"""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.linalg import (
    ILL_CONDITIONED,
    Eigenpairs,
    Order,
    Solved,
    conditions_by_inverse,
    eigenpairs,
)

RESIDUAL = 1e-12
"""Largest |F v − λ v| / |F| of a pair from an accelerator; LAPACK's are about 1e-15."""

DeviceSolve = Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
"""From a float64 matrix and a device to eigenvalues and right eigenvectors, as on the host."""

# One problem at a time has the device's memory.
_TURN = threading.Lock()


class Refused(Exception):
    """The accelerator's answer is not taken; the message says why, in a clause."""


def eigenpairs_on(
    device: Any, matrix: Any, order: Order = "real", alpha: float = 1.0
) -> Eigenpairs:
    """All eigenpairs as `pmt.linalg.eigenpairs` gives them, solved on ``device`` in float64.

    On the host, in float64 and with the matrix as it was given, |F v − λ v| is computed for every
    pair, and the conditions of the eigenvalues, whose size shows a pair that was returned twice.
    The order, the phases and the scaling are the host's, so that no sign depends on the device. An
    exactly symmetric matrix goes to the host's symmetric solver.

    Args:
      device: a `jax.Device`.
      matrix, order, alpha: as for `pmt.linalg.eigenpairs`.

    Raises:
      Refused: no such solver there, an error such as exhausted memory, NaN, a residual above 1e-12
        of |F|, or eigenvectors so nearly dependent that the host's left eigenvectors are needed.
      RequestError: as `pmt.linalg.eigenpairs`.
    """

    def solve(f: np.ndarray) -> Solved:
        try:
            with _TURN:
                values, vectors = device_eig(f, device)
        except (RuntimeError, NotImplementedError) as error:
            what = " ".join(str(error).split("\n", 1)[0].split()).rstrip(".")
            message = f"{device.platform} has no answer ({what})"
            raise Refused(message) from error
        return _checked(f, values, vectors, device.platform)

    return eigenpairs(matrix, order, alpha, solve)


def device_eig(f: np.ndarray, device: Any) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and right eigenvectors by JAX's solver on ``device``, in float64.

    On a GPU cuSOLVER's, since JAX's other one there is LAPACK on the host in disguise.
    """
    from jax.lax import linalg

    chosen = linalg.EigImplementation.CUSOLVER if device.platform == "gpu" else None
    # Of this thread only; the rest of the run may be in single precision.
    with jax.enable_x64(True):
        values, vectors = linalg.eig(
            jax.device_put(jnp.asarray(f, jnp.float64), device),
            compute_left_eigenvectors=False,
            implementation=chosen,
        )
        return np.asarray(values, np.complex128), np.asarray(vectors, np.complex128)


def _checked(f: np.ndarray, values: np.ndarray, vectors: np.ndarray, platform: str) -> Solved:
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(vectors))):
        message = f"{platform} answered with NaN"
        raise Refused(message)
    first = np.flatnonzero(values.imag > 0)
    second = np.flatnonzero(values.imag < 0)
    if not np.array_equal(first + 1, second) or np.any(values[first] != np.conj(values[second])):
        message = f"{platform} answered with complex eigenvalues that are not conjugate pairs"
        raise Refused(message)
    lengths = np.linalg.norm(vectors, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        vectors = vectors / lengths
        residuals = np.linalg.norm(f @ vectors - vectors * values, axis=0) / np.linalg.norm(f)
    worst = float(np.max(residuals))
    if not worst <= RESIDUAL:
        message = f"the residual from {platform} is {worst:.1e} of |F|, above {RESIDUAL:.0e}"
        raise Refused(message)
    conditions = conditions_by_inverse(values, vectors)
    if not np.max(conditions) < ILL_CONDITIONED:
        message = f"eigenvectors from {platform} are nearly dependent"
        raise Refused(message)
    return Solved(values, vectors, conditions, residuals)

"""The one place where tests get their tolerances from.

A computed number is off by a small multiple of eps x size x conditioning, where eps belongs to the
precision it was computed in, size counts the operations that one entry goes through, and
conditioning is by how much the problem itself magnifies a change of its input. A test that needs
more than this says so with a larger `conditioning`, and why.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

# Covers the constants that the rule of thumb leaves out.
_SAFETY = 16.0
# Beyond this a comparison says nothing any more.
_MEANINGLESS = 0.05


def tolerance(dtype: Any, *, size: int = 1, conditioning: float = 1.0) -> float:
    """The relative error to allow: 16 x eps(dtype) x size x conditioning.

    Refuses what would make the comparison say nothing: 5 % and more.
    """
    if size < 1 or not conditioning >= 1.0 or not math.isfinite(conditioning):
        message = f"size and conditioning are finite and at least 1, not {size} and {conditioning}"
        raise ValueError(message)
    allowed = _SAFETY * float(jnp.finfo(dtype).eps) * size * conditioning
    if allowed >= _MEANINGLESS:
        message = f"a relative error of {allowed:.1e} would be allowed, which tests nothing"
        raise ValueError(message)
    return allowed


def assert_close(
    actual: Any,
    expected: Any,
    *,
    size: int | None = None,
    conditioning: float = 1.0,
    scale: float | None = None,
    entrywise: bool = False,
    dtype: Any = None,
) -> None:
    """Fail unless `actual` equals `expected` up to `tolerance`.

    Args:
      actual: array or number, finite.
      expected: what it should be; of the same shape.
      size: see `tolerance`; by default the length of the last axis.
      conditioning: see `tolerance`.
      scale: what the error is relative to. By default the largest modulus in `expected`, so that
        an entry which cancels is not asked for more digits than the others have; where everything
        cancels, give the scale of what went in.
      entrywise: measure every entry's error against that entry instead.
      dtype: the precision of the computation; by default the lower one of the two arrays.
    """
    __tracebackhide__ = True
    got, want = np.asarray(actual), np.asarray(expected)
    if got.shape != want.shape:
        message = f"shapes differ: got {got.shape}, expected {want.shape}"
        raise AssertionError(message)
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        message = f"a number is not finite: got {got}, expected {want}"
        raise AssertionError(message)
    if got.size == 0:
        return
    if scale is not None and entrywise:
        message = "a scale and entrywise comparison contradict each other"
        raise ValueError(message)
    if dtype is None:
        dtype = _lower_precision(got, want)
    if size is None:
        size = max(want.shape[-1], 1) if want.ndim else 1
    wide = np.complex128 if np.iscomplexobj(got) or np.iscomplexobj(want) else np.float64
    error = np.abs(got.astype(wide) - want.astype(wide))
    reference = np.abs(want.astype(wide)) if entrywise else _scale(want, scale)
    allowed = tolerance(dtype, size=size, conditioning=conditioning) * reference
    excess = error - allowed
    if (excess > 0).any():
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        message = (
            f"entry {tuple(int(i) for i in worst)}: got {got[worst]!r}, expected {want[worst]!r}, "
            f"error {error[worst]:.3e} where {np.broadcast_to(allowed, error.shape)[worst]:.3e} "
            f"is allowed; {int((excess > 0).sum())} of {excess.size} entries are off"
        )
        raise AssertionError(message)


def _lower_precision(*arrays: np.ndarray) -> Any:
    inexact = [array.dtype for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact)]
    if not inexact:
        message = "integers are compared exactly; give the dtype of the computation otherwise"
        raise ValueError(message)
    return max(inexact, key=lambda dtype: float(jnp.finfo(dtype).eps))


def _scale(want: np.ndarray, scale: float | None) -> Any:
    largest = float(np.max(np.abs(want))) if scale is None else float(scale)
    if largest <= 0 or not math.isfinite(largest):
        message = "everything expected is zero; give the scale that the error is relative to"
        raise ValueError(message)
    return np.float64(largest)

"""Precision and validation that every room shares: exact-as-possible contractions, input checks.

Nothing here touches JAX's configuration. Matrix products are pinned to the highest precision,
because accelerators otherwise round float32 operands to bfloat16 or TF32.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pmt.errors import RequestError

# What a caller may hand over; everything inside works on jax.Array.
if TYPE_CHECKING:
    AnyArray = jax.Array
else:
    AnyArray = jax.Array | np.ndarray


def einsum(subscripts: str, *operands: Any) -> jax.Array:
    """``jnp.einsum`` at the highest matmul precision of the device."""
    return jnp.einsum(subscripts, *operands, precision=lax.Precision.HIGHEST)


def after(x: jax.Array, done: jax.Array) -> jax.Array:
    """``x``, once ``done`` is known: what follows from the one is computed after the other.

    For two batched factorizations of one program. Each holds a thread of XLA's pool on a CPU while
    it waits for its parts, which the same pool is to do: as many at a time as there are threads,
    two on two cores, wait for ever (jaxlib 0.10.2). ``done`` must be finite.
    """
    # Not folded by the compiler, as 0 times infinity is no 0; a barrier would be dropped.
    return x + 0 * done[(0,) * done.ndim].astype(x.dtype)


def is_concrete(value: Any) -> bool:
    """Whether ``value`` holds numbers now, and no tracer of ``jit``, ``vmap`` or ``grad``."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def is_array(value: Any) -> bool:
    """Whether ``value`` has a shape: a NumPy or JAX array or a tracer, not a placeholder."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def on_host(x: Any) -> bool:
    """Whether NumPy can have the numbers without a copy, in single or double precision."""
    if x.dtype not in (np.float32, np.float64):
        return False
    return isinstance(x, np.ndarray) or all(each.platform == "cpu" for each in x.devices())


def epsilon(dtype: Any) -> float:
    """Unit roundoff spacing of a real or complex floating ``dtype``, as a Python float."""
    return float(np.finfo(np.dtype(dtype)).eps)


def require_count(name: str, value: Any, least: int) -> int:
    """``value`` as an int, if it is an integer of at least ``least``.

    Raises:
      RequestError: naming ``name`` and the value.
    """
    try:
        fits = not isinstance(value, bool) and int(value) == value and value >= least
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise RequestError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return int(value)


def require_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity in a concrete array; tracers pass.

    Raises:
      RequestError: naming the first offending entry.
    """
    if value is None or not is_concrete(value):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "fc" and str(array.dtype) != "bfloat16":
        return
    finite = np.isfinite(array if array.dtype.kind in "fc" else array.astype(float))
    if not np.all(finite):
        bad = np.argwhere(~finite)
        where = tuple(int(i) for i in bad[0])
        at = f" at index {where}" if where else ""
        raise RequestError(
            f"{name} holds {array[where]}{at} ({len(bad)} non-finite in all); "
            "every entry must be a finite number"
        )


def require_same_dtype(**arrays: Any) -> None:
    """Refuse arrays of different floating dtypes: nothing is promoted silently.

    Raises:
      RequestError: naming the two arguments and their dtypes.
    """
    given = [(n, a.dtype) for n, a in arrays.items() if a is not None and is_array(a) and a.ndim]
    for name, dtype in given[1:]:
        if dtype != given[0][1]:
            raise RequestError(
                f"{given[0][0]} is {given[0][1]} but {name} is {dtype}; "
                "convert one of them, for instance with .astype(...), so that both agree"
            )

"""Signed margins: positive where a conclusion holds, negative where it is violated.

All functions are pure JAX and differentiable in the instance, so that a search can descend them.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SAFETY = 64.0
"""Covers the constants that eps x size x conditioning leaves out."""

NO_NUMBER = 1e300
"""The error, relative to its bound, of an identity one side of which is not a finite number."""

_MEANINGLESS = 0.05
_IDENTITY_TOLERANCE = 0.25


class Margin(NamedTuple):
    """A conclusion at one instance.

    Attributes:
    ----------
    value
        Signed and normalised: > 0 holds, < 0 violated.
    tolerance
        Rounding uncertainty of ``value``: with |value| <= tolerance nothing is decided.
    """

    value: Float[Array, ""]
    tolerance: Float[Array, ""]


def rounding(size: Any, conditioning: Any = 1.0) -> Float[Array, ""]:
    """SAFETY x eps x size x conditioning: the relative error that rounding can make."""
    eps = jnp.finfo(jnp.result_type(float)).eps
    return jnp.asarray(SAFETY * eps * size * conditioning)


def inequality(value: Any, *, size: Any = 1, conditioning: Any = 1.0) -> Margin:
    """``value`` > 0, where ``value`` is of order one and known up to rounding."""
    return Margin(jnp.asarray(value), rounding(size, conditioning))


def identity(error: Any, *, scale: Any, size: Any, conditioning: Any = 1.0) -> Margin:
    """|left − right| = 0: (bound − error) / bound with bound = scale x ``rounding``.

    An error that is not a finite number violates the identity. A bound of more than 5 % of the
    scale would show nothing: then the value is at most 0, and the instance undecided.
    """
    relative = rounding(size, conditioning)
    bound = relative * scale
    excess = jnp.max(jnp.abs(jnp.asarray(error))) / bound
    excess = jnp.where(jnp.isfinite(excess), excess, NO_NUMBER)
    value = jnp.where(relative < _MEANINGLESS, 1.0 - excess, jnp.minimum(0.0, 1.0 - excess))
    return Margin(value, jnp.full_like(value, _IDENTITY_TOLERANCE))


def differs(value: Any, *, scale: Any, size: Any, conditioning: Any = 1.0) -> Margin:
    """The contrary of ``identity``: ``value`` is not 0, beyond what rounding can make of 0."""
    same = identity(value, scale=scale, size=size, conditioning=conditioning)
    return Margin(-same.value, same.tolerance)


def every(*margins: Margin) -> Margin:
    """The conjunction: the first violated, else undecided, else smallest of the margins."""
    values = jnp.stack([m.value for m in margins])
    tolerances = jnp.stack([jnp.broadcast_to(m.tolerance, m.value.shape) for m in margins])
    sign = _sign(values, tolerances)
    worst = sign == jnp.min(sign)
    pick = jnp.argmin(jnp.where(worst, values, jnp.inf))
    return Margin(values[pick], tolerances[pick])


def equivalent(left: Margin, right: Margin) -> Margin:
    """Both hold or both fail: the smaller modulus, with the sign of agreement.

    Undecided where either side is.
    """
    agree = jnp.sign(left.value) * jnp.sign(right.value)
    value = agree * jnp.minimum(jnp.abs(left.value), jnp.abs(right.value))
    undecided = (_sign(*left) == 0) | (_sign(*right) == 0)
    return Margin(jnp.where(undecided, 0.0, value), jnp.maximum(left.tolerance, right.tolerance))


def _sign(value: Array, tolerance: Array) -> Float[Array, "..."]:
    return jnp.where(value > tolerance, 1.0, jnp.where(value < -tolerance, -1.0, 0.0))


def holds(value: Any, tolerance: Any) -> Any:
    """Where the margin is decided and positive (NumPy, on the host)."""
    return np.asarray(value) > np.asarray(tolerance)


def violated(value: Any, tolerance: Any) -> Any:
    """Where the margin is decided and negative (NumPy, on the host)."""
    return np.asarray(value) < -np.asarray(tolerance)

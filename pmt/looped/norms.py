"""The normalisations that a looped transformer can be given, and what each of them leaves out.

All act on the last axis, the 2d coordinates of a token, and none has a bias or an epsilon.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pmt.errors import RequestError

# One of NORMS.
Norm = str

NORMS: tuple[Norm, ...] = ("l2", "rms", "layer", "output", "none")


def check_norm(norm: str) -> None:
    """Refuse a name that is none of ``NORMS``."""
    if norm not in NORMS:
        raise RequestError(f"the norm is {norm!r}; it must be one of {', '.join(NORMS)}")


def has_gain(norm: Norm) -> bool:
    """Whether the normalisation has a trained gain."""
    return norm in ("rms", "layer")


def normalized(
    norm: Norm, y: Float[Array, "*batch k"], gain: Float[Array, " k"]
) -> Float[Array, "*batch k"]:
    """What a loop does to every token at its end.

    - ``l2``: y / |y|, the paper's.
    - ``rms``: gain * y / rms(y); with the gain 1/sqrt(k) the same as ``l2``.
    - ``layer``: gain * (y - mean(y)) / std(y).
    - ``output``, ``none``: y itself; ``output`` normalises what is read out in the end.

    A token that is exactly zero (constant, for ``layer``) stays zero instead of becoming NaN.
    """
    if norm in ("output", "none"):
        return y
    if norm == "layer":
        y = y - jnp.mean(y, axis=-1, keepdims=True)
    square = jnp.sum(y * y, axis=-1, keepdims=True)
    unit = y * lax.rsqrt(jnp.maximum(square, jnp.finfo(y.dtype).tiny))
    if norm == "l2":
        return unit
    return unit * (gain * y.shape[-1] ** 0.5).reshape((1,) * (y.ndim - 1) + (-1,))

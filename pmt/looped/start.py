"""The weights of a looped transformer before training."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pmt.errors import RequestError
from pmt.looped.core import Weights
from pmt.looped.manifold import on_manifold

# One of STARTS.
Start = str

STARTS: tuple[Start, ...] = ("structured", "unstructured")


def initial_weights(
    d: int,
    *,
    start: Start = "structured",
    v: float = 1.0,
    w: float = 1.0,
    scale: float = 0.1,
    key: PRNGKeyArray | None = None,
    dtype: Any = None,
) -> Weights:
    """The weights before training.

    Args:
      d: dimension of the data.
      start: ``structured``: on the manifold, at (v, w), as in the paper. ``unstructured``: all
        entries of V and W independent and normal with standard deviation ``scale``; v and w are
        not used.
      v, w: positive in the paper.
      scale: see there.
      key: random key; needed where the start is random.
      dtype: JAX's default float if None.

    Raises:
      RequestError: d < 1, an unknown start, or a random start without a key.
    """
    if d < 1:
        raise RequestError(f"d is {d}; it must be at least 1")
    if start not in STARTS:
        raise RequestError(f"the start is {start!r}; it must be one of {', '.join(STARTS)}")
    dtype = dtype or jnp.result_type(float)
    weights = on_manifold(jnp.asarray(v, dtype), jnp.asarray(w, dtype), d)
    if start == "structured":
        return weights
    if key is None:
        raise RequestError("an unstructured start is random; give a key")
    drawn = scale * jax.random.normal(key, (2, 2 * d, 2 * d), dtype)
    return Weights(drawn[0], drawn[1], weights.gain)

"""Attention weights: which tokens may be seen (masks), and the softmax over them.

A mask is a small pytree with a method ``allowed(n)`` that gives the boolean matrix of shape
``(n, n)``: entry ``(i, j)`` says whether token ``i`` attends to token ``j``. ``None`` means all.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass, register_static
from jaxtyping import Array, Bool, Float, Int

from pmt.errors import RequestError
from pmt.numerics import AnyArray, is_array, is_concrete


# Static, and no dataclass nodes: JAX takes two of those without fields for the same tree whatever
# their classes, and then now and then runs what it compiled for the other.
@register_static
@dataclass(frozen=True)
class Full:
    """Every token attends to every token."""

    def allowed(self, n: int) -> None:
        """No restriction."""
        del n


@register_static
@dataclass(frozen=True)
class Causal:
    """Token i attends to tokens j ≤ i."""

    def allowed(self, n: int) -> Bool[Array, "n n"]:
        """The lower triangle, diagonal included."""
        return jnp.tril(jnp.ones((n, n), bool))


@partial(register_dataclass, data_fields=["size"], meta_fields=["causal"])
@dataclass(frozen=True)
class LocalWindow:
    """Token i attends to the ``size`` nearest tokens j ≤ i (as in GPT-Neo): 0 ≤ i − j < size.

    With ``causal=False`` it looks both ways: |i − j| < size. The size is an array leaf, so layers
    with different windows can be stacked; a size of at least n is no window at all.
    """

    size: Int[AnyArray, "*layers"] | int
    causal: bool = True

    def allowed(self, n: int) -> Bool[Array, "n n"]:
        """The band of width ``size`` below (and, if not causal, above) the diagonal."""
        gap = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
        near = jnp.abs(gap) < self.size
        return near & (gap >= 0) if self.causal else near


@register_dataclass
@dataclass(frozen=True)
class Boolean:
    """``matrix[i, j]``: whether token i attends to token j; ``(h, n, n)`` gives one per head."""

    matrix: Bool[AnyArray, "*h n n"]

    def allowed(self, n: int) -> Bool[Array, "*h n n"]:
        """The matrix itself.

        Raises:
          RequestError: if it is not for ``n`` tokens.
        """
        if self.matrix.shape[-2:] != (n, n):
            raise RequestError(
                f"the mask has shape {tuple(self.matrix.shape)} but there are {n} tokens; "
                f"it must end in ({n}, {n})"
            )
        return jnp.asarray(self.matrix)


Mask = Full | Causal | LocalWindow | Boolean


@register_dataclass
@dataclass(frozen=True)
class Rotary:
    """Rotary positions (arXiv 2104.09864): queries and keys are turned by their token's index.

    Of a head's k coordinates the first r = 2 * (number of frequencies) form the planes
    (p, p + r/2); at token i plane p is turned by the angle i * frequencies[p]. So a logit depends
    on the two indices through their difference only.

    Attributes:
      frequencies: radians per token, 2 * (number of frequencies) at most k.
    """

    frequencies: Float[AnyArray, "*layers planes"]

    def turn(self, x: Float[Array, "h n k"]) -> Float[Array, "h n k"]:
        """Queries or keys of all heads, turned."""
        planes = self.frequencies.shape[-1]
        angle = jnp.arange(x.shape[1]).astype(x.dtype)[:, None] * self.frequencies[None, :]
        cos, sin = jnp.cos(angle)[None], jnp.sin(angle)[None]
        first, second, rest = jnp.split(x, (planes, 2 * planes), axis=-1)
        return jnp.concatenate(
            [first * cos - second * sin, second * cos + first * sin, rest], axis=-1
        )


_NAMED = {"full": Full, "causal": Causal}


def as_mask(mask: Any) -> Any:
    """A mask from its name (``"full"``, ``"causal"``), a boolean matrix, or a mask itself.

    Anything else (a placeholder inside a pytree transformation) is returned as it is.

    Raises:
      RequestError: unknown name, or a matrix that is not boolean.
    """
    if isinstance(mask, str):
        if mask not in _NAMED:
            raise RequestError(
                f"mask is {mask!r}; it must be 'full', 'causal', LocalWindow(size) or a boolean "
                "matrix of shape (n, n)"
            )
        return _NAMED[mask]()
    if is_array(mask):
        if mask.dtype != bool:
            raise RequestError(f"the mask matrix is {mask.dtype}; it must be boolean")
        return Boolean(mask)
    return mask


def check_mask(mask: Any, n: int) -> None:
    """Refuse a concrete mask that leaves a token with nothing to attend to.

    Raises:
      RequestError: naming the token, or a window smaller than one.
    """
    if not is_concrete(mask) or isinstance(mask, Full):
        return
    if isinstance(mask, LocalWindow) and np.any(np.asarray(mask.size) < 1):
        raise RequestError(f"the window size is {mask.size}; it must be at least 1")
    if isinstance(mask, Boolean):
        empty = np.argwhere(~np.asarray(mask.allowed(n)).any(axis=-1))
        if len(empty):
            raise RequestError(
                f"token {int(empty[0][-1])} attends to no token under the given mask; "
                "every row needs at least one True"
            )


def softmax_weights(logits: Float[Array, "*h n n"], mask: Any) -> Float[Array, "*h n n"]:
    """a_ij = exp(l_ij) / Σ_m exp(l_im) over the tokens m that i may see; 0 elsewhere.

    Shifted by the largest visible logit, so it does not overflow for finite logits.
    """
    return jax.nn.softmax(logits, axis=-1, where=mask.allowed(logits.shape[-1]))


def uniform_weights(n: int, mask: Any, dtype: Any) -> Float[Array, "*h n n"]:
    """Attention that ignores the tokens: 1 / (number of visible tokens) on each visible one."""
    allowed = mask.allowed(n)
    if allowed is None:
        return jnp.full((n, n), 1.0 / n, dtype)
    ones = allowed.astype(dtype)
    return ones / jnp.sum(ones, axis=-1, keepdims=True)

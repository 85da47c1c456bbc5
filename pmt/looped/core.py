"""The looped linear transformer as a function of arrays, with a reverse pass written by hand.

E ← Norm(E + V E Eᵀ W E) in the paper's columns; in rows, token i of ``e`` (n + 1, 2d) goes to
Norm(A e_i) with A = I + V G W and G = Σ_j e_j e_jᵀ. The matrices are full and every token moves.

What makes it fast on a processor: A is formed from two products that V and W share over the whole
batch, so that only the products with tokens are batched; the last loop, of which one token is
read, costs vectors instead of matrices; the reverse pass shares G and G W with the forward one; and
the halves of a batch share nothing but V and W, so that they run on two cores.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt.looped.norms import Norm, normalized
from pmt.numerics import einsum

# Samples of a batch from which its halves are computed side by side on a CPU.
_WORTH_HALVING = 64


class Weights(NamedTuple):
    """What is trained, the same in all loops.

    Attributes:
      value: V, shape ``(2d, 2d)``.
      key: W, shape ``(2d, 2d)``.
      gain: of the normalisation, shape ``(2d,)``; unused, and never changed, where it has none.
    """

    value: Float[Array, "*seeds k k"]
    key: Float[Array, "*seeds k k"]
    gain: Float[Array, "*seeds k"]


def embed(data: Float[Array, "*b n d"], query: Float[Array, "*b d"]) -> Float[Array, "*b m k"]:
    """The tokens (x_i, 0), i = 1..n, and (0, a) as the last one: n + 1 rows of 2d coordinates."""
    top = jnp.concatenate([data, jnp.zeros_like(data)], axis=-1)
    last = jnp.concatenate([jnp.zeros_like(query), query], axis=-1)
    return jnp.concatenate([top, last[..., None, :]], axis=-2)


def loop(weights: Weights, e: Float[Array, "m k"], norm: Norm) -> Float[Array, "m k"]:
    """One loop on one sample, as the paper writes it: the reference for ``looped``."""
    moved = einsum("ik,lk->il", e, weights.key)
    moved = einsum("ik,jk,jl,pl->ip", moved, e, e, weights.value)
    return normalized(norm, e + moved, weights.gain)


def apply(
    weights: Weights,
    data: Float[Array, "b n d"],
    query: Float[Array, "b d"],
    loops: int,
    norm: Norm,
) -> Float[Array, "b d"]:
    """y_L for a batch of samples: the lower half of the last token after ``loops`` loops.

    ``norm="output"`` divides it by its length; nothing else is done to it.
    """
    e = embed(data, query)
    # The products of a batch are too small to be shared among threads; halves are independent.
    halves = 2 if len(e) >= _WORTH_HALVING and jax.default_backend() == "cpu" else 1
    last = jnp.concatenate(
        [looped(weights, part, loops, norm) for part in jnp.array_split(e, halves)]
    )
    y = last[:, query.shape[-1] :]
    return normalized("l2", y, y[0]) if norm == "output" else y


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def looped(
    weights: Weights, e: Float[Array, "b m k"], loops: int, norm: Norm
) -> Float[Array, "b k"]:
    """The last token after ``loops`` >= 1 loops."""
    return _forward(weights, e, loops, norm)[0]


class _Kept(NamedTuple):
    """Of one loop: its tokens, G, (G W)ᵀ, Aᵀ − I, and its tokens before normalisation."""

    e: Any
    gram: Any
    mixed: Any
    step: Any
    y: Any


class _KeptLast(NamedTuple):
    """Of the last loop, for its last token: W e, E Eᵀ W e before the last product, and y."""

    e: Any
    s: Any
    along: Any
    attended: Any
    y: Any


def _forward(
    weights: Weights, e: Float[Array, "b m k"], loops: int, norm: Norm
) -> tuple[Any, tuple[list[_Kept], _KeptLast]]:
    kept = []
    for _ in range(loops - 1):
        gram = einsum("bni,bnj->bij", e, e)
        mixed = jnp.swapaxes(einsum("bij,jk->bik", gram, weights.key), 1, 2)
        step = einsum("bij,kj->bik", mixed, weights.value)
        y = e + einsum("bni,bij->bnj", e, step)
        kept.append(_Kept(e, gram, mixed, step, y))
        e = normalized(norm, y, weights.gain)
    s = einsum("bk,lk->bl", e[:, -1], weights.key)
    along = einsum("bnk,bk->bn", e, s)
    attended = einsum("bn,bnk->bk", along, e)
    y = e[:, -1] + einsum("bk,lk->bl", attended, weights.value)
    return normalized(norm, y, weights.gain), (kept, _KeptLast(e, s, along, attended, y))


def _start(weights: Weights, e: Any, loops: int, norm: Norm) -> tuple[Any, Any]:
    last, kept = _forward(weights, e, loops, norm)
    return last, (weights, kept)


def _reverse(loops: int, norm: Norm, kept: Any, cotangent: Any) -> tuple[Weights, Any]:
    del loops
    weights, (inner, last) = kept
    value, key, gain = weights
    dy, dgain = _pull(norm, last.y, gain, cotangent)
    dvalue = einsum("bi,bj->ij", dy, last.attended)
    dattended = einsum("bi,ij->bj", dy, value)
    # attended = G s, so that the cotangent of G is dattended sᵀ, of rank one.
    ds = einsum("bnk,bk->bn", last.e, dattended)
    de = ds[:, :, None] * last.s[:, None, :] + last.along[:, :, None] * dattended[:, None, :]
    ds = einsum("bn,bnk->bk", ds, last.e)
    dkey = einsum("bi,bj->ij", ds, last.e[:, -1])
    de = de.at[:, -1].add(dy + einsum("bi,ij->bj", ds, key))
    for each in reversed(inner):
        dy, more = _pull(norm, each.y, gain, de)
        dgain = dgain + more
        dstep = einsum("bni,bnj->bij", each.e, dy)
        dvalue = dvalue + einsum("bij,bik->jk", dstep, each.mixed)
        dmixed = jnp.swapaxes(einsum("bij,jk->bik", dstep, value), 1, 2)
        dkey = dkey + einsum("bij,bik->jk", each.gram, dmixed)
        dgram = einsum("bij,kj->bik", dmixed, key)
        dgram = dgram + jnp.swapaxes(dgram, 1, 2)
        de = dy + einsum("bnj,bij->bni", dy, each.step) + einsum("bni,bij->bnj", each.e, dgram)
    return Weights(dvalue, dkey, dgain), de


def _pull(norm: Norm, y: Any, gain: Any, cotangent: Any) -> tuple[Any, Any]:
    return jax.vjp(partial(normalized, norm), y, gain)[1](cotangent)


looped.defvjp(_start, _reverse)

"""The two blocks of V and W that a structured start ever moves, and the model that they alone make.

Let A be the lower left block of V, B the upper right one of W, and all other entries zero. Then
data tokens, which are (x_i, 0), stay what they are, and the last one, (0, a), goes through

    a ← Norm(a + A XXᵀ B a).

The loss of *every sample* is stationary there in the other six blocks: at points of this form,
gradient descent and SGD on the full V and W move A and B alone, whatever the samples.

- The diagonal blocks of V and W: the loss does not change under (V, W) → (−V, −W), since one loop
  contains their product, nor under (V, W) → (DVD, DWD) with D = diag(I, −I), which turns a and y_L
  round. Both together keep A and B and turn the sign of the diagonal blocks, so that the loss is
  even in these.
- The upper right block of V: it multiplies the lower half of E Eᵀ W E, which is zero. The lower
  left one of W gives W E a lower half at data tokens, and E Eᵀ takes it to lower halves, which
  A does not read. Neither changes any token as long as the other one is zero.

This holds for norms that leave unit data tokens as they are and commute with D (``CONFINING``), and
is about stationarity only: in some directions off this form the loss falls to second order.
"""

from jaxtyping import Array, Float

from pmt.errors import RequestError
from pmt.looped.core import Weights
from pmt.looped.norms import Norm, normalized
from pmt.numerics import einsum

CONFINING: tuple[Norm, ...] = ("l2", "output", "none")


def apply_blocks(
    weights: Weights,
    data: Float[Array, "b n d"],
    query: Float[Array, "b d"],
    loops: int,
    norm: Norm,
) -> Float[Array, "b d"]:
    """``apply`` for weights whose entries are zero outside A and B, at a small part of its cost.

    Args:
      weights: only A and B are looked at, so that the derivative by everything else is zero.
      data: unit rows.
      query: a.
      loops: L.
      norm: one of ``CONFINING``.

    Returns:
      y_L, as ``apply``.

    Raises:
      RequestError: another norm, under which the data tokens do not stay what they are.
    """
    if norm not in CONFINING:
        raise RequestError(
            f"the norm is {norm!r}; two blocks are all there is for {', '.join(CONFINING)} only"
        )
    d = query.shape[-1]
    value, key, unused = weights.value[d:, :d], weights.key[:d, d:], weights.gain[d:]
    for _ in range(loops):
        along = einsum("bni,bi->bn", data, einsum("bk,ik->bi", query, key))
        moved = einsum("bi,ki->bk", einsum("bni,bn->bi", data, along), value)
        query = normalized(norm, query + moved, unused)
    return normalized("l2", query, unused) if norm == "output" else query

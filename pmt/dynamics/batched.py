"""One step of a map for many starts at once, in two formulations made for small systems.

A tiny matrix product per start is what compilers do worst. So there is

- ``ELEMENTWISE``: the batch is the last axis, state ``(n, d, batch)``, and every contraction over
  tokens or coordinates is a sum of elementwise products, which run in vector registers;
- ``MATRIX``: state ``(batch, n, d)`` and batched matrix products, for systems large enough.

Both give what the maps themselves give, up to rounding, and the same result codes. The softmax is
shifted by its largest visible logit only where a bound on the logits cannot rule out overflow.
"""

import math
from functools import partial, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from pmt import attention, sphere
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.systems import MultiHead, Oja, SingleHead

# exp of a logit this large, summed over many tokens and multiplied by the weights of any sane
# system, is far from overflow and from underflow.
_SAFE_LOGIT = {4: 20.0, 8: 200.0}

State = Float[Array, "_ _ _"]


class Formulation(NamedTuple):
    """Where a state keeps its axes, and how it contracts over them.

    Attributes:
      token, coordinate, batch: positions of the axes.
    """

    token: int
    coordinate: int
    batch: int

    @property
    def elementwise(self) -> bool:
        """Whether contractions are sums of elementwise products."""
        return self.batch == 2

    def enter(self, x: Float[Array, "batch n d"]) -> State:
        """States with the batch first, in this layout."""
        return jnp.transpose(x, (1, 2, 0)) if self.elementwise else x

    def leave(self, x: State) -> Float[Array, "batch n d"]:
        """The inverse of ``enter``."""
        return jnp.transpose(x, (2, 0, 1)) if self.elementwise else x

    def spread(self, lanes: Any) -> Any:
        """One number per start, shaped to broadcast against a state."""
        return lanes[None, None, :] if self.elementwise else lanes[:, None, None]

    def total(self, x: State) -> State:
        """Σ over coordinates, the axis kept with length 1."""
        return self._fold(jnp.add, jnp.sum, x, self.coordinate)

    def largest(self, x: State) -> State:
        """Maximum over coordinates, the axis kept with length 1."""
        return self._fold(jnp.maximum, jnp.max, x, self.coordinate)

    def over_tokens(self, x: Any) -> Array:
        """Maximum over tokens of what has one coordinate: one number per start."""
        return jnp.squeeze(
            jnp.max(x, axis=self.token, keepdims=True), (self.token, self.coordinate)
        )

    def _fold(self, pair: Any, whole: Any, x: State, axis: int) -> State:
        if not self.elementwise:
            return whole(x, axis=axis, keepdims=True)
        return reduce(
            pair, (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in range(x.shape[axis]))
        )


ELEMENTWISE = Formulation(token=0, coordinate=1, batch=2)
MATRIX = Formulation(token=1, coordinate=2, batch=0)


def step(formulation: Formulation, system: Any, x: State) -> tuple[State, Int[Array, " batch"]]:
    """f(x) and DONE for each start, or x unchanged and CANCELLED or NONFINITE.

    A token counts as cancelled when |y| is at most 8 eps (1 + max_c |y_c − x_c|).
    """
    y = x + system.alpha * update(formulation, system, x)
    length = jnp.sqrt(formulation.total(y * y))
    eps = float(jnp.finfo(x.dtype).eps)
    # A length over 32 eps excludes cancellation, and neither bound is near under- or overflow.
    usual = (length > 32 * eps) & (length < eps**-2)

    def quick(x: State, y: State, length: State, usual: Any) -> tuple[State, Array]:
        del usual
        return y / length, jnp.zeros(x.shape[formulation.batch], jnp.int32)

    return lax.cond(jnp.all(usual), quick, partial(_careful, formulation), x, y, length, usual)


def _careful(
    formulation: Formulation, x: State, y: State, length: State, usual: Bool[Array, "_ _ _"]
) -> tuple[State, Int[Array, " batch"]]:
    largest = formulation.largest(jnp.abs(y))
    scale = sphere.scale_of(largest)
    quotient = y / scale
    root = jnp.sqrt(formulation.total(quotient * quotient))
    floor = 8 * jnp.finfo(x.dtype).eps * (1.0 + formulation.largest(jnp.abs(y - x)))
    # Written so that 0/0, a token without any length left, is a cancellation too.
    cancelled = jnp.where(scale * root > floor, Outcome.DONE, Outcome.CANCELLED)
    code = jnp.where(jnp.isfinite(largest), cancelled, Outcome.NONFINITE)
    code = formulation.over_tokens(code.astype(jnp.int32))
    # As in the quick way where that is possible: no start depends on its neighbours.
    moved = jnp.where(usual, y / length, quotient / root)
    return jnp.where(formulation.spread(code == Outcome.DONE), moved, x), code


def update(formulation: Formulation, system: Any, x: State) -> State:
    """What attention adds to every token before the step size, for every start."""
    if isinstance(system, Oja):
        return _oja(formulation, system, x)
    heads = _single(formulation, system, x) if isinstance(system, SingleHead) else None
    return _attend(formulation, system, x, heads or _multi(formulation, system, x))


class _Head(NamedTuple):
    """Queries, keys and values of one head for every start."""

    query: State
    key: State
    value: State


def _project(
    formulation: Formulation, weight: Float[Array, "p d"], x: State, bias: Any = None
) -> State:
    """``weight`` applied to every token."""
    if formulation.elementwise:
        # A matrix product per token keeps the batch contiguous, and nothing is fused into it.
        stacked = jnp.broadcast_to(weight, (x.shape[0], *weight.shape))
        out = lax.dot_general(
            stacked, x, (((2,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST
        )
        return out if bias is None else out + bias[None, :, None]
    batch, n, d = x.shape
    flat = lax.dot_general(
        x.reshape(batch * n, d), weight, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    out = flat.reshape(batch, n, weight.shape[0])
    return out if bias is None else out + bias[None, None, :]


def _oja(formulation: Formulation, system: Oja, x: State) -> State:
    n = x.shape[formulation.token]
    if isinstance(system.mask, attention.Full):
        mean = jnp.mean(x, axis=formulation.token, keepdims=True)
        return jnp.broadcast_to(_project(formulation, system.value, mean), x.shape)
    weights = attention.uniform_weights(n, system.mask, x.dtype)
    if formulation.elementwise:
        mixed = _sum(weights[:, j, None, None] * x[j][None] for j in range(n))
    else:
        mixed = jnp.einsum("ij,bjd->bid", weights, x, precision=lax.Precision.HIGHEST)
    return _project(formulation, system.value, mixed)


def _single(formulation: Formulation, system: SingleHead, x: State) -> list[_Head]:
    return [_Head(x, _project(formulation, system.scale * system.query_key, x), x)]


def _multi(formulation: Formulation, system: MultiHead, x: State) -> list[_Head]:
    def part(weight: Any, bias: Any, h: int, factor: Any = None) -> State:
        row = None if bias is None else bias[h]
        if factor is not None:
            weight, row = factor * weight, None if row is None else factor * row
        return _project(formulation, weight[h], x, row)

    return [
        _Head(
            part(system.query, system.query_bias, h),
            part(system.key, system.key_bias, h, system.scale),
            part(system.value, system.value_bias, h),
        )
        for h in range(system.query.shape[0])
    ]


def _attend(formulation: Formulation, system: Any, x: State, heads: list[_Head]) -> State:
    n = x.shape[formulation.token]
    allowed = system.mask.allowed(n)
    bounded = logits_bound(system) <= _SAFE_LOGIT[x.dtype.itemsize]
    mix = _mix_elementwise if formulation.elementwise else _mix_matrix
    outputs = system.value[None] if isinstance(system, SingleHead) else system.output
    parts = []
    for h, head in enumerate(heads):
        own = allowed[h] if allowed is not None and allowed.ndim == 3 else allowed
        mixed, total = mix(head, own, bounded)
        # Divided after the output matrix: one pass over the state less.
        parts.append(_project(formulation, outputs[h], mixed) * (1.0 / total))
    out = _sum(parts)
    if isinstance(system, SingleHead) or system.output_bias is None:
        return out
    at = (None, slice(None), None) if formulation.elementwise else (None, None, slice(None))
    return out + system.output_bias[at]


def logits_bound(system: Any) -> Float[Array, ""]:
    """An upper bound of |logits| over all states of unit tokens; not finite where it overflows.

    Frobenius norms bound spectral norms: |x_iᵀ B_h x_j| ≤ ‖B_h‖ without biases, and
    |Q_h x_i + b| ≤ ‖Q_h‖ + |b| with them.
    """

    def size(a: Any) -> Float[Array, "*h"]:
        return jnp.sqrt(jnp.sum(a * a, axis=(-2, -1)))

    def grown(weight: Any, bias: Any) -> Any:
        return size(weight) if bias is None else size(weight) + size(bias[..., None])

    if isinstance(system, SingleHead):
        largest = size(system.query_key)
    elif system.has_biases:
        queries = grown(system.query, system.query_bias)
        largest = jnp.max(queries * grown(system.key, system.key_bias))
    else:
        largest = jnp.max(size(system.query_key_matrices))
    return jnp.abs(system.scale) * largest


def _mix_elementwise(head: _Head, allowed: Any, bounded: Bool[Array, ""]) -> tuple[State, State]:
    """Σ_j e_ij value_j and Σ_j e_ij, with a_ij = e_ij / Σ_m e_im; sums over slices."""
    n, k, _ = head.query.shape
    visible = None if allowed is None else allowed.T[:, :, None]

    def logits(query: State, key: State) -> Float[Array, "n n batch"]:
        return _sum(key[:, c][:, None] * query[:, c][None] for c in range(k))

    def quick(query: State, key: State) -> Float[Array, "n n batch"]:
        return exp_of_small(logits(query, key))

    def shifted(query: State, key: State) -> Float[Array, "n n batch"]:
        return _exp_of_any(logits(query, key), visible, axis=0)

    weights = lax.cond(bounded, quick, shifted, head.query, head.key)
    if visible is not None:
        weights = jnp.where(visible, weights, 0.0)
    total = _sum(weights[j] for j in range(n))
    mixed = _sum(head.value[j][None] * weights[j][:, None] for j in range(n))
    return mixed, total[:, None]


def _mix_matrix(head: _Head, allowed: Any, bounded: Bool[Array, ""]) -> tuple[State, State]:
    """As ``_mix_elementwise``, by batched matrix products."""
    visible = None if allowed is None else allowed[None]
    logits = _batched("bik,bjk->bij", head.query, head.key)
    weights = lax.cond(
        bounded, exp_of_small, lambda found: _exp_of_any(found, visible, axis=-1), logits
    )
    if visible is not None:
        weights = jnp.where(visible, weights, 0.0)
    mixed = _batched("bij,bjv->biv", weights, head.value)
    return mixed, jnp.sum(weights, axis=-1, keepdims=True)


def _exp_of_any(logits: State, visible: Any, axis: int) -> State:
    """exp of the logits minus the largest visible one along ``axis``."""
    seen = logits if visible is None else jnp.where(visible, logits, -jnp.inf)
    return jnp.exp(logits - jnp.max(seen, axis=axis, keepdims=True))


# Of exp(x) = 2^m exp(g), g = x − m log 2, |g| <= log(2)/2, by bytes of the dtype: digits
# of the significand, log 2 as a head whose product with m is exact and its tail, and the highest
# power of the series that counts.
_EXP = {
    4: (23, 0.693359375, math.log(2) - 0.693359375, 7),
    8: (52, float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"), 13),
}


def exp_of_small(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(x) for |x| up to 20 in single and 200 in double precision, within two roundings.

    Half of the work of an exponential that heeds overflow, infinities and NaN, which this one does
    not: they give some number or other.
    """
    bytes_ = x.dtype.itemsize
    digits, head, tail, degree = _EXP[bytes_]
    integer = jnp.int32 if bytes_ == 4 else jnp.int64
    # Added to a number this large, the rest is rounded to an integer, found in the last bits.
    large = jnp.asarray(1.5 * 2.0**digits, x.dtype)
    bits = lax.bitcast_convert_type(x * (1.0 / math.log(2)) + large, integer)
    m = (bits - lax.bitcast_convert_type(large, integer)).astype(x.dtype)
    g = x - m * head - m * tail
    series = jnp.full_like(g, 1.0 / math.factorial(degree))
    for power in range(degree - 1, 1, -1):
        series = series * g + 1.0 / math.factorial(power)
    series = series * (g * g) + g + 1.0
    scaled = lax.bitcast_convert_type(series, integer) + (bits << digits)
    return lax.bitcast_convert_type(scaled, x.dtype)


def _batched(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)


def _sum(terms: Any) -> Array:
    return reduce(jnp.add, terms)

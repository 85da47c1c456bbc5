"""How tokens answer to a rank-one edit: a straight line in its strength, known before the edit.

After the layer a token is y_i + c kappa_i w up to its length, where y_i is what the layer makes of
it without the edit and kappa_i = alpha aᵀ m_i with the mixed values m_i of all heads. So the
alignment of every token with w is known for every c at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.attention import Boolean
from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.numerics import epsilon, require_finite


@dataclass(frozen=True)
class Attended:
    """Tokens on their way through a layer that is not edited, in float64.

    Attributes:
      mixed: ``(batch, n, h kv)``. m_i: the heads' attended values Σ_j a^h_ij V_h x_j side by side,
        value biases included.
      plain: ``(batch, n, d)``. y_i = x_i + alpha (O m_i + b), before any norm.
      present: ``(batch, n)``. False for padding, which counts in nothing here.
      mean: ``(d,)``. The mean of what the layer's attention reads, over the tokens present.
      alpha: the layer's step size.
      dtype: of the run: attention was computed in it.
    """

    mixed: np.ndarray
    plain: np.ndarray
    present: np.ndarray
    mean: np.ndarray
    alpha: float
    dtype: Any

    def response(self, direction: np.ndarray, coefficients: np.ndarray) -> "Response":
        """What c w aᵀ does to every token; ``coefficients`` is a, ``(h, kv)`` or flat."""
        along = self.plain @ direction
        rest = self.plain - along[..., None] * direction
        return Response(
            along=along,
            across=np.linalg.norm(rest, axis=-1),
            kappa=self.alpha * (self.mixed @ coefficients.reshape(-1)),
            present=self.present,
        )


@dataclass(frozen=True)
class Response:
    """The tokens' lines y_i + c kappa_i w, seen along w and across it.

    Attributes:
      along, across: ``(batch, n)``. wᵀ y_i and |(I - w wᵀ) y_i|.
      kappa: ``(batch, n)``. alpha aᵀ m_i, which is alpha zᵀ Σ_h P_h z_i^h where V is nonsingular.
      present: ``(batch, n)``. Which tokens count.
    """

    along: np.ndarray
    across: np.ndarray
    kappa: np.ndarray
    present: np.ndarray

    def cosines(self, c: float) -> np.ndarray:
        """cos(x_i', w) of every token, signed; 0 for one that cancels exactly."""
        pushed = self.along + c * self.kappa
        length = np.hypot(pushed, self.across)
        return np.divide(pushed, length, out=np.zeros_like(pushed), where=length > 0)

    def alignment(self, c: float) -> float:
        """The mean of |cos(x_i', w)| over the tokens present."""
        return float(np.abs(self.cosines(c))[self.present].mean())

    @property
    def limit(self) -> float:
        """What the mean alignment tends to for c to infinity: 1 unless some kappa_i is zero."""
        held = np.abs(self.cosines(0.0))
        return float(np.where(self.kappa == 0, held, 1.0)[self.present].mean())

    @property
    def share_positive(self) -> float:
        """The share of tokens with kappa_i > 0: those that end on the side of +w for large c."""
        return float((self.kappa[self.present] > 0).mean())

    def share_dominated(self, c: float) -> float:
        """The share of tokens with c |kappa_i| > |y_i|: those that the edit decides about."""
        length = np.hypot(self.along, self.across)
        return float((np.abs(c * self.kappa) > length)[self.present].mean())

    def strength(self, alignment: float) -> float:
        """The smallest c > 0 found at which the mean alignment is the given one.

        The mean need not grow all the way, since tokens whose y_i is on the other side of w pass
        through zero; the first crossing on a grid of forty points a decade is refined.

        Raises:
          RequestError: not between 0 and 1, no more than without an edit, or never reached.
        """
        if not 0.0 < alignment < 1.0:
            raise RequestError(
                f"the requested alignment is {alignment}; it must be between 0 and 1, and 1 itself "
                "is reached by no finite strength"
            )
        before, limit = self.alignment(0.0), self.limit
        if alignment <= before:
            raise RequestError(
                f"the requested alignment is {alignment:.4g}, and without any edit the tokens have "
                f"{before:.4g} already; ask for more"
            )
        kappa = np.abs(self.kappa[self.present])
        if alignment >= limit or not kappa.any():
            raise RequestError(
                f"no strength reaches the mean alignment {alignment:.4g}: tokens on which the edit "
                f"has no effect (kappa = 0) keep it below {limit:.4g}; choose another read vector"
            )
        size = np.hypot(self.along, self.across)[self.present]
        # Below the first nothing has moved, and at the last every token is aligned.
        small = 1e-3 * max(float(size.min()), 1e-12) / float(kappa.max())
        large = 1e8 * max(float(size.max()), 1e-12) / float(kappa[kappa > 0].min())
        grid = np.geomspace(small, large, 2 + int(40 * np.log10(large / small)))
        low = 0.0
        for high in grid:
            if self.alignment(float(high)) >= alignment:
                return _bisect(self.alignment, alignment, low, float(high))
            low = float(high)
        raise RequestError(
            f"no strength up to {large:.3g} reaches the mean alignment {alignment:.4g}; the tokens "
            f"reach {self.alignment(large):.4g} there: choose another read vector"
        )


def check_layer(layer: Any) -> MultiHead:
    """The layer, if it is one.

    Raises:
      RequestError: anything but the arrays of one layer.
    """
    if isinstance(layer, MultiHead) and layer.query.ndim == 3:
        return layer
    raise RequestError(
        f"what is to be steered is a {type(layer).__name__}; expected one layer, a MultiHead, such "
        "as model.layer_map(5) or layers.layer(5) of a LayerStack"
    )


def attend(layer: Any, x: Any, *, residual: Any = None, present: Any = None) -> Attended:
    """Carry tokens through a layer's attention, and no further.

    The attention weights are those of the layer's own precision, and everything after them is
    computed in float64.

    Args:
      layer: a ``MultiHead``, with or without biases, rotary positions and masks, which are all
        honoured.
      x: ``(batch, n, d)``. What the attention reads.
      residual: ``(batch, n, d)``. What the update is added to; ``x`` itself if None, as in eq. (1).
      present: ``(batch, n)``. False for padding; all True if None.

    Raises:
      RequestError: anything but one layer; tokens of another shape or dimension than the layer's,
        or not finite; a residual or ``present`` that is not of their shape; no token present.
    """
    layer, x = check_layer(layer), np.asarray(x)
    d = layer.query.shape[-1]
    if x.ndim != 3 or x.shape[-1] != d or 0 in x.shape:
        raise RequestError(
            f"the tokens have shape {x.shape}; expected (batch, n, {d}) with at least one of each"
        )
    require_finite("the array of tokens", x)
    there = np.ones(x.shape[:2], bool) if present is None else np.asarray(present, bool)
    if there.shape != x.shape[:2] or not there.any():
        raise RequestError(
            f"present has shape {there.shape} and {int(there.sum())} tokens in it; expected "
            f"{x.shape[:2]} with at least one"
        )
    base = (x if residual is None else np.asarray(residual)).astype(np.float64)
    if base.shape != x.shape:
        raise RequestError(
            f"the residual has shape {base.shape}; expected that of the tokens, {x.shape}"
        )
    weights = np.asarray(_attention(layer, jnp.asarray(x), jnp.asarray(there)), np.float64)
    wide = x.astype(np.float64)
    value, output = (np.asarray(a, np.float64) for a in (layer.value, layer.output))
    values = np.einsum("hkd,bnd->bhnk", value, wide)
    if layer.value_bias is not None:
        values = values + np.asarray(layer.value_bias, np.float64)[None, :, None, :]
    mixed = np.einsum("bhij,bhjk->bihk", weights, values)
    update = np.einsum("hdk,bihk->bid", output, mixed)
    if layer.output_bias is not None:
        update = update + np.asarray(layer.output_bias, np.float64)
    alpha = float(layer.alpha)
    return Attended(
        mixed=mixed.reshape(*mixed.shape[:2], -1),
        plain=base + alpha * update,
        present=there,
        mean=wide[there].mean(axis=0),
        alpha=alpha,
        dtype=layer.query.dtype,
    )


def predicted_error(
    attended: Attended, response: Response, c: float, coefficients: np.ndarray, lost: np.ndarray
) -> float:
    """How far the measured mean alignment may be from the predicted one: its stated error.

    The prediction is exact in exact arithmetic. What is measured differs in two ways: the edited
    weights were rounded to their stored dtype, whose effect on every token is computed exactly, and
    the run rounds, for which √N roundings of its dtype are allowed, N = d + h kv + n.

    Args:
      attended, response: the tokens, and their response to the edit.
      c: the strength.
      coefficients: a, flat.
      lost: ``(d, h kv)``. The stored weights minus O + c w aᵀ.
    """
    d, width = lost.shape
    unit = epsilon(attended.dtype) * np.sqrt(d + width + attended.mixed.shape[1])
    size = np.linalg.norm(attended.mixed, axis=-1)
    stored = attended.alpha * np.linalg.norm(attended.mixed @ lost.T, axis=-1)
    plain = np.linalg.norm(attended.plain, axis=-1)
    # Rounding in m_i is multiplied by a, along w; all else is of the size of the token.
    down = stored + unit * (plain + attended.alpha * abs(c) * np.linalg.norm(coefficients) * size)
    aside = stored + unit * (plain + size)
    pushed = np.abs(response.along + c * response.kappa)
    at = np.abs(response.cosines(c))
    most = _ratio(pushed + down, np.maximum(response.across - aside, 0.0))
    least = _ratio(np.maximum(pushed - down, 0.0), response.across + aside)
    worst = np.maximum(most - at, at - least)
    # The run's own mean and cosine round too.
    return float(worst[attended.present].mean()) + unit


def _ratio(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    length = np.hypot(along, across)
    return np.divide(along, length, out=np.ones_like(along), where=length > 0)


def _bisect(f: Callable[[float], float], target: float, low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(lambda c: f(c) - target, low, high, xtol=1e-14 * high, rtol=1e-13))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., jax.Array]:
    def of_prompt(layer: MultiHead, x: jax.Array, present: jax.Array) -> jax.Array:
        seen = jnp.broadcast_to(present[None, :], (len(x), len(x)))
        own = layer.mask.allowed(len(x))
        mask = Boolean(seen if own is None else seen & own)
        return replace(layer, mask=mask).attention(x)

    return jax.jit(jax.vmap(of_prompt, in_axes=(None, 0, 0)))


def _attention(layer: MultiHead, x: jax.Array, present: jax.Array) -> jax.Array:
    # As in the run itself, whatever precision the tokens were given in.
    return _compiled()(layer, x.astype(layer.query.dtype), present)

"""How tokens align with eigendirections: rho, its increments over a layer, and chance.

Eqs. (4)-(7) of arXiv 2605.25619: the same direction, that of the layer in between, is used on both
sides, and an average over all eigendirections counts each eigenvalue once.
"""

from dataclasses import dataclass
from math import exp, lgamma, log, pi
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt import sphere
from pmt.errors import RequestError
from pmt.numerics import einsum, on_host
from pmt.spectral.directions import Directions

# Numbers held at a time for a mean over all directions: 2**24 of them are 64 MB in float32.
_HELD = 2**24
# Squared lengths in between lose nothing to overflow or underflow, in single precision either.
_SAFE = (1e-20, 1e20)


def chance(d: int, dimension: int = 1) -> float:
    """E rho for a token uniform on S^(d-1): what no alignment at all looks like.

    Γ(d/2) / (√π Γ((d+1)/2)) for a line, about sqrt(2/(π d)); π/2 times that for a plane.

    Raises:
      RequestError: A dimension other than 1 and 2, or larger than d.
    """
    if dimension not in (1, 2) or d < dimension:
        message = (
            f"there is no subspace of dimension {dimension} in R^{d} to measure against; "
            "the dimension must be 1 or 2, and at most d"
        )
        raise RequestError(message)
    line = exp(lgamma(d / 2) - lgamma((d + 1) / 2) - log(pi) / 2)
    return line if dimension == 1 else line * pi / 2


def rho(x: Float[Array, "*tokens d"], directions: Directions) -> Float[Array, "*tokens p"]:
    """|P x| / |x| of every token with every entry of ``directions``, in [0, 1]: one matmul.

    |xᵀv| for a line with a unit token, the length of the projection for a plane; both entries of
    a plane hold the same number. A zero token has rho 0.
    """
    along = einsum("...d,dp->...p", sphere.normalize(x), directions.basis)
    square = along * along
    in_plane = jnp.where(directions.planar, square[..., directions.partner], 0)
    # Rounding can make a projection longer than the token by an ulp.
    return jnp.minimum(jnp.sqrt(square + in_plane), 1)


def rho_on_host(
    x: Float[np.ndarray, "*tokens d"], basis: Float[np.ndarray, "d p"]
) -> Float[np.ndarray, "*tokens"]:
    """As ``rho`` with one line, a ``basis`` of one column, or one plane, of two orthonormal ones.

    By NumPy and compiled nowhere, in the tokens' dtype; the answer is in float64.
    """
    flat, square = _with_squares(x.reshape(-1, x.shape[-1]))
    along = np.linalg.norm(flat @ basis.astype(flat.dtype, copy=False), axis=1)
    shares = along / np.sqrt(np.where(square == 0, np.ones_like(square), square))
    return np.minimum(shares, 1).astype(np.float64).reshape(x.shape[:-1])


@jax.jit
def _average(
    before: Float[Array, "batch n d"], after: Float[Array, "batch n d"], directions: Directions
) -> Float[Array, "batch n 4"]:
    def of_prompt(states: tuple[Array, Array]) -> Array:
        low, high = (rho(x, directions) for x in states)
        increase = (high > low).astype(low.dtype)
        parts = (low, high, high - low, increase)
        return jnp.stack([jnp.mean(part, axis=-1) for part in parts], axis=-1)

    held = 4 * before.shape[-2] * directions.basis.shape[1]
    return lax.map(of_prompt, (before, after), batch_size=max(1, _HELD // max(held, 1)))


@dataclass(frozen=True)
class Average:
    """Means over tokens *and* all eigendirections; a conjugate pair counts twice.

    Attributes:
      rho_before, rho_after: Means of rho at X^(l-1) and X^(l).
      delta_rho: Mean of the increment.
      p_increase: Fraction of (token, direction) with a strict increase.
    """

    rho_before: float
    rho_after: float
    delta_rho: float
    p_increase: float


def average_over_directions(
    before: Float[Array, "batch n d"], after: Float[Array, "batch n d"], directions: Directions
) -> Average:
    """cbar, Deltabar and Pbar of a layer, by one matmul per chunk of prompts.

    Directions are averaged per token, on a CPU by NumPy and elsewhere in one compiled program;
    tokens in float64.
    """
    if on_host(before):
        per_token = _average_on_host(np.asarray(before), np.asarray(after), directions)
    else:
        per_token = np.asarray(_average(before, after, directions), np.float64)
    return Average(*(float(mean) for mean in per_token.mean(axis=(0, 1))))


def _average_on_host(before: np.ndarray, after: np.ndarray, directions: Directions) -> np.ndarray:
    """As ``_average``, ``(1, tokens, 4)``; a plane is computed once and has the weight of two."""
    d = before.shape[-1]
    planar, partner = np.asarray(directions.planar), np.asarray(directions.partner)
    lines = np.flatnonzero(~planar)
    first = np.flatnonzero(planar & (partner > np.arange(len(partner))))
    basis = np.asarray(directions.basis)[:, np.concatenate([lines, first, partner[first]])]
    weights = np.repeat([1.0, 2.0], [len(lines), len(first)]) / basis.shape[1]
    weights = weights.astype(before.dtype)
    low, high = before.reshape(-1, d), after.reshape(-1, d)
    rows = max(1, _HELD // (4 * basis.shape[1]))
    found = []
    for at in range(0, len(low), rows):
        one, other = (_shares(x[at : at + rows], basis, len(lines)) for x in (low, high))
        parts = (one, other, other - one, (other > one).astype(one.dtype))
        found.append(np.stack([part @ weights for part in parts], axis=1))
    return np.concatenate(found)[None].astype(np.float64)


def _shares(x: np.ndarray, basis: np.ndarray, lines: int) -> np.ndarray:
    """rho ``(tokens, p)`` with the first columns, and with planes that begin and end after them."""
    x, square = _with_squares(x)
    along = x @ basis
    along *= along
    middle = (lines + along.shape[1]) // 2
    shares = along[:, :middle]
    shares[:, lines:] += along[:, middle:]
    shares /= np.where(square == 0, np.ones_like(square), square)[:, None]
    np.sqrt(shares, out=shares)
    return np.minimum(shares, 1, out=shares)


def _with_squares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``(tokens, d)``, each over a number where its square would overflow, and |x|²."""
    with np.errstate(over="ignore", under="ignore"):
        square = np.einsum("ij,ij->i", x, x)
    if not np.all((square > _SAFE[0]) & (square < _SAFE[1])):
        largest = np.max(np.abs(x), axis=1, keepdims=True, initial=0.0)
        x = x / np.where(largest < np.finfo(x.dtype).tiny, np.inf, largest)
        square = np.einsum("ij,ij->i", x, x)
    return x, square


@dataclass(frozen=True)
class Alignment:
    """Statistics of rho over tokens for one direction, before and after a layer.

    Attributes:
      rho_before, rho_after: Means over prompts and tokens at X^(l-1) and X^(l).
      rho_after_std, delta_rho_std: Standard deviations over all tokens (divided by their number).
      rho_after_se, delta_rho_se: Standard errors: the standard deviation of the prompts' means
        (divided by prompts - 1), over sqrt(prompts), since tokens of one prompt are not
        independent. None for one prompt.
      delta_rho: Mean increment, eq. (4).
      p_increase: Fraction of tokens with a strict increase, eq. (5).
    """

    rho_before: float
    rho_after: float
    rho_after_std: float
    rho_after_se: float | None
    delta_rho: float
    delta_rho_std: float
    delta_rho_se: float | None
    p_increase: float


def summarize(before: Any, after: Any) -> Alignment:
    """The statistics of rho ``(prompts, n)`` before and after a layer, in float64 on the host."""
    low, high = np.asarray(before, np.float64), np.asarray(after, np.float64)
    delta = high - low
    return Alignment(
        rho_before=float(low.mean()),
        rho_after=float(high.mean()),
        rho_after_std=float(high.std()),
        rho_after_se=standard_error(high),
        delta_rho=float(delta.mean()),
        delta_rho_std=float(delta.std()),
        delta_rho_se=standard_error(delta),
        p_increase=float(np.mean(high > low)),
    )


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of ``(prompts, n)``, with prompts as the units; None for one.

    sqrt(Σ_k (c_k (m_k - m) / c̄)² / (K (K - 1))) for K prompts with the means m_k of c_k entries
    that are not masked, m being the mean of all of them: that of a ratio of two sums over prompts,
    and the standard deviation of the prompts' means over √K where they have the same length.

    Source: W. G. Cochran, Sampling Techniques, 3rd ed. (1977), eq. (2.46).
    """
    if len(values) < 2:
        return None
    means, count = np.asarray(values.mean(axis=1)), len(values)
    lengths = np.ma.count(values, axis=1)
    if np.all(lengths == lengths[0]):
        return float(means.std(ddof=1) / np.sqrt(count))
    parts = lengths * (means - values.mean()) / lengths.mean()
    return float(np.sqrt(np.sum(parts**2) / (count * (count - 1))))

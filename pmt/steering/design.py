"""Designing the edit: the read vector's coefficients by a solve, and c from what is asked for.

Sec. 2.3 of arXiv 2605.25619 with u = z: O' = O + c w zᵀ V⁻¹. V is never inverted: a solves
Vᵀ a = z, by LU where V is square and nonsingular, and by least squares of minimum norm otherwise
(grouped key-value heads make V singular always), where F' = F + c w (zᵀ V⁺ V).
"""

import warnings
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from pmt.errors import RequestError
from pmt.linalg import check_order, one_thread_each, order_key
from pmt.numerics import require_finite
from pmt.spectral import layer_matrix
from pmt.steering.edit import Edit
from pmt.steering.response import Attended, check_layer

READS = ("target", "mean", "fit")
# Ridges of a fit, relative to the largest singular value of the mixed values. The larger, the less
# is made of what the tokens given show only faintly, which says nothing about other tokens.
_RIDGES = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
# A fit is taken where no token has a kappa below this part of the median one.
_CLEAR = 0.1


def unit(name: str, vector: Any, d: int) -> np.ndarray:
    """A direction as a unit vector in float64, whatever its length.

    Args:
      name: what it is, for the messages.
      vector: ``(d,)``, real.
      d: the model's dimension.

    Raises:
      RequestError: another shape, not real numbers, NaN or infinity, zero.
    """
    given = np.asarray(vector)
    if given.shape != (d,):
        raise RequestError(
            f"{name} has shape {given.shape}, and the model has d = {d}; expected ({d},)"
        )
    if given.dtype.kind not in "fiu" and str(given.dtype) != "bfloat16":
        raise RequestError(f"{name} is {given.dtype}; it must hold real numbers")
    v = given.astype(np.float64)
    require_finite(name, v)
    largest = float(np.max(np.abs(v)))
    if largest == 0:
        raise RequestError(f"{name} is zero and has no direction; give another one")
    # In two steps, so that squares of tiny or huge entries neither vanish nor overflow.
    v = v / np.ldexp(1.0, np.frexp(largest)[1] - 1)
    return v / np.linalg.norm(v)


def design(
    layer: Any,
    direction: Any,
    strength: float | None = None,
    *,
    c: float | None = None,
    alignment: float | None = None,
    read: Any = "target",
    tokens: Attended | None = None,
    order: str = "real",
) -> Edit:
    """The edit O' = O + c w zᵀ V⁻¹ of one layer, which adds alpha c kappa_i w to token i.

    Exactly one of the three says how strong it is:

    - ``strength``: beta, in multiples of |lam_1|, c = beta |lam_1|, as in the paper; lam_1 is the
      layer's first eigenvalue in ``order``, its modulus if it is complex or negative. This says
      nothing about tokens: c |kappa_i| must exceed the length of y_i.
    - ``c``: the strength itself. z has unit length, so |c| is the norm of F' - F.
    - ``alignment``: the mean of |cos(x_i', w)| over ``tokens`` right after the layer, by solving
      for the c that gives it exactly (see `pmt.steering.Response`).

    Args:
      layer: one layer's arrays, a ``MultiHead``, which are read in float64.
      direction: ``(d,)``. w, of any length but zero.
      read: z: ``"target"``, w itself as in the paper, where the sign of the alignment is that of
        kappa_i and differs from token to token; ``"mean"``, the mean of ``tokens``, which gives
        all tokens the sign + where the heads see little else than a common mean; ``"fit"``, the
        one for which kappa_i is as near to the same positive number for all ``tokens`` as least
        squares with a ridge make it, the largest ridge with which no sign differs; or a vector
        ``(d,)``. ``response.share_positive`` says for how many tokens
        the sign is +.
      tokens: what `attend` returns; needed for ``alignment``, ``"mean"`` and ``"fit"``.

    Raises:
      RequestError: anything but one layer; tokens that went through one of another shape; a
        direction or read vector that is zero, not finite or of another dimension;
        more or fewer than one strength, or one that is not finite; ``strength`` for a layer with
        lam_1 = 0; an alignment that no c reaches; a read vector of which V sees nothing; weights
        that are not finite.
    """
    check_order(order, 1.0)
    layer = check_layer(layer)
    for name in ("value", "output"):
        require_finite(name, getattr(layer, name))
    d = layer.query.shape[-1]
    w = unit("the direction", direction, d)
    value = np.asarray(layer.value, np.float64)
    stacked = value.reshape(-1, d)
    if tokens is not None and (tokens.mixed.shape[-1], tokens.plain.shape[-1]) != stacked.shape:
        raise RequestError(
            f"the tokens went through a layer of d = {tokens.plain.shape[-1]} whose heads have "
            f"{tokens.mixed.shape[-1]} values, and this one has d = {d} and {len(stacked)}; give "
            "what attend makes of them with this layer"
        )
    z = _read_vector(read, w, tokens, stacked)
    # With several threads the last bits are not the same in every run.
    with one_thread_each():
        a, method, rank, condition = _coefficients(stacked, z)
    achieved = stacked.T @ a
    if np.linalg.norm(achieved) <= 1e-10:
        raise RequestError(
            "the value weights V see nothing of the read vector z (Vᵀ a = z has only a = 0 as its "
            f"least-squares solution; V has rank {rank} of d = {d}); choose another read vector"
        )
    response = None if tokens is None else tokens.response(w, a)
    matrix = layer_matrix(layer)
    chosen, multiple = _strength(matrix, strength, c, alignment, response, order)
    own = matrix @ w
    along = float(achieved @ w)
    # Orthogonal but for rounding is orthogonal.
    pull = abs(chosen * along) if abs(along) > 1e-12 * np.linalg.norm(achieved) else 0.0
    return Edit(
        direction=w,
        read=z,
        coefficients=a.reshape(value.shape[:2]),
        achieved=achieved,
        strength=chosen,
        multiple=multiple,
        method=method,
        rank=rank,
        condition=condition,
        residual=float(np.linalg.norm(achieved - z)),
        tilt=float(np.linalg.norm(own - (w @ own) * w) / pull) if pull > 0 else None,
        response=response,
    )


def leading_eigenvalue(matrix: np.ndarray, order: str = "real") -> float:
    """|lam_1|, the modulus of the first eigenvalue of F in an order (alpha = 1)."""
    values = np.linalg.eigvals(np.asarray(matrix, np.float64))
    return float(np.abs(values[np.argmax(order_key(values, order))]))


def _read_vector(
    read: Any, w: np.ndarray, tokens: Attended | None, stacked: np.ndarray
) -> np.ndarray:
    d = len(w)
    if not isinstance(read, str):
        return unit("the read vector", read, d)
    if read == "target":
        return w
    if read not in READS:
        raise RequestError(
            f"the read vector is {read!r}; it must be 'target', 'mean', 'fit' or a vector of {d} "
            "numbers"
        )
    if tokens is None:
        raise RequestError(f"the read vector {read!r} comes from tokens; give the tokens too")
    if read == "mean":
        return unit("the mean of the tokens", tokens.mean, d)
    return unit("the fitted read vector", _fit(tokens, stacked), d)


def _fit(tokens: Attended, stacked: np.ndarray) -> np.ndarray:
    """Vᵀ a with alpha aᵀ m_i about the same positive number for all tokens."""
    mixed = tokens.mixed[tokens.present] * np.sign(tokens.alpha)
    squares, vectors = np.linalg.eigh(mixed.T @ mixed)
    # With biases m_i need not be zero where V is.
    if not (stacked.any() and squares[-1] > 0):
        raise RequestError(
            "the value weights V see nothing of the tokens, so that no read vector can be fitted "
            "to them; choose another read vector, or another layer"
        )
    along = vectors.T @ mixed.sum(axis=0)
    for ridge in _RIDGES:
        a = vectors @ (along / (squares + ridge**2 * squares[-1]))
        kappa = mixed @ a
        if kappa.min() > _CLEAR * np.median(kappa):
            break
    return stacked.T @ a


def _strength(
    matrix: np.ndarray,
    strength: float | None,
    c: float | None,
    alignment: float | None,
    response: Any,
    order: str,
) -> tuple[float, float | None]:
    given = {"strength": strength, "c": c, "alignment": alignment}
    present = [name for name, value in given.items() if value is not None]
    if len(present) != 1:
        raise RequestError(
            f"{' and '.join(present) if present else 'none'} of strength, c and alignment "
            f"{'were' if len(present) > 1 else 'was'} given; give exactly one of the three"
        )
    (name,) = present
    number = float(given[name] or 0.0)
    if not np.isfinite(number):
        raise RequestError(f"{name} is {number}; it must be a finite number")
    if alignment is not None:
        if response is None:
            raise RequestError("a requested alignment is that of tokens; give the tokens too")
        return response.strength(number), None
    if c is not None or number == 0:
        return number, 0.0 if c is None else None
    size = leading_eigenvalue(matrix, order)
    if size <= np.finfo(float).eps * np.linalg.norm(matrix):
        raise RequestError(
            "the strength counts in multiples of |lam_1|, and the layer's leading eigenvalue is "
            "zero; give c or a requested alignment instead"
        )
    return number * size, number


def _coefficients(stacked: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, str, int, float | None]:
    """a with Vᵀ a = z; how it was found, the rank of V, and its condition where nonsingular."""
    width, d = stacked.shape
    if width == d:
        factors, pivots, info = lapack.dgetrf(stacked.T)
        if info == 0:
            reciprocal, _ = lapack.dgecon(factors, np.linalg.norm(stacked.T, 1))
            if reciprocal > d * np.finfo(float).eps:
                a = scipy.linalg.lu_solve((factors, pivots), z)
                # One step of refinement; the residual is that of what is returned.
                a = a + scipy.linalg.lu_solve((factors, pivots), z - stacked.T @ a)
                return a, "solve", d, float(1.0 / reciprocal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = max(width, d) * np.finfo(float).eps
        a, _, rank, _ = scipy.linalg.lstsq(stacked.T, z, cond=cut)
    method = "solve" if rank == d and np.linalg.norm(stacked.T @ a - z) < 1e-8 else "least squares"
    return a, method, int(rank), None

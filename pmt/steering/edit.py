"""A rank-one edit of a layer's output weights, and what becomes of it in the stored dtype."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.steering.response import Response, check_layer


class OutOfRange(RequestError):
    """Weights or states that their dtype cannot hold: a smaller strength may do."""


@dataclass(frozen=True)
class Cast:
    """What rounding the edited weights to their dtype does.

    Attributes:
      dtype: that the weights have.
      largest: the largest change of an entry by rounding.
      relative: |stored - wanted| / |c w aᵀ| in the Frobenius norm, which of the edit is lost; None
        for c = 0.
      map_error: |(stored - wanted) V| / |c w aᵀ V|: the same for F' - F; None for c = 0.
    """

    dtype: str
    largest: float
    relative: float | None
    map_error: float | None


@dataclass(frozen=True)
class Edit:
    """O' = O + c w aᵀ with Vᵀ a = z, so that F' = F + c w zᵀ.

    Everything is float64 on the host.

    Attributes:
      direction: ``(d,)``. w, of unit length: where tokens are steered to.
      read: ``(d,)``. z, of unit length, as it was asked for.
      coefficients: ``(h, kv)``. a: what is read of the heads' attended values.
      achieved: ``(d,)``. Vᵀ a, what really stands in F' = F + c w (Vᵀ a)ᵀ; z but for rounding
        where V is nonsingular.
      strength: c.
      multiple: beta = c / |lam_1|; None where |lam_1| was not needed.
      method: ``"solve"`` (LU), or ``"least squares"`` of minimum norm where V is singular.
      rank: of V.
      condition: of Vᵀ, estimated in the 1-norm; None where V is singular.
      residual: |Vᵀ a - z|; up to 1 where V is singular.
      tilt: |(I - w wᵀ) F w| / |c zᵀ w| with the achieved z: to first order in 1/c the tangent of
        the angle between w and the principal eigenvector of F'. None where c zᵀ w = 0: then F' has
        no eigenvector near w.
      response: how the tokens that were given answer, or None.
    """

    direction: np.ndarray
    read: np.ndarray
    coefficients: np.ndarray
    achieved: np.ndarray
    strength: float
    multiple: float | None
    method: str
    rank: int
    condition: float | None
    residual: float
    tilt: float | None
    response: Response | None

    @property
    def exact(self) -> bool:
        """Whether F' - F is c w zᵀ with the z that was asked for, up to rounding."""
        return self.method == "solve"

    @property
    def flat(self) -> np.ndarray:
        """``(h kv,)``. a with the heads one after another, as the stored weights have them."""
        return self.coefficients.reshape(-1)

    def at(self, strength: float) -> "Edit":
        """The same edit with another c."""
        ratio = None
        if self.multiple is not None and self.strength != 0:
            ratio = self.multiple / self.strength
        along = abs(float(self.achieved @ self.direction))
        # tilt * |c z'w| does not depend on c.
        across = None if self.tilt is None else self.tilt * abs(self.strength) * along
        return replace(
            self,
            strength=strength,
            multiple=None if ratio is None else ratio * strength,
            tilt=None if across is None or strength == 0 else across / (abs(strength) * along),
        )

    def output(self, output: Any, dtype: Any = None) -> np.ndarray:
        """O' from O ``(h, d, kv)``, rounded once to ``dtype``, that of O if None.

        For c = 0 it is O bit for bit.

        Raises:
          RequestError: an entry that is not finite in that dtype.
        """
        given = np.asarray(output)
        wide = add_rank_one(side_by_side(given), self.strength, self.direction, self.flat, dtype)
        heads, d, width = given.shape
        return np.moveaxis(wide.reshape(d, heads, width), 1, 0)

    def cast(self, layer: MultiHead, dtype: Any = None) -> Cast:
        """What is lost by rounding O' to ``dtype``, that of the layer's arrays if None."""
        lost = self.lost(layer, dtype)
        size = abs(self.strength)
        value = np.asarray(layer.value, np.float64).reshape(lost.shape[1], -1)
        change, moved = np.linalg.norm(self.coefficients), np.linalg.norm(self.achieved)
        return Cast(
            dtype=str(np.dtype(layer.output.dtype if dtype is None else dtype)),
            largest=float(np.max(np.abs(lost))),
            # Divided first: squares of what a very small edit lost would vanish.
            relative=float(np.linalg.norm(lost / size) / change) if size else None,
            map_error=float(np.linalg.norm(lost / size @ value) / moved) if size else None,
        )

    def lost(self, layer: MultiHead, dtype: Any = None) -> np.ndarray:
        """``(d, h kv)``: the edited weights as stored minus O + c w aᵀ."""
        given = side_by_side(np.asarray(layer.output))
        dtype = given.dtype if dtype is None else dtype
        stored = add_rank_one(given, self.strength, self.direction, self.flat, dtype)
        # In this order, since the sum O + c w aᵀ in float64 loses a small edit by itself.
        moved = np.asarray(stored, np.float64) - given.astype(np.float64)
        return moved - (self.strength * self.direction)[:, None] * self.flat[None, :]


def add_rank_one(
    weights: np.ndarray, strength: float, w: np.ndarray, a: np.ndarray, dtype: Any = None
) -> np.ndarray:
    """``weights`` + c w aᵀ, computed in float64 and rounded once: the same bits on every machine.

    For c = 0 nothing is computed, so that -0 stays -0.

    Args:
      weights: ``(len(w), len(a))``, of any floating dtype.
      strength: c.
      w, a: float64.
      dtype: of the result; that of ``weights`` if None.

    Raises:
      OutOfRange: an entry that is not finite in that dtype.
    """
    wanted = weights.dtype if dtype is None else np.dtype(dtype)
    if strength == 0:
        return weights.astype(wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = weights.astype(np.float64) + (strength * w)[:, None] * a[None, :]
        rounded = exact.astype(wanted)
    if not np.isfinite(np.asarray(rounded, np.float64)).all():
        raise OutOfRange(
            f"the strength c = {strength:.3g} makes output weights as large as "
            f"{np.max(np.abs(exact)):.3g}, which {wanted} cannot hold; give a smaller one"
        )
    return rounded


def side_by_side(output: np.ndarray) -> np.ndarray:
    """O as ``(d, h kv)`` from ``(h, d, kv)``."""
    return np.moveaxis(output, 0, 1).reshape(output.shape[1], -1)


def apply(layer: Any, edit: Edit, dtype: Any = None) -> MultiHead:
    """The layer with the edited output weights, rounded to ``dtype`` and back to its own.

    Raises:
      RequestError: an entry that overflows in ``dtype``; anything but one layer, or one of another
        shape.
    """
    layer = check_layer(layer)
    shape, wanted = layer.output.shape, (*edit.coefficients.shape, len(edit.direction))
    if (shape[0], shape[2], shape[1]) != wanted:
        raise RequestError(
            f"the edit is for {wanted[0]} heads of width {wanted[1]} and d = {wanted[2]}, and the "
            f"layer's output weights have shape {tuple(shape)} (h, d, kv)"
        )
    stored = edit.output(layer.output, dtype)
    return replace(layer, output=jnp.asarray(stored.astype(layer.output.dtype)))

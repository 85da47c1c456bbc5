"""The principal eigendirection of a layer matrix: line or plane, its case, and how sure it is.

Cases and gap as in Sec. 2.1 of arXiv 2605.25619. Everything here runs on the host in float64.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.linalg import Eigenpairs, Order, check_order, eigenpairs, one_thread_each, order_key

# "Nearly equal" in Case 3: lam_1 - lam_2 <= 1e-2 |lam_1|.
NEARLY_EQUAL = 1e-2
# Below this angle between v_1 and v_2 their span is dominated by the errors of both.
_COLLINEAR = 1e-4


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of one layer matrix in an order, and the direction of the first of them.

    It holds no array of d x d numbers, so that the spectra of all layers of a model can be kept.

    Attributes:
      values: complex128, (d,). All eigenvalues, sorted.
      residuals, conditions: float64, (d,). Of each of them: see ``pmt.spectral.Eigenpairs``.
      order, alpha: As asked for; ``alpha`` matters in the order ``"skip"`` only.
      case: 1: lam_1 is real and separated. 2: a conjugate pair leads. 3: lam_1 is real and the next
        real eigenvalue is nearly equal to it, |lam_1 - lam_2| <= 1e-2 |lam_1| (or exactly equal). A
        real lam_1 closely followed by a complex pair stays Case 1, with its small gap.
      gap: By how much the order's key (Re lam, |1 + alpha lam| or |lam|) of lam_1 exceeds that of
        the next eigenvalue, or of lam_3 if lam_1 and lam_2 are conjugate; at least 0. None where
        there is no other eigenvalue. 0 means that the order does not single out one direction.
      basis: float64, (d, dimension). Orthonormal basis of the line of v_1, or of the plane span{Re
        v_1, Im v_1} in Case 2.
      second: In Case 3 the index of that next real eigenvalue; None otherwise.
      plane: float64, (d, 2). In Case 3 an orthonormal basis of the invariant plane of both,
        span{v_1, v_2}; None otherwise. Well defined also where v_1 and v_2 coincide (a defective
        F); arbitrary in part where three or more leading eigenvalues are equal.
      collinearity: |v_1ᵀ v_2| where both are real (in Case 3, v_2 as above): 1 where they coincide.
        None otherwise.
    """

    values: np.ndarray
    residuals: np.ndarray
    conditions: np.ndarray
    order: Order
    alpha: float
    case: Literal[1, 2, 3]
    gap: float | None
    basis: np.ndarray
    second: int | None
    plane: np.ndarray | None
    collinearity: float | None

    @property
    def eigenvalue(self) -> complex:
        """lam_1, with positive imaginary part if complex."""
        return complex(self.values[0])

    @property
    def dimension(self) -> int:
        """1 for a line, 2 for the plane of a conjugate pair."""
        return self.basis.shape[1]

    @property
    def residual(self) -> float:
        """|F v_1 - lam_1 v_1| / |F|."""
        return float(self.residuals[0])

    @property
    def condition(self) -> float:
        """Condition number of lam_1; infinite where F is exactly defective there."""
        return float(self.conditions[0])


@dataclass(frozen=True)
class Principal(Spectrum):
    """The principal eigenpair of one layer matrix, first of all its eigenpairs in an order.

    Attributes:
      pairs: Eigenpairs. All of them, sorted, with the d x d eigenvectors.
    """

    pairs: Eigenpairs

    @property
    def eigenvector(self) -> np.ndarray:
        """v_1, complex, of unit length."""
        return self.pairs.vectors[:, 0]

    @property
    def spectrum(self) -> Spectrum:
        """The same without the eigenvectors."""
        return Spectrum(**{each.name: getattr(self, each.name) for each in fields(Spectrum)})


def principal(
    what: Any,
    order: Order = "real",
    alpha: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Any:
    """The principal eigenpair of every layer matrix, solved side by side on all cores.

    Args:
      what: A ``LayerStack`` or an array ``(layers, d, d)``: the answer is a tuple, one entry a
        layer. An autonomous map (``Oja``, ``SingleHead``, ``MultiHead``) or a matrix ``(d, d)``:
        the answer is one ``Principal``.
      order: ``"real"`` (the paper), ``"skip"`` or ``"modulus"``: see ``pmt.linalg.eigenpairs``.
      alpha: Step size in the order ``"skip"``; by default each system's own, and 1 for matrices.
      progress: Called with 1 for every layer that is done, from any thread.

    Raises:
      RequestError: Not square, not finite (naming the entry), unknown order.
    """
    check_order(order, 1.0 if alpha is None else alpha)
    matrices = layer_matrix(what)
    if matrices.ndim not in (2, 3):
        message = f"the matrices have shape {matrices.shape}; expected (d, d) or (layers, d, d)"
        raise RequestError(message)
    single = matrices.ndim == 2
    stacked = matrices[None] if single else matrices
    steps = _step_sizes(what, alpha, len(stacked))

    def solve(index: int) -> Principal:
        answer = _principal(stacked[index], order, steps[index])
        if progress is not None:
            progress(1)
        return answer

    if single:
        return solve(0)
    with one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(solve, range(len(stacked))))


def layer_matrix(what: Any) -> np.ndarray:
    """F = Σ_h O_h V_h in float64 on the host: ``(d, d)``, or ``(layers, d, d)`` for a stack.

    The product too is taken in float64, so that the spectrum does not depend on the precision of
    the run; arrays are taken to be layer matrices already.
    """
    if isinstance(what, LayerStack):
        return layer_matrix(what.layers)
    if isinstance(what, MultiHead):
        output, value = (np.asarray(a, np.float64) for a in (what.output, what.value))
        # (.., h, d, k) and (.., h, k, d) side by side as (.., d, hk) and (.., hk, d).
        wide = np.moveaxis(output, -3, -2).reshape(*output.shape[:-3], output.shape[-2], -1)
        tall = value.reshape(*value.shape[:-3], -1, value.shape[-1])
        return wide @ tall
    if isinstance(what, Oja | SingleHead):
        return np.asarray(what.value, np.float64)
    return np.asarray(what)


def _step_sizes(what: Any, alpha: float | None, layers: int) -> list[float]:
    if alpha is None:
        system = what.layers if isinstance(what, LayerStack) else what
        own = np.asarray(getattr(system, "alpha", 1.0), np.float64)
        return [float(a) for a in np.broadcast_to(own, (layers,))]
    return [float(alpha)] * layers


def _principal(matrix: np.ndarray, order: Order, alpha: float) -> Principal:
    pairs = eigenpairs(matrix, order, alpha)
    values, vectors = pairs.values, pairs.vectors
    if values[0].imag != 0:
        basis = np.linalg.qr(np.stack([vectors[:, 0].real, vectors[:, 0].imag], axis=1))[0]
        second, plane, collinearity = None, None, None
    else:
        basis = vectors[:, :1].real.copy()
        second = _nearly_equal(pairs)
        plane = None if second is None else _plane(np.asarray(matrix, float), pairs, second)
        other = 1 if len(values) > 1 and values[1].imag == 0 else second
        collinearity = (
            None if other is None else float(abs(vectors[:, 0].real @ vectors[:, other].real))
        )
    return Principal(
        values=values,
        residuals=pairs.residuals,
        conditions=pairs.conditions,
        order=order,
        alpha=alpha,
        case=2 if basis.shape[1] == 2 else 1 if second is None else 3,
        gap=_gap(pairs, order, alpha, basis.shape[1]),
        basis=basis,
        second=second,
        plane=plane,
        collinearity=None if collinearity is None else min(collinearity, 1.0),
        pairs=pairs,
    )


def _nearly_equal(pairs: Eigenpairs) -> int | None:
    """The index of the next real eigenvalue if it is nearly equal to the first, else None."""
    others = np.flatnonzero(pairs.is_real[1:]) + 1
    if len(others) == 0:
        return None
    first, second = pairs.values[0].real, pairs.values[others[0]].real
    return int(others[0]) if abs(first - second) <= NEARLY_EQUAL * abs(first) else None


def _gap(pairs: Eigenpairs, order: Order, alpha: float, following: int) -> float | None:
    if len(pairs.values) <= following:
        return None
    keys = order_key(pairs.values[[0, following]], order, alpha)
    # Ties are sorted by other rules and may have the smaller key first.
    return max(float(keys[0] - keys[1]), 0.0)


def _plane(matrix: np.ndarray, pairs: Eigenpairs, second: int) -> np.ndarray:
    """An orthonormal basis, (d, 2), of the invariant plane of two real eigenvalues.

    The span of both eigenvectors; where these nearly coincide, the kernel of
    (F - lam_1)(F - lam_2), which holds the generalised eigenvector too.
    """
    both = pairs.vectors[:, [0, second]].real
    plane, triangle = np.linalg.qr(both)
    if abs(triangle[1, 1]) > _COLLINEAR:
        return plane
    scale = np.max(np.abs(matrix))
    f = matrix / scale
    first, other = (pairs.values[[0, second]].real / scale)[:, None, None] * np.eye(len(f))
    # A copy, which does not keep the rest of the d x d array.
    return np.linalg.svd((f - first) @ (f - other))[2][-2:].T.copy()

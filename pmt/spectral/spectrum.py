"""What is known of the spectrum of one layer matrix: values, principal direction, case and gap.

Cases and gap as in Sec. 2.1 of arXiv 2605.25619. Everything here runs on the host in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from pmt.linalg import Eigenpairs, Order, order_key

Method = Literal["lapack", "krylov", "accelerator"]

# "Nearly equal" in Case 3: lam_1 - lam_2 <= 1e-2 |lam_1|.
NEARLY_EQUAL = 1e-2
# Below this angle between v_1 and v_2 their span is dominated by the errors of both.
_COLLINEAR = 1e-4


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of one layer matrix in an order, and the direction of the first of them.

    All of them, or the leading ones where only these were asked for.

    It holds no array of d x d numbers, so that the spectra of all layers of a model can be kept.

    Attributes:
      values: complex128, (p,). The eigenvalues, sorted; p = d for all.
      residuals, conditions: float64, (p,). Of each of them: see ``pmt.spectral.Eigenpairs``.
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
      method: what solved it: ``"lapack"`` on the host, ``"krylov"`` on the host, or an
        ``"accelerator"``.
      fallback: why another method than the one asked for solved it, in a clause; None where it was
        that one.
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
    method: Method = field(default="lapack", kw_only=True)
    fallback: str | None = field(default=None, kw_only=True)

    @property
    def complete(self) -> bool:
        """Whether all eigenvalues are there."""
        return len(self.values) == len(self.basis)

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

    @property
    def spectrum(self) -> "Spectrum":
        """The same without the eigenvectors."""
        return Spectrum(**{each.name: getattr(self, each.name) for each in fields(Spectrum)})


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


@dataclass(frozen=True)
class Leading(Spectrum):
    """The leading eigenpairs of one layer matrix in an order, and nothing of size d x d.

    ``gap``, ``case`` and ``second`` are those of the whole spectrum.

    Attributes:
      vectors: complex128, (d, p). Unit eigenvectors of ``values``, as in `pmt.linalg.Eigenpairs`.
      products: with vectors that a Krylov method made, 0 for LAPACK.
    """

    vectors: np.ndarray
    products: int

    @property
    def eigenvector(self) -> np.ndarray:
        """v_1, complex, of unit length."""
        return self.vectors[:, 0]


def judged(
    pairs: Eigenpairs, order: Order, alpha: float, matrix: Callable[[], np.ndarray]
) -> dict[str, Any]:
    """The fields of a ``Spectrum`` from the pairs; ``matrix`` gives F where it is needed."""
    values, vectors = pairs.values, pairs.vectors
    if values[0].imag != 0:
        basis = np.linalg.qr(np.stack([vectors[:, 0].real, vectors[:, 0].imag], axis=1))[0]
        second, plane, collinearity = None, None, None
    else:
        basis = vectors[:, :1].real.copy()
        second = nearly_equal(values)
        plane = None if second is None else _plane(matrix, pairs, second)
        other = 1 if len(values) > 1 and values[1].imag == 0 else second
        collinearity = (
            None if other is None else float(abs(vectors[:, 0].real @ vectors[:, other].real))
        )
    return {
        "values": values,
        "residuals": pairs.residuals,
        "conditions": pairs.conditions,
        "order": order,
        "alpha": alpha,
        "case": 2 if basis.shape[1] == 2 else 1 if second is None else 3,
        "gap": _gap(pairs, order, alpha, basis.shape[1]),
        "basis": basis,
        "second": second,
        "plane": plane,
        "collinearity": None if collinearity is None else min(collinearity, 1.0),
    }


def nearly_equal(values: np.ndarray) -> int | None:
    """The index of the next real eigenvalue if it is nearly equal to the first, else None."""
    others = np.flatnonzero(values[1:].imag == 0) + 1
    if len(others) == 0:
        return None
    first, second = values[0].real, values[others[0]].real
    return int(others[0]) if abs(first - second) <= NEARLY_EQUAL * abs(first) else None


def _gap(pairs: Eigenpairs, order: Order, alpha: float, following: int) -> float | None:
    if len(pairs.values) <= following:
        return None
    keys = order_key(pairs.values[[0, following]], order, alpha)
    # Ties are sorted by other rules and may have the smaller key first.
    return max(float(keys[0] - keys[1]), 0.0)


def _plane(matrix: Callable[[], np.ndarray], pairs: Eigenpairs, second: int) -> np.ndarray:
    """An orthonormal basis, (d, 2), of the invariant plane of two real eigenvalues.

    The span of both eigenvectors; where these nearly coincide, the kernel of
    (F - lam_1)(F - lam_2), which holds the generalised eigenvector too.
    """
    both = pairs.vectors[:, [0, second]].real
    plane, triangle = np.linalg.qr(both)
    if abs(triangle[1, 1]) > _COLLINEAR:
        return plane
    f = matrix()
    scale = np.max(np.abs(f))
    f = f / scale
    first, other = (pairs.values[[0, second]].real / scale)[:, None, None] * np.eye(len(f))
    # A copy, which does not keep the rest of the d x d array.
    return np.linalg.svd((f - first) @ (f - other))[2][-2:].T.copy()

"""Leading eigenpairs only: ARPACK's implicitly restarted Arnoldi method on products with F.

Each of the three orders asks for eigenvalues at the edge of a spectrum that Krylov methods find:
the rightmost ones of F (``"real"``), the largest of F (``"modulus"``) and the largest of I + αF
(``"skip"``, since |1 + αλ| is their modulus). What comes out is measured before it is believed, and
`NotFound` says why it is not; a caller then solves the whole problem.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

from pmt.linalg import (
    Order,
    order_key,
    sorted_indices,
    step_of_order,
    times_power_of_two,
    with_fixed_phase,
)
from pmt.spectral.operator import LayerOperator

RESIDUAL = 1e-10
"""Largest |F v − λ v| / |F| with which a pair by Krylov or by an accelerator is believed."""

# Residuals asked of ARPACK relative to |λ|: of the pairs, and of left vectors and further pairs,
# which only have to be seen.
_PAIRS, _LEFT, _ROUGH = 1e-12, 1e-8, 1e-5
# Rough left vectors are good enough for conditions up to the first, and where the right vectors
# found have no singular value below the second.
_MODERATE, _INDEPENDENT = 100.0, 1e-2
# |F| over |λ| up to which single precision is fine enough for the latter.
_SINGLE = 1e3
# By how much, relative to the largest, a key must exceed another one to count as larger there.
_LARGER = 3e-4
# How many more are looked for: ARPACK stagnates where it is asked for one of a conjugate pair.
_FURTHER = 4
# Condition of an eigenvalue above which residuals of 1e-12 leave too few of its digits.
_DEPENDENT = 1e6
# Dimension of the Krylov space, at least; it needs few restarts, and its vectors cost little.
_SPACE = 96
# Products with vectors, over d, after which a search stops; the whole problem is as cheap as some
# three times d of them.
_MOST = 2


class NotFound(Exception):
    """The leading pairs were not found beyond doubt; the message says why, in a clause."""


@dataclass(frozen=True)
class Pairs:
    """The leading eigenpairs, sorted as by `pmt.linalg.eigenpairs`.

    Attributes:
      values: complex128, (p,), divided by 2**exponent of the operator; whole conjugate pairs.
      vectors: complex128, (d, p), of unit length, phases fixed.
      residuals, conditions: float64, (p,), as of `pmt.linalg.Eigenpairs`; conditions to a few
        digits.
      size: |F| / 2**exponent.
      products: with vectors that were made, of F and of Fᵀ.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    conditions: np.ndarray
    size: float
    products: int


def arnoldi(
    operator: LayerOperator,
    count: int,
    order: Order = "real",
    alpha: float = 1.0,
    more: Callable[[np.ndarray, float], bool] | None = None,
) -> Pairs:
    """The first ``count`` eigenpairs in an order, and one more where that would cut a pair.

    Args:
      operator: F.
      count: how many, at least 1 and at most d − 8.
      order, alpha: as for `pmt.linalg.eigenpairs`; with alpha = 0 the order ``"skip"`` is all ties,
        which go to the larger real part.
      more: from the eigenvalues found, and |F|, to whether twice as many are needed.

    A Krylov space of one vector holds one direction of the eigenspace of a repeated eigenvalue. So
    the leading eigenvalue of what is left, F on the complement of the vectors found, is looked for
    too, from another start.

    Raises:
      NotFound: more than d / 4 pairs are needed, no convergence, a residual above 1e-10 of |F|, a
        repeated eigenvalue among those asked for, or nearly dependent eigenvectors (a defective F).
    """
    return _Search(operator, order, alpha).run(count, more)


class _Search:
    """One search: the operator that ARPACK sees, and the products made."""

    def __init__(self, operator: LayerOperator, order: Order, alpha: float) -> None:
        self.operator, self.order, self.alpha = operator, order, alpha
        self.one, self.step = step_of_order(alpha, operator.exponent)
        # Which operator's spectrum has them at its edge, and at which edge.
        self.shifted = order == "skip" and self.step != 0
        self.which = "LM" if order == "modulus" or self.shifted else "LR"
        self.size = operator.norm()
        self.rough: LayerOperator | None = None
        self.products = 0
        self.rng = np.random.default_rng(0)

    def run(self, count: int, more: Callable[[np.ndarray, float], bool] | None) -> Pairs:
        if not self.size > 0:
            message = "F is zero"
            raise NotFound(message)
        exponent = self.operator.exponent
        if 4 * count > self.operator.d:
            message = f"for {count} pairs of {self.operator.d} the whole problem is as cheap"
            raise NotFound(message)
        while True:
            if 4 * count > self.operator.d:
                message = f"more than {count // 2} eigenvalues may lead"
                raise NotFound(message)
            values, vectors, residuals = self._right(count)
            with np.errstate(over="ignore"):
                size = float(np.ldexp(self.size, exponent))
            if more is None or not more(times_power_of_two(values, exponent), size):
                break
            count *= 2
        conditions = self._conditions(values, vectors, count)
        if not np.max(conditions) < _DEPENDENT:
            message = "eigenvectors are nearly dependent, F is close to defective"
            raise NotFound(message)
        self._look_for_more(values, vectors)
        return Pairs(values, vectors, residuals, conditions, self.size, self.products)

    def _right(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, vectors and residuals of the first pairs, sorted."""
        # One more, so that a pair at the end is whole.
        values, vectors = self._edge(count + 1, _PAIRS, transposed=False)
        values, vectors = _whole_pairs(self._eigenvalues(values), vectors)
        chosen = self._sorted(values)[:count]
        if values[chosen[-1]].imag > 0:
            chosen = np.append(chosen, chosen[-1] + 1)
        values, vectors = values[chosen], vectors[:, chosen]
        vectors = with_fixed_phase(vectors, values)
        images = self.operator.apply(np.concatenate([vectors.real, vectors.imag], axis=1))
        image = images[:, : len(values)] + 1j * images[:, len(values) :]
        residuals = np.linalg.norm(image - vectors * values, axis=0) / self.size
        if not np.all(residuals <= RESIDUAL):
            message = f"the residual is {np.max(residuals):.1e} of |F|, above {RESIDUAL:.0e}"
            raise NotFound(message)
        return values, vectors, residuals

    def _conditions(self, values: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
        """1 / |yᵀ v| with the eigenvector y of Fᵀ that belongs to the same eigenvalue.

        A rough y is enough for a moderate one; near a defective F it would hide how large it is.
        """
        rough = self._rough_operator(values)
        if np.linalg.svd(_real_span(values, vectors), compute_uv=False)[-1] > _INDEPENDENT:
            self.rough = rough
            found = self._overlaps(values, vectors, count, _ROUGH)
            if np.max(found) < _MODERATE:
                return found
            self.rough = None
        found = self._overlaps(values, vectors, count, _LEFT)
        self.rough = rough
        return found

    def _overlaps(
        self, values: np.ndarray, vectors: np.ndarray, count: int, tolerance: float
    ) -> np.ndarray:
        others, left = self._edge(count + 1, tolerance, transposed=True)
        others, left = _whole_pairs(self._eigenvalues(others), left)
        found = []
        for value, vector in zip(values, vectors.T, strict=True):
            best = int(np.argmin(np.abs(others - value)))
            y = left[:, best] / np.linalg.norm(left[:, best])
            cosine = float(np.abs(y @ vector))
            condition = 1.0 / cosine if cosine > 0 else np.inf
            # Both are off by their errors times the condition.
            near = 10 * condition * tolerance * float(np.max(np.abs(values)))
            if not abs(others[best] - value) <= near:
                message = "F and its transpose do not show the same leading eigenvalues"
                raise NotFound(message)
            found.append(max(condition, 1.0))
        return np.array(found)

    def _rough_operator(self, values: np.ndarray) -> LayerOperator | None:
        """In single precision where its rounding, which is relative to |F|, allows it."""
        fine = self.size <= _SINGLE * float(np.max(np.abs(values)))
        return self.operator.single() if fine else None

    def _look_for_more(self, values: np.ndarray, vectors: np.ndarray) -> None:
        """Refuse where the complement of the vectors holds an eigenvalue that should be there."""
        basis = np.linalg.qr(_real_span(values, vectors))[0]
        # What was found goes where it is not looked for, and not so far that it is in the way.
        away = 0.0 if self.which == "LM" else float(values[-1].real - np.max(np.abs(values)))
        # Keys |1 + αλ| differ by α|λ| only, which has to be seen beside 1.
        width = abs(self.step) if self.order == "skip" else 1.0
        scale = width * float(np.max(np.abs(values)))
        seen = scale / (scale + self.one) if self.shifted and scale > 0 else 1.0
        found, _ = self._edge(_FURTHER, _ROUGH * seen, transposed=False, without=basis, away=away)
        more = self._keys(self._eigenvalues(found))
        if np.max(more) > self._keys(values)[-1] + _LARGER * scale:
            message = "an eigenvalue among them is repeated, and a Krylov space holds it once"
            raise NotFound(message)

    def _edge(
        self,
        count: int,
        tolerance: float,
        *,
        transposed: bool,
        without: np.ndarray | None = None,
        away: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Eigenpairs at the edge, of F or I + αF as the order asks, or of the transpose.

        With orthonormal columns Q = ``without``: of P G P + away · Q Qᵀ, P = I − Q Qᵀ, whose
        eigenvalues are those of G that do not belong to Q, and ``away``.
        """
        d = self.operator.d
        operator = self.operator if self.rough is None else self.rough
        apply = operator.apply_transposed if transposed else operator.apply
        precision = operator.factors[0].dtype

        def product(x: np.ndarray) -> np.ndarray:
            self.products += 1
            x = x.reshape(-1)
            inside = None if without is None else without.T @ x
            if without is not None and inside is not None:
                x = x - without @ inside
            y = apply(x.astype(precision)).astype(np.float64)
            if self.shifted:
                y = self.one * x + self.step * y
            if without is not None and inside is not None:
                y = y - without @ (without.T @ y) + away * (without @ inside)
            return y

        start = self.rng.standard_normal(d)
        space = min(d, max(2 * count + 20, _SPACE))
        restarts = max(8, _MOST * d // (space - count))
        try:
            values, vectors = eigs(
                LinearOperator((d, d), matvec=product, dtype=np.float64),
                count,
                which=self.which,
                ncv=space,
                maxiter=restarts,
                tol=tolerance,
                v0=start if without is None else start - without @ (without.T @ start),
            )
        except ArpackNoConvergence:
            message = f"ARPACK did not converge in {self.products} products"
            raise NotFound(message) from None
        except ArpackError as error:
            message = f"ARPACK gave up ({' '.join(str(error).split())})"
            raise NotFound(message) from None
        if not (np.all(np.isfinite(values)) and np.all(np.isfinite(vectors))):
            message = "ARPACK's answer is not finite"
            raise NotFound(message)
        return values, vectors

    def _eigenvalues(self, values: np.ndarray) -> np.ndarray:
        """Of F, from those of what ARPACK saw; a real one stays exactly real."""
        return (values - self.one) / self.step if self.shifted else values

    def _keys(self, values: np.ndarray) -> np.ndarray:
        step = self.step if self.order == "skip" else 1.0
        return order_key(values, self.order, step, self.one)

    def _sorted(self, values: np.ndarray) -> np.ndarray:
        return sorted_indices(values, self.order, self.one, self.step, self.size)


def _real_span(values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Real columns with the span of the vectors: one of a real one, two of a conjugate pair."""
    return np.concatenate(
        [vectors[:, values.imag >= 0].real, vectors[:, values.imag > 0].imag], axis=1
    )


def _whole_pairs(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With both of every conjugate pair side by side, positive imaginary part first."""
    upper = np.where(values.imag < 0, np.conj(values), values)
    turned = np.where(values.imag < 0, np.conj(vectors), vectors)
    # ARPACK gives both of a pair unless the count ends between them.
    new = [
        i
        for i, value in enumerate(upper)
        if value.imag == 0 or not np.any(np.abs(upper[:i] - value) <= 1e-12 * abs(value))
    ]
    picked = [i for i in new for _ in range(1 if upper[i].imag == 0 else 2)]
    second = np.array([k > 0 and picked[k - 1] == i for k, i in enumerate(picked)])
    values, vectors = upper[picked], turned[:, picked].astype(complex)
    values = np.where(second, np.conj(values), values)
    return values, np.where(second, np.conj(vectors), vectors)

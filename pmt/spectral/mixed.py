"""All eigenpairs by LAPACK in single precision, refined by Newton's method in double precision.

In single precision LAPACK takes half the time, and what refines its answer are matrix products.
That is for matrices whose eigenvectors are well apart from each other, as those of trained and of
random layers are; for any other, LAPACK in double precision has the answer.
"""

from dataclasses import dataclass

import numpy as np

from pmt.linalg import ILL_CONDITIONED, Solved
from pmt.spectral.lapack import eigenpairs_in_single, inverse, pivots_in_single

SMALLEST = 192
"""Below this d all eigenpairs take milliseconds, and there is little to gain."""

# |F v - lam v| / |F| of a pair that needs no correction; LAPACK's worst are half of it.
_ACCURATE = 1e-15
# Sum of the moduli in a row of G. Below 1 no two rows of S become dependent; near it, single
# precision has not told two eigenvectors apart.
_FAR = 0.25
# Up to it the inverse of S follows S by a step of first order, to three digits.
_NEAR = 0.03
# Below it the inverse need not follow.
_NO_STEP = 1e-4
_MOST_CORRECTIONS = 6
# Pivots so small, relative to the largest, are roundings: F has a null space.
_NO_PIVOT = 1e-6


def solve_mixed(f: np.ndarray) -> Solved | None:
    """All eigenpairs of a real matrix ``(d, d)`` with entries of at most 1, in any order.

    With eigenvectors in the rows of S and R = S Fᵀ - Λ S, what they miss, Newton's method takes S
    to (I + G) S and lam_i to lam_i + E_ii, where E = R S⁻¹ and G_ij = E_ij / (lam_i - lam_j) off
    the diagonal. Each step squares the error, down to a factor that single precision leaves: S and
    R are in double precision, E and G in single. (Davies and Modi, Linear Algebra and its
    Applications 77 (1986) 61-74.)

    Returns:
      Pairs as good as LAPACK's in double precision: every residual is at most 1e-15 |F|.
      Conditions to three digits. None where that is not reached, or would not be: a null space of
      two dimensions or more, eigenvalues that (nearly) coincide, nearly dependent eigenvectors, and
      d < 192.
    """
    if len(f) < SMALLEST or _has_null_space(f):
        return None
    found = _in_single_precision(f)
    if found is None:
        return None
    size, poor = float(np.linalg.norm(f)), np.arange(len(found.values))
    residuals = np.empty(len(poor))
    for _ in range(_MOST_CORRECTIONS):
        missed = found.missed(f, poor)
        residuals[poor] = found.lengths(missed, poor) / size
        still = np.flatnonzero(~(residuals[poor] <= _ACCURATE))
        if len(still) == 0:
            return found.solved(residuals)
        missed = missed[_rows_of(still, len(poor), len(missed))]
        poor = poor[still]
        if not found.correct(missed, poor):
            return None
    return None


@dataclass
class _Pairs:
    """Approximate eigenpairs of a matrix: first the real ones, then one of each conjugate pair.

    Attributes:
      values: complex128, (k,). Real where the eigenvector is.
      vectors: float64, (d, d). In the first k rows the real parts of the eigenvectors, in the
        others the imaginary parts of those that are not real.
      inverse: (d, d), float32 while steps are made. Of ``vectors``.
      farthest: the largest sum of moduli in a row of G so far.
    """

    values: np.ndarray
    vectors: np.ndarray
    inverse: np.ndarray
    farthest: float = 0.0

    def missed(self, f: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """F v - lam v of some of them, their imaginary parts last."""
        count = len(chosen)
        rows = self.vectors[_rows_of(chosen, len(self.values), len(f))]
        values = self.values[chosen, None]
        missed = rows @ f.T
        missed[:count] -= values.real * rows[:count]
        if pairs := len(rows) - count:
            along, turning = values[-pairs:].real, values[-pairs:].imag
            first, second = rows[count - pairs : count], rows[count:]
            missed[count - pairs : count] += turning * second
            missed[count:] -= along * second + turning * first
        return np.asarray(missed)

    def lengths(self, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Of complex vectors whose imaginary parts come last."""
        squares, count = np.einsum("ij,ij->i", rows, rows), len(chosen)
        if pairs := len(rows) - count:
            squares[count - pairs : count] += squares[count:]
        return np.sqrt(squares[:count])

    def correct(self, missed: np.ndarray, chosen: np.ndarray) -> bool:
        """One step for some of the pairs; False where it would be a large one."""
        d, kept, count = len(self.vectors), len(self.values), len(chosen)
        pairs, reals = len(missed) - count, 2 * kept - d
        e = missed.astype(np.float32) @ self.inverse
        g = e[:count].astype(np.complex64)
        g.imag[count - pairs :] = e[count:]
        own = (np.arange(count), chosen)
        moved = g[own].astype(complex)
        values, lines = self.values.astype(np.complex64), slice(0, reals)
        with np.errstate(all="ignore"):
            g[:, lines] /= values[chosen, None] - values[lines]
            moved[count - pairs :] = self._turn(g, chosen, pairs, values)
        g[own[0][: count - pairs], chosen[: count - pairs]] = 0
        far = float(np.max(np.sum(np.abs(g), axis=1)))
        if not far <= _FAR:
            return False
        self.farthest = max(self.farthest, far)
        step, rows = np.concatenate([g.real, g.imag[count - pairs :]]), _rows_of(chosen, kept, d)
        if far > _NO_STEP:
            # S⁻¹ (1 - G + ...).
            self.inverse = self.inverse - self.inverse[:, rows] @ step
        self.vectors[rows] += step @ self.vectors.astype(np.float32)
        self.values[chosen] += moved
        return True

    def _turn(
        self, g: np.ndarray, chosen: np.ndarray, pairs: int, values: np.ndarray
    ) -> np.ndarray:
        """E to G in the columns of pairs, and E_ii of the last rows.

        a Re v + b Im v is (a - ib)/2 v + (a + ib)/2 conj(v). The one part is divided by lam_i - lam
        and the other by lam_i - conj(lam); with z = lam_i - Re lam and m = Im lam this takes a to
        (z a + m b) / (z² + m²) and b to (z b - m a) / (z² + m²).
        """
        reals, kept = 2 * len(self.values) - len(self.vectors), len(self.values)
        a, b = g[:, reals:kept], g[:, kept:]
        own = np.arange(len(g) - pairs, len(g)), chosen[len(g) - pairs :] - reals
        along, against = (a[own] - 1j * b[own]) / 2, (a[own] + 1j * b[own]) / 2
        z, m = values[chosen, None] - values.real[reals:], values.imag[reals:]
        shrunk = np.reciprocal(z * z + m * m)
        z *= shrunk
        shrunk *= m
        turned = z * b
        turned -= shrunk * a
        a *= z
        a += shrunk * b
        b[:] = turned
        # Of its own direction an eigenvector keeps what it has.
        against /= 2j * m[own[1]]
        a[own], b[own] = against, -1j * against
        return np.asarray(along)

    def solved(self, residuals: np.ndarray) -> Solved | None:
        """All pairs, conjugate ones side by side; None for nearly dependent eigenvectors."""
        d, kept = len(self.vectors), len(self.values)
        reals = 2 * kept - d
        if self.farthest > _NEAR:
            anew = inverse(self.vectors)
            if anew is None:
                return None
            self.inverse = anew
        # The columns of S⁻¹ are left eigenvectors y with yᵀ v = 1, or Re y and Im y twice as long.
        squares = np.einsum("ij,ij->j", self.inverse, self.inverse)
        squares[reals:kept] = (squares[reals:kept] + squares[kept:]) / 4
        lengths = self.lengths(self.vectors, self.values)
        conditions = np.maximum(np.sqrt(squares[:kept]) * lengths, 1.0)
        if not np.max(conditions) < ILL_CONDITIONED:
            return None
        vectors = np.zeros((d, d), complex)
        vectors[:reals] = self.vectors[:reals]
        vectors.real[reals::2], vectors.imag[reals::2] = np.split(self.vectors[reals:], 2)
        vectors[reals + 1 :: 2] = np.conj(vectors[reals::2])
        twice = np.concatenate([np.arange(reals), np.repeat(np.arange(reals, kept), 2)])
        values = self.values[twice]
        values[reals + 1 :: 2] = np.conj(values[reals::2])
        return Solved(values, vectors.T, conditions[twice], residuals[twice])


def _rows_of(chosen: np.ndarray, kept: int, d: int) -> np.ndarray | slice:
    """The rows of some of ``kept`` eigenvectors in ``d`` rows, those of imaginary parts last."""
    if len(chosen) == kept:
        return slice(None)
    reals = 2 * kept - d
    return np.concatenate([chosen, chosen[chosen >= reals] + (kept - reals)])


def _has_null_space(f: np.ndarray) -> bool:
    """Of two dimensions or more, in which no basis is definite."""
    pivots = np.abs(pivots_in_single(f))
    return int(np.sum(pivots <= _NO_PIVOT * np.max(pivots))) > 1


def _in_single_precision(f: np.ndarray) -> _Pairs | None:
    """LAPACK's answer; None where it has none, or one with dependent eigenvectors."""
    found = eigenpairs_in_single(f)
    if found is None:
        return None
    values, rows = found
    reals, first = np.flatnonzero(values.imag == 0), np.flatnonzero(values.imag > 0)
    rows = rows[np.concatenate([reals, first, first + 1])].astype(np.float64)
    # In single precision the inverse would be too coarse to correct with.
    turned = inverse(rows)
    if turned is None or not np.max(np.abs(turned)) < ILL_CONDITIONED:
        return None
    kept = values[np.concatenate([reals, first])].astype(complex)
    return _Pairs(kept, rows, turned.astype(np.float32))

"""Eigenpairs of a real matrix on the host, in float64, with the error of every pair.

NumPy and SciPy only. Few accelerators have a solver for non-symmetric matrices, and float32 is too
coarse for the non-normal matrices of trained layers; so eigenproblems are solved here whatever
the precision of the run that they belong to, and another solver's answer is judged here.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from pmt.errors import RequestError

# The names that an order may have. A plain string in signatures, since a wrong one is a request
# like any other and ends in one sentence.
Order = str
ORDERS = ("real", "skip", "modulus")

# Keys closer than this many roundings of |F| are a tie: which of them a solver makes larger is
# chance.
_TIE = 64
# Above this condition number the inverse of the eigenvector matrix has lost half of its digits,
# and left eigenvectors are computed instead.
ILL_CONDITIONED = 1e8
# Residual, over |F|, of an eigenvector by inverse iteration.
_ACCURATE = 1e-13
# Entries within this factor of the largest count as largest when a phase is fixed.
_LARGEST = 1.0 - 1e-6


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and right eigenvectors of a real matrix F, sorted.

    Attributes:
      values: complex128, (d,). Imaginary part exactly zero where the eigenvalue is real. Within a
        conjugate pair the positive imaginary part comes first, and the two stand next to each
        other.
      vectors: complex128, (d, d). Unit right eigenvectors v in the columns: real for real
        eigenvalues, conjugate for conjugate ones. Of the entries of largest modulus the first is
        real and positive.
      residuals: float64, (d,). |F v - lam v| / |F| with the Frobenius norm: the size, relative to
        F, of the smallest change of F that makes the pair exact. 0 for F = 0.
      conditions: float64, (d,). 1 / |yᵀ v| with the unit left eigenvector y: how many times larger
        than the change of F the change of a simple eigenvalue can be. 1 for a symmetric F, at least
        1 otherwise; large, up to infinity, where F is nearly or exactly defective. Meaningless
        within a repeated eigenvalue that is not defective, where y and v are not unique.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    conditions: np.ndarray

    @property
    def is_real(self) -> np.ndarray:
        """Which eigenvalues are real: imaginary part exactly zero, as LAPACK returns it."""
        return self.values.imag == 0.0

    @property
    def partners(self) -> np.ndarray:
        """For every eigenvalue the index of its conjugate; its own index where it is real."""
        return np.arange(len(self.values)) + np.sign(self.values.imag).astype(int)


class Solved(NamedTuple):
    """Eigenpairs in any order, a conjugate pair side by side, positive imaginary part first.

    Attributes:
      values, vectors, conditions: see ``Eigenpairs``; vectors of any phase, about of unit length.
      residuals: |F v - lam v| / |F|; None where they are not known.
    """

    values: np.ndarray
    vectors: np.ndarray
    conditions: np.ndarray
    residuals: np.ndarray | None = None


Solve = Callable[[np.ndarray], Solved]
"""All eigenpairs of a real matrix."""


def eigenpairs(
    matrix: Any, order: Order = "real", alpha: float = 1.0, solve: Solve | None = None
) -> Eigenpairs:
    """All eigenpairs F v = lam v, sorted.

    Args:
      matrix: array_like, (d, d). Real, of any dtype; converted to float64. An exactly symmetric one
        goes to the symmetric solver.
      order: ``"real"``: decreasing real part (the paper). ``"skip"``: decreasing |1 + alpha lam|,
        what the map with the skip connection selects. ``"modulus"``: decreasing |lam|. Ties, up to
        a few roundings of |F|, go to the larger real part, then to the smaller imaginary one in
        modulus, so that the order does not depend on the solver.
      alpha: The step size in the order ``"skip"``; not used otherwise.
      solve: What solves a matrix that is not symmetric, scaled to entries of at most 1, in place of
        LAPACK. What it raises is passed on.

    Raises:
      RequestError: A matrix that is not real, square and finite, an unknown order, a non-finite
        alpha.

    Notes:
      A defective matrix has fewer eigenvectors than eigenvalues: LAPACK then returns several equal
      (or nearly equal) columns with tiny residuals and huge conditions.
    """
    check_order(order, alpha)
    f = real_square(matrix)
    # A power of two keeps every digit, and the squares in the norms from overflow and underflow.
    exponent = int(np.frexp(np.max(np.abs(f)))[1])
    f = np.ldexp(f, -exponent)
    if _is_symmetric(f):
        real_values, real_vectors = np.linalg.eigh(f)
        values, vectors = real_values.astype(complex), real_vectors.astype(complex)
        found = Solved(values, vectors, np.ones(len(values)))
    else:
        found = (solve or by_lapack)(f)
    size = float(np.linalg.norm(f))
    chosen = sorted_indices(found.values, order, *step_of_order(alpha, exponent), size)
    values, conditions = found.values[chosen], found.conditions[chosen]
    vectors = with_fixed_phase(found.vectors.T[chosen].T, values)
    if found.residuals is None:
        residuals = _residuals(f, values, vectors) / (size or 1.0)
    else:
        # Those of a phase of v are those of v.
        residuals = found.residuals[chosen]
    return Eigenpairs(
        values=times_power_of_two(values, exponent),
        vectors=vectors,
        residuals=residuals,
        conditions=conditions,
    )


def leading_basis(matrix: Any, order: Order = "real", alpha: float = 1.0) -> np.ndarray | None:
    """The direction of the first eigenvalue only, in half the time of all eigenpairs.

    All eigenvalues by LAPACK, without vectors, and then inverse iteration for the first one.

    Args:
      matrix, order, alpha: as in ``eigenpairs``.

    Returns:
      float64, (d, 1), the unit eigenvector of a real eigenvalue, or (d, 2), an orthonormal basis of
      span{Re v, Im v}. None where inverse iteration does not reach the accuracy of ``eigenpairs``,
      and for a symmetric matrix, whose pairs are cheap: take these then.

    Raises:
      RequestError: as ``eigenpairs``.
    """
    check_order(order, alpha)
    f = real_square(matrix)
    exponent = int(np.frexp(np.max(np.abs(f)))[1])
    f = np.ldexp(f, -exponent)
    if _is_symmetric(f):
        return None
    size = float(np.linalg.norm(f))
    values = np.linalg.eigvals(f).astype(complex)
    value = values[sorted_indices(values, order, *step_of_order(alpha, exponent), size)[0]]
    shift = value.real if value.imag == 0 else value
    vector = np.random.default_rng(0).standard_normal(len(f))
    # One step is nearly always enough. It is off the eigenvalue by roundings, for an answer to be.
    for roundings in (1, 3, -2):
        shifted = f - (shift + roundings * np.finfo(float).eps * size) * np.eye(len(f))
        try:
            solved = np.linalg.solve(shifted, vector)
        except np.linalg.LinAlgError:
            continue
        length = np.linalg.norm(solved)
        if not np.isfinite(length):
            continue
        vector = solved / length
        if np.linalg.norm(f @ vector - shift * vector) <= _ACCURATE * size:
            break
    else:
        return None
    if value.imag == 0:
        vector = vector * (1.0 if vector[np.argmax(np.abs(vector))] > 0 else -1.0)
        return np.asarray(vector[:, None])
    return np.asarray(np.linalg.qr(np.stack([vector.real, vector.imag], axis=1))[0])


def one_thread_each() -> AbstractContextManager[Any]:
    """Within it LAPACK uses one thread a call: for calls that stand side by side.

    Otherwise every call starts as many threads as there are cores; on busy cores these wait for
    each other, and small eigenproblems take ten times as long.
    """
    return threadpool_limits(limits=1, user_api="blas")


def order_key(values: np.ndarray, order: Order, alpha: float = 1.0, one: float = 1.0) -> np.ndarray:
    """What an order sorts by: Re lam, |one + alpha lam| or |lam|; ``one`` is there for scaling."""
    if order == "real":
        return values.real
    return np.abs(values) if order == "modulus" else np.abs(one + alpha * values)


def check_order(order: str, alpha: float) -> None:
    """Refuse an order that does not exist and a step size that is no finite number.

    Raises:
      RequestError: Naming what was given and what is possible.
    """
    if order not in ORDERS:
        message = f"the order is {order!r}; it must be 'real', 'skip' or 'modulus'"
        raise RequestError(message)
    if not np.isfinite(alpha):
        message = f"alpha is {alpha}; it must be a finite number"
        raise RequestError(message)


def real_square(matrix: Any) -> np.ndarray:
    """The matrix in float64.

    Raises:
      RequestError: not real, not square, not finite, naming the first such entry.
    """
    given = np.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.size == 0:
        message = f"the matrix has shape {given.shape}; it must be square, (d, d) with d at least 1"
        raise RequestError(message)
    if np.iscomplexobj(given):
        message = f"the matrix is {given.dtype}; layer matrices are real"
        raise RequestError(message)
    f = given.astype(np.float64)
    if not np.all(np.isfinite(f)):
        bad = np.argwhere(~np.isfinite(f))
        i, j = (int(index) for index in bad[0])
        message = (
            f"the matrix holds {f[i, j]} at ({i}, {j}), {len(bad)} non-finite entries in all; "
            "every entry must be a finite number"
        )
        raise RequestError(message)
    return f


def _is_symmetric(f: np.ndarray) -> bool:
    # Most that are not differ in the first row.
    return np.array_equal(f[0], f[:, 0]) and np.array_equal(f, f.T)


def by_lapack(f: np.ndarray) -> Solved:
    """All eigenpairs of a non-symmetric matrix, unsorted.

    NumPy's solver lets other threads run meanwhile, SciPy's does not; but only SciPy's returns
    left eigenvectors, which are needed where the right ones are nearly dependent.
    """
    values, vectors = np.linalg.eig(f)
    values, vectors = values.astype(complex), vectors.astype(complex)
    conditions = conditions_by_inverse(values, vectors)
    if np.max(conditions) < ILL_CONDITIONED:
        return Solved(values, vectors, conditions)
    values, left, vectors = scipy.linalg.eig(f, left=True, right=True, check_finite=False)
    overlap = np.abs(np.sum(left.conj() * vectors, axis=0))
    with np.errstate(divide="ignore"):
        return Solved(values, vectors, np.maximum(1.0 / overlap, 1.0))


def conditions_by_inverse(values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """|row i of V⁻¹|, since the rows of V⁻¹ are left eigenvectors with y_iᵀ v_i = 1.

    A conjugate pair is kept as the two real columns Re v, Im v, so that the inverse is real.
    """
    first, packed = _packed(values, vectors)
    try:
        with np.errstate(all="ignore"):
            rows = np.linalg.norm(np.linalg.inv(packed), axis=1)
    except np.linalg.LinAlgError:
        return np.full(len(values), np.inf)
    rows[first] = rows[first + 1] = np.hypot(rows[first], rows[first + 1]) / 2
    return np.where(np.isnan(rows), np.inf, np.maximum(rows, 1.0))


def _residuals(f: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """|F v - lam v| of every pair, by one real product: of a conjugate pair both are the same."""
    first, packed = _packed(values, vectors)
    off, turning = f @ packed - packed * values.real, values.imag[first]
    off[:, first] += packed[:, first + 1] * turning
    off[:, first + 1] -= packed[:, first] * turning
    lengths = np.linalg.norm(off, axis=0)
    lengths[first] = lengths[first + 1] = np.hypot(lengths[first], lengths[first + 1])
    return np.asarray(lengths)


def _packed(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where conjugate pairs begin, and real columns: v of a real one, Re v and Im v of a pair."""
    first = np.flatnonzero(values.imag > 0)
    packed = vectors.real.copy()
    packed[:, first + 1] = vectors.imag[:, first]
    return first, packed


def step_of_order(alpha: float, exponent: int) -> tuple[float, float]:
    """``one`` and ``step`` in |one + step lam| for eigenvalues lam of F / 2**exponent.

    That is |1 + alpha 2**exponent lam| divided by the larger of 1 and 2**exponent, so that neither
    overflows.
    """
    return float(np.ldexp(1.0, -max(exponent, 0))), float(np.ldexp(alpha, min(exponent, 0)))


def times_power_of_two(values: np.ndarray, exponent: int) -> np.ndarray:
    """Complex ``values`` · 2**exponent, to the last digit.

    Raises:
      RequestError: where one of them overflows.
    """
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(values.real, exponent) + 1j * np.ldexp(values.imag, exponent)
    if not np.all(np.isfinite(scaled)):
        message = "an eigenvalue of the matrix overflows float64; divide the matrix by a constant"
        raise RequestError(message)
    return np.asarray(scaled)


def sorted_indices(
    values: np.ndarray, order: Order, one: float, step: float, size: float
) -> np.ndarray:
    """The permutation that sorts by ``order``, ties as in ``eigenpairs``.

    Args:
      values: complex; a conjugate pair stands together, positive imaginary part first.
      order: see ``eigenpairs``.
      one, step: see ``step_of_order``.
      size: |F|, to which ties are relative.
    """
    leaders = np.flatnonzero(values.imag >= 0)
    leading = values[leaders]
    rounding = _TIE * np.finfo(float).eps
    scale = one + abs(step) * size if order == "skip" else size
    keys = [
        (order_key(leading, order, step, one), rounding * scale),
        (leading.real, rounding * size),
        (-np.abs(leading.imag), rounding * size),
    ]
    ranks = [_ranks(column, tolerance) for column, tolerance in keys]
    # The original position comes last and only decides between equal eigenvalues.
    by_rank = np.lexsort((leaders, *reversed(ranks)))
    chosen = [
        index
        for leader in leaders[by_rank]
        for index in ((leader,) if values[leader].imag == 0 else (leader, leader + 1))
    ]
    return np.array(chosen)


def _ranks(key: np.ndarray, tie: float) -> np.ndarray:
    """0 for the largest key; a key within ``tie`` of its larger neighbour has the same rank."""
    down = np.argsort(-key, kind="stable")
    steps = np.concatenate([[False], -np.diff(key[down]) > tie])
    ranks = np.empty(len(key), int)
    ranks[down] = np.cumsum(steps)
    return ranks


def with_fixed_phase(vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Unit columns whose first entry of largest modulus is real and positive.

    Those of real ``values`` are real, and those of a conjugate pair, positive imaginary part first,
    are conjugate.
    """
    # In rows, and one of each pair: the arrays are large, and NumPy goes along rows.
    leading = np.flatnonzero(values.imag >= 0)
    rows = vectors.T[leading].astype(complex, copy=False)
    squares = rows.real**2 + rows.imag**2
    first = np.argmax(squares >= _LARGEST**2 * np.max(squares, axis=1, keepdims=True), axis=1)
    pivots = rows[np.arange(len(rows)), first]
    sizes, lengths = np.abs(pivots), np.sqrt(np.sum(squares, axis=1))
    rows *= (np.conj(pivots) / (sizes * lengths))[:, None]
    rows[np.arange(len(rows)), first] = sizes / lengths
    rows.imag[values.imag[leading] == 0] = 0.0
    turned = np.empty((len(values), vectors.shape[0]), complex)
    turned[leading] = rows
    # Bit for bit the conjugate, which rounding alone would not give.
    second = np.flatnonzero(values.imag < 0)
    turned[second] = np.conj(turned[second - 1])
    return turned.T

"""The leading eigendirection alone, by squaring a function of F until only it is left.

Powers of B = exp(t F), I + alpha F or F single out the eigenvalue that is first in the order
``"real"``, ``"skip"`` or ``"modulus"``, and B^(2^k) takes k matrix products, in single precision:
nothing else that a processor does is as fast. What that leaves is refined in double precision, and
given only where which eigenvalue is first is clear by a margin. That is for matrices drawn at
random: one made so that a rounding in single precision moves its second eigenvalue past the first,
by more than the margin, could pass.
"""

from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np

from pmt.linalg import Order, check_order, order_key, real_square, step_of_order

# Columns of the sketch: so many eigenvalues may be left beside each other.
_KEPT = 16
_MOST_SQUARINGS = 16
# |B^(2^k)| outside of the sketch, over its largest eigenvalue.
_FAINT = 1e-2
# By so much of |F| / sqrt(d), the spectral radius of a Gaussian matrix, the first key must exceed
# the second. The difference of exp(t F) from its series, below 2e-6, stays well below.
_APART = 1e-3
# By so much of the same a pair must be off the real line.
_COMPLEX = 1e-5
# Some roundings in single precision.
_ROUNDING = 2.0**-19
# Residual, over |F|, as in `pmt.linalg.leading_basis`.
_ACCURATE = 1e-13


def basis_by_squaring(matrix: Any, order: Order = "real", alpha: float = 1.0) -> np.ndarray | None:
    """The direction of the first eigenvalue, in a third of the time of all eigenvalues.

    Let Q hold an orthonormal basis of the range of E = B^(2^k), found by multiplying random columns
    with E twice. An eigenvalue of E that Q misses is at most |E - Q Qᵀ E|. Squaring ends when that
    is a hundredth of the largest eigenvalue of QᵀE Q. Then this one must be alone, or alone with
    its conjugate: none of the others may be so large that their keys are within a thousandth of
    |F| / sqrt(d), and rounding must be less than that. Two steps of inverse iteration give the
    eigenvector, whose residual is checked, and that its eigenvalue is the one that makes B^(2^k) as
    large as it is.

    Args:
      matrix, order, alpha: as for `pmt.linalg.eigenpairs`.

    Returns:
      As `pmt.linalg.leading_basis`; None where two keys are as close as that, where F is so
      far from normal that rounding may decide, and for a symmetric or small matrix. Other methods
      decide then.

    Raises:
      RequestError: as `pmt.linalg.eigenpairs`.
    """
    check_order(order, alpha)
    f = real_square(matrix)
    exponent = int(np.frexp(np.max(np.abs(f)))[1])
    f = np.ldexp(f, -exponent)
    d, size = len(f), float(np.linalg.norm(f))
    if d < 4 * _KEPT or size == 0 or np.array_equal(f, f.T):
        return None
    one, step = step_of_order(alpha, exponent)
    rng = np.random.default_rng(0)
    # What overflows or divides by zero ends as a number that is not finite, and is refused.
    with np.errstate(all="ignore"):
        base, time = _base(f, order, one, step, rng)
        width = {"real": time, "skip": abs(step), "modulus": 1.0}[order]
        found = _leading_space(base, order, _APART * width * size / np.sqrt(d), rng)
        if found is None:
            return None
        pair = _refined(f, found.space, order, one, step, size)
    if pair is None or found.count != (1 if pair[0].imag == 0 else 2):
        return None
    value, vector = pair
    if value.imag != 0 and abs(value.imag) < _COMPLEX * size / np.sqrt(d):
        # Two equal real ones, perhaps.
        return None
    reach = (
        np.log(abs(_series(time * value)))
        if order == "real"
        else np.log(order_key(np.array([value]), order, step, one)[0])
    )
    if not abs(reach - found.log_radius) <= found.reach / 2:
        return None
    if value.imag == 0:
        vector = vector * (1.0 if vector[np.argmax(np.abs(vector))] > 0 else -1.0)
        return np.asarray(vector[:, None])
    return np.asarray(np.linalg.qr(np.stack([vector.real, vector.imag], axis=1))[0])


@dataclass(frozen=True)
class _Found:
    """What the powers of B leave.

    Attributes:
      space: (d, p), orthonormal, in single precision.
      count: how many eigenvalues of B are as large in modulus as the largest, as far as ``reach``
        goes.
      log_radius: logarithm of the largest.
      reach: logarithm of the factor that counts as a difference.
    """

    space: np.ndarray
    count: int
    log_radius: float
    reach: float


def _base(
    f: np.ndarray, order: Order, one: float, step: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """B in single precision; for exp(t F) its series, and t = 1 / (2 |F|_2)."""
    if order == "modulus":
        return f.astype(np.float32), 0.0
    if order == "skip":
        return (one * np.eye(len(f)) + step * f).astype(np.float32), 0.0
    vector = rng.standard_normal(len(f))
    for _ in range(6):
        vector = f.T @ (f @ (vector / np.linalg.norm(vector)))
    time = 0.5 / float(np.sqrt(np.linalg.norm(vector)))
    x, one_ = (time * f).astype(np.float32), np.eye(len(f), dtype=np.float32)
    square = x @ x
    cube = square @ x
    low, high = (
        sum(np.float32(1 / factorial(first + i)) * each for i, each in enumerate(powers))
        for first, powers in ((0, (one_, x, square)), (3, (one_, x, square, cube)))
    )
    return low + cube @ high, time


def _series(x: complex) -> complex:
    """The Taylor polynomial of exp to the sixth power, as in ``_base``."""
    return sum((x**i / factorial(i) for i in range(7)), 0j)


def _leading_space(
    power: np.ndarray, order: Order, apart: float, rng: np.random.Generator
) -> _Found | None:
    """From B; None where its powers do not get there.

    Args:
      apart: how far two eigenvalues of log B, or of B, must at least be from each other.
    """
    start = rng.standard_normal((len(power), _KEPT)).astype(np.float32)
    scale = 0.0
    for count in range(_MOST_SQUARINGS):
        norm = float(np.linalg.norm(power))
        power /= np.float32(norm)
        scale = 2 * scale + np.log(norm)
        # Before that too much is left for so few columns.
        if count >= _MOST_SQUARINGS // 2:
            q = np.linalg.qr(power @ start)[0].astype(np.float32)
            q = np.linalg.qr(power @ q)[0].astype(np.float32)
            seen = power @ q
            inner = q.T @ seen
            missed = np.linalg.norm(power - q @ (q.T @ power))
            turned = np.linalg.norm(seen - q @ inner)
            if not np.isfinite(missed):
                return None
            moduli = np.abs(np.linalg.eigvals(inner))
            largest = float(np.max(moduli))
            # What Q lacks of an invariant space moves the eigenvalues by about |E| times that.
            if missed <= _FAINT * largest and turned <= _FAINT * largest**2:
                log_radius = (np.log(largest) + scale) / 2**count
                reach = apart if order == "real" else apart / np.exp(log_radius)
                # The norm of E, 1, over an eigenvalue is about the condition of the latter in B.
                if not _ROUNDING / largest <= reach:
                    return None
                together = int(np.sum(moduli >= largest * np.exp(-reach * 2**count)))
                return _Found(q, together, log_radius, reach)
        power = power @ power
    return None


def _refined(
    f: np.ndarray, q: np.ndarray, order: Order, one: float, step: float, size: float
) -> tuple[complex, np.ndarray] | None:
    """An eigenpair of F near the first of Qᵀ F Q, to full accuracy."""
    q = np.linalg.qr(q.astype(np.float64))[0]
    values, vectors = np.linalg.eig(q.T @ (f @ q))
    values = values.astype(complex)
    if not np.all(np.isfinite(values)):
        return None
    first = int(np.argmax(order_key(values, order, step, one)))
    value, vector = complex(values[first]), q @ vectors[:, first]
    if value.imag == 0:
        vector = vector.real
    for _ in range(2):
        shift = value if value.imag else value.real
        try:
            solved = np.linalg.solve(f - shift * np.eye(len(f)), vector)
        except np.linalg.LinAlgError:
            return None
        vector = solved / np.linalg.norm(solved)
        seen = f @ vector
        value = complex(np.vdot(vector, seen))
        if np.linalg.norm(seen - value * vector) <= _ACCURATE * size:
            return value, vector
    return None

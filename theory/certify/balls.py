"""Ball arithmetic: what the proofs need of python-flint, which is imported where it is used.

Every function rounds outwards: the ball that comes out contains the result for all numbers in the
balls that go in (Arb, F. Johansson, IEEE Trans. Comput. 66, 2017). Comparisons such as ``a < b``
are true only if they hold for all numbers in both balls, and false for a ball that is not finite.
"""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from pmt.errors import RequestError


def flint() -> Any:
    """The module python-flint.

    Raises:
      RequestError: it is not installed.
    """
    try:
        return import_module("flint")
    except ImportError as error:
        message = (
            "a certificate needs python-flint, which is not installed; pip install 'pmt[certify]'"
        )
        raise RequestError(message) from error


def matrix(rows: np.ndarray) -> Any:
    """A matrix of float64 numbers as balls of radius zero."""
    return flint().arb_mat(*rows.shape, np.asarray(rows, np.float64).ravel().tolist())


def number(value: float) -> Any:
    """A float64 number as a ball of radius zero."""
    return flint().arb(float(value))


def identity(size: int) -> Any:
    """The exact identity matrix."""
    one = flint().arb_mat(size, size)
    for i in range(size):
        one[i, i] = 1
    return one


def zeros(rows: int, columns: int) -> Any:
    """The exact zero matrix."""
    return flint().arb_mat(rows, columns)


def stack(blocks: Sequence[Sequence[Any]]) -> Any:
    """One matrix from rows of blocks."""
    rows = [[each for part in parts for each in part] for row in blocks for parts in _lines(row)]
    return flint().arb_mat(rows) if rows else flint().arb_mat(0, 0)


def _lines(row: Sequence[Any]) -> Any:
    return zip(*(block.tolist() for block in row), strict=True)


def midpoint(ball_matrix: Any) -> Any:
    """The midpoints as exact numbers."""
    return ball_matrix.mid()


def invert(ball_matrix: Any) -> Any | None:
    """A ball matrix that holds the inverse of every matrix in it; None if one may be singular."""
    try:
        return ball_matrix.inv()
    except ZeroDivisionError:
        return None


def row_norm(ball_matrix: Any) -> Any:
    """An upper bound of the largest row sum of moduli, as an exact ball; infinite if unbounded."""
    return _largest([_sum(row) for row in ball_matrix.tolist()])


def power_norm(ball_matrix: Any) -> Any:
    """An upper bound of the smaller one of the row-sum norm and the column-sum norm."""
    rows, columns = row_norm(ball_matrix), row_norm(ball_matrix.transpose())
    return columns if columns < rows else rows


def radius_norm(ball_matrix: Any) -> Any:
    """An upper bound of the largest row sum of the balls' radii: how much is not known."""
    return _largest([_sum([each.rad() for each in row]) for row in ball_matrix.tolist()])


def _sum(row: Sequence[Any]) -> Any:
    total = flint().arb(0)
    for each in row:
        total = (total + each.abs_upper()).upper()
    return total


def _largest(values: Sequence[Any]) -> Any:
    largest = flint().arb(0)
    for value in values:
        if not value.is_finite():
            return flint().arb.pos_inf()
        if value > largest:
            largest = value
    return largest


def above(ball: Any) -> float:
    """A float that no number in the ball exceeds."""
    return _outward(ball.upper(), math.inf)


def below(ball: Any) -> float:
    """A float that every number in the ball reaches."""
    return _outward(ball.lower(), -math.inf)


def _outward(end: Any, direction: float) -> float:
    if not end.is_finite():
        return direction
    rounded = float(end)
    exact = flint().arb(rounded) if math.isfinite(rounded) else None
    if exact is not None and (exact >= end if direction > 0 else exact <= end):
        return rounded
    return math.nextafter(rounded, direction)


def as_integers(column: Any) -> tuple[tuple[int, int], ...]:
    """The exact numbers of a column as pairs (m, e), each number being m 2^e."""
    pairs = [each.man_exp() for (each,) in column.tolist()]
    return tuple((int(mantissa), int(exponent)) for mantissa, exponent in pairs)


def from_integers(pairs: Sequence[tuple[int, int]]) -> Any:
    """The column that ``as_integers`` wrote down, exactly, whatever the precision."""
    column = flint().arb_mat(len(pairs), 1)
    for i, pair in enumerate(pairs):
        column[i, 0] = flint().arb(pair)
    return column

"""Samples with their images under signed permutations: a law as good as one of all rotations.

Theorem 4.1 needs rotations only to make the average of Rᵀ M R over them a multiple of I. The d·m
maps R = S P do that too, P the cyclic shifts of the coordinates and S = diag(s), s the rows of a
Hadamard matrix of size m >= d cut to d columns: the signs remove what is off the diagonal, the
shifts make the diagonal equal. So the gradient of the loss of one sample and its images, at a point
of the manifold, is tangent to the manifold to rounding, and SGD on such batches is the descent of
the theorem with noise in v and w only.
"""

import numpy as np

from pmt.errors import RequestError
from pmt.looped.data import Samples
from pmt.numerics import einsum


def orbit_size(d: int) -> int:
    """How many images, the sample itself included: d times the least power of two >= d."""
    return d * _signs(d).shape[0]


def orbit_maps(d: int) -> np.ndarray:
    """The signed permutations R, shape ``(orbit_size(d), d, d)``; the first is I."""
    shifts = [np.roll(np.eye(d), shift, axis=1) for shift in range(d)]
    return np.stack([signs[:, None] * shift for shift in shifts for signs in _signs(d)])


def with_images(given: Samples) -> Samples:
    """Every sample with all its images, ``orbit_size(d)`` times as many, those of one together."""
    d = given.query.shape[-1]
    maps = orbit_maps(d).astype(given.data.dtype)
    found = (
        einsum("gij,bnj->bgni", maps, given.data),
        einsum("gij,bj->bgi", maps, given.query),
        einsum("gij,bjr->bgir", maps, given.leading),
    )
    return Samples(*(part.reshape(-1, *part.shape[2:]) for part in found))


def _signs(d: int) -> np.ndarray:
    """Sylvester's Hadamard matrix without the columns beyond d."""
    if d < 1:
        raise RequestError(f"d is {d}; it must be at least 1")
    matrix = np.ones((1, 1))
    while len(matrix) < d:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix[:, :d]

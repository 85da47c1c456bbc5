"""LAPACK's routines by their addresses, against NumPy and the definitions."""

import threading
import time

import numpy as np

from pmt.spectral.lapack import eigenpairs_in_single, inverse, pivots_in_single

EPS = np.finfo(float).eps
SINGLE = np.finfo(np.float32).eps


def gaussian(d: int, seed: int = 0) -> np.ndarray:
    f = np.random.default_rng(seed).standard_normal((d, d))
    return f / np.abs(f).max()


def test_single_precision_against_numpy():
    f = gaussian(150)
    values, rows = eigenpairs_in_single(f)
    assert (values.dtype, rows.dtype) == (np.complex64, np.float32)
    vectors = rows.T.astype(complex)
    first = np.flatnonzero(values.imag > 0)
    assert np.array_equal(values[first + 1], np.conj(values[first]))
    vectors[:, first] += 1j * rows.T[:, first + 1]
    vectors[:, first + 1] = np.conj(vectors[:, first])
    off = np.linalg.norm(f @ vectors - vectors * values, axis=0)
    assert np.max(off) <= 10 * SINGLE * np.linalg.norm(f)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1.0, atol=10 * SINGLE)
    # What is asked about is left as it was.
    assert np.array_equal(f, gaussian(150))


def test_the_inverse():
    for d in (1, 2, 77, 300):
        f = gaussian(d, d)
        got = inverse(f)
        assert got.dtype == np.float64
        allowed = 4 * d * EPS * np.linalg.cond(f) * np.linalg.norm(got)
        assert np.linalg.norm(got - np.linalg.inv(f)) <= allowed
        # Also of a transpose, which lies in memory the other way, and the matrix is left as it was.
        assert np.linalg.norm(inverse(f.T) - got.T) <= allowed
        assert np.array_equal(f, gaussian(d, d))
    assert inverse(np.zeros((3, 3))) is None
    assert inverse(np.ones((2, 2))) is None


def test_pivots():
    for f in (gaussian(90), gaussian(90)[:, :40] @ gaussian(90)[:40], np.zeros((5, 5))):
        pivots, d = pivots_in_single(f), len(f)
        assert (pivots.dtype, pivots.shape) == (np.float32, (d,))
        sign, logarithm = np.linalg.slogdet(f.astype(np.float32).astype(float))
        full = np.linalg.matrix_rank(f) == d
        if full:
            found = np.sum(np.log(np.abs(pivots).astype(float)))
            assert sign != 0 and abs(found - logarithm) <= 100 * d * SINGLE
        small = np.abs(pivots) <= 1e-6 * np.max(np.abs(pivots))
        assert np.sum(small) == d - np.linalg.matrix_rank(f)


def test_other_threads_run_meanwhile():
    done = threading.Event()

    def solve():
        eigenpairs_in_single(gaussian(700))
        done.set()

    thread = threading.Thread(target=solve)
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    # It takes a tenth of a second and more; with Python's lock held there would be a turn or two.
    assert turns > 10

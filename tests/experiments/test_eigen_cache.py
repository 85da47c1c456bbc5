"""Eigenproblems kept by content: the same bits, an honest key, a limit, and what disks do."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pmt.experiments.eigen_cache import EigenCache


@pytest.mark.parametrize("order", ["real", "skip", "modulus"])
def test_the_cache_gives_the_same_bits_and_solves_nothing_again(tmp_path, order):
    rng = np.random.default_rng(5)
    turning = np.array([[0.5, -0.4, 0], [0.4, 0.5, 0], [0, 0, -0.1]])
    matrices = [rng.normal(size=(7, 7)), turning, np.diag([1.0, 0.995, 0.2]), np.eye(1)]
    first = [EigenCache(tmp_path).principal(m, order, 0.5) for m in matrices]
    again = EigenCache(tmp_path)
    for matrix, one in zip(matrices, first, strict=True):
        two = again.principal(matrix.copy(), order, 0.5)
        for name, value in vars(one).items():
            if name == "pairs":
                for key, array in vars(value).items():
                    assert array.tobytes() == getattr(two.pairs, key).tobytes(), key
            elif isinstance(value, np.ndarray):
                assert value.tobytes() == getattr(two, name).tobytes(), name
            else:
                assert value == getattr(two, name), name
        basis = again.basis(matrix, order, 0.5)
        assert basis.tobytes() == again.basis(matrix.copy(), order, 0.5).tobytes()
        np.testing.assert_allclose(basis @ basis.T, one.basis @ one.basis.T, atol=1e-12)
    # The bases have files of their own, which hold less.
    assert again.solved == len(matrices)


def test_the_key_of_the_cache_is_honest(tmp_path, monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    cache = EigenCache(tmp_path)
    for asked in ((matrix, "real", 1.0), (matrix, "skip", 1.0), (matrix, "skip", 0.5)):
        cache.principal(*asked)
    cache.principal(matrix.astype(np.float32), "real", 1.0)
    changed = matrix.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], 9)
    cache.principal(changed, "real", 1.0)
    assert cache.solved == 5 == len(list(tmp_path.iterdir()))
    monkeypatch.setattr("pmt.experiments.eigen_cache._solvers", lambda: ("another",))
    cache.principal(matrix, "real", 1.0)
    assert cache.solved == 6
    # A file that something else damaged is solved again and replaced.
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    cache.principal(matrix, "real", 1.0)
    cache.principal(matrix, "real", 1.0)
    assert cache.solved == 7
    # One that cannot be read for another reason may be whole, and stays as it is.
    (path,) = (p for p in tmp_path.iterdir() if len(p.read_bytes()) > 100)
    before = path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", _failing_disk)
        assert cache.principal(matrix, "real", 1.0).order == "real" and cache.solved == 8
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino
    name = cache.name((matrix,), "a text")
    cache.keep(name, "first")
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", _failing_disk)
        assert cache.recall(name) is None
        cache.keep(name, "second")
    assert cache.recall(name) == "first"
    Path(name).write_bytes(b"damaged")
    assert cache.recall(name) is None
    cache.keep(name, "second")
    assert cache.recall(name) == "second"
    u = cache.left_singular(matrix)
    assert u.tobytes() == cache.left_singular(matrix).tobytes() and cache.solved == 9
    np.testing.assert_allclose(matrix @ matrix.T @ u, np.linalg.norm(matrix, 2) ** 2 * u)


def test_a_cache_is_kept_within_its_limit_and_half_written_files_go(tmp_path, monkeypatch):
    matrices = [np.random.default_rng(seed).normal(size=(6, 6)) for seed in range(4)]
    cache = EigenCache(tmp_path)
    for matrix in matrices:
        cache.basis(matrix, "real", 1.0)
    paths = [cache._path((matrix,), "basis", "real", "1.0") for matrix in matrices]
    for age, path in enumerate(paths):
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / ".pmt-tmp-0").write_bytes(b"of a killed run")
    # The oldest is read, and so the others go first.
    cache.basis(matrices[3], "real", 1.0)
    assert cache.solved == 4
    # Half a file of someone else's, in a folder that is not ours.
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".pmt-tmp-0").write_bytes(b"")
    EigenCache(tmp_path, limit=2 * paths[0].stat().st_size)
    assert set(tmp_path.iterdir()) == {paths[0], paths[3], tmp_path / "below"}
    assert (tmp_path / "below" / ".pmt-tmp-0").exists()
    # What cannot be written is let go only where the cache is optional.
    monkeypatch.setattr("pmt.experiments.eigen_cache.write_atomically", _full_disk)
    EigenCache(tmp_path, optional=True).basis(matrices[1], "real", 1.0)
    with pytest.raises(OSError, match="No space left"):
        EigenCache(tmp_path).basis(matrices[1], "real", 1.0)


def _full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _failing_disk(*arguments, **options):
    raise OSError(errno.EIO, os.strerror(errno.EIO))

"""Eigenproblems of layer matrices, kept on disk by content, so that none is solved twice.

The name of a file is the SHA-256 of all that its numbers depend on: the matrix (bytes, dtype,
shape), the order and step size, and the versions of the solvers. So a changed weight, an updated
SciPy or another order finds nothing and solves anew; two models with a layer in common share it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from zipfile import BadZipFile

import numpy as np
import scipy

from pmt.files import remove_leftovers, write_atomically
from pmt.linalg import Eigenpairs, leading_basis
from pmt.spectral import Principal, principal

# Raised whenever what a method returns for the same matrix changes.
_VERSION = "pmt.eigen/2"

_MOST_BYTES = 10**10

# What NumPy raises on an archive that something else has damaged.
_DAMAGED = (ValueError, KeyError, EOFError, BadZipFile)


class Solver:
    """Solves every problem that it is given, and keeps nothing.

    Attributes:
      solved: how many problems it has solved.
    """

    def __init__(self) -> None:
        self.solved = 0

    def principal(self, matrix: np.ndarray, order: str, alpha: float) -> Principal:
        """All eigenpairs of a matrix ``(d, d)``, as `pmt.spectral.principal` gives them."""
        self.solved += 1
        return principal(matrix, order, alpha)

    def basis(self, matrix: np.ndarray, order: str, alpha: float) -> np.ndarray:
        """The orthonormal basis ``(d, 1)`` or ``(d, 2)`` of its principal direction only.

        Of the same line or plane as in ``principal``, in half the time.
        """
        self.solved += 1
        found = leading_basis(matrix, order, alpha)
        return principal(matrix, order, alpha).basis if found is None else found

    def left_singular(self, matrix: np.ndarray) -> np.ndarray:
        """The left singular vector ``(d, 1)`` of the largest singular value, to a sign."""
        self.solved += 1
        u = np.linalg.svd(np.asarray(matrix, np.float64))[0][:, :1]
        return u * np.where(u[np.argmax(np.abs(u))] < 0, -1.0, 1.0)


class EigenCache(Solver):
    """The same answers to the last bit, from a folder where they are there already.

    A file is written whole or not at all, so that a killed run leaves answers or nothing; what it
    was writing is removed by the next one. A file that holds something else is solved again and
    replaced; one that the system does not let us read is solved again and left. The folder may be
    used from several threads and processes.

    Args:
      folder: made where it is not there.
      limit: how many bytes it may hold; beyond them those go that were not used for longest, when
        the cache is opened. None for no limit.
      optional: whether what cannot be written (no permission, a full disk) is let go.

    Raises:
      OSError: a folder that cannot be made, unless ``optional``.
    """

    def __init__(
        self, folder: str | PathLike[str], *, limit: int | None = None, optional: bool = False
    ) -> None:
        super().__init__()
        self._folder, self._optional = Path(folder), optional
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            if not optional:
                raise
        # The user's folder may hold others, and a cache has none below it.
        remove_leftovers(self._folder, below=False)
        if limit is not None:
            _trim(self._folder, limit)

    def principal(self, matrix: np.ndarray, order: str, alpha: float) -> Principal:
        """As of the class above; the eigenvectors take 8 d² bytes on disk."""
        path = self._path(matrix, "principal", order, repr(alpha))
        return self._known(
            path, _unpack, lambda: super(EigenCache, self).principal(matrix, order, alpha), _pack
        )

    def basis(self, matrix: np.ndarray, order: str, alpha: float) -> np.ndarray:
        """As of the class above; the other eigenvectors are not kept."""
        path = self._path(matrix, "basis", order, repr(alpha))
        solve = super().basis
        return self._known(
            path,
            lambda found: _of_width(found["basis"]),
            lambda: solve(matrix, order, alpha),
            lambda basis: {"basis": basis},
        )

    def left_singular(self, matrix: np.ndarray) -> np.ndarray:
        """As of the class above."""
        path = self._path(matrix, "left singular")
        solve = super().left_singular
        return self._known(
            path,
            lambda found: _of_width(found["basis"]),
            lambda: solve(matrix),
            lambda basis: {"basis": basis},
        )

    def _path(self, matrix: np.ndarray, *asked: str) -> Path:
        digest = hashlib.sha256()
        for part in (_VERSION, *_solvers(), *asked, str(matrix.dtype), str(matrix.shape)):
            digest.update(part.encode() + b"\0")
        digest.update(np.ascontiguousarray(matrix).tobytes())
        return self._folder / f"{digest.hexdigest()}.npz"

    def _known(
        self,
        path: Path,
        read: Callable[[Mapping[str, np.ndarray]], Any],
        solve: Callable[[], Any],
        pack: Callable[[Any], dict[str, np.ndarray]],
    ) -> Any:
        try:
            # Opened here, since NumPy does not close what it cannot read.
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                known = read({name: archive[name] for name in archive.files})
            _mark_as_used(path)
        except FileNotFoundError:
            pass
        except _DAMAGED:
            # Not by us, whose files are whole.
            _remove(path)
        except OSError:
            # No permission or a failing disk: it may be as good as ever.
            return solve()
        else:
            return known
        found = solve()
        arrays = pack(found)

        def fill(stream: BinaryIO) -> None:
            # The arrays by name, which NumPy's annotations cannot say beside its own options.
            np.savez(stream, **arrays)  # type: ignore[arg-type]

        try:
            write_atomically(path, fill)
        except OSError:
            if not self._optional:
                raise
        return found


def user_cache() -> Solver:
    """The cache in $XDG_CACHE_HOME/pmt/eigen, or in ~/.cache/pmt/eigen, of at most 10 GB.

    Nothing is kept where there is no such folder and none can be made.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path is to be ignored, as the specification of that variable says.
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        # A user without a home.
        return Solver()
    return EigenCache(base / "pmt" / "eigen", limit=_MOST_BYTES, optional=True)


def _trim(folder: Path, limit: int) -> None:
    files = []
    for path in folder.glob("*.npz"):
        try:
            found = path.stat()
        except OSError:
            continue
        files.append((found.st_mtime, found.st_size, path))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= limit:
            break
        _remove(path)
        held -= size


def _mark_as_used(path: Path) -> None:
    # Another process may have removed it, or it may be another user's.
    with suppress(OSError):
        os.utime(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@cache
def _solvers() -> tuple[str, ...]:
    return (f"numpy {np.__version__}", f"scipy {scipy.__version__}")


def _of_width(basis: np.ndarray) -> np.ndarray:
    if basis.ndim != 2 or basis.shape[1] not in (1, 2):
        message = f"a basis of shape {basis.shape}"
        raise ValueError(message)
    return basis


def _pack(found: Principal) -> dict[str, np.ndarray]:
    """Arrays of plain numbers; of a conjugate pair the real and the imaginary part of one."""
    packed = found.pairs.vectors.real.copy()
    first = np.flatnonzero(found.values.imag > 0)
    packed[:, first + 1] = found.pairs.vectors.imag[:, first]

    def optional(number: Any) -> np.ndarray:
        return np.array([] if number is None else [number])

    return {
        "values": found.values,
        "residuals": found.residuals,
        "conditions": found.conditions,
        "packed": packed,
        "basis": found.basis,
        "plane": np.zeros((0, 0)) if found.plane is None else found.plane,
        "order": np.array(found.order),
        "alpha": np.array(found.alpha),
        "case": np.array(found.case),
        "gap": optional(found.gap),
        "second": optional(found.second),
        "collinearity": optional(found.collinearity),
    }


def _unpack(found: Mapping[str, np.ndarray]) -> Principal:
    values, packed = found["values"], found["packed"]
    vectors = packed.astype(complex)
    first = np.flatnonzero(values.imag > 0)
    vectors[:, first + 1] = 0
    vectors[:, first] = packed[:, first]
    vectors.imag[:, first] = packed[:, first + 1]
    vectors[:, first + 1] = np.conj(vectors[:, first])

    def optional(name: str) -> float | None:
        return float(found[name][0]) if len(found[name]) else None

    second = optional("second")
    pairs = Eigenpairs(values, vectors, found["residuals"], found["conditions"])
    return Principal(
        values=values,
        residuals=pairs.residuals,
        conditions=pairs.conditions,
        order=str(found["order"]),
        alpha=float(found["alpha"]),
        case=cast(Literal[1, 2, 3], int(found["case"])),
        gap=optional("gap"),
        basis=_of_width(found["basis"]),
        second=None if second is None else int(second),
        plane=found["plane"] if found["plane"].size else None,
        collinearity=optional("collinearity"),
        pairs=pairs,
    )

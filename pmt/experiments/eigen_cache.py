"""Eigenproblems of layer matrices, kept on disk by content, so that none is solved twice.

The name of a file is the SHA-256 of all that its numbers depend on: the matrix (bytes, dtype,
shape), the order and step size, and the versions of the solvers. So a changed weight, an updated
SciPy or another order finds nothing and solves anew; two models with a layer in common share it.
Texts of any kind, such as what null models showed, are kept beside them in the same way.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import scipy

from pmt.experiments.eigen_arrays import (
    of_width,
    pack_leading,
    pack_principal,
    unpack_leading,
    unpack_principal,
)
from pmt.files import remove_leftovers, write_atomically
from pmt.linalg import leading_basis
from pmt.spectral import (
    LayerOperator,
    Leading,
    Principal,
    eigen,
    layer_operators,
    principal,
    solve_leading,
)
from pmt.spectral.squaring import basis_by_squaring

# Raised whenever what a method returns for the same matrix changes.
_VERSION = "pmt.eigen/6"

_MOST_BYTES = 10**10

# What NumPy raises on an archive that something else has damaged.
_DAMAGED = (ValueError, KeyError, EOFError, BadZipFile)


class Solver:
    """Solves every problem that it is given, and keeps nothing.

    Args:
      accelerator: a `jax.Device` that solves those for all eigenpairs, if its answers pass the
        host's check: see `pmt.spectral.accelerator`. None for LAPACK.

    Attributes:
      solved: how many problems it has solved.
      accelerator: as given.
      keeps: whether answers are kept.
    """

    keeps = False

    def __init__(self, *, accelerator: Any = None) -> None:
        self.solved, self.accelerator = 0, accelerator

    def principal(self, matrix: np.ndarray, order: str, alpha: float) -> Principal:
        """All eigenpairs of a matrix ``(d, d)``, as `pmt.spectral.principal` gives them."""
        self.solved += 1
        found: Principal = principal(matrix, order, alpha, accelerator=self.accelerator)
        return found

    def leading(self, operator: LayerOperator, count: int, order: str, alpha: float) -> Leading:
        """The leading eigenpairs only, as `pmt.spectral.solve_leading` gives them."""
        self.solved += 1
        return solve_leading(operator, count, order, alpha)

    def basis(
        self, matrix: np.ndarray, order: str, alpha: float, *, krylov: bool = False
    ) -> np.ndarray:
        """The orthonormal basis ``(d, 1)`` or ``(d, 2)`` of its principal direction only.

        Of the same line or plane as in ``principal``, in a quarter of the time where it can be
        found by `pmt.spectral.squaring`, in half of it elsewhere; or, with ``krylov``, on the host
        and for a large d as in ``leading``.
        """
        self.solved += 1
        if krylov and len(matrix) > eigen.DENSE:
            (operator,) = layer_operators(matrix)
            return solve_leading(operator, 1, order, alpha).basis
        if self.accelerator is not None and not krylov:
            return principal(matrix, order, alpha, accelerator=self.accelerator).basis
        found = basis_by_squaring(matrix, order, alpha)
        if found is None:
            found = leading_basis(matrix, order, alpha)
        return principal(matrix, order, alpha).basis if found is None else found

    def name(self, arrays: tuple[np.ndarray, ...], *asked: str) -> str:
        """What names a text to be kept, from all that it depends on."""
        del arrays, asked
        return ""

    def recall(self, name: str) -> str | None:
        """The text that was kept under that name; None where there is none."""
        del name
        return None

    def keep(self, name: str, text: str) -> None:
        """Keep a text under a name that ``name`` gave."""

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
      accelerator: as of the class above; its answers are kept apart from those of the host.

    Raises:
      OSError: a folder that cannot be made, unless ``optional``.
    """

    keeps = True

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        limit: int | None = None,
        optional: bool = False,
        accelerator: Any = None,
    ) -> None:
        super().__init__(accelerator=accelerator)
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
        path = self._path((matrix,), "principal", order, repr(alpha), *self._where())
        solve = super().principal
        return self._known(
            path,
            unpack_principal,
            lambda: solve(matrix, order, alpha),
            # What the accelerator could not do now it may do another time.
            lambda found: None if found.fallback is not None else pack_principal(found),
        )

    def leading(self, operator: LayerOperator, count: int, order: str, alpha: float) -> Leading:
        """As of the class above."""
        asked = ("leading", str(count), str(operator.exponent), order, repr(alpha))
        path = self._path(operator.factors, *asked)
        solve = super().leading
        return self._known(
            path,
            unpack_leading,
            lambda: solve(operator, count, order, alpha),
            pack_leading,
        )

    def basis(
        self, matrix: np.ndarray, order: str, alpha: float, *, krylov: bool = False
    ) -> np.ndarray:
        """As of the class above; the other eigenvectors are not kept."""
        where = ("krylov",) if krylov else self._where()
        path = self._path((matrix,), "basis", order, repr(alpha), *where)
        solve = super().basis
        return self._known(
            path,
            lambda found: of_width(found["basis"]),
            lambda: solve(matrix, order, alpha, krylov=krylov),
            lambda basis: {"basis": basis},
        )

    def left_singular(self, matrix: np.ndarray) -> np.ndarray:
        """As of the class above."""
        path = self._path((matrix,), "left singular")
        solve = super().left_singular
        return self._known(
            path,
            lambda found: of_width(found["basis"]),
            lambda: solve(matrix),
            lambda basis: {"basis": basis},
        )

    def name(self, arrays: tuple[np.ndarray, ...], *asked: str) -> str:
        """As of the class above; with the versions of the solvers, and where they run."""
        return str(self._path(arrays, *asked, *self._where()))

    def recall(self, name: str) -> str | None:
        """As of the class above."""
        found: str | None = self._read(Path(name), _text)[0]
        return found

    def keep(self, name: str, text: str) -> None:
        """As of the class above; a file that the system does not let us read is left."""
        if self._read(Path(name), _text)[1]:
            self._write(Path(name), {"text": np.array(text)})

    def _where(self) -> tuple[str, ...]:
        """What names the solver in a file's name; nothing for LAPACK."""
        device = self.accelerator
        if device is None:
            return ()
        import jax

        return (str(device.platform), str(device.device_kind), f"jax {jax.__version__}")

    def _path(self, matrices: tuple[np.ndarray, ...], *asked: str) -> Path:
        digest = hashlib.sha256()
        sizes = [str(what) for matrix in matrices for what in (matrix.dtype, matrix.shape)]
        for part in (_VERSION, *_solvers(), *asked, *sizes):
            digest.update(part.encode() + b"\0")
        for matrix in matrices:
            digest.update(np.ascontiguousarray(matrix).tobytes())
        return self._folder / f"{digest.hexdigest()}.npz"

    def _known(
        self,
        path: Path,
        read: Callable[[Mapping[str, np.ndarray]], Any],
        solve: Callable[[], Any],
        pack: Callable[[Any], dict[str, np.ndarray] | None],
    ) -> Any:
        known, readable = self._read(path, read)
        if known is not None:
            return known
        found = solve()
        arrays = pack(found)
        if arrays is not None and readable:
            self._write(path, arrays)
        return found

    def _read(
        self, path: Path, read: Callable[[Mapping[str, np.ndarray]], Any]
    ) -> tuple[Any, bool]:
        """What a file holds, or None; and whether it may be replaced."""
        try:
            # Opened here, since NumPy does not close what it cannot read.
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                known = read({name: archive[name] for name in archive.files})
            _mark_as_used(path)
        except FileNotFoundError:
            return None, True
        except _DAMAGED:
            # Not by us, whose files are whole.
            _remove(path)
            return None, True
        except OSError:
            # No permission or a failing disk: it may be as good as ever.
            return None, False
        return known, True

    def _write(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        def fill(stream: BinaryIO) -> None:
            # The arrays by name, which NumPy's annotations cannot say beside its own options.
            np.savez(stream, **arrays)  # type: ignore[arg-type]

        try:
            write_atomically(path, fill)
        except OSError:
            if not self._optional:
                raise


def user_cache(*, accelerator: Any = None) -> Solver:
    """The cache in $XDG_CACHE_HOME/pmt/eigen, or in ~/.cache/pmt/eigen, of at most 10 GB.

    Nothing is kept where there is no such folder and none can be made.

    Args:
      accelerator: as for `Solver`.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path is to be ignored, as the specification of that variable says.
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        # A user without a home.
        return Solver(accelerator=accelerator)
    folder = base / "pmt" / "eigen"
    return EigenCache(folder, limit=_MOST_BYTES, optional=True, accelerator=accelerator)


def _text(kept: Mapping[str, np.ndarray]) -> str:
    return str(kept["text"])


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

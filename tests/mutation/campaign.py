"""Applies the changes of ``table``, one at a time, to a copy of the packages, and sees who notices.

The tree itself is never written. A change counts as caught only if what should notice passes on
the unchanged copy.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]
INSTANCES = 60
_COPIED = ("pmt", "theory", "tests", "pyproject.toml")
_SECONDS = 1800


@dataclass(frozen=True)
class Answer:
    """What one change, or none, led to.

    Attributes:
      name: of the change; what was checked where nothing was changed.
      failed: the check failed, by itself and not for want of it.
      detail: the line that says so, or why nothing can be said.
      seconds: wall time.
    """

    name: str
    failed: bool
    detail: str
    seconds: float


@contextmanager
def copy_of(tree: Path) -> Iterator[Path]:
    """A folder with the packages and the tests in it, and what Python compiled of them."""
    with tempfile.TemporaryDirectory(prefix="pmt-mutation-") as folder:
        root = Path(folder)
        for name in _COPIED:
            if (tree / name).is_dir():
                shutil.copytree(tree / name, root / name)
            else:
                shutil.copy2(tree / name, root / name)
        yield root


def statements(root: Path, ids: Sequence[str], compiled: Path) -> tuple[int, list[str]]:
    """``pmt verify`` of these statements in a copy: exit status, and what it says.

    ``compiled`` is a folder for compiled functions: what a change does not touch is not compiled
    again.
    """
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return _run(root, ["-m", "pmt", "verify", *ids, "--instances", str(INSTANCES)], cache)


def tests(root: Path, nodes: Sequence[str]) -> tuple[int, list[str]]:
    """pytest of these nodes in a copy: exit status, and what it says."""
    options = ["-q", "-n0", "-p", "no:cacheprovider", "--tb=no", "-m", "long or not long"]
    return _run(root, ["-m", "pytest", *options, *nodes], {})


def _run(root: Path, command: list[str], more: dict[str, str]) -> tuple[int, list[str]]:
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "COLUMNS": "200", **more}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines() or ["no output"]


def unchanged(root: Path, ids: Sequence[str], nodes: Sequence[str], compiled: Path) -> list[Answer]:
    """The checks where nothing was changed: they must pass."""
    found = []
    runs: list[tuple[str, Sequence[str], Callable[[], tuple[int, list[str]]]]] = [
        ("statements", ids, lambda: statements(root, ids, compiled)),
        ("tests", nodes, lambda: tests(root, nodes)),
    ]
    for name, asked, run in runs:
        if asked:
            started = time.perf_counter()
            status, lines = run()
            found.append(Answer(name, status != 0, lines[-1], time.perf_counter() - started))
    return found


def changed(mutation: Mutation, tree: Path, compiled: Path) -> Answer:
    """The check in a copy with the change: it must fail, and as an answer, not as a breakdown.

    For a statement that is a refuted corrected form (the exit status alone is 1 for a negative twin
    that no longer fails, too), for a test that it failed and not that it was not found.
    """
    started = time.perf_counter()
    with copy_of(tree) as root:
        file = root / mutation.file
        file.write_text(mutation.apply(file.read_text()))
        for stale in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            stale.unlink()
        if mutation.by_test:
            status, lines = tests(root, [mutation.caught_by])
            sign = " failed"
        else:
            status, lines = statements(root, [mutation.caught_by], compiled)
            sign = f"{mutation.caught_by} corrected: refuted"
    telling = [line for line in lines if sign in line]
    words = (telling or lines)[-1].strip()
    failed = status == 1 and bool(telling)
    return Answer(mutation.name, failed, words, time.perf_counter() - started)


def campaign(
    mutations: Iterable[Mutation],
    *,
    workers: int = 1,
    done: Callable[[Answer], None] = lambda _: None,
) -> tuple[list[Answer], list[Answer]]:
    """All changes, and before them their checks on the unchanged tree.

    Returns:
      What the checks say of the unchanged tree, and what became of each change.
    """
    mutations = list(mutations)
    ids = sorted({m.caught_by for m in mutations if not m.by_test})
    nodes = sorted({m.caught_by for m in mutations if m.by_test})
    with copy_of(ROOT) as tree, tempfile.TemporaryDirectory(prefix="pmt-compiled-") as compiled:
        plain = unchanged(tree, ids, nodes, Path(compiled))
        for answer in plain:
            done(answer)

        def one(mutation: Mutation) -> Answer:
            answer = changed(mutation, tree, Path(compiled))
            done(answer)
            return answer

        with ThreadPoolExecutor(workers) as pool:
            return plain, list(pool.map(one, mutations))

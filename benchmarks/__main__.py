"""``python -m benchmarks``: every benchmark, or those named with ``--only``.

Each module with a function ``rows(quick)`` is a benchmark; none is listed by hand. Its first line
says what it measures, and ``DEVICES``, where it has one, on which devices it can run: on the CPU
alone if not. A row holds the time of ours with compilation apart, that of the peer on the same
machine in the same run, how far the answers are apart, and the limit that nothing can do without.

Results go into the file given with ``--json``, which keeps the latest run of each benchmark, and
``--draw`` makes a table and plots of such a file. Times mean little on a machine with other work.
"""

import argparse
import importlib
import os
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

import jax

import benchmarks
from benchmarks._results import merge, read, write
from benchmarks._table import line, markdown
from benchmarks.measure import environment
from pmt.errors import RequestError

# The host computes eigenpairs, so it stays in reach.
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu"}


def discovered() -> dict[str, Any]:
    """Benchmarks by name."""
    modules = {
        info.name: importlib.import_module(f"benchmarks.{info.name}")
        for info in pkgutil.iter_modules(benchmarks.__path__)
        if not info.name.startswith("_")
    }
    return {name: module for name, module in modules.items() if hasattr(module, "rows")}


def devices_of(module: Any) -> tuple[str, ...]:
    """Where a benchmark can run."""
    return getattr(module, "DEVICES", ("cpu",))


def _parser(known: dict[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    only = {"choices": sorted(known), "action": "extend", "metavar": "NAME"}
    parser.add_argument("--only", nargs="+", help=f"some of: {', '.join(sorted(known))}", **only)
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--device", choices=sorted(_PLATFORMS), default="cpu", help="where to run")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="put the results into this file, and keep others"
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FILE", help="make a table and plots of such a file"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where they go; the file's own folder if not given"
    )
    return parser


def main(given: list[str] | None = None) -> int:
    """Runs and reports: 0, or 1 if a benchmark failed."""
    known = discovered()
    parser = _parser(known)
    arguments = parser.parse_args(given)
    if arguments.list:
        for name, module in known.items():
            said = (module.__doc__ or "").splitlines()[0]
            print(f"{name:12} {said} [{', '.join(devices_of(module))}]")
        return 0
    try:
        if arguments.draw:
            return _draw(arguments.draw, arguments.out or arguments.draw.parent)
        if arguments.json:
            # Found out now and not after the work.
            entries = read(arguments.json)
            write(arguments.json, entries)
    except RequestError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot write {arguments.json}: {error.strerror}; name another file")
    jax.config.update("jax_enable_x64", True)
    # For the processes that benchmarks start, too.
    os.environ["JAX_PLATFORMS"] = _PLATFORMS[arguments.device]
    jax.config.update("jax_platforms", _PLATFORMS[arguments.device])
    failed = []
    for name in dict.fromkeys(arguments.only or sorted(known)):
        if arguments.device not in devices_of(known[name]):
            print(f"{name}: not on {arguments.device}", flush=True)
            continue
        entry: dict[str, Any] = {"environment": environment(), "quick": arguments.quick}
        began = time.perf_counter()
        try:
            entry["rows"] = []
            for row in known[name].rows(arguments.quick):
                entry["rows"].append(row)
                print(f"{name}: {line(row)}", flush=True)
        except Exception as error:  # The others are still worth their time.
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        entry["seconds"] = time.perf_counter() - began
        if arguments.json:
            merge(arguments.json, name, entry)
    if failed:
        print(f"failed, and not written: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _draw(source: Path, folder: Path) -> int:
    from benchmarks._draw import draw
    from pmt.files import write_atomically

    if not source.exists():
        message = f"there is no file {source}; make it with python -m benchmarks --json {source}"
        raise RequestError(message)
    entries = read(source)
    folder.mkdir(parents=True, exist_ok=True)
    table = write_atomically(folder / f"{source.stem}.md", markdown(entries))
    for path in [table, *draw(entries, folder, source.stem)]:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

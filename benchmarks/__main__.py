"""``python -m benchmarks``: every benchmark, or those named with ``--only``.

Each module with a function ``rows(quick)`` is a benchmark; none is listed by hand.
"""

import argparse
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import jax

import benchmarks
from benchmarks.measure import environment


def discovered() -> dict[str, Any]:
    """Benchmarks by name."""
    modules = {
        info.name: importlib.import_module(f"benchmarks.{info.name}")
        for info in pkgutil.iter_modules(benchmarks.__path__)
        if not info.name.startswith("_")
    }
    return {name: module for name, module in modules.items() if hasattr(module, "rows")}


def _line(row: dict[str, Any]) -> str:
    size = ", ".join(f"{k} = {v}" for k, v in row["size"].items())
    parts = [f"{row['name']} ({size}): {row['ours']['median']:.3g} s", row["peer"]]
    if row["peer_time"] is not None:
        parts[-1] += f": {row['peer_time']['median']:.3g} s"
        parts.append(f"ratio {row['ratio']:.3g}")
    if row["largest_difference"] is not None:
        parts.append(f"largest difference {row['largest_difference']:.1e}")
    for side, most in row.get("memory", {}).get("peak", {}).items():
        if most is not None:
            parts.append(f"peak memory of {side} {most / 1e6:.0f} MB")
    return ", ".join(parts)


def main() -> None:
    """Runs and reports."""
    jax.config.update("jax_enable_x64", True)
    known = discovered()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=sorted(known), action="append", help="run only this one")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--json", type=Path, help="write the rows and the environment here")
    arguments = parser.parse_args()
    result = {"environment": environment(), "rows": []}
    for name in arguments.only or sorted(known):
        for row in known[name].rows(arguments.quick):
            result["rows"].append({"benchmark": name, **row})
            print(_line(row), flush=True)
    if arguments.json:
        from pmt.files import write_json

        write_json(arguments.json, result)
    else:
        print(json.dumps(result["environment"]))


if __name__ == "__main__":
    main()

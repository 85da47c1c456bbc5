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
            size = ", ".join(f"{k} = {v}" for k, v in row["size"].items())
            print(
                f"{row['name']} ({size}): {row['ours']['median']:.3g} s, "
                f"{row['peer']}: {row['peer_time']['median']:.3g} s, ratio {row['ratio']:.0f}, "
                f"largest difference {row['largest_difference']:.1e}",
                flush=True,
            )
    if arguments.json:
        from pmt.files import write_json

        write_json(arguments.json, result)
    else:
        print(json.dumps(result["environment"]))


if __name__ == "__main__":
    main()

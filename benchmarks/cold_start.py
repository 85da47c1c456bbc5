"""From a cold start to the first result: ``pmt verify`` and ``pmt analyze`` in fresh processes.

Each command runs without JAX's persistent compilation cache, with an empty one, and with one that
an earlier run has filled. Times are those of whole processes, taken apart into imports, traces
(with lowering), compilation and the rest, which holds the interpreter's start and the work. The
limit is a process that imports JAX, asks for its devices and ends. ``check`` compares the three
answers.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import limit

_CHILD = Path(__file__).with_name("_cold_start.py")
COMMANDS = (
    ("verify", "lemma-1", "--instances", "100"),
    ("analyze", "minilm"),
)
# Everything is kept, however little it took to compile.
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
WAYS = ("without a cache", "cache empty", "cache filled")
# Keys of a result that say when or how long, and not what.
_TIMES = frozenset({"seconds", "elapsed", "started", "finished", "date"})

Run = dict[str, Any]


def rows(quick: bool) -> list[dict[str, Any]]:
    """Three rows a command; ``quick``: one run of each instead of three."""
    turns = 1 if quick else 3
    found = []
    for command in COMMANDS[:1] if quick else COMMANDS:
        runs: dict[str, list[Run]] = {way: [] for way in WAYS}
        bare = []
        for _ in range(turns):
            bare.append(_bare())
            with tempfile.TemporaryDirectory() as folder:
                for way in WAYS:
                    cached = way != WAYS[0]
                    runs[way].append(_run(command, Path(folder), cached=cached))
        answers = [run["answer"] for each in runs.values() for run in each]
        same = all(answer == answers[0] for answer in answers)
        least = statistics.median(bare)
        found += [_row(command, way, runs[way], least, same) for way in WAYS]
    return found


def _row(
    command: tuple[str, ...], way: str, runs: list[Run], least: float, same: bool
) -> dict[str, Any]:
    times = [run["seconds"] for run in runs]
    middle = statistics.median(times)
    typical = min(runs, key=lambda run: abs(run["seconds"] - middle))
    counts = ", ".join(f"{count} {name}" for name, count in typical["counts"].items())
    compiling = typical["parts"]["compile"]
    return {
        "name": f"pmt {' '.join(command)}, {way}",
        "size": {},
        "ours": {
            "compile": compiling,
            "median": middle,
            "best": min(times),
            "calls": len(times),
        },
        "limit": limit("python that imports jax", least, middle),
        "parts": typical["parts"],
        "counts": typical["counts"],
        "check": f"{'the same answer in all ways' if same else 'ANSWERS DIFFER'}; {counts}",
    }


def _bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], check=True)
    return time.perf_counter() - began


def _run(command: tuple[str, ...], folder: Path, *, cached: bool) -> Run:
    environment = {**os.environ, "PYTHONPATH": str(_CHILD.parents[1]), "JAX_PLATFORMS": "cpu"}
    environment["HF_HUB_OFFLINE"] = "1"
    # Eigenproblems that an earlier run has solved would not be cold.
    environment["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=folder)
    if cached:
        environment |= CACHE | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    else:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    target, answer = folder / "times.json", folder / "answer.json"
    subprocess.run(
        [sys.executable, _CHILD, target, repr(time.time()), *command, "--json", answer],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    run: Run = json.loads(target.read_text(encoding="utf-8"))
    return run | {"answer": _timeless(json.loads(answer.read_text(encoding="utf-8")))}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value

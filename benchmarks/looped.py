"""A training step of the looped transformer at the paper's size: ours, plain JAX, and PyTorch.

d = 16, n = 32, L = 10, batch 128, full matrices, float32. Each side has processes of its own, and
the sides take turns. The peer's interpreter, with torch, is PMT_BENCH_PEER_PYTHON, or this one
where it has torch; without it the row says so. The limit counts the products of the loops with
matrices of tokens and weights, twice again as many for the derivative, at the matrix-product rate.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measure import PEER_VARIABLE, limit, machine_rates, peer_python
from pmt import looped

SIZE = {"d": 16, "n": 32, "loops": 10, "batch": 128}
STEPS = 20

_CHILD = Path(__file__).with_name("_loop_step.py")


def rows(quick: bool) -> list[dict[str, Any]]:
    """One row against PyTorch and one against plain JAX; seconds are those of one step."""
    peer = peer_python("torch")
    ways = ["ours", "plain", *(["torch"] if peer else [])]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "given.npz"
        np.savez(source, **_given())
        for _ in range(1 if quick else 3):
            for way in ways:
                runs[way].append(_run(way, source, peer))
    differences = {
        way: max(
            float(np.abs(mine - theirs).max())
            for mine, theirs in zip(runs["ours"][-1]["weights"], done[-1]["weights"], strict=True)
        )
        for way, done in runs.items()
    }
    names = {"torch": "PyTorch, autograd", "plain": "JAX, scan and vmap, autodiff (compiled)"}
    found = [
        _row(names[way], runs["ours"], runs.get(way), differences.get(way))
        for way in ("torch", "plain")
    ]
    least = _operations() / machine_rates(np.dtype("float32"))["matrix"]
    for row in found:
        row["limit"] = limit("the matrix-product rate", least, row["ours"]["median"])
    # Above 0 the machine had other work, and processor seconds are the better figure.
    return [row | {"load_average_before": busy} for row in found]


def _operations() -> float:
    """Of one step: per loop E'E, its products with W and V, and those of all tokens."""
    tokens, width = SIZE["n"] + 1, 2 * SIZE["d"]
    loop = 2 * (2 * tokens * width**2) + 2 * (2 * width**3)
    return 3.0 * loop * SIZE["loops"] * SIZE["batch"]


def _given() -> dict[str, Any]:
    samples = jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3, 4))(
        jax.random.key(0), SIZE["batch"], SIZE["n"], SIZE["d"], np.dtype("float32")
    )
    weights = looped.initial_weights(SIZE["d"], v=1.0, w=1.0, dtype=np.dtype("float32"))
    arrays = {name: np.asarray(part) for name, part in samples._asdict().items()}
    arrays |= {"value": np.asarray(weights.value), "key": np.asarray(weights.key)}
    return arrays | {"loops": SIZE["loops"], "rate": 0.1, "steps": STEPS}


def _run(way: str, source: Path, peer: str | None) -> dict[str, Any]:
    target = source.with_name(f"{way}.npz")
    done = subprocess.run(
        [peer if way == "torch" and peer else sys.executable, _CHILD, way, source, target, "6"],
        env={**os.environ, "PYTHONPATH": str(_CHILD.parents[1]), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    with np.load(target) as stored:
        weights = [stored["value"], stored["key"]]
    return json.loads(done.stdout) | {"weights": weights}


def _row(
    name: str,
    ours: list[dict[str, Any]],
    peer: list[dict[str, Any]] | None,
    difference: float | None,
) -> dict[str, Any]:
    mine, theirs = _timing(ours), None if peer is None else _timing(peer)
    return {
        "name": "training step of the looped transformer",
        "peer": name if peer else f"no torch here (see {PEER_VARIABLE})",
        "size": SIZE,
        "ours": mine,
        "peer_time": theirs,
        "ratio": None if theirs is None else theirs["median"] / mine["median"],
        "largest_difference": difference,
        "difference_of": f"entries of V and W after {STEPS} steps",
        "processor_seconds": {
            "ours": _processor(ours),
            "peer": None if peer is None else _processor(peer),
        },
    }


def _timing(runs: list[dict[str, Any]]) -> dict[str, Any]:
    steps = [seconds / STEPS for run in runs for seconds in run["seconds"]]
    return {
        "compile": statistics.median(run["compile"] for run in runs),
        "median": statistics.median(steps),
        "best": min(steps),
        "calls": len(steps),
    }


def _processor(runs: list[dict[str, Any]]) -> float:
    return statistics.median(seconds / STEPS for run in runs for seconds in run["processor"])

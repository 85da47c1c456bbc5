"""A training step of the looped transformer at the paper's size: ours, plain JAX, and PyTorch.

d = 16, n = 32, L = 10, batch 128, full matrices, float32. From a structured start, the paper's, no
step moves more than two blocks of V and W, which our training uses (``pmt.looped.apply_blocks``);
it stands beside PyTorch's step of the full model, which gives the same V and W, and beside PyTorch
with the same insight. From any other start all entries move: ours, plain JAX and PyTorch. Each side
has processes of its own, and the sides take turns. The peer's interpreter, with torch, is
PMT_BENCH_PEER_PYTHON, or this one where it has torch; without it the rows say so. The limit counts
products with matrices alone, twice again as many for the derivative, at the matrix-product rate.
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


_PAIRS = (
    ("training step from a structured start", "blocks", "torch", "PyTorch, autograd, full model"),
    (
        "training step from a structured start",
        "blocks",
        "torch-blocks",
        "PyTorch, autograd, the same two blocks",
    ),
    ("training step from any start", "full", "torch", "PyTorch, autograd"),
    ("training step from any start", "full", "plain", "JAX, scan and vmap, autodiff (compiled)"),
)


def rows(quick: bool) -> list[dict[str, Any]]:
    """A row for each of ours and its peer; seconds are those of one step."""
    peer = peer_python("torch")
    ways = ["blocks", "full", "plain", *(["torch", "torch-blocks"] if peer else [])]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "given.npz"
        np.savez(source, **_given())
        for _ in range(1 if quick else 3):
            for way in ways:
                runs[way].append(_run(way, source, peer))
    rate = machine_rates(np.dtype("float32"))["matrix"]
    found = []
    for name, mine, theirs, called in _PAIRS:
        row = _row(name, called, runs[mine], runs.get(theirs))
        least = (_operations() if mine == "full" else _block_operations()) / rate
        row["limit"] = limit("the matrix-product rate", least, row["ours"]["median"])
        # Above 0 the machine had other work, and processor seconds are the better figure.
        found.append(row | {"load_average_before": busy})
    return found


def _operations() -> float:
    """Of one step: per loop E'E, its products with W and V, and those of all tokens."""
    tokens, width = SIZE["n"] + 1, 2 * SIZE["d"]
    loop = 2 * (2 * tokens * width**2) + 2 * (2 * width**3)
    return 3.0 * loop * SIZE["loops"] * SIZE["batch"]


def _block_operations() -> float:
    """Of one step: per loop B a, X'(B a), X(X'B a) and its product with A."""
    loop = 4 * SIZE["d"] ** 2 + 4 * SIZE["n"] * SIZE["d"]
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
    python = peer if way.startswith("torch") and peer else sys.executable
    done = subprocess.run(
        [python, _CHILD, way, source, target, "6"],
        env={**os.environ, "PYTHONPATH": str(_CHILD.parents[1]), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    with np.load(target) as stored:
        weights = [stored["value"], stored["key"]]
    return json.loads(done.stdout) | {"weights": weights}


def _row(
    name: str, called: str, ours: list[dict[str, Any]], peer: list[dict[str, Any]] | None
) -> dict[str, Any]:
    mine, theirs = _timing(ours), None if peer is None else _timing(peer)
    return {
        "name": f"{name} of the looped transformer",
        "peer": called if peer else f"no torch here (see {PEER_VARIABLE})",
        "size": SIZE,
        "ours": mine,
        "peer_time": theirs,
        "ratio": None if theirs is None else theirs["median"] / mine["median"],
        "largest_difference": None if peer is None else _difference(ours[-1], peer[-1]),
        "difference_of": f"entries of V and W after {STEPS} steps",
        "processor_seconds": {
            "ours": _processor(ours),
            "peer": None if peer is None else _processor(peer),
        },
    }


def _difference(ours: dict[str, Any], peer: dict[str, Any]) -> float:
    return max(
        float(np.abs(mine - theirs).max())
        for mine, theirs in zip(ours["weights"], peer["weights"], strict=True)
    )


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

"""Loading a checkpoint of the size of GPT-2 small: seconds and peak memory, beside transformers.

Each load has a fresh process, and the sides take turns. The weights are random and written once,
so that the file is in the page cache for both. The peer's interpreter, with torch and transformers,
is PMT_BENCH_PEER_PYTHON, or this one where it has both; without a peer the row says so.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.measure import PEER_VARIABLE, limit, peer_python, timed

SIZE = {"layers": 12, "d": 768, "heads": 12, "vocabulary": 50257, "positions": 1024}

_CHILD = Path(__file__).with_name("_load.py")
_PEER = "transformers.AutoModelForCausalLM.from_pretrained"


def write_gpt2(
    folder: Path,
    *,
    layers: int,
    d: int,
    heads: int,
    vocabulary: int,
    positions: int,
    seed: int = 0,
) -> None:
    """A GPT-2 with random float32 weights, in one file."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    sizes = {"n_layer": layers, "n_embd": d, "n_head": heads}
    sizes |= {"vocab_size": vocabulary, "n_positions": positions}
    (folder / "config.json").write_text(json.dumps(config | sizes), encoding="utf-8")
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(0.02)

    tensors = {"wte.weight": draw(vocabulary, d), "wpe.weight": draw(positions, d)}
    for name in ("ln_f", *(f"h.{i}.ln_{k}" for i in range(layers) for k in (1, 2))):
        tensors |= {f"{name}.weight": 1 + draw(d), f"{name}.bias": draw(d)}
    maps = {
        "attn.c_attn": (d, 3 * d),
        "attn.c_proj": (d, d),
        "mlp.c_fc": (d, 4 * d),
        "mlp.c_proj": (4 * d, d),
    }
    for i in range(layers):
        for name, shape in maps.items():
            tensors[f"h.{i}.{name}.weight"] = draw(*shape)
            tensors[f"h.{i}.{name}.bias"] = draw(shape[1])
    named = {f"transformer.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})


def rows(quick: bool) -> list[dict[str, Any]]:
    """One row for the whole model and one for its layers one at a time, against the same peer."""
    peer = peer_python("torch", "transformers")
    ways = ["model", "layers", *(["transformers"] if peer else [])]
    with tempfile.TemporaryDirectory() as folder:
        write_gpt2(Path(folder), **SIZE)
        busy = os.getloadavg()[0]
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(2 if quick else 7):
            for way in ways:
                runs[way].append(_run(way, folder, peer))
        checks = {way: _check(way, folder, peer) for way in ways}
        file = Path(folder) / "model.safetensors"
        bytes_ = np.empty(file.stat().st_size, np.uint8)
        reading = min(timed(lambda: _read(file, bytes_))[0] for _ in range(5))
    difference = None
    if peer:
        reference = checks["transformers"]
        difference = float(np.abs(checks["model"] - reference).max() / np.abs(reference).max())
    found = [
        _row(
            "load a checkpoint, the whole model",
            runs["model"],
            runs.get("transformers"),
            difference,
            "logits of a text of 12 tokens, over the largest one",
        ),
        _row(
            "load a checkpoint, its attention one layer at a time",
            runs["layers"],
            runs.get("transformers"),
            float(checks["layers"]),
            "attention tensors, from the stored ones",
        ),
    ]
    # Above 0 the machine had other work, and processor seconds are the better figure.
    attention = 4 * SIZE["d"] * (SIZE["d"] + 1) * SIZE["layers"] * 4 / bytes_.size
    for row, part in zip(found, (1.0, attention), strict=True):
        what = "reading the bytes from the page cache"
        row["limit"] = limit(what, part * reading, row["ours"]["median"])
    return [row | {"load_average_before": busy} for row in found]


def _read(file: Path, into: np.ndarray) -> None:
    with open(file, "rb", buffering=0) as stream:
        left = memoryview(into)
        while left and (got := stream.readinto(left)):
            left = left[got:]


def _row(
    name: str,
    ours: list[dict[str, Any]],
    peer: list[dict[str, Any]] | None,
    difference: float | None,
    differing: str,
) -> dict[str, Any]:
    """Times are until every number was read; see ``benchmarks/_load.py`` for what else there is."""
    mine, theirs = _timing(ours), None if peer is None else _timing(peer)
    return {
        "name": name,
        "peer": _PEER if peer else f"no torch and transformers here (see {PEER_VARIABLE})",
        "size": SIZE,
        "ours": mine,
        "peer_time": theirs,
        "ratio": None if theirs is None else theirs["median"] / mine["median"],
        "largest_difference": difference,
        "difference_of": differing,
        "until_the_call_returns": _both(ours, peer, "load"),
        "processor_seconds": _both(ours, peer, "processor"),
        "memory": {"peak": _both(ours, peer, "peak"), "private": _both(ours, peer, "private")},
        "peer_versions": peer[0]["versions"] if peer else None,
    }


def _timing(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [run["ready"] for run in runs]
    return {
        "compile": 0.0,
        "median": statistics.median(seconds),
        "best": min(seconds),
        "calls": len(seconds),
    }


def _both(
    ours: list[dict[str, Any]], peer: list[dict[str, Any]] | None, what: str
) -> dict[str, float | None]:
    """Medians of both sides, None where there is nothing."""

    def median(runs: list[dict[str, Any]] | None) -> float | None:
        found = [run[what] for run in runs or () if run[what] is not None]
        return statistics.median(found) if found else None

    return {"ours": median(ours), "peer": median(peer)}


def _run(way: str, folder: str, peer: str | None, *file: str) -> dict[str, Any]:
    python = peer if way == "transformers" and peer else sys.executable
    environment = {**os.environ, "PYTHONPATH": str(_CHILD.parents[1])}
    environment |= {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [python, _CHILD, way, folder, *file],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return json.loads(done.stdout)


def _check(way: str, folder: str, peer: str | None) -> np.ndarray:
    file = Path(folder) / f"{way}.npy"
    _run(way, folder, peer, str(file))
    return np.load(file)

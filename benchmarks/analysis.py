"""The whole analysis of a model of the size of BERT-base, all eigenpairs, 100 x 10 tokens.

Beside it stand (a) ``numpy.linalg.eig`` of the same matrices spread over the cores; and (b) the
script that a user would write with transformers, torch and NumPy, which has no null models.
Without null models (a) is what no analysis can do without. With them it is a yardstick and no lower
bound: of a null draw the analysis needs the leading direction only, which squaring finds in about a
quarter of the time of the eigenpairs that (a) solves for (`pmt.spectral.squaring`). A row more has
the five leading eigenpairs of every layer in place of all, without null models. The weights are
random, N(0, 0.02), in a checkpoint that is written for it. Every run has a fresh process, the sides
take turns, and imports do not count. An analysis runs twice in its process: the difference is given
as compilation, and all else is of the second, which solves every eigenproblem anew; those with a
cache of eigenproblems run once, compilation included. The peer's interpreter is
PMT_BENCH_PEER_PYTHON, or this one where it has torch and transformers; without either the script
does its layers in NumPy, and the row says so.

``python -m benchmarks --only analysis``: about eight minutes on two idle cores.
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

from benchmarks.measure import PEER_VARIABLE, limit, peer_python
from pmt.experiments import AnalysisConfig, random_tokens
from pmt.experiments.nulls import gaussian_maps
from pmt.models import open_layers
from pmt.spectral import layer_matrix

_CHILD = Path(__file__).with_name("_analysis.py")
SIZE = {"layers": 12, "d": 768, "heads": 12}
QUICK = {"layers": 2, "d": 128, "heads": 4}
TOKENS = (100, 10)


def write_bert(folder: Path, *, layers: int, d: int, heads: int, seed: int = 0) -> None:
    """A BERT with float32 weights N(0, 0.02) and a small vocabulary, in one file."""
    sizes = {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * d, "vocab_size": 1000, "max_position_embeddings": 64}
    config = {"model_type": "bert", "architectures": ["BertModel"], "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config | sizes), encoding="utf-8")
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}

    def draw(name: str, *shape: int) -> None:
        tensors[name] = rng.standard_normal(shape, np.float32) * np.float32(0.02)

    def norm(name: str) -> None:
        tensors[f"{name}.LayerNorm.weight"] = np.ones(d, np.float32)
        tensors[f"{name}.LayerNorm.bias"] = np.zeros(d, np.float32)

    for name, rows in (("word", 1000), ("position", 64), ("token_type", 2)):
        draw(f"embeddings.{name}_embeddings.weight", rows, d)
    norm("embeddings")
    maps = {f"attention.self.{name}": (d, d) for name in ("query", "key", "value")}
    maps |= {"attention.output.dense": (d, d)}
    maps |= {"intermediate.dense": (4 * d, d), "output.dense": (d, 4 * d)}
    for layer in range(layers):
        base = f"encoder.layer.{layer}."
        for name, shape in maps.items():
            draw(f"{base}{name}.weight", *shape)
            tensors[f"{base}{name}.bias"] = np.zeros(shape[0], np.float32)
        norm(f"{base}attention.output")
        norm(f"{base}output")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _prepare(folder: Path, size: dict[str, int]) -> None:
    """Checkpoint, tokens, and the matrices of all eigenproblems of an analysis of it."""
    write_bert(folder, **size)
    np.save(folder / "tokens.npy", random_tokens(*TOKENS, size["d"], 0))
    config, matrices = AnalysisConfig(), []
    with open_layers(folder) as layers:
        for index in range(layers.depth):
            layer = layers.layer(index)
            # In float64, whatever the maps are in.
            zero = np.zeros((size["d"],) * 2)
            drawn = [
                sum(gaussian_maps(layer, config.seed, draw, index), zero)
                for draw in range(config.draws)
            ]
            matrices.append(np.stack([layer_matrix(layer), *drawn]))
    np.save(folder / "matrices.npy", np.stack(matrices))


def rows(quick: bool) -> list[dict[str, Any]]:
    """The analysis with its null models, as in the paper without, and again from its cache."""
    size, turns, more = (QUICK, 1, 0) if quick else (SIZE, 2, 4)
    peer, busy = peer_python("torch", "transformers"), os.getloadavg()[0]
    # Those of few seconds take more turns: the clock changes from one to the next.
    often = ("eigen-paper", "paper", "script")
    ways = ("eigen-whole", "whole", *often, "leading")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _prepare(folder, size)
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in (*ways, "again")}
        for turn in range(turns + more):
            for way in ways if turn < turns else often:
                runs[way].append(_run(way, folder, peer))
        # The first of them fills the cache.
        first = _run("again", folder, peer)
        for way in ("again", "paper-again"):
            runs[way] = [_run(way, folder, peer) for _ in range(turns)]
    written = (
        "script with transformers, torch and numpy.linalg.eig"
        if peer
        else f"script with numpy.linalg.eig; no torch and transformers here (see {PEER_VARIABLE})"
    )
    common = {"size": {**size, "prompts": TOKENS[0], "tokens": TOKENS[1]}}
    common |= {"load_average_before": busy}
    solves = "its eigenproblems alone, numpy.linalg.eig on all cores"
    everything = "all eigenpairs of the same matrices, numpy.linalg.eig on all cores"
    count = AnalysisConfig().draws + 1
    ceiling = _median(runs["script"], "seconds") / _median(runs["eigen-paper"], "seconds")
    found = [
        _row(
            f"analysis with null models, {count * size['layers']} eigenproblems",
            everything,
            runs["whole"],
            runs["eigen-whole"],
            runs["eigen-paper"],
        ),
        _row(
            f"analysis as in the paper, {size['layers']} eigenproblems",
            solves,
            runs["paper"],
            runs["eigen-paper"],
            runs["eigen-paper"],
        ),
        _row(
            "analysis as in the paper",
            written,
            runs["paper"],
            runs["script"],
            runs["eigen-paper"],
        )
        # No analysis without null models is faster than its eigenproblems on all cores.
        | {"ceiling": ceiling},
        _row(
            "analysis as in the paper, five leading eigenpairs a layer",
            "itself, all eigenpairs",
            runs["leading"],
            runs["paper"],
        ),
        _row("analysis with null models, again", "itself, first", runs["again"], [first]),
        _row(
            "analysis as in the paper, again",
            "itself, first",
            runs["paper-again"],
            [run | {"seconds": run["first"]} for run in runs["paper"]],
        ),
    ]
    return [row | common for row in found]


def _row(
    name: str,
    peer: str,
    ours: list[dict[str, Any]],
    theirs: list[dict[str, Any]],
    least: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    mine, other = _median(ours, "seconds"), _median(theirs, "seconds")
    kept = [key for key in ("delta_rho", "mean_delta_rho") if key in ours[0] and key in theirs[0]]
    apart = [float(np.abs(np.subtract(ours[0][key], theirs[0][key])).max()) for key in kept]
    difference = max(apart, default=None)
    processor = {"ours": _median(ours, "processor"), "peer": _median(theirs, "processor")}
    return {
        "name": name,
        "peer": peer,
        "ours": {
            "compile": _median(ours, "first") - mine if "first" in ours[0] else 0.0,
            "median": mine,
            "best": _best(ours),
            "calls": len(ours),
        },
        "peer_time": {"compile": 0.0, "median": other, "best": _best(theirs), "calls": len(theirs)},
        "ratio": other / mine,
        "times_the_peer": mine / other,
        "times_the_peer_by_turn": [
            one["seconds"] / beside["seconds"] for one, beside in zip(ours, theirs, strict=True)
        ]
        if len(ours) == len(theirs)
        else None,
        "times_the_peer_with_compilation": _median(ours, "first") / other
        if "first" in ours[0]
        else None,
        "processor_seconds": processor,
        "processor_times_the_peer": processor["ours"] / processor["peer"],
        "largest_difference": difference,
        # The eigenproblems of the layers themselves, which no analysis can do without.
        "limit": None
        if least is None
        else limit("numpy.linalg.eig of the layers", _median(least, "seconds"), mine),
    }


def _best(runs: list[dict[str, Any]]) -> float:
    return min(float(run["seconds"]) for run in runs)


def _median(runs: list[dict[str, Any]], what: str) -> float:
    return statistics.median(float(run[what]) for run in runs)


def _run(way: str, folder: Path, peer: str | None) -> dict[str, Any]:
    python = peer if way == "script" and peer else sys.executable
    environment = {**os.environ, "PYTHONPATH": str(_CHILD.parents[1])}
    environment |= {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [python, _CHILD, way, folder],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result

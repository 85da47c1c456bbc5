"""Run as a program in a process of its own: one analysis of a BERT, or its eigenproblems alone.

``python benchmarks/_analysis.py WAY FOLDER`` with WAY one of ``whole`` (with the null models),
``paper`` (without, as in the paper), ``leading`` (as ``paper``, with five leading eigenpairs a
layer), ``again`` and ``paper-again`` (the first two with a cache in FOLDER/eigen), the
eigenproblems of the two alone, ``eigen-whole`` and ``eigen-paper``, and ``script``, what a user
would write, which runs in the peer's interpreter; so nothing else is imported at the top.

FOLDER holds the checkpoint, tokens.npy and, for the eigenproblems alone, matrices.npy. Prints one
JSON object: ``seconds`` and ``processor`` (both after imports), and ``delta_rho`` and
``mean_delta_rho`` of every layer where there are any. Of the first three ways there are two
runs in the process: ``first`` is what the one that compiles took, and all else is of the other,
which solves every eigenproblem anew.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

# The eigenproblems stand side by side, one thread each; a script's do not.
if "script" not in sys.argv[1:2]:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

Found = dict[str, list[float]]


def ours(
    folder: Path, nulls: bool, cached: bool, leading: int | None
) -> tuple[float, float, Found]:
    """``pmt.experiments.analyze``, layers read one at a time."""
    from pmt.experiments import AnalysisConfig, analyze
    from pmt.experiments.analysis import NULLS
    from pmt.experiments.eigen_cache import EigenCache, Solver
    from pmt.models import open_layers

    begun = _now()
    solver = EigenCache(folder / "eigen") if cached else Solver()
    config = AnalysisConfig(nulls=NULLS if nulls else (), leading=leading)
    tokens = np.load(folder / "tokens.npy")
    with open_layers(folder, identify=True) as layers:
        layers_found = analyze(layers, config, tokens=tokens, solver=solver).layers
    seconds, processor = _since(begun)
    found = {"delta_rho": [layer.alignment.delta_rho for layer in layers_found]}
    averages = [layer.average.delta_rho for layer in layers_found if layer.average is not None]
    return seconds, processor, found | ({"mean_delta_rho": averages} if averages else {})


def eigen(folder: Path, nulls: bool) -> tuple[float, float, Found]:
    """numpy.linalg.eig of the layer matrices, and of those of the null models, on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    matrices = np.load(folder / "matrices.npy")
    chosen = matrices.reshape(-1, *matrices.shape[-2:]) if nulls else matrices[:, 0]
    begun = _now()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(np.linalg.eig, chosen))
    return *_since(begun), {}


def script(folder: Path) -> tuple[float, float, Found]:
    """What a user would write: transformers for the weights, torch for the layers, NumPy's eig.

    Without torch the layers are in NumPy.
    """
    from importlib import import_module
    from importlib.util import find_spec

    with_torch = all(find_spec(name) is not None for name in ("torch", "transformers"))
    if with_torch:
        torch, transformers = import_module("torch"), import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        load = transformers.BertModel.from_pretrained
    else:
        from safetensors.numpy import load_file
    begun = _now()
    if with_torch:
        state = {name: each.numpy() for name, each in load(folder).state_dict().items()}
    else:
        state = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    heads, depth = config["num_attention_heads"], config["num_hidden_layers"]
    x = np.load(folder / "tokens.npy").astype(np.float32)
    found: Found = {"delta_rho": [], "mean_delta_rho": []}
    for index in range(depth):
        base = f"encoder.layer.{index}.attention."
        names = ("self.query", "self.key", "self.value", "output.dense")
        q, k, v, o = (state[f"{base}{name}.weight"] for name in names)
        values, vectors = np.linalg.eig((o.astype(np.float64) @ v).astype(np.float64))
        step = _torch_step if with_torch else _numpy_step
        after = step(torch if with_torch else None, x, (q, k, v, o), heads)
        low, high = (_rho(each, values, vectors) for each in (x, after))
        first = int(np.argmax(values.real))
        found["delta_rho"].append(float((high - low)[..., first].mean(dtype=np.float64)))
        found["mean_delta_rho"].append(float((high - low).mean(dtype=np.float64)))
        x = after
    return *_since(begun), found


def _torch_step(torch: Any, x: Any, maps: Any, heads: int) -> Any:
    batch, n, d = x.shape
    with torch.no_grad():
        state = torch.from_numpy(x)
        q, k, v, o = (torch.from_numpy(np.array(each)) for each in maps)
        split = [(state @ w.T).view(batch, n, heads, d // heads).transpose(1, 2) for w in (q, k, v)]
        mixed = torch.nn.functional.scaled_dot_product_attention(*split)
        y = state + mixed.transpose(1, 2).reshape(batch, n, d) @ o.T
        return (y / y.norm(dim=-1, keepdim=True)).numpy()


def _numpy_step(nothing: Any, x: Any, maps: Any, heads: int) -> Any:
    del nothing
    batch, n, d = x.shape
    q, k, v, o = maps
    split = [(x @ w.T).reshape(batch, n, heads, d // heads).swapaxes(1, 2) for w in (q, k, v)]
    logits = split[0] @ split[1].swapaxes(2, 3) / np.float32((d // heads) ** 0.5)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    mixed = weights / weights.sum(axis=-1, keepdims=True) @ split[2]
    y = x + mixed.swapaxes(1, 2).reshape(batch, n, d) @ o.T
    return y / np.linalg.norm(y, axis=-1, keepdims=True)


def _rho(x: Any, values: Any, vectors: Any) -> Any:
    """Of all tokens with all eigendirections, planes of conjugate pairs among them."""
    basis = vectors.real.copy()
    for index in np.flatnonzero(values.imag > 0):
        pair = np.stack([vectors[:, index].real, vectors[:, index].imag], axis=1)
        basis[:, index : index + 2] = np.linalg.qr(pair)[0]
    along = (x @ basis.astype(np.float32)) ** 2
    for index in np.flatnonzero(values.imag > 0):
        along[..., index] += along[..., index + 1]
        along[..., index + 1] = along[..., index]
    return np.sqrt(along)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def main(way: str, folder: Path) -> None:
    """Run one of them and print what it took."""
    said: dict[str, float] = {}
    if way == "script":
        seconds, processor, found = script(folder)
    elif way.startswith("eigen"):
        seconds, processor, found = eigen(folder, nulls=way == "eigen-whole")
    else:
        cached, nulls = "again" in way, way in ("whole", "again")
        run = partial(ours, folder, nulls, cached, 5 if way == "leading" else None)
        seconds, processor, found = run()
        if not cached:
            said, (seconds, processor, found) = {"first": seconds}, run()
    print(json.dumps({"seconds": seconds, "processor": processor, **said, **found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

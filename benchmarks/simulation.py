"""Simulating many starts of a small system: against NumPy, PyTorch, a C loop and the limits.

Single-head attention with a full mask. All sides have the same processors; NumPy uses them in its
matrix products only. The sides take turns. PyTorch runs in an interpreter of its own,
PMT_BENCH_PEER_PYTHON, or this one where it has torch; the C loop needs ``cc``. Each row has the
largest deviation of a token coordinate from the plain formulation in float64. The limit is
the rate of a large matrix product: ``ratio`` there is the part of it that ours reaches, counting
the multiplications and additions of the four products of a step and nothing else.
"""

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measure import PEER_VARIABLE, machine_rates, peer_python, processors
from pmt import simulate
from pmt.dynamics import SingleHead

# The peers compute on the host's processors in any case.
DEVICES = ("cpu", "gpu")
# (n, d): (starts, steps)
SIZES = {
    (10, 3): (10_000, 50),
    (10, 10): (10_000, 20),
    (16, 16): (10_000, 10),
    (32, 32): (1_000, 20),
    (64, 64): (256, 20),
}
ALPHA = 0.1
# So many starts are also run in the plain formulation in float64.
CHECKED = 64
# Seconds for all calls of PyTorch, compilation included.
PATIENCE = 120

_HERE = Path(__file__).parent
_FLAGS = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]


def rows(quick: bool) -> list[dict[str, Any]]:
    """Per size and dtype, a row for each peer and one for the limit."""
    limits = {name: machine_rates(np.dtype(name)) for name in ("float32", "float64")}
    found = []
    for name in ("float32",) if quick else ("float32", "float64"):
        for (n, d), (starts, steps) in SIZES.items():
            given = given_starts(n, d, starts // (8 if quick else 1), steps, np.dtype(name))
            found += _one(given, limits[name], quick)
    return found


def given_starts(n: int, d: int, starts: int, steps: int, dtype: Any) -> dict[str, Any]:
    """Random unit tokens and matrices, and what else a run needs."""
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(starts, n, d))
    x0 = x0 / np.linalg.norm(x0, axis=-1, keepdims=True)
    query_key, value = rng.normal(size=(2, d, d)) / d**0.5
    arrays = {"x0": x0, "query_key": query_key, "value": value}
    return {name: a.astype(dtype) for name, a in arrays.items()} | {"alpha": ALPHA, "steps": steps}


def _one(given: dict[str, Any], limits: dict[str, float], quick: bool) -> list[dict[str, Any]]:
    sides: dict[str, Callable[[], Any]] = {"ours": _ours(given), "NumPy": lambda: _numpy(given)}
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("cc"):
            sides["C loop"] = c_loop(given, Path(folder))
        runs = {name: _Run(side) for name, side in sides.items()}
        for turn in range(2 if quick else 5):
            for name, run in runs.items():
                if name != "NumPy" or turn < 2:
                    run.again()
        if peer := peer_python("torch"):
            single = given["x0"].dtype == np.float32
            # Compiled PyTorch takes long to compile, and eager PyTorch to run.
            for way in ("eager",) if quick else ("eager", "compiled") if single else ("compiled",):
                name = f"PyTorch, {way}"
                answered = _torch(given, Path(folder), peer, way, calls=2 if quick else 3)
                if answered is not None:
                    runs[name] = answered
                runs["ours"].again()
    reference = _reference(given)
    deviations = {
        name: float(np.abs(run.last[:CHECKED] - reference).max()) for name, run in runs.items()
    }
    starts, n, d = given["x0"].shape
    token_steps = starts * n * given["steps"]
    size = {"n": n, "d": d, "starts": starts, "steps": given["steps"]}
    size["dtype"] = str(given["x0"].dtype)
    mine = runs.pop("ours")

    def row(peer: str, timing: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": "simulate",
            "size": size,
            "threads": processors(),
            "ours": mine.timing(),
            "peer": peer,
            "peer_time": timing,
            "ratio": None if timing is None else timing["median"] / mine.timing()["median"],
            "largest_difference": deviations["ours"],
            "difference_of": f"coordinates after {given['steps']} steps, plain float64",
            "token_steps_per_second": token_steps / mine.timing()["median"],
            **more,
        }

    flops = token_steps * 4 * d * (n + d)
    seconds = flops / limits["matrix"]
    limit = {"compile": 0.0, "median": seconds, "best": seconds, "calls": 0}
    found = [
        row(
            name,
            run.timing(),
            {
                "largest_difference_of_peer": deviations[name],
                "peer_token_steps_per_second": token_steps / run.timing()["median"],
                # On a machine with other work these are the better figures.
                "processor_seconds": {"ours": mine.used(), "peer": run.used()},
            },
        )
        for name, run in runs.items()
    ]
    if "C loop" not in runs:
        found.append(row("no C compiler here (cc)", None, {}))
    if not peer:
        found.append(row(f"no torch here (see {PEER_VARIABLE})", None, {}))
    return [*found, row("the matrix-product rate", limit, {"limits": limits})]


class _Run:
    """A side's times so far and its last answer."""

    def __init__(self, side: Callable[[], Any]) -> None:
        self._side = side
        self.first, self.last, _ = _timed(side)
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.compile: float | None = None

    def again(self) -> None:
        """One more timed call."""
        seconds, self.last, used = _timed(self._side)
        self.seconds.append(seconds)
        self.processor.append(used)

    def timing(self) -> dict[str, Any]:
        """As every benchmark reports it."""
        middle = statistics.median(self.seconds)
        beyond = max(0.0, self.first - middle) if self.compile is None else self.compile
        best = min(self.seconds)
        return {"compile": beyond, "median": middle, "best": best, "calls": len(self.seconds)}

    def used(self) -> float:
        """Least processor seconds of a call."""
        return min(self.processor)


def _timed(side: Callable[[], Any]) -> tuple[float, np.ndarray, float]:
    began, used = time.perf_counter(), time.process_time()
    answer = np.asarray(jax.block_until_ready(side()))
    return time.perf_counter() - began, answer, time.process_time() - used


def _ours(given: dict[str, Any]) -> Callable[[], Any]:
    system = SingleHead(given["value"], given["query_key"], alpha=ALPHA)
    x0 = jax.numpy.asarray(given["x0"])
    return lambda: simulate(system, x0, given["steps"], keep="last", observables={}).x


def _reference(given: dict[str, Any]) -> np.ndarray:
    """The plain formulation, which is what runs under ``jit``, of the same numbers in float64."""
    value, query_key, x0 = (given[k].astype(np.float64) for k in ("value", "query_key", "x0"))
    x0 = x0[:CHECKED] / np.linalg.norm(x0[:CHECKED], axis=-1, keepdims=True)
    system = SingleHead(value, query_key, alpha=ALPHA)
    plain = jax.jit(lambda s, x: simulate(s, x, given["steps"], keep="last", observables={}).x)
    return np.asarray(plain(system, x0))


def _numpy(given: dict[str, Any]) -> np.ndarray:
    x, query_key, value = given["x0"], given["query_key"], given["value"]
    for _ in range(given["steps"]):
        logits = (x @ query_key) @ x.transpose(0, 2, 1)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        y = x + np.asarray(ALPHA, x.dtype) * (weights @ x) @ value.T
        x = y / np.sqrt((y * y).sum(axis=-1, keepdims=True))
    return x


def c_loop(given: dict[str, Any], folder: Path) -> Callable[[], Any]:
    """The plain C loop, compiled for these sizes with ``cc``, which must be there."""
    starts, n, d = given["x0"].shape
    single = given["x0"].dtype == np.float32
    real = ctypes.c_float if single else ctypes.c_double
    # Three states of W starts within half of a 2 MB cache, in whole AVX-512 registers.
    width = min(64, max(8, 2**20 // (3 * n * d * given["x0"].itemsize) // 8 * 8))
    names = ("float", "expf", "sqrtf") if single else ("double", "exp", "sqrt")
    macros = [f"-D{k}={v}" for k, v in zip(("REAL", "EXP", "SQRT"), names, strict=True)]
    library = folder / "loop.so"
    subprocess.run(
        ["cc", *_FLAGS, *macros, f"-DN={n}", f"-DD={d}", f"-DW={width}"]
        + [str(_HERE / "_simulation_loop.c"), "-o", str(library), "-lm"],
        check=True,
    )
    loop = ctypes.CDLL(str(library)).run
    pointer = ctypes.c_void_p
    loop.argtypes = [pointer, ctypes.c_long, pointer, pointer, real, ctypes.c_long]
    loop.restype = None

    def call() -> np.ndarray:
        x = given["x0"].copy()
        query_key, value = given["query_key"].copy(), given["value"].copy()
        loop(x.ctypes.data, starts, query_key.ctypes.data, value.ctypes.data, ALPHA, given["steps"])
        return x

    return call


def _torch(given: dict[str, Any], folder: Path, peer: str, way: str, calls: int) -> _Run | None:
    """None where torch could not do it within ``PATIENCE``: it then has no row."""
    source, target = folder / "given.npz", folder / "last.npz"
    np.savez(source, **given)
    script = _HERE / "_simulation_torch.py"
    try:
        done = subprocess.run(
            [peer, script, source, target, str(calls), str(processors()), way],
            # A pool of compilers would only wait for its turn.
            env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        print(f"PyTorch, {way}: no answer within {PATIENCE} s", file=sys.stderr)
        return None
    told = json.loads(done.stdout.splitlines()[-1])
    run = _Run.__new__(_Run)
    run.seconds, run.processor, run.compile = told["seconds"], told["processor"], told["compile"]
    with np.load(target) as stored:
        run.last = stored["last"]
    return run

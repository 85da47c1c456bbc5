"""Timing that can be trusted: compilation apart, results waited for, the two sides in turn."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

PEER_VARIABLE = "PMT_BENCH_PEER_PYTHON"
_PACKAGES = ("jax", "jaxlib", "numpy", "scipy")
# What changes the speed of everything.
_SETTINGS = ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "JAX_PLATFORMS")


@dataclass(frozen=True)
class Timing:
    """Seconds of one side.

    Attributes:
      compile: the first call, compilation included, minus a later one; 0 for what compiles nothing.
      median, best: of the timed calls.
      calls: how many were timed.
    """

    compile: float
    median: float
    best: float
    calls: int


def compare(
    ours: Callable[[], Any], peer: Callable[[], Any], calls: int = 5, peer_calls: int | None = None
) -> tuple[Timing, Timing, Any, Any]:
    """Times two functions in turn and returns what each answered.

    Args:
      ours, peer: functions without arguments that return arrays.
      calls: timed calls of ours, after one that is not counted.
      peer_calls: the same for the peer, where one is expensive; ``calls`` if None. With 1 the
        first call is the timed one and its compilation is counted in.
    """
    peer_calls = calls if peer_calls is None else peer_calls
    first, answer = timed(ours)
    peer_first, peer_answer = timed(peer)
    times: list[float] = []
    peer_times = [peer_first] if peer_calls == 1 else []
    for turn in range(max(calls, peer_calls)):
        if turn < calls:
            times.append(timed(ours)[0])
        if turn < peer_calls and peer_calls > 1:
            peer_times.append(timed(peer)[0])
    return _timing(first, times), _timing(peer_first, peer_times), answer, peer_answer


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the result is there, and the result."""
    started = time.perf_counter()
    answer = jax.block_until_ready(function())
    return time.perf_counter() - started, answer


def _timing(first: float, times: list[float]) -> Timing:
    middle = statistics.median(times)
    return Timing(max(0.0, first - middle), middle, min(times), len(times))


def once(seconds: float) -> dict[str, Any]:
    """The timing of a single call whose compilation cannot be told apart, or that has none."""
    return {"compile": 0.0, "median": seconds, "best": seconds, "calls": 1}


def peer_python(*modules: str) -> str | None:
    """The peer's interpreter: PMT_BENCH_PEER_PYTHON, or this one if it has the modules, or None."""
    if PEER_VARIABLE in os.environ:
        return os.environ[PEER_VARIABLE]
    return sys.executable if all(find_spec(name) is not None for name in modules) else None


def limit(what: str, seconds: float, ours: float) -> dict[str, Any]:
    """A row's limit: what nothing can do without takes ``seconds``, that share of our time."""
    return {"what": what, "seconds": seconds, "share": seconds / ours}


def processors() -> int:
    """Processors that this process may use: the number of threads of every side."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_rates(dtype: Any) -> dict[str, float]:
    """Multiplications and additions per second of a matrix product; bytes per second of a copy."""
    a = jax.numpy.asarray(np.random.default_rng(0).normal(size=(1024, 1024)).astype(dtype))
    product = jax.jit(lambda a: jax.numpy.matmul(a, a, precision="highest"))
    large = np.zeros(2**25, dtype)
    other = np.empty_like(large)
    times: dict[str, list[float]] = {"matrix": [], "copy": []}
    timed(lambda: product(a))
    for _ in range(8):
        times["matrix"].append(timed(lambda: product(a))[0])
        began = time.perf_counter()
        np.copyto(other, large)
        times["copy"].append(time.perf_counter() - began)
    return {
        "matrix": 2 * 1024**3 / min(times["matrix"]),
        "copy": 2 * large.nbytes / min(times["copy"]),
    }


def environment() -> dict[str, Any]:
    """Machine and versions, as far as a program can tell."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        processor = names[0] if names else processor
    devices = jax.devices()
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        "threads": processors(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": devices[0].device_kind,
        "devices": len(devices),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        # Above 0 the machine had other work.
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""Timing that can be trusted: compilation apart, results waited for, the two sides in turn."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


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
    first, answer = _once(ours)
    peer_first, peer_answer = _once(peer)
    times: list[float] = []
    peer_times = [peer_first] if peer_calls == 1 else []
    for turn in range(max(calls, peer_calls)):
        if turn < calls:
            times.append(_once(ours)[0])
        if turn < peer_calls and peer_calls > 1:
            peer_times.append(_once(peer)[0])
    return _timing(first, times), _timing(peer_first, peer_times), answer, peer_answer


def _once(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = jax.block_until_ready(function())
    return time.perf_counter() - started, answer


def _timing(first: float, times: list[float]) -> Timing:
    middle = statistics.median(times)
    return Timing(max(0.0, first - middle), middle, min(times), len(times))


def environment() -> dict[str, Any]:
    """Machine and versions, as far as a program can tell."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }

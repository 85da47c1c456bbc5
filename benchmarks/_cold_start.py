"""Run as a program by ``benchmarks.cold_start``: one command of ``pmt``, its time taken apart.

``python _cold_start.py TARGET.json BEGUN ARGUMENT ...`` with BEGUN the time (of ``time.time``) at
which this process was started. TARGET gets one JSON object: seconds since then, in all and by what
they went into: ``import``, ``trace`` (with lowering), ``compile`` and ``rest``; how many traces,
compilations and hits of the persistent cache there were.
"""

import builtins
import json
import sys
import time
from typing import Any

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "trace",
    "/jax/core/compile/backend_compile_duration": "compile",
}

Interval = tuple[float, float]


class Spans:
    """When what was going on; spans of one kind lie within each other, or in several threads."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Interval]] = {"compile": [], "trace": [], "import": []}
        self.counts = {"traces": 0, "compilations": 0, "cache hits": 0}
        self._depth = 0
        self._import = builtins.__import__

    def importing(self, *arguments: Any, **more: Any) -> Any:
        """In the place of ``__import__``."""
        self._depth += 1
        began = time.perf_counter()
        try:
            return self._import(*arguments, **more)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.spans["import"].append((began, time.perf_counter()))

    def listen(self) -> None:
        """To JAX's own events."""
        import jax

        def lasted(event: str, seconds: float, **_: Any) -> None:
            if event in EVENTS:
                now, kind = time.perf_counter(), EVENTS[event]
                self.spans[kind].append((now - seconds, now))
                if event.endswith("jaxpr_trace_duration"):
                    self.counts["traces"] += 1
                elif kind == "compile":
                    self.counts["compilations"] += 1

        def happened(event: str, **_: Any) -> None:
            if event == "/jax/compilation_cache/cache_hits":
                self.counts["cache hits"] += 1

        jax.monitoring.register_event_duration_secs_listener(lasted)
        jax.monitoring.register_event_listener(happened)

    def parts(self) -> dict[str, float]:
        """Seconds of each kind; what lies within two is that of the first."""
        taken: list[Interval] = []
        found = {}
        for kind, spans in self.spans.items():
            before = covered(taken)
            taken += spans
            found[kind] = covered(taken) - before
        return found


def covered(spans: list[Interval]) -> float:
    """Length of the union."""
    total, reached = 0.0, float("-inf")
    for low, high in sorted(spans):
        total += max(0.0, high - max(low, reached))
        reached = max(reached, high)
    return total


def main(target: str, begun: float, arguments: list[str]) -> int:
    """Run the command and write what it took."""
    spans = Spans()
    builtins.__import__ = spans.importing
    from pmt.cli import main as command

    if arguments != ["--help"]:
        # Every other command needs it.
        spans.listen()
    status = command(arguments)
    total = time.time() - begun
    parts = spans.parts()
    parts["rest"] = total - sum(parts.values())
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"seconds": total, "parts": parts, "counts": spans.counts}, file)
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))

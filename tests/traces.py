"""Counting what JAX traces and compiles, by its own events."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

EVENTS = ("jaxpr_trace_duration", "backend_compile_duration")


@contextmanager
def counted() -> Iterator[list[str]]:
    """What is traced and compiled inside."""
    found: list[str] = []

    def listen(event: str, _seconds: float, **more: object) -> None:
        if event.endswith(EVENTS):
            found.append(f"{event.rpartition('/')[2]} of {more.get('fun_name', 'something')}")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

"""Units on the local devices: one thread a device, each running whole units one after the other."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from queue import Empty, SimpleQueue
from typing import Any

import jax

from pmt.parallel.units import Claim, Payload, Report, Unit, Walk

# Seconds between two looks at the keyboard while nothing happens.
_TICK = 0.2


# With the values that hold for this thread; JAX gives its settings no types.
_CONFIG: Any = jax.config


class _StoppedError(Exception):
    """Another unit failed, or the run was interrupted: nobody waits for this one."""


def default_device() -> jax.Device:
    """Where this thread computes if nothing else is said."""
    chosen = _CONFIG.jax_default_device
    if chosen is None or isinstance(chosen, str):
        return jax.local_devices(backend=chosen)[0]
    return chosen


def local_devices() -> tuple[jax.Device, ...]:
    """The default device where one was chosen, else all local devices of the default platform."""
    chosen = _CONFIG.jax_default_device
    if chosen is None:
        return tuple(jax.local_devices())
    return tuple(jax.local_devices(backend=chosen)) if isinstance(chosen, str) else (chosen,)


def run_on_devices(
    walk: Walk, shared: Any, claim: Claim, devices: Sequence[jax.Device], report: Report
) -> Iterator[tuple[Unit, Payload] | None]:
    """Runs all units on the devices; yields them as they are finished.

    Args:
      walk: run in a thread of each device, which is the default there; JAX's settings for
        precision and for random numbers are those of the caller.
      shared: its first argument; JAX arrays in it are copied to every device once.
      claim: the next unit.
      devices: where.
      report: called in the calling thread, where it may raise to end everything.

    Yields:
      Finished units in any order, and None a few times a second while there is nothing else. Where
      one fails, or ``report`` raises, what the others had finished comes before the error.
    """
    events: SimpleQueue[Any] = SimpleQueue()
    stop = threading.Event()
    settings = callers_settings()

    def tell(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        events.put(done)

    def next_unit() -> Unit | None:
        return None if stop.is_set() else claim()

    def serve(device: jax.Device) -> None:
        try:
            with settings(), jax.default_device(device):
                here = jax.tree.map(lambda leaf: _moved(leaf, device), shared)
                for finished in walk(here, next_unit, tell):
                    events.put(finished)
        except _StoppedError:
            pass
        except BaseException as error:
            events.put(error)
        finally:
            events.put(None)

    threads = [
        threading.Thread(target=serve, args=(device,), name=f"pmt {device}", daemon=True)
        for device in devices
    ]
    for thread in threads:
        thread.start()
    try:
        working = len(threads)
        while working:
            try:
                event = events.get(timeout=_TICK)
            except Empty:
                report(0)
                yield None
                continue
            if event is None:
                working -= 1
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, int):
                report(event)
            else:
                yield event
    except (Exception, KeyboardInterrupt):
        # What is finished by the time that all have stopped is not lost.
        stop.set()
        for thread in threads:
            thread.join()
        while not events.empty():
            event = events.get()
            if isinstance(event, tuple):
                yield event
        raise
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _moved(leaf: Any, device: jax.Device) -> Any:
    # Python numbers stay what they are: as arrays they would make another program.
    return jax.device_put(leaf, device) if isinstance(leaf, jax.Array) else leaf


def callers_settings() -> Callable[[], AbstractContextManager[Any]]:
    """What gives another thread the settings of this one, in a ``with`` statement.

    They are what a context manager may have set for one thread alone: precision and random numbers.
    """
    settings: list[tuple[Any, Any]] = [
        (jax.enable_x64, _CONFIG.jax_enable_x64),
        (jax.default_matmul_precision, _CONFIG.jax_default_matmul_precision),
        (jax.threefry_partitionable, _CONFIG.jax_threefry_partitionable),
        (jax.default_prng_impl, _CONFIG.jax_default_prng_impl),
    ]

    def there() -> AbstractContextManager[Any]:
        with ExitStack() as stack:
            for context, value in settings:
                stack.enter_context(context(value))
            return stack.pop_all()

    return there

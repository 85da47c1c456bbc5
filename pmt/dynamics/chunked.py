"""Many starts of one map on a CPU: chunks that fit into cache, several of them at work at a time.

Every chunk makes all its steps before the next begins, with the step of ``pmt.dynamics.batched``.
One compiled program serves chunks of any batch, so that another batch size compiles nothing, and
the result of a start does not depend on how many others there are, as long as they are enough to
be run in this way. Chunks run side by side on all cores, each in a thread of Python that waits for
it: JAX takes a loop whose length it does not know for a small matter, and a thread that dispatches
one is held until it ends.
"""

import os
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from pmt.attention import Boolean
from pmt.dynamics import rest
from pmt.dynamics.batched import ELEMENTWISE, MATRIX, Formulation, step
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.systems import MultiHead, Oja, SingleHead
from pmt.numerics import is_concrete
from pmt.parallel.devices import callers_settings, default_device
from pmt.parallel.pool import side_by_side

Observables = tuple[tuple[str, Callable[[Any, Array], Array]], ...]

# Below, the plain formulation is as good.
_FEWEST_STARTS = 32
_LARGEST_SIZE = 64
# Sums over slices up to here, matrix products beyond: by measurement, on AVX-512 and two cores.
_LARGEST_ELEMENTWISE = 16
_MOST_HEADS = 16
# Bytes that the arrays of one step may take: a part of a core's second-level cache.
_CACHE = {ELEMENTWISE: 2**19, MATRIX: 2**20}
# Chunks, for each thread, whose results may wait.
_AHEAD = 4
# Programs of which a chunk has been run, so that they are compiled.
_BEGUN: set[Hashable] = set()
# LLVM keeps to half of the registers' width unless told; without effect where they are narrower.
# The cores are busy with chunks: threads inside an operation would only wait for each other.
_OPTIONS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_multi_thread_eigen": False}


def choose_formulation(system: Any, x0: Any) -> Formulation | None:
    """How to run the starts ``x0``; None for the plain formulation, ``vmap`` of the map.

    - Inside ``jit``, ``vmap`` or ``grad``, for one start or few, on an accelerator, on several
      devices, beyond n or d of 64, in half precision, for a ``LayerStack`` and with rotary
      positions: the plain one, which can do all of that.
    - Otherwise ``ELEMENTWISE`` where n, d, the heads and their width are all at most 16, and
      ``MATRIX`` above.
    """
    if not isinstance(system, Oja | SingleHead | MultiHead) or not is_concrete((system, x0)):
        return None
    if x0.ndim != 3 or len(x0) < _FEWEST_STARTS or x0.dtype.itemsize not in (4, 8):
        return None
    if jnp.ndim(system.alpha) != 0:
        return None
    here = jnp.zeros(())
    # Inside jit even constants are staged.
    if not is_concrete(here) or x0.devices() != here.devices():
        return None
    if next(iter(x0.devices())).platform != "cpu":
        return None
    heads, width = 1, x0.shape[2]
    if isinstance(system, MultiHead):
        heads, width = len(system.query), max(system.query.shape[1], system.value.shape[1])
        if system.rotary is not None:
            return None
    if isinstance(system.mask, Boolean) and system.mask.matrix.ndim > 2 and heads == 1:
        return None
    if max(x0.shape[1], x0.shape[2], width) > _LARGEST_SIZE or heads > _MOST_HEADS:
        return None
    small = max(x0.shape[1], x0.shape[2], width, heads) <= _LARGEST_ELEMENTWISE
    return ELEMENTWISE if small else MATRIX


def chunk_size(formulation: Formulation, n: int, d: int, itemsize: int) -> int:
    """Starts in a chunk: as many as fit into cache, a multiple of 16 between 16 and 512.

    A step works on the logits (twice n²) and about six arrays of the state's size. The number
    depends on nothing else, so that the same program runs for any batch and on any device.
    """
    each = (2 * n * n + 6 * n * d) * itemsize
    return int(np.clip(_CACHE[formulation] // each // 16 * 16, 16, 512))


def size_for(system: Any, x0: Any) -> int | None:
    """How many starts run at a time where there are many of the kind of ``x0``; None for all.

    Their number need then be no multiple of anything else to be run without idle places, and
    another number compiles nothing.
    """
    formulation = choose_formulation(system, x0)
    if formulation is None:
        return None
    return chunk_size(formulation, x0.shape[1], x0.shape[2], x0.dtype.itemsize)


def simulate_many(
    formulation: Formulation,
    system: Any,
    x0: Float[Array, "batch n d"],
    steps: int,
    keep: str,
    observables: Observables,
) -> tuple[Any, dict[str, Any], Any, Any] | None:
    """The fields of ``Simulation``, in order; None if the plain formulation is to do it.

    That is so if an observable holds a tracer, and for paths or observables of so few starts that
    filling up a chunk would cost several times as much memory.
    """
    if keep == "last" and not observables:
        last, code, made = _in_chunks(
            partial(_last, formulation=formulation), formulation, x0, system, jnp.int32(steps)
        )
        return last, {}, code, made
    batch, n, d = x0.shape
    if 4 * batch < chunk_size(formulation, n, d, x0.dtype.itemsize):
        return None
    run = partial(_path, formulation=formulation, steps=steps, keep=keep, observables=observables)
    return _in_chunks(run, formulation, x0, system)


def run_many(
    formulation: Formulation,
    system: Any,
    x0: Float[Array, "batch n d"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> dict[str, Any]:
    """The fields of ``EquilibriumRun`` by name; a chunk ends when all its starts have."""
    run = partial(_equilibrium, formulation=formulation)
    return _in_chunks(run, formulation, x0, system, tolerance, max_steps)


def _in_chunks(
    run: Callable[..., Any], formulation: Formulation, x0: Array, system: Any, *more: Any
) -> Any:
    """``run`` of every chunk, put together along the first axis; None for tracers."""
    starts = np.asarray(x0)
    batch, n, d = starts.shape
    size = chunk_size(formulation, n, d, starts.dtype.itemsize)
    whole: list[np.ndarray] = []
    shape = None
    for at, answer in _dispatched(run, starts, size, system, more):
        leaves, shape = jax.tree.flatten(answer)
        if not is_concrete(leaves):
            return None
        if not whole:
            whole = [np.empty((batch, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        for target, leaf in zip(whole, leaves, strict=True):
            rows = target[at : at + size]
            rows[...] = np.asarray(leaf)[: len(rows)]
    return jax.tree.unflatten(shape, [jnp.asarray(part) for part in whole])


def _dispatched(
    run: Callable[..., Any], starts: np.ndarray, size: int, system: Any, more: tuple[Any, ...]
) -> Iterator[tuple[int, Any]]:
    settings, device = callers_settings(), default_device()

    def answer(at: int) -> tuple[int, Any]:
        chunk = starts[at : at + size]
        if len(chunk) < size:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
        with settings(), jax.default_device(device):
            return at, jax.block_until_ready(run(system, chunk, *more))

    left = iter(range(0, len(starts), size))
    program = _program(run, starts[:1], size, system, more)
    if program not in _BEGUN:
        # Alone, so that it is compiled once.
        yield answer(next(left))
        _BEGUN.add(program)
    threads = min(_threads(), -(-len(starts) // size))
    if threads < 2:
        yield from map(answer, left)
        return
    work = (partial(answer, at) for at in left)
    with side_by_side(work, threads, _AHEAD * threads) as answers:
        yield from answers


def _program(run: Any, start: np.ndarray, size: int, *given: Any) -> Hashable:
    """What JAX compiles anew for, but for the caller's settings."""
    leaves, structure = jax.tree.flatten(given)
    shapes = tuple((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves)
    fixed = tuple(run.keywords.items()) if isinstance(run, partial) else ()
    function = run.func if isinstance(run, partial) else run
    return function, fixed, structure, shapes, size, start.shape, start.dtype


def _threads() -> int:
    """How many chunks of one device are at work at a time."""
    known = getattr(os, "sched_getaffinity", None)
    cores = (os.cpu_count() or 1) if known is None else len(known(0))
    # Other devices that are parts of the same processor have threads of their own.
    return max(1, cores // jax.local_device_count(backend="cpu"))


@partial(jax.jit, static_argnames=("formulation",), compiler_options=_OPTIONS)
def _last(
    system: Any, x0: Float[Array, "size n d"], steps: Int[Array, ""], *, formulation: Formulation
) -> tuple[Array, Array, Array]:
    def body(_: Any, carry: Any) -> Any:
        x, _, made = carry
        # A stopped start stops again in the same way, so that nothing has to hold it.
        x, code = step(formulation, system, x)
        return x, code, made + (code == Outcome.DONE).astype(jnp.int32)

    none = jnp.zeros(len(x0), jnp.int32)
    x, code, made = lax.fori_loop(0, steps, body, (formulation.enter(x0), none, none))
    return formulation.leave(x), code, made


@partial(
    jax.jit,
    static_argnames=("formulation", "steps", "keep", "observables"),
    compiler_options=_OPTIONS,
)
def _path(
    system: Any,
    x0: Float[Array, "size n d"],
    *,
    formulation: Formulation,
    steps: int,
    keep: str,
    observables: Observables,
) -> tuple[Array, dict[str, Array], Array, Array]:
    def observe(x: Array) -> dict[str, Array]:
        states = formulation.leave(x)
        return {
            name: jax.vmap(lambda one, f=function: jnp.asarray(f(system, one)))(states)
            for name, function in observables
        }

    def body(carry: Any, _: None) -> Any:
        x, _, made = carry
        moved, code = step(formulation, system, x)
        made = made + (code == Outcome.DONE).astype(jnp.int32)
        return (moved, code, made), (observe(x), x if keep == "path" else None)

    none = jnp.zeros(len(x0), jnp.int32)
    start = (formulation.enter(x0), none, none)
    (last, code, made), (seen, path) = lax.scan(body, start, None, length=steps)
    seen = jax.tree.map(
        lambda a, b: jnp.moveaxis(jnp.concatenate([a, b[None]]), 0, 1), seen, observe(last)
    )
    if keep == "last":
        return formulation.leave(last), seen, code, made
    states = jax.vmap(formulation.leave)(jnp.concatenate([path, last[None]]))
    return jnp.moveaxis(states, 0, 1), seen, code, made


@partial(jax.jit, static_argnames=("formulation",), compiler_options=_OPTIONS)
def _equilibrium(
    system: Any,
    x0: Float[Array, "size n d"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
    *,
    formulation: Formulation,
) -> dict[str, Array]:
    def distance(a: Array, b: Array) -> Float[Array, "size"]:
        return formulation.over_tokens(jnp.sqrt(formulation.total((a - b) ** 2)))

    def body(carry: Any) -> Any:
        going = rest.going_on(carry, max_steps)
        beyond, code = step(formulation, system, carry["ahead"])
        residual, cycle = distance(beyond, carry["ahead"]), distance(beyond, carry["x"])
        following = rest.following(carry, beyond, residual, cycle, code, tolerance)
        return {
            name: jnp.where(going if new.ndim == 1 else formulation.spread(going), new, carry[name])
            for name, new in following.items()
        }

    start = formulation.enter(x0)
    ahead, code = step(formulation, system, start)
    carry = lax.while_loop(
        lambda carry: jnp.any(rest.going_on(carry, max_steps)),
        body,
        rest.begin(start, ahead, distance(ahead, start), code, tolerance),
    )
    beyond = step(formulation, system, carry["ahead"])[0]
    return {
        "x": formulation.leave(carry["x"]),
        "residual": carry["residual"],
        "cycle_residual": distance(beyond, carry["x"]),
        "steps": carry["steps"],
        "result": carry["result"],
    }

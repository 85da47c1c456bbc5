"""Basins of attraction: which fraction of the initial conditions reaches which attractor."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pmt import sphere
from pmt.dynamics import LayerStack
from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon, require_count
from pmt.parallel.workers import Workers
from pmt.stability.attractor import Attractor, Share, describe_end
from pmt.stability.intervals import Method, binomial_interval
from pmt.stability.runs import whole_blocks
from pmt.stability.spread import RunSettings, run_recorded, run_samples
from pmt.stability.tally import Tally

Sampler = Callable[[PRNGKeyArray], Array]
"""From a key to one initial condition, unit tokens ``(n, d)``; traceable by JAX."""

# The first round of an adaptive run, and by how much the next one may grow.
_FIRST, _GROWTH = 1000, 4
# Few runs share one shape of batch, so that they are compiled once.
_FEW = 256
# Initial conditions drawn at once, and numbers in them.
_DRAWN, _NUMBERS = 1024, 2**20


@dataclass(frozen=True)
class Basins:
    """What ``basin_fractions`` returns.

    Attributes:
      attractors: one for every place where samples ended, largest count first.
      samples: how many initial conditions were run.
      tokens, seed, confidence, method, tolerance: as asked for.
      max_steps: the budget of a sample, rounded up to whole blocks.
      width: the requested width of all intervals; None if the number of samples was fixed.
      reached: whether all intervals are that narrow; True if ``width`` is None.
      mean_steps: steps made per sample, up to the look that found it at its end.
      dtype: of the states.
    """

    attractors: tuple[Attractor, ...]
    samples: int
    tokens: int
    seed: int
    confidence: float
    method: Method
    tolerance: float
    max_steps: int
    width: float | None
    reached: bool
    mean_steps: float
    dtype: str

    def share(self, *kinds: str, where: Callable[[Attractor], bool] | None = None) -> Share:
        """All attractors of these kinds (of all, if none is named) for which ``where`` holds.

        Fractions of several attractors have an interval of their own; the bounds do not add up.
        """
        chosen = [a for a in self.attractors if not kinds or a.kind in kinds]
        count = sum(a.share.count for a in chosen if where is None or where(a))
        return self._share(count)

    @property
    def unresolved(self) -> Share:
        """Samples whose budget ended before they settled: they may belong to any basin."""
        return self.share("unresolved")

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the attractors, plain data: what the result depends on."""
        return {name: value for name, value in vars(self).items() if name != "attractors"}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.settings, "attractors": [each.as_dict() for each in self.attractors]}

    def _share(self, count: int) -> Share:
        return Share.of(count, self.samples, self.confidence, self.method)


def basin_fractions(
    system: Any,
    tokens: int,
    *,
    samples: int = 10_000,
    width: float | None = None,
    confidence: float = 0.95,
    method: Method = "wilson",
    seed: int = 0,
    sampler: Sampler | None = None,
    max_steps: int = 10_000,
    tolerance: float | None = None,
    max_period: int = 64,
    verdicts: bool = True,
    chunk: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> Basins:
    """Runs random initial conditions to their ends and counts where they end.

    Sample i starts at ``sampler(fold_in(key(seed), i))``, by default n uniform tokens, whatever
    ``chunk`` is. It is looked at every 64 steps. It has *settled* when |f(x) − x|, relative to
    alpha |F| where that is below 1, is at most 0.01 ``tolerance`` and every test of ``classify``
    is passed within the tolerance or clearly failed (beyond its square root); so a state that is
    merely slow is no cluster and no equilibrium. Where rounding, 16 eps sqrt(d), is itself more
    than 0.01 ``tolerance`` alpha |F|, as with a small step in single precision, nothing settles.
    2-cycles are recognised as they are reached, and at the end of the budget periods up to
    ``max_period`` are looked for. What is left is ``unresolved`` and counted as such.

    Memory does not grow with the number of samples: runs that are over make room for new ones.
    The samples are run in units (``pmt.stability.spread``) by all ``workers``; how many devices and
    hosts these are changes nothing in the result, and every host gets the same.

    With ``width``, samples are added in rounds until all intervals are that narrow or the budget
    ``samples`` is spent. The number of samples then depends on the counts, so that the coverage of
    the intervals is nominal only approximately, as for any sequential rule; the rule looks at
    widths only, never at where an interval lies.

    Args:
      system: an autonomous map. To compare systems of one shape costs no new compilation.
      tokens: n.
      samples: how many; with ``width`` at most so many.
      width: largest width of any interval, in (0, 1).
      confidence: of each interval by itself, in (0, 1).
      method: ``"wilson"`` or ``"clopper-pearson"``, see ``binomial_interval``.
      seed: of all randomness, 0 to 2³² − 1.
      sampler: as above; pass the same function object again to avoid compiling again.
      max_steps: budget of a sample, rounded up to whole blocks of at most 64 steps.
      tolerance: of the classes, as for ``classify``; 64 sqrt(eps) of the dtype if None.
      max_period: longest cycle that is looked for, at least 1.
      verdicts: whether one state of every attractor is analysed.
      chunk: how many samples run side by side on a device; chosen by n and d if None.
      workers: devices, hosts, and where finished units are kept; all local devices if None.
      progress: called with the number of samples that have just ended, or with 0.

    Raises:
      RequestError: a ``LayerStack``, a number out of range, a sampler whose states do not fit.
      IncompleteError: another host stopped.
      jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED, where a device has not the memory for
        ``chunk`` samples; ask for fewer.
    """
    _check(system, tokens=tokens, samples=samples, max_steps=max_steps, max_period=max_period)
    _check(system, chunk=1 if chunk is None else chunk)
    check_seed(seed)
    if samples >= 2**32:
        raise RequestError(f"samples is {samples}; samples are numbered by 32 bits")
    if width is not None and not 0 < width < 1:
        raise RequestError(f"width is {width!r}; it must lie strictly between 0 and 1")
    # Asked for with no hits, so that a bad confidence or method is refused before the work.
    binomial_interval(0, 1, confidence, method)
    dtype = system.layer_matrix.dtype
    tolerance = class_tolerance(tolerance, dtype)
    shape = (tokens, system.layer_matrix.shape[-1])
    if sampler is None:
        sampler = _uniform_sampler(*shape, str(dtype))
    settings = RunSettings(
        starts=partial(_starts, sampler, seed, shape, dtype),
        shape=shape,
        max_steps=max_steps,
        tolerance=tolerance,
        max_period=max_period,
        chunk=chunk or _default_chunk(*shape),
    )
    settings.starts()
    workers, tally = workers or Workers(), Tally()
    done, interval = 0, partial(binomial_interval, confidence=confidence, method=method)
    goal = samples if width is None else min(samples, _FIRST)
    while True:
        tally.plus(
            run_samples(settings, system, done, goal, workers, progress or (lambda _done: None))
        )
        done = goal
        bounds = [interval(seen.count, done) for seen in tally.ends.values()]
        widest = max(high - low for low, high in bounds)
        if done >= samples or width is None or widest <= width:
            break
        # Widths shrink like one over the root of the number of samples.
        wanted = ceil(1.05 * done * (widest / width) ** 2)
        goal = min(samples, max(ceil(1.25 * done), min(_GROWTH * done, wanted)))
    frame = Basins(
        attractors=(),
        samples=done,
        tokens=tokens,
        seed=seed,
        confidence=confidence,
        method=method,
        tolerance=tolerance,
        max_steps=whole_blocks(max_steps),
        width=width,
        reached=width is None or widest <= width,
        mean_steps=tally.steps / done,
        dtype=str(dtype),
    )
    found = sorted(tally.ends.items(), key=lambda each: (-each[1].count, each[1].first))
    attractors = tuple(
        describe_end(system, end, seen, frame._share(seen.count), verdicts) for end, seen in found
    )
    return Basins(**{**vars(frame), "attractors": attractors})


@dataclass(frozen=True)
class Reached:
    """What ``attractors_reached`` returns.

    Attributes:
      attractors: the places where the runs ended, in the order of the runs that found them.
      label: for each run the number of its attractor, int, shape ``(batch,)``.
      states: the last state of each run, ``(batch, n, d)``; ``(0, n, d)`` if not kept.
      tolerance, max_steps: as used.
    """

    attractors: tuple[Attractor, ...]
    label: np.ndarray
    states: np.ndarray
    tolerance: float
    max_steps: int


def attractors_reached(
    system: Any,
    x0: Float[AnyArray, "batch n d"],
    *,
    max_steps: int = 10_000,
    tolerance: float | None = None,
    max_period: int = 64,
    verdicts: bool = False,
    chunk: int | None = None,
    keep_states: bool = True,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reached:
    """Where given initial conditions end, by the rules of ``basin_fractions``.

    All ``workers`` divide the runs, as there, and every process gets the same.

    Args:
      x0: unit tokens; the same in every process.
      keep_states: whether the last states are kept, which take as much memory as ``x0``.
      system, max_steps, tolerance, max_period, verdicts, chunk, workers, progress: as there.

    Raises:
      RequestError: as there, and initial conditions that do not fit the system.
      IncompleteError, jax.errors.JaxRuntimeError: as there.
    """
    _check(system, max_steps=max_steps, max_period=max_period, chunk=1 if chunk is None else chunk)
    given = np.asarray(x0)
    check_tokens(given, system)
    if given.ndim != 3 or not len(given):
        raise RequestError(f"x0 has shape {given.shape}; expected (batch, n, d) with some states")
    shape = (given.shape[1], given.shape[2])
    settings = RunSettings(
        starts=lambda: lambda numbers: given[numbers],
        shape=shape,
        max_steps=max_steps,
        tolerance=class_tolerance(tolerance, given.dtype),
        max_period=max_period,
        chunk=chunk or min(_default_chunk(*shape), _FEW * ceil(len(given) / _FEW)),
        record="states" if keep_states else "places",
    )
    report = progress or (lambda _done: None)
    pieces = run_recorded(settings, system, len(given), workers or Workers(), report)
    tally, states = Tally(), np.empty_like(given if keep_states else given[:0])
    for piece in pieces:
        tally.plus(Tally.of(piece))
    # Numbered by first sample, whatever finished first.
    position = {end: place for place, end in enumerate(tally.places())}
    label = np.zeros(len(given), np.int64)
    for piece in pieces:
        here = [position[end] for end in Tally.of(piece).places()]
        label[piece["run"]] = np.array(here, np.int64)[piece["place"]]
        if keep_states:
            states[piece["run"]] = piece["last"]
    attractors = []
    for end, seen in ((end, tally.ends[end]) for end in position):
        share = Share.of(seen.count, len(given), 0.95, "wilson")
        attractors.append(describe_end(system, end, seen, share, verdicts))
    return Reached(tuple(attractors), label, states, settings.tolerance, whole_blocks(max_steps))


def sample_starts(
    seed: int, numbers: Any, tokens: int, d: int, dtype: Any = None
) -> Float[np.ndarray, "batch n d"]:
    """The initial conditions of the samples with these numbers, as ``basin_fractions`` draws them.

    To run one of them again: ``simulate(system, sample_starts(seed, [i], n, d)[0])``. NumPy, of
    ``dtype``; JAX's default float if None.
    """
    dtype = np.dtype(dtype or jnp.result_type(float))
    sampler = _uniform_sampler(tokens, d, str(dtype))
    return _starts(sampler, seed, (tokens, d), dtype)(np.asarray(numbers, np.int64))


_SAMPLERS: dict[tuple[int, int, str], Sampler] = {}


def _uniform_sampler(tokens: int, d: int, dtype: str) -> Sampler:
    """The same function object for the same shape, so that nothing is compiled twice."""
    make = partial(sphere.uniform, shape=(tokens, d), dtype=jnp.dtype(dtype))
    return _SAMPLERS.setdefault((tokens, d, dtype), make)


def _starts(
    sampler: Sampler, seed: int, shape: tuple[int, int], dtype: Any
) -> Callable[[np.ndarray], np.ndarray]:
    # Named, so that the numbers are the same whatever is JAX's default.
    key = jax.random.key(seed, impl="threefry2x32")
    size = max(1, min(_DRAWN, _NUMBERS // (shape[0] * shape[1])))
    # As it will be called, so that the sampler is traced once.
    given = _draw.eval_shape(sampler, key, jax.ShapeDtypeStruct((size,), jnp.uint32))
    if given.shape[1:] != shape or given.dtype != dtype:
        raise RequestError(
            f"the sampler gives a state of shape {given.shape[1:]} and dtype {given.dtype}; "
            f"expected {shape} and {dtype}"
        )
    kept: dict[int, np.ndarray] = {}

    def drawn(block: int) -> np.ndarray:
        """Initial conditions in blocks of one size, so that drawing is compiled once."""
        if block not in kept:
            kept.clear()
            numbers = np.arange(block * size, (block + 1) * size) % 2**32
            kept[block] = np.asarray(_draw(sampler, key, jnp.asarray(numbers, jnp.uint32)))
        return kept[block]

    def starts(numbers: np.ndarray) -> np.ndarray:
        x = np.empty((len(numbers), *shape), dtype)
        blocks = numbers // size
        for block in np.unique(blocks):
            here = blocks == block
            x[here] = drawn(int(block))[numbers[here] - block * size]
        return x

    return starts


def _default_chunk(tokens: int, d: int) -> int:
    return max(16, min(4096, 2**18 // (tokens * max(tokens, d))))


@partial(jax.jit, static_argnames=("sampler",))
def _draw(sampler: Sampler, key: PRNGKeyArray, numbers: Array) -> Array:
    return jax.vmap(lambda i: sampler(jax.random.fold_in(key, i)))(numbers)


def _check(system: Any, **counts: Any) -> None:
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack changes with every step and has no attractors; "
            "take one layer with system.layer(index)"
        )
    for name, value in counts.items():
        require_count(name, value, 1)
    check_system(system, counts.get("tokens"))


def check_seed(seed: Any) -> None:
    """Raises ``RequestError`` for what is no integer from 0 to 2³² − 1."""
    if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < 2**32:
        raise RequestError(f"seed is {seed!r}; it must be an integer from 0 to 2**32 - 1")


def class_tolerance(tolerance: float | None, dtype: Any) -> float:
    """64 sqrt(eps) of the dtype if None, as for ``classify``.

    Raises:
      RequestError: outside (0, 1).
    """
    tolerance = 64 * epsilon(dtype) ** 0.5 if tolerance is None else float(tolerance)
    if not 0 < tolerance < 1:
        raise RequestError(f"tolerance is {tolerance!r}; it must lie strictly between 0 and 1")
    return tolerance

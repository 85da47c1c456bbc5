"""How the cost grows: spectra, simulation, layers and devices, with fitted exponents.

Each row is one sweep: the fastest of a few calls at every size (other work on the machine only
adds), compilation apart, and the exponent of a power law fitted to them with its standard error.
What the theory promises of spectra at signed consensus points is d³ + n³ at consensus, and at
bipartite points with full or causal attention, and d³ + d n³ at bipartite points with a general
mask; the peer is what one would do without it, the eigenvalues of the autodiff Jacobian, (nd)³.
``at_most`` is the promised exponent in the quantity that grows, the other one being held fixed: a
fitted one below it means that the costs which do not count in the end still do. The general mask
here lets tokens see about half of each other; the matrices are asymmetric, so that no special
solver helps. ``check`` is the largest difference from the dense multipliers at a small size.

Devices are simulated ones, each with processes of its own, and more of them than there are
processors cannot be any faster.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks._fit import Power, power_law
from benchmarks.measure import processors, timed
from pmt import attention, simulate, spectral
from pmt.dynamics import LayerStack, MultiHead, SingleHead, tangent_jacobian
from pmt.stability.closed_form import signed_multipliers
from pmt.stability.spectrum import bipartite_spectrum, consensus_spectrum

_CHILD = Path(__file__).with_name("_devices.py")
# A sweep's calls at one size end after so many seconds.
_PATIENCE = 2.0
MASKS = ("full", "causal", "general")
POINTS = ("consensus", "bipartite")


def general_mask(n: int) -> attention.Boolean:
    """Every token sees itself and about half of the others, in no order."""
    seen = np.random.default_rng(n).random((n, n)) < 0.5
    return attention.Boolean(jnp.asarray(seen | np.eye(n, dtype=bool)))


def system_at(n: int, d: int, mask: str) -> tuple[SingleHead, jax.Array, jax.Array]:
    """A map with asymmetric V, a real eigenvector of V, and signs: two thirds of them plus."""
    rng = np.random.default_rng(d)
    v = rng.normal(size=d)
    v /= np.linalg.norm(v)
    across = np.eye(d) - np.outer(v, v)
    value = np.outer(v, v) + across @ rng.normal(size=(d, d)) @ across / (2 * d**0.5)
    query_key = rng.normal(size=(d, d)) / d
    masks = {"full": attention.Full(), "causal": attention.Causal()}
    chosen = masks.get(mask) or general_mask(n)
    system = SingleHead(jnp.asarray(value), jnp.asarray(query_key), alpha=0.3, mask=chosen)
    signs = np.where(np.arange(n) % 3 < 2, 1.0, -1.0)
    return system, jnp.asarray(v), jnp.asarray(signs)


@cache
def _closed(point: str) -> Callable[..., Any]:
    """The closed form, compiled; signs are left alone at consensus."""
    if point == "bipartite":
        return jax.jit(bipartite_spectrum)
    return jax.jit(lambda system, v, signs: consensus_spectrum(system, v, signs.shape[0]))


@cache
def _dense() -> Callable[..., Any]:
    def eigenvalues(system: Any, v: jax.Array, signs: jax.Array) -> jax.Array:
        return jnp.linalg.eigvals(tangent_jacobian(system, signs[:, None] * v[None]))

    return jax.jit(eigenvalues)


def _bounded(point: str, system: Any, v: jax.Array, signs: jax.Array) -> Any:
    """What ``analyze`` calls: multipliers with error radii, on the host."""
    chosen = signs if point == "bipartite" else jnp.ones_like(signs)
    return signed_multipliers(system, v, chosen).values


def _ways(point: str) -> dict[str, Callable[..., Any]]:
    at = "consensus" if point == "consensus" else "a bipartite point"
    return {
        f"spectrum at {at}": _closed(point),
        f"spectrum with radii at {at}": partial(_bounded, point),
    }


def sweep(
    name: str,
    axis: str,
    values: Sequence[int],
    make: Callable[[int], Callable[[], Any]],
    **more: Any,
) -> dict[str, Any]:
    """One row.

    Args:
      name: what is timed.
      axis: the quantity that grows through ``values``.
      make: from a value to the function that is timed.
      more: further entries of the row: ``size``, ``at_most``, ``check``, ``group``.
    """
    points = []
    for value in values:
        first, times = _times(make(value))
        point = {axis: value, "compile": max(0.0, first - statistics.median(times))}
        point |= {"seconds": min(times), "median": statistics.median(times)}
        points.append(point | {"calls": len(times)})
    power = power_law([p[axis] for p in points], [p["seconds"] for p in points])
    checks = [more.pop("check", ""), _promise(power, more.get("at_most"))]
    return {
        "name": f"{name}, against {axis}",
        "size": more.pop("size", {}) | {axis: f"{values[0]}..{values[-1]}"},
        "axis": axis,
        "points": points,
        "exponent": power.exponent,
        "standard_error": power.standard_error,
        "constant": power.constant,
        "threads": processors(),
        "check": "; ".join(filter(None, checks)),
        **more,
    }


def _promise(power: Power, at_most: float | None) -> str:
    """Whether the exponent is what was promised, within two standard errors."""
    if at_most is None or not power.exponent:
        return ""
    least = power.exponent - 2.0 * (power.standard_error or 0.0)
    return f"at most {at_most} promised: {'kept' if least <= at_most else 'NOT KEPT'}"


def _times(function: Callable[[], Any]) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each after it, of which there are 3 to 9."""
    first, _ = timed(function)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _PATIENCE and len(times) < 9):
        times.append(timed(function)[0])
    return first, times


def _difference(way: Callable[..., Any], point: str, mask: str) -> str:
    """From the dense multipliers, the two sets paired as well as they can be."""
    system, v, signs = system_at(7, 5, mask)
    found = np.asarray(way(system, v, signs))
    dense = np.asarray(_dense()(system, v, signs if point == "bipartite" else jnp.ones_like(signs)))
    apart = np.abs(found[:, None] - dense[None])
    largest = apart[linear_sum_assignment(apart)].max()
    return f"{largest:.1e} from the dense multipliers at n = 7, d = 5"


def _spectra(quick: bool) -> Iterator[dict[str, Any]]:
    general = (32, 48, 64) if quick else (96, 160, 256, 400)
    # Where nothing of the order of n³ is there to be seen, n is larger.
    cheap = (64, 128, 256) if quick else (256, 512, 1024, 2048)
    crowd = (16, 24, 32) if quick else (64, 96, 144, 216)
    # There are d − 1 problems of size n: from d = 4 on, their number alone fits d^1.12.
    small_d = (4, 8, 12) if quick else (8, 16, 32, 64)
    for point in POINTS:
        for name, way in _ways(point).items():
            for mask in MASKS:

                def make(n: int, d: int, way: Any = way, mask: str = mask) -> Callable[[], Any]:
                    return partial(way, *system_at(n, d, mask))

                check = _difference(way, point, mask)
                common = {"check": check, "point": point, "mask": mask, "what": name}
                said = f"{name}, {mask} mask"
                crowded = mask == "general" and point == "bipartite"
                tokens = crowd if crowded else general if mask == "general" else cheap
                yield sweep(
                    said,
                    "d",
                    general,
                    lambda d, make=make: make(8, d),
                    size={"n": 8},
                    at_most=3,
                    group="spectra",
                    **common,
                )
                yield sweep(
                    said,
                    "n",
                    tokens,
                    lambda n, make=make: make(n, 8),
                    size={"d": 8},
                    at_most=3,
                    group="spectra",
                    **common,
                )
                if crowded:
                    yield sweep(
                        f"{said}, n³ ahead",
                        "d",
                        small_d,
                        lambda d, make=make: make(64, d),
                        size={"n": 64},
                        at_most=1,
                        group="spectra, d small",
                        **common,
                    )
    for axis, other in (("n", "d"), ("d", "n")):

        def dense(value: int, axis: str = axis) -> Callable[[], Any]:
            n, d = (value, 8) if axis == "n" else (8, value)
            return partial(_dense(), *system_at(n, d, "general"))

        yield sweep(
            "spectrum from the dense Jacobian, general mask",
            axis,
            (8, 16, 24) if quick else (16, 32, 64, 96),
            dense,
            size={other: 8},
            at_most=3,
            group="spectra",
            point="bipartite",
            mask="general",
            what="dense Jacobian, (nd)³",
            check="the reference",
        )


def _starts(batch: int, n: int, d: int, steps: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, n, d))
    x0 = jnp.asarray((x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32))
    value, query_key = (rng.normal(size=(2, d, d)) / d**0.5).astype(np.float32)
    system = SingleHead(jnp.asarray(value), jnp.asarray(query_key), alpha=0.1)
    return lambda: simulate(system, x0, steps, keep="last", observables={}).x


def _simulation(quick: bool) -> Iterator[dict[str, Any]]:
    many = (256, 512, 1024) if quick else (1024, 4096, 16384, 65536)
    common = {"group": "simulate", "what": "simulate"}
    yield sweep(
        "simulate many starts",
        "batch",
        many,
        lambda batch: _starts(batch, 10, 3, 20),
        size={"n": 10, "d": 3, "steps": 20, "dtype": "float32"},
        at_most=1,
        **common,
    )
    steps = (10, 20, 40) if quick else (20, 80, 320, 1280)
    yield sweep(
        "simulate many starts",
        "steps",
        steps,
        lambda count: _starts(1024, 10, 3, count),
        size={"n": 10, "d": 3, "batch": 1024, "dtype": "float32"},
        at_most=1,
        **common,
    )
    sizes = (8, 16, 32) if quick else (8, 16, 32, 64, 128, 256)
    yield sweep(
        "simulate many starts",
        "n",
        sizes,
        lambda n: _starts(256, n, 16, 10),
        size={"d": 16, "batch": 256, "steps": 10, "dtype": "float32"},
        at_most=2,
        **common,
    )
    yield sweep(
        "simulate many starts",
        "d",
        sizes,
        lambda d: _starts(256, 16, d, 10),
        size={"n": 16, "batch": 256, "steps": 10, "dtype": "float32"},
        at_most=2,
        **common,
    )


def _stack(layers: int, d: int, heads: int = 4) -> LayerStack:
    rng = np.random.default_rng(0)
    shape = (layers, heads, d // heads, d)
    maps = (rng.normal(size=(3, *shape)) / d**0.5).astype(np.float32)
    out = (rng.normal(size=(layers, heads, d, d // heads)) / d**0.5).astype(np.float32)
    ones = np.ones(layers, np.float32)
    query, key, value, out, ones = (jnp.asarray(a) for a in (*maps, out, ones))
    return LayerStack(MultiHead(query, key, value, out, alpha=ones, scale=ones))


def _layers(quick: bool) -> Iterator[dict[str, Any]]:
    depths = (2, 4, 8) if quick else (4, 8, 16, 32)
    d, batch, n = (32, 4, 8) if quick else (128, 16, 16)
    x = np.random.default_rng(1).normal(size=(batch, n, d))
    x0 = jnp.asarray((x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32))

    def through(layers: int) -> Callable[[], Any]:
        stack = _stack(layers, d)
        return lambda: simulate(stack, x0, keep="last", observables={}).x

    yield sweep(
        "simulate a stack of layers",
        "layers",
        depths,
        through,
        size={"n": n, "d": d, "batch": batch, "dtype": "float32"},
        at_most=1,
        group="layers",
        what="simulate",
    )

    def pairs(layers: int, d: int) -> Callable[[], Any]:
        matrices = np.asarray(_stack(layers, d).layer_matrix, np.float64)
        return lambda: [each.values for each in spectral.principal(matrices)]

    yield sweep(
        "all eigenpairs of the layers",
        "layers",
        depths,
        lambda layers: pairs(layers, d),
        size={"d": d},
        at_most=1,
        group="layers",
        what="eigenpairs",
    )
    yield sweep(
        "all eigenpairs of the layers",
        "d",
        (32, 48, 64) if quick else (128, 256, 512),
        lambda d: pairs(2, d),
        size={"layers": 2},
        at_most=3,
        group="layers",
        what="eigenpairs",
    )


def _devices(quick: bool) -> Iterator[dict[str, Any]]:
    """Basin runs on 1, 2, 4 and 8 simulated devices: the same numbers, in how much time."""
    counts = (1, 2) if quick else (1, 2, 4, 8)
    samples = 2_000 if quick else 20_000
    runs = [_run(count, samples) for count in counts]
    same = all(run["fractions"] == runs[0]["fractions"] for run in runs)
    points = [
        {"devices": count, "compile": run["compile"], "seconds": run["seconds"], "calls": 1}
        for count, run in zip(counts, runs, strict=True)
    ]
    useful = [p for p in points if p["devices"] <= processors()]
    row = {
        "name": "basin fractions, against devices",
        "size": {"n": 6, "d": 3, "samples": samples, "devices": f"1..{counts[-1]}"},
        "axis": "devices",
        "points": points,
        "threads": processors(),
        "group": "devices",
        "what": "basin fractions",
        "check": "the same fractions on all" if same else "FRACTIONS DIFFER",
        "at_most": None,
        "exponent": None,
    }
    if len(useful) > 1:
        # Of the devices that have a processor each: −1 is all that can be had.
        power = power_law([p["devices"] for p in useful], [p["seconds"] for p in useful])
        row |= power._asdict() | {"fitted": len(useful)}
    yield row


def _run(devices: int, samples: int) -> dict[str, Any]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "PYTHONPATH": str(_CHILD.parents[1]), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    done = subprocess.run(
        [sys.executable, _CHILD, str(samples)],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(quick: bool) -> Iterator[dict[str, Any]]:
    """All sweeps; ``quick``: small sizes, whose exponents mean little."""
    yield from _spectra(quick)
    yield from _simulation(quick)
    yield from _layers(quick)
    yield from _devices(quick)

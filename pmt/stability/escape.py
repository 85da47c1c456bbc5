"""How far a stable point can be pushed before it is lost, in random directions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, require_count
from pmt.parallel.devices import default_device
from pmt.parallel.units import Payload, Report, Unit, split_units, united
from pmt.parallel.workers import Workers
from pmt.stability.basin import attractors_reached, check_seed, class_tolerance

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Escape:
    """What ``escape_radius`` returns; arrays of shape ``(directions,)``, NumPy.

    Attributes:
      kept: along each direction the largest radius up to which all that was tried returned.
      lost: the smallest radius tried that did not return; infinite where none was lost.
      doubtful: the bracket could not be closed, since a run in it was not resolved.
      reach: largest radius tried.
      quantiles: of the radius at which the point is lost: pairs (probability, radius), radius
        halfway in the bracket, infinite where it lies beyond ``reach``. A doubtful direction counts
        with the middle of the bracket that it was left with, and with ``kept``, a lower bound, if
        no run of it was lost.
      probes: (directions, n, d), unit tangent vectors: in order and with ``kept`` they can be run
        again.
      seed, returns_within: as used; the chord within which a run counts as back.
    """

    kept: np.ndarray
    lost: np.ndarray
    doubtful: np.ndarray
    reach: float
    quantiles: tuple[tuple[float, float], ...]
    probes: np.ndarray
    seed: int
    returns_within: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; infinite radii are None."""

        def plain(values: Any) -> list[float | None]:
            return [float(value) if np.isfinite(value) else None for value in values]

        return {
            "kept": plain(self.kept),
            "lost": plain(self.lost),
            "doubtful": self.doubtful.tolist(),
            "reach": self.reach,
            "quantiles": [[p, plain([radius])[0]] for p, radius in self.quantiles],
            "seed": self.seed,
            "returns_within": self.returns_within,
        }


def displaced(
    x: Float[np.ndarray, "n d"],
    probes: Float[np.ndarray, "batch n d"],
    radii: Float[np.ndarray, " batch"],
) -> Float[np.ndarray, "batch n d"]:
    """The end of the geodesic of length ``radius`` · |w| from x along each tangent vector w.

    Token i moves by the angle radius · |w_i| on its great circle; the length in the product of
    spheres is the root of the sum of squared angles.
    """
    size = np.linalg.norm(probes, axis=-1, keepdims=True)
    angle = radii[:, None, None] * size
    unit = probes / np.where(size > 0, size, 1.0)
    moved = np.cos(angle) * x[None] + np.sin(angle) * unit
    return moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def escape_radius(
    system: Any,
    x: Float[AnyArray, "n d"],
    *,
    directions: int = 256,
    reach: float | None = None,
    scan: int = 8,
    bisections: int = 8,
    seed: int = 0,
    max_steps: int = 10_000,
    tolerance: float | None = None,
    chunk: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> Escape:
    """The radius at which an equilibrium is lost, in random tangent directions.

    Along each direction the radii reach/scan, 2 reach/scan, ..., reach are tried and the bracket
    between the last that returned and the first that did not is bisected. A basin need not be
    star-shaped: a thin gap between two radii of the scan stays unseen, so ``kept`` is what was
    tried, not a proof. Returned means: at rest at a state whose tokens are all within the square
    root of the tolerance of those of x. Where x lies in a continuum of equilibria nothing returns
    to x itself, and the radii are about 0.

    Directions do not depend on each other: all ``workers`` divide them, and every process gets the
    same, whatever devices and hosts there are.

    Args:
      system: an autonomous map.
      x: unit tokens, fixed.
      directions: how many; uniform on the unit sphere of the tangent space.
      reach: π sqrt(n) if None, where every token of a direction that moves all alike is turned
        round.
      scan: number of radii of the scan, at least 1.
      bisections: each halves the bracket.
      seed: of the directions, 0 to 2³² − 1.
      chunk: how many directions are tried side by side on a device; by the size of the system, 32
        to 256, if None.
      workers: devices, hosts, and where finished directions are kept; all local devices if None.
      progress: called with the number of directions that are done, or with 0.
      max_steps, tolerance: as for ``attractors_reached``.

    Raises:
      RequestError: d = 1, a point that is not fixed, a number out of range.
      IncompleteError: another host stopped.
    """
    point = np.asarray(x)
    check_tokens(point, system)
    if point.ndim != 2:
        raise RequestError(f"x has shape {point.shape}; give one state of shape (n, d)")
    check_system(system, len(point))
    if point.shape[1] < 2:
        raise RequestError("for d = 1 the sphere is two points and there is nowhere to push to")
    side_by_side = _default_chunk(*point.shape) if chunk is None else chunk
    for name, value, least in (
        ("directions", directions, 1),
        ("scan", scan, 1),
        ("bisections", bisections, 0),
        ("chunk", side_by_side, 1),
    ):
        require_count(name, value, least)
    check_seed(seed)
    furthest = float(np.pi * len(point) ** 0.5 if reach is None else reach)
    if not (np.isfinite(furthest) and furthest > 0):
        raise RequestError(f"reach is {reach!r}; it must be a positive number")
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((directions, *point.shape))
    w = w - point * np.sum(point * w, axis=-1, keepdims=True)
    w = w / np.linalg.norm(w, axis=(1, 2), keepdims=True)
    push = _Push(point, furthest, scan, bisections, max_steps, tolerance, side_by_side)
    if not push.ends(system, w[:1], np.zeros(1))[0][0]:
        raise RequestError(
            "x is not fixed: a run from it ends elsewhere; refine it with run_to_equilibrium or "
            "newton"
        )

    def work(system: Any, unit: Unit, report: Report) -> Payload:
        found = push.brackets(system, w[slice(*unit)], report)
        report(unit.size)
        return {"direction": np.arange(*unit), **found}

    found = (workers or Workers()).reduce(
        "lost",
        work,
        system,
        split_units(0, directions, side_by_side),
        united("direction"),
        progress or (lambda _done: None),
    )
    kept, lost, doubtful = (found[name] for name in ("kept", "lost", "doubtful"))
    middle = np.where(np.isfinite(lost), (kept + lost) / 2, np.where(doubtful, kept, np.inf))
    quantiles = tuple((p, float(np.quantile(middle, p, method="inverted_cdf"))) for p in QUANTILES)
    back_within = class_tolerance(tolerance, point.dtype) ** 0.5
    return Escape(kept, lost, doubtful, furthest, quantiles, w, seed, back_within)


@dataclass(frozen=True)
class _Push:
    """How far the point is pushed along given directions; attributes as of ``escape_radius``."""

    point: np.ndarray
    reach: float
    scan: int
    bisections: int
    max_steps: int
    tolerance: float | None
    chunk: int

    def ends(
        self, system: Any, probes: np.ndarray, radii: np.ndarray, report: Report | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each run came back, and whether it ended anywhere at all."""
        found = attractors_reached(
            system,
            jnp.asarray(displaced(self.point, probes, radii).astype(self.point.dtype)),
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            chunk=self.chunk,
            # On the device of this unit.
            workers=Workers((default_device(),)),
            progress=report and (lambda _done: report(0)),
        )
        kind = np.array([each.kind for each in found.attractors])[found.label]
        apart = np.linalg.norm(found.states - self.point[None], axis=-1).max(axis=1)
        moving = ["unresolved", "cycle", "undefined", "non-finite"]
        back = (apart <= found.tolerance**0.5) & ~np.isin(kind, moving)
        return back, kind != "unresolved"

    def brackets(self, system: Any, w: np.ndarray, report: Report) -> Payload:
        """``kept``, ``lost`` and ``doubtful`` along each of these directions."""
        kept, lost = np.zeros(len(w)), np.full(len(w), np.inf)
        doubtful = np.zeros(len(w), bool)
        open_ = np.arange(len(w))

        def learn(which: np.ndarray, radii: np.ndarray) -> None:
            back, known = self.ends(system, w[which], radii, report)
            kept[which[back]] = radii[back]
            gone = ~back & known
            lost[which[gone]] = radii[gone]
            doubtful[which[~back & ~known]] = True

        for k in range(1, self.scan + 1):
            if len(open_):
                learn(open_, np.full(len(open_), self.reach * k / self.scan))
                open_ = np.flatnonzero(np.isinf(lost) & ~doubtful)
        for _ in range(self.bisections):
            open_ = np.flatnonzero(np.isfinite(lost) & ~doubtful)
            if len(open_):
                learn(open_, (kept[open_] + lost[open_]) / 2)
        return {"kept": kept, "lost": lost, "doubtful": doubtful}


def _default_chunk(tokens: int, d: int) -> int:
    # Small systems, with which a device has little to do, stay together.
    return max(32, min(256, 2**16 // (tokens * max(tokens, d))))

"""Phase diagrams: where bipartite points are stable, and how much they attract.

Over two parameters, the logit scale θ and the ratio λ_2/λ_1 (one minus the relative spectral gap),
with the theory's boundary λ_2/λ_1 = Ψ(θ) beside what the spectrum says and what runs do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.dynamics import SingleHead
from pmt.errors import RequestError
from pmt.numerics import AnyArray, require_count
from pmt.parallel.devices import default_device
from pmt.parallel.units import Payload, Report, Unit, split_units, united
from pmt.parallel.workers import Workers
from pmt.stability.basin import basin_fractions, check_seed
from pmt.stability.conditions import exact_bipartite_margin, psi
from pmt.stability.spectrum import bipartite_multipliers

# Cells that a device runs one after the other.
_CELLS = 4


@dataclass(frozen=True)
class PhaseDiagram:
    """Over ``theta`` (columns) and ``ratio`` (rows), NumPy.

    Attributes:
      theta: (columns,), logit scales θ_1 = v_1ᵀ B v_1, increasing.
      ratio: (rows,), λ_2/λ_1, increasing.
      radius: (rows, columns), largest multiplier modulus at the bipartite point, Lemma 14.
      stable: (rows, columns), radius below 1.
      margin: (rows, columns), the exact criterion of theory II.4, positive iff stable.
      boundary: (columns,), Ψ(θ): stable below it, for λ_2 >= 0.
      disagreements: cells in which the two answers differ by more than rounding; 0 by theory.
      fraction, low, high: (rows, columns): share of random initial conditions that end bipartite
        along v_1, any split, with Wilson's 95 % interval; None where no samples were asked for.
      unresolved: (rows, columns), share of runs whose budget ended first, or None.
      split: (n_1, n_2).
      alpha, others, samples, seed: as used; ``others`` are λ_3/λ_1, ... .
    """

    theta: np.ndarray
    ratio: np.ndarray
    radius: np.ndarray
    stable: np.ndarray
    margin: np.ndarray
    boundary: np.ndarray
    disagreements: int
    fraction: np.ndarray | None
    low: np.ndarray | None
    high: np.ndarray | None
    unresolved: np.ndarray | None
    split: tuple[int, int]
    alpha: float
    others: tuple[float, ...]
    samples: int
    seed: int


def phase_diagram(
    theta: Float[AnyArray, " columns"],
    ratio: Float[AnyArray, " rows"],
    *,
    split: tuple[int, int] = (3, 3),
    alpha: float = 0.2,
    others: tuple[float, ...] = (-0.3,),
    samples: int = 0,
    seed: int = 0,
    max_steps: int = 10_000,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> PhaseDiagram:
    """V = diag(1, ratio, *others), Q'K = θ v_1 v_1ᵀ, single head, full attention, over a grid.

    Args:
      theta: positive logit scales, increasing.
      ratio: λ_2/λ_1 below 1, not below ``others``, increasing.
      split: tokens at +v_1 and at −v_1 of the point whose spectrum is taken.
      alpha: step size, 0 < alpha < 1/|V|, for which the boundary does not depend on it.
      others: the remaining eigenvalues relative to λ_1 = 1, each in (−1, 1).
      samples: random initial conditions for each cell; 0 for the spectra alone. Cell number
        c (row by row) uses a seed made of ``seed`` and c, so that no two cells of neighbouring
        seeds share their starts.
      seed: see there, 0 to 2³² − 1.
      max_steps: budget of each run.
      workers: devices and hosts that divide the cells, each run by one of them whole, and where
        finished cells are kept; all local devices if None. They change nothing in the result, and
        every process gets the same.
      progress: called with the number of cells whose runs have just ended, or with 0.

    Raises:
      RequestError: a grid or a number outside these bounds.
      IncompleteError: another host stopped.
    """
    columns, rows = np.asarray(theta, np.float64), np.asarray(ratio, np.float64)
    _check(columns, rows, split, alpha, others, samples)
    check_seed(seed)
    n1, n2 = split
    grid = partial(_spectral, n1=n1, n2=n2)
    spectra = grid(jnp.asarray(columns), jnp.asarray(rows), jnp.asarray(others, float), alpha)
    radius, margin = (np.asarray(each, np.float64) for each in spectra)
    epsilon = float(np.finfo(np.asarray(spectra[0]).dtype).eps)
    unclear = (np.abs(radius - 1.0) <= 1e3 * epsilon) | (np.abs(margin) <= 1e3 * epsilon)
    wrong = ((radius < 1.0) != (margin > 0)) & ~unclear
    shares = np.full((4, len(rows), len(columns)), np.nan)

    def share_of(cell: int, report: Report) -> tuple[float, ...]:
        i, j = divmod(cell, columns.size)
        found = basin_fractions(
            phase_system(columns[j], rows[i], alpha, others),
            n1 + n2,
            samples=samples,
            seed=int(np.random.SeedSequence([seed, cell]).generate_state(1)[0]),
            max_steps=max_steps,
            verdicts=False,
            # On the device of this unit.
            workers=Workers((default_device(),)),
            progress=lambda _done: report(0),
        )
        both = found.share("bipartite", where=lambda a: a.index == 0)
        report(1)
        return both.fraction, both.low, both.high, found.unresolved.fraction

    def work(_shared: Any, unit: Unit, report: Report) -> Payload:
        cells = np.arange(*unit)
        return {"cell": cells, "share": np.array([share_of(int(cell), report) for cell in cells])}

    if samples:
        units = split_units(0, rows.size * columns.size, _CELLS)
        runs = (workers or Workers()).reduce(
            "cells", work, None, units, united("cell"), progress or (lambda _done: None)
        )
        shares.reshape(4, -1)[:, runs["cell"]] = runs["share"].T
    fraction, low, high, unresolved = shares if samples else (None,) * 4
    return PhaseDiagram(
        theta=columns,
        ratio=rows,
        radius=radius,
        stable=radius < 1.0,
        margin=margin,
        boundary=np.asarray(psi(jnp.asarray(columns), n1, n2), np.float64),
        disagreements=int(wrong.sum()),
        fraction=fraction,
        low=low,
        high=high,
        unresolved=unresolved,
        split=(n1, n2),
        alpha=alpha,
        others=tuple(others),
        samples=samples,
        seed=seed,
    )


def phase_system(
    theta: float, ratio: float, alpha: float, others: tuple[float, ...] = (-0.3,)
) -> SingleHead:
    """The system of one cell: V = diag(1, ratio, *others), Q'K = θ v_1 v_1ᵀ."""
    values = np.array([1.0, ratio, *others])
    query_key = np.zeros((len(values), len(values)))
    query_key[0, 0] = theta
    dtype = jnp.result_type(float)
    return SingleHead(
        jnp.asarray(np.diag(values), dtype), jnp.asarray(query_key, dtype), alpha=alpha
    )


@partial(jax.jit, static_argnames=("n1", "n2"))
def _spectral(
    theta: Float[Array, " columns"],
    ratio: Float[Array, " rows"],
    others: Float[Array, " p"],
    alpha: Any,
    *,
    n1: int,
    n2: int,
) -> tuple[Array, Array]:
    def cell(second: Array, scale: Array) -> tuple[Array, Array]:
        rest = jnp.concatenate([second[None], others])
        one = jnp.ones((), rest.dtype)
        found = bipartite_multipliers(alpha, one, rest, scale, n1, n2)
        # A group of one token has no vector of the third class.
        single = [g for g, size in zip(found.single, (n1, n2), strict=True) if size >= 2]
        largest = jnp.max(jnp.abs(found.pair))
        for value in single:
            largest = jnp.maximum(largest, value)
        return largest, exact_bipartite_margin(one, rest, scale, n1, n2)

    return jax.vmap(lambda r: jax.vmap(lambda t: cell(r, t))(theta))(ratio)


def _check(
    theta: np.ndarray,
    ratio: np.ndarray,
    split: tuple[int, int],
    alpha: float,
    others: tuple[float, ...],
    samples: int,
) -> None:
    for name, values in (("theta", theta), ("ratio", ratio)):
        if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
            raise RequestError(f"{name} must be a list of finite numbers, not {values!r}")
        if np.any(np.diff(values) <= 0):
            raise RequestError(f"{name} must increase from entry to entry")
    if theta[0] <= 0:
        raise RequestError(f"theta starts at {theta[0]:g}; the boundary is for positive scales")
    if ratio[-1] >= 1 or not all(-1 < other <= ratio[0] for other in others):
        raise RequestError(
            f"ratio runs to {ratio[-1]:g} and others are {others}; expected others <= ratio < 1 "
            "and others in (-1, 1)"
        )
    if ratio[0] <= -1:
        raise RequestError(f"ratio starts at {ratio[0]:g}; it must be above -1")
    if min(split) < 1:
        raise RequestError(f"split is {split}; it must be two counts, each at least 1")
    # |V| = 1.
    if not 0 < alpha < 1:
        raise RequestError(f"alpha is {alpha!r}; the boundary is for 0 < alpha < 1/|V| = 1")
    require_count("samples", samples, 0)

"""Basin fractions beside what is known of them: theory II.3's closed form and the row of D.4.2.

Each row is 100,000 random initial conditions, run to their ends and classified. ``agrees``: less
than 1 % are unresolved, and

- II.3 (Oja, two tokens in the plane): the closed form lies between the lower confidence limit of
  the antipodal fraction and the upper one of the antipodal and unresolved fraction together.
- D.4.2 (softmax, six tokens on S²): the row is itself a Monte Carlo estimate, given to three digits
  and taken to be of 1,000 runs: 0 lies between the lower limit of Newcombe's interval of the
  difference and the upper one with the unresolved runs counted as bipartite too.

Confidence 0.999 each. No peer finds basins; the limit of the softmax rows is the time in which the
C loop of ``benchmarks.simulation`` makes as many steps of as many tokens, which it does not look
at. Compilation is part of the time of every row.
"""

import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.measure import limit, once, timed
from benchmarks.simulation import c_loop, given_starts
from pmt.dynamics import Oja, SingleHead
from pmt.stability.basin import Basins, basin_fractions
from pmt.stability.intervals import binomial_interval, difference_interval
from theory.oja_basin import pair_basin

DEVICES = ("cpu", "gpu")
ROW = {0.5: 0.0, 0.8: 0.079, 1.0: 0.168, 2.0: 0.585, 5.0: 0.799, 20.0: 0.923, 100.0: 0.951}
RATIOS = (0.1, 0.5, 0.9, 2.0)
ALPHA = 0.01
CONFIDENCE = 0.999
_ROW_RUNS = 1000
# Beyond this share of unresolved runs the bounds say too little for a row to agree.
_UNRESOLVED = 0.01


def oja_row(mu: float, samples: int) -> dict[str, Any]:
    """V = diag(1, −mu), alpha = 0.01: the fraction of pairs that end antipodal, and p(mu)."""
    system = Oja(jnp.diag(jnp.array([1.0, -mu])), alpha=ALPHA)
    started = time.perf_counter()
    # Antipodal pairs attract at rates that go down with mu.
    budget = round(4000 / min(mu, 0.5))
    found = basin_fractions(
        system, 2, samples=samples, max_steps=budget, tolerance=1e-4, verdicts=False
    )
    seconds = time.perf_counter() - started
    apart = found.share(where=lambda a: a.collinear and a.kind != "consensus")
    at_most = apart.count + found.unresolved.count
    low, _ = binomial_interval(apart.count, samples, CONFIDENCE)
    _, high = binomial_interval(at_most, samples, CONFIDENCE)
    expected = float(pair_basin(mu))
    agrees = found.unresolved.fraction < _UNRESOLVED and low <= expected <= high
    numbers = {"expected": expected, "low": low, "high": high, "agrees": agrees}
    name = f"II.3, mu = {mu:g}: antipodal {apart.fraction:.4f}, closed form {expected:.4f}"
    return _row(name, found, seconds, {"n": 2, "d": 2}, numbers)


def softmax_row(theta: float, samples: int) -> dict[str, Any]:
    """V = diag(1, .5, −.3), Q'K = theta v_1 v_1', alpha = .2: the fraction that ends bipartite."""
    query_key = jnp.diag(jnp.array([theta, 0.0, 0.0]))
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5, -0.3])), query_key, alpha=0.2)
    started = time.perf_counter()
    found = basin_fractions(
        system, 6, samples=samples, max_steps=8000, tolerance=1e-4, verdicts=False
    )
    seconds = time.perf_counter() - started
    both = found.share("bipartite")
    known = round(_ROW_RUNS * ROW[theta])
    bounds = [
        difference_interval(count, samples, known, _ROW_RUNS, CONFIDENCE)
        for count in (both.count, both.count + found.unresolved.count)
    ]
    numbers = {
        "expected": ROW[theta],
        "low": bounds[0][0],
        "high": bounds[1][1],
        "agrees": found.unresolved.fraction < _UNRESOLVED and bounds[0][0] <= 0.0 <= bounds[1][1],
    }
    name = f"D.4.2, theta = {theta:g}: bipartite {both.fraction:.4f}, the row {ROW[theta]:.3f}"
    return _row(name, found, seconds, {"n": 6, "d": 3}, numbers)


def _row(
    name: str, found: Basins, seconds: float, size: dict[str, int], numbers: dict[str, Any]
) -> dict[str, Any]:
    steps = found.samples * found.mean_steps * size["n"]
    return {
        "name": name + ("" if numbers["agrees"] else ", DISAGREES"),
        "check": f"agrees: {numbers['agrees']}",
        "size": {"samples": found.samples, **size},
        # Compilation is part of it.
        "ours": once(seconds),
        "unresolved": found.unresolved.fraction,
        "mean_steps": found.mean_steps,
        "token_steps_per_second": steps / seconds,
        "fractions": {a.name: a.share.fraction for a in found.attractors},
        **numbers,
    }


@cache
def _c_rate(n: int, d: int) -> float | None:
    """Token-steps per second of the C loop in float64; None without a compiler."""
    if not shutil.which("cc"):
        return None
    starts, steps = 10_000, 100
    with tempfile.TemporaryDirectory() as folder:
        call = c_loop(given_starts(n, d, starts, steps, np.dtype("float64")), Path(folder))
        return starts * n * steps / min(timed(call)[0] for _ in range(5))


def rows(quick: bool) -> list[dict[str, Any]]:
    """All rows; ``quick``: 4,000 initial conditions each."""
    samples = 4_000 if quick else 100_000
    found = [oja_row(mu, samples) for mu in RATIOS] + [softmax_row(t, samples) for t in ROW]
    # The C loop has attention weights, which the Oja rows of II.3 have not.
    for row in found[len(RATIOS) :]:
        rate = _c_rate(row["size"]["n"], row["size"]["d"])
        if rate is not None:
            seconds = row["ours"]["median"]
            least = row["token_steps_per_second"] * seconds / rate
            row["limit"] = limit("the C loop", least, seconds)
    return found

"""D.4.2: the basins of bipartite points, row by row, with confidence intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.stability.basin import sample_starts
from pmt.stability.intervals import binomial_interval
from theory import basins, oracles

ROW = {0.5: 0.0, 0.8: 0.079, 1.0: 0.168, 2.0: 0.585, 5.0: 0.799, 20.0: 0.923, 100.0: 0.951}
LIMIT = 1 - 2.0**-5
# The confidence of an interval of four standard deviations either way.
FOUR_DEVIATIONS = 0.99993666


def shares(count, seed, steps):
    from pmt.dynamics import SingleHead

    starts = jnp.asarray(sample_starts(seed, np.arange(count), basins.TOKENS, 3))
    v = jnp.array([1.0, 0.0, 0.0])

    @jax.jit
    def share(theta):
        system = SingleHead(jnp.asarray(basins.value()), theta * v[:, None] * v[None, :], 0.2)
        return jnp.mean(basins.ends_bipartite(system, starts, v, steps).astype(v.dtype))

    return {theta: float(share(jnp.asarray(theta))) for theta in ROW}


def check(found, count):
    for theta, expected in ROW.items():
        low, high = binomial_interval(round(found[theta] * count), count, FOUR_DEVIATIONS)
        # theory.md gives three digits of its own estimate.
        assert low - 0.012 <= expected <= high + 0.012, (theta, found[theta])
    ordered = [found[theta] for theta in ROW]
    assert ordered == sorted(ordered)
    assert ordered[-1] < LIMIT + 4 * np.sqrt(LIMIT * (1 - LIMIT) / count)


def test_the_row_of_theta():
    check(shares(250, 3, 200), 250)


@pytest.mark.long
def test_the_row_of_theta_on_ten_thousand_starts():
    check(shares(10_000, 4, 600), 10_000)


def test_the_fixed_number_of_steps_decides_as_the_runs_to_equilibrium_do():
    row = basins.measured_row(2.0, starts=200, seed=3)
    quick = shares(200, 3, 200)[2.0]
    assert row["unresolved"] == 0
    assert abs(row["bipartite"] - quick) <= 0.02
    assert row["low"] < row["bipartite"] < row["high"]


def test_the_limit_is_the_chance_that_not_all_tokens_start_on_one_side():
    starts = np.random.default_rng(0).normal(size=(20_000, basins.TOKENS, 3))
    mixed = np.abs(np.sign(starts[:, :, 0]).sum(axis=1)) < basins.TOKENS
    assert mixed.mean() == pytest.approx(LIMIT, abs=0.006)


def test_below_the_threshold_no_split_is_stable_and_above_it_the_balanced_one_is():
    eigenvalues = np.array([1.0, 0.5, -0.3])
    threshold = np.arctanh(0.5)
    for n1 in range(1, 6):
        assert not oracles.bipartite_stable(eigenvalues, 0, threshold - 1e-6, n1, 6 - n1)
    assert oracles.bipartite_stable(eigenvalues, 0, threshold + 1e-6, 3, 3)
    # At theta = .5 < .549 nothing attracts, at .8 something does: the first two of the row.
    assert 0.5 < threshold < 0.8

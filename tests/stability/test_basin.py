"""Basins: fractions beside the closed form and the row of the theory, and what may not be counted.

Batches of 1024 throughout, so that little is compiled.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks import basins as benchmark
from pmt import sphere
from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead, simulate
from pmt.equilibria import classify
from pmt.errors import RequestError
from pmt.figures.basins import fraction_bars
from pmt.stability import attractor as attractor_module
from pmt.stability import basin
from pmt.stability.basin import attractors_reached, basin_fractions, sample_starts
from pmt.stability.ending import measure, read_ends
from pmt.stability.intervals import binomial_interval, difference_interval
from pmt.stability.tally import End
from tests.tolerance import assert_close
from theory.oja_basin import pair_basin

V1 = jnp.array([1.0, 0.0, 0.0])
SETTLING = {"chunk": 1024, "max_steps": 4096, "tolerance": 1e-4, "verdicts": False}
ROW = {0.5: 0.0, 0.8: 0.079, 1.0: 0.168, 2.0: 0.585, 5.0: 0.799, 20.0: 0.923, 100.0: 0.951}


def pair_system(mu, alpha=0.02):
    return Oja(jnp.diag(jnp.array([1.0, -mu])), alpha=alpha)


def six_tokens(theta):
    return SingleHead(
        jnp.diag(jnp.array([1.0, 0.5, -0.3])), theta * V1[:, None] * V1[None, :], alpha=0.2
    )


@pytest.fixture(scope="module")
def pairs():
    """The basins of the Oja pair at mu = 2, the closed form of II.3 being p(mu)."""
    return basin_fractions(pair_system(2.0), 2, samples=2000, **SETTLING)


def test_the_antipodal_fraction_is_the_closed_form_of_ii_3(pairs):
    apart = pairs.share(where=lambda a: a.collinear and a.kind != "consensus")
    low, _ = binomial_interval(apart.count, pairs.samples, 0.999)
    _, high = binomial_interval(apart.count + pairs.unresolved.count, pairs.samples, 0.999)
    assert low <= float(pair_basin(2.0)) <= high
    # So narrow that the other mu's of the benchmark would not pass.
    assert high < float(pair_basin(0.9)) or low > float(pair_basin(0.9))
    assert pairs.unresolved.fraction < 0.01
    assert sum(a.share.count for a in pairs.attractors) == pairs.samples


def test_ends_are_named_and_both_sides_of_consensus_are_told_apart(pairs):
    names = [a.name for a in pairs.attractors]
    assert set(names) <= {
        "consensus at +v1", "consensus at -v1", "polygonal on one line", "bipartite 1+1 along v1",
        "bipartite 1+1 along v2", "unresolved",
    }  # fmt: skip
    by_name = {a.name: a for a in pairs.attractors}
    plus, minus = by_name["consensus at +v1"], by_name["consensus at -v1"]
    assert abs(plus.share.fraction - minus.share.fraction) < 0.08
    assert plus.state[0, 0] > 0.999 > -0.999 > minus.state[0, 0]
    assert plus.split == (2, 0) and minus.split == (0, 2)
    bars = fraction_bars(replace(pairs, confidence=0.999)).axes[0]
    assert bars.get_xlabel() == "fraction of 2,000 initial conditions, 99.9% intervals"


def test_the_result_depends_on_the_seed_and_not_on_the_chunk(monkeypatch):
    quick = pair_system(-0.4, alpha=0.5)
    options = {**SETTLING, "samples": 1500, "max_steps": 1024}
    found = basin_fractions(quick, 2, **options)
    monkeypatch.setattr(basin, "_NUMBERS", 4 * 256)
    other = basin_fractions(quick, 2, **{**options, "chunk": 256})

    def counts(found):
        return {a.name: (a.share.count, a.first) for a in found.attractors}

    assert counts(other) == counts(found)
    assert other.mean_steps == found.mean_steps
    reseeded = basin_fractions(quick, 2, seed=1, **options)
    assert counts(reseeded) != counts(found)


def test_samples_can_be_run_again_from_their_numbers(pairs):
    first = [attractor.first for attractor in pairs.attractors]
    again = attractors_reached(pair_system(2.0), sample_starts(0, first, 2, 2), **SETTLING)
    for place, attractor in enumerate(pairs.attractors):
        assert again.attractors[again.label[place]].name == attractor.name
        np.testing.assert_array_equal(again.states[place], attractor.state)


def test_what_has_not_arrived_within_the_budget_is_unresolved_and_no_basin(pairs, monkeypatch):
    """Fault 71: after 64 steps of a small step size nothing has arrived."""
    found = basin_fractions(pair_system(0.5), 2, **{**SETTLING, "samples": 1000, "max_steps": 64})
    (only,) = found.attractors
    assert (only.kind, only.share.count, only.period) == ("unresolved", 1000, None)
    assert found.unresolved.low > 0.99
    # And a row of the benchmark does not agree because everything might be anything.
    for answer, agrees in ((found, False), (pairs, True)):
        monkeypatch.setattr(benchmark, "basin_fractions", lambda *_a, given=answer, **_k: given)
        assert benchmark.oja_row(2.0, answer.samples)["agrees"] == agrees
        if not agrees:
            assert not benchmark.softmax_row(2.0, answer.samples)["agrees"]


def test_motion_below_the_rounding_of_single_precision_is_no_rest():
    """Fault 71: a step of 1e-5 in float32 moves less than rounding; alpha = 0.1 is told apart."""
    x = sample_starts(0, np.arange(8), 2, 2, np.float32)
    value = jnp.asarray(np.diag([1.0, 0.5]), jnp.float32)
    axes, tolerance = jnp.eye(2, dtype=jnp.float32), 64 * float(np.finfo(np.float32).eps) ** 0.5
    for alpha, visible in ((1e-5, False), (0.1, True)):
        found = measure(Oja(value, alpha=alpha), jnp.asarray(x), axes, jnp.float32(tolerance))
        assert (found.unseen <= 0.01 * tolerance).all() == visible
        still = replace(found, defects={**found.defects, "fixed": np.zeros(8)}, gap=np.ones(8))
        assert read_ends(still, tolerance).settled.any() == visible


@pytest.fixture(scope="module")
def large_step():
    """Above alpha = −2/(λ_1 + λ_d) = 1 Oja with V = diag(1, −3) ends on ±v_2 or antipodal."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=1.2)
    return basin_fractions(system, 2, **{**SETTLING, "samples": 1000, "tolerance": None})


def test_a_2_cycle_is_no_equilibrium_and_ends_early(large_step):
    """Fault 72."""
    cycle = large_step.attractors[0]
    assert (cycle.kind, cycle.period, cycle.name) == ("cycle", 2, "2-cycle")
    assert cycle.share.fraction > 0.95
    assert large_step.share("consensus", "clustering").count == 0
    assert large_step.mean_steps < 1000


@pytest.mark.long
def test_a_cycle_of_period_four_is_found_at_the_end_of_the_budget():
    """Theory II.9: the cascade V = [[1, .5], [.5, −.5]], Q'K = −41 flip, alpha = .25."""
    flip = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    system = SingleHead(jnp.array([[1.0, 0.5], [0.5, -0.5]]), -41.0 * flip, alpha=0.25)
    angle = 0.002 * np.arange(1, 9)
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    found = attractors_reached(system, np.stack([axis, -axis], axis=1), max_steps=1024)
    (four,) = found.attractors
    assert (four.kind, four.period, four.name) == ("cycle", 4, "4-cycle")
    path = np.asarray(simulate(system, jnp.asarray(four.state), 4, observables={}).x)
    assert np.abs(path[4] - path[0]).max() < 1e-9 < 1e-3 < np.abs(path[2] - path[0]).max()


@pytest.fixture(scope="module")
def six():
    return basin_fractions(six_tokens(2.0), 6, samples=1000, chunk=1024, max_steps=2048)


def test_a_row_of_d_4_2(six):
    both = six.share("bipartite")
    low, high = difference_interval(both.count, 1000, round(1000 * ROW[2.0]), 1000, 0.999)
    assert low <= 0.0 <= high
    assert six.unresolved.count == 0


def test_splits_are_counted_apart_and_stable_where_runs_end(six, monkeypatch):
    found = six
    splits = {a.split for a in found.attractors if a.kind == "bipartite"}
    assert splits <= {(k, 6 - k) for k in range(1, 6)}
    assert len(splits) >= 4
    for attractor in found.attractors:
        assert attractor.verdict == "stable"
        assert attractor.spectral_radius < 1
        known = classify(six_tokens(2.0), attractor.state)
        assert known.kind == attractor.kind
        if attractor.kind == "bipartite":
            assert int((attractor.state[:, 0] > 0).sum()) == attractor.split[0]
    # A dense spectrum too large to take is taken only where nothing else answers.
    end, state = End("bipartite", 0, 3, collinear=True), found.attractors[0].state
    monkeypatch.setattr(attractor_module, "_LARGEST_DENSE", 0)
    assert attractor_module._verdict(six_tokens(2.0), end, state)[0] == "stable"
    monkeypatch.setattr(attractor_module, "has_closed_form", lambda *_: False)
    assert attractor_module._verdict(six_tokens(2.0), end, state) == (None, None)


def test_a_start_on_an_unstable_point_is_reported_as_unstable():
    """Fault 70: all tokens at v_2."""
    x0 = np.tile(np.array([0.0, 1.0, 0.0]), (1000, 6, 1))
    found = attractors_reached(six_tokens(2.0), x0, max_steps=2048, verdicts=True)
    (only,) = found.attractors
    assert (only.name, only.verdict) == ("consensus at +v2", "unstable")


def test_states_between_the_classes_are_not_decided():
    """Two tokens 1e-4 apart are neither equal nor two clusters, whatever little they move."""
    still = Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.0)

    def at(angle):
        return np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])

    angles = np.array([0.0, 1e-9, 1e-4, 0.5])
    x0 = np.repeat(np.stack([at(angle) for angle in angles]), 250, axis=0)
    found = attractors_reached(still, x0, max_steps=64)
    kinds = [found.attractors[label].kind for label in found.label[::250]]
    assert kinds == ["consensus", "consensus", "unresolved", "clustering"]


def test_samples_are_added_until_the_intervals_are_as_narrow_as_asked_for():
    quick, options = pair_system(-0.4, alpha=0.5), {**SETTLING, "max_steps": 1024}
    found = basin_fractions(quick, 2, samples=50_000, width=0.045, **options)
    widths = [a.share.high - a.share.low for a in found.attractors]
    assert found.reached and max(widths) <= 0.045
    assert 1000 < found.samples < 4000
    capped = basin_fractions(quick, 2, samples=1000, width=0.045, **options)
    assert (capped.reached, capped.samples) == (False, 1000)


def test_intervals_are_those_of_scipy():
    for count, total in ((0, 50), (7, 80), (10, 10)):
        for method, name in (("wilson", "wilson"), ("clopper-pearson", "exact")):
            found = binomial_interval(count, total, 0.97, method)
            known = binomtest(count, total).proportion_ci(0.97, method=name)
            np.testing.assert_allclose(found, (known.low, known.high), rtol=0, atol=1e-12)
    # Newcombe 1998, table II, row (a): 56/70 and 48/80, method 10.
    found = difference_interval(56, 70, 48, 80)
    np.testing.assert_allclose(found, (0.0524, 0.3339), rtol=0, atol=5e-5)
    with pytest.raises(RequestError, match="total is 0"):
        difference_interval(0, 0, 48, 80)


def test_requests_that_make_no_sense_are_refused_in_one_sentence():
    system = pair_system(0.5)
    heads = MultiHead.from_maps(jnp.eye(2)[None], jnp.eye(2)[None])
    for options, words in (
        ({"samples": 0}, "samples is 0"),
        ({"width": 1.5}, "width is 1.5"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"method": "normal"}, "the interval is 'normal'"),
        ({"seed": -1}, "seed is -1"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"max_steps": 0}, "max_steps is 0"),
    ):
        with pytest.raises(RequestError, match=words):
            basin_fractions(system, 2, **options)
    with pytest.raises(RequestError, match="LayerStack"):
        basin_fractions(LayerStack.from_layers([heads, heads]), 2)
    with pytest.raises(RequestError, match="the sampler gives a state of shape"):
        basin_fractions(system, 2, sampler=lambda key: sphere.uniform(key, (3, 2)))


@pytest.mark.long
def test_a_hundred_thousand_samples_beside_ii_3_and_the_row():
    for mu in (0.1, 0.5, 0.9, 2.0):
        assert benchmark.oja_row(mu, 100_000)["agrees"]
    for theta in ROW:
        assert benchmark.softmax_row(theta, 100_000)["agrees"]


def test_the_starts_are_uniform_and_fixed_by_seed_and_number():
    x = sample_starts(3, np.arange(4096), 2, 3)
    np.testing.assert_array_equal(x[1000:1003], sample_starts(3, [1000, 1001, 1002], 2, 3))
    drawn = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(3), 5), (2, 3)))
    assert_close(x[5], drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(x[:2], sample_starts(3, [0, 1], 2, 3))
    # Coordinates of uniform points of S² are uniform on (−1, 1).
    assert np.abs(x.mean(axis=0)).max() < 0.05
    assert np.abs((x**2).mean(axis=0) - 1 / 3).max() < 0.02
    assert abs((x[:, 0] * x[:, 1]).sum(-1).mean()) < 0.05

"""Draws of the null models on the host and on a device are the null models, and the same draws."""

import threading
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.experiments import AnalysisConfig, analyze, layer_run, null_draws, passage
from pmt.experiments.null_draws import DeviceDraws, HostDraws
from pmt.experiments.nulls import (
    attention_weights,
    gaussian_map,
    gaussian_maps,
    gaussian_update,
    random_rotation,
    rotated_update,
)
from pmt.parallel.pool import side_by_side
from tests.experiments.systems import random_stack
from tests.experiments.test_nulls import tokens


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "biases"])
def case(request):
    layer, x = random_stack(biases=request.param).layer(0), tokens()
    return layer, x, attention_weights(layer, x, None)


def test_the_host_and_a_device_draw_the_null_models(case):
    layer, x, weights = case
    expected = gaussian_update(layer, gaussian_maps(layer, 5, 2, 1), x, weights)
    r = random_rotation(6, 5, 2, 1)
    turned = np.asarray(rotated_update(layer, r, x, weights)) @ r
    for kind in (HostDraws, DeviceDraws):
        draws = kind(layer, x, weights, 5, 1)
        update, matrix = draws.gaussian(2, summed=True)
        np.testing.assert_allclose(update, expected, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(matrix, sum(gaussian_maps(layer, 5, 2, 1)), rtol=1e-14)
        assert matrix.dtype == np.float64
        again, empty = draws.gaussian(2, summed=False)
        assert empty.size == 0 and np.array_equal(again, update)
        rotation, states, other = draws.rotated(2)
        np.testing.assert_array_equal(rotation, r)
        np.testing.assert_allclose(states, np.asarray(x) @ r, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(other, turned, rtol=1e-10, atol=1e-13)


def test_threads_change_no_bit(case):
    layer, x, weights = case
    draws = HostDraws(layer, x, weights, 0, 0)
    asked = [partial(draws.gaussian, draw, summed=True) for draw in range(5)]
    alone = [work() for work in asked]
    for threads in (1, 2, 5):
        with draws.each(asked, threads) as answers:
            for one, other in zip(alone, answers, strict=True):
                assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_draws_that_nobody_waits_for_are_not_at_work():
    ended = threading.Event()
    begun = []

    def piece(number):
        begun.append(number)
        ended.wait(10)
        return number

    with pytest.raises(KeyError), side_by_side([partial(piece, i) for i in range(9)], 2):
        ended.set()
        raise KeyError
    assert len(begun) <= 2
    ended.set()
    with side_by_side([partial(piece, i) for i in range(9)], 2) as answers:
        assert next(answers) == 0 and len(begun) <= 5
        assert list(answers) == list(range(1, 9))


def test_an_analysis_on_a_device_has_the_numbers_of_the_host(monkeypatch):
    stack, config = random_stack(biases=True), AnalysisConfig(prompts=4, tokens=3, draws=2)
    host = analyze(stack, config)
    monkeypatch.setattr(layer_run, "null_draws", DeviceDraws)
    monkeypatch.setattr(passage, "on_host", lambda x: False)
    device = analyze(stack, config)
    for one, other in zip(host.layers, device.layers, strict=True):
        for name in ("alignment", "plane"):
            parts = [getattr(each, name) for each in (one, other)]
            assert parts == [None, None] or vars(parts[0]) == pytest.approx(vars(parts[1]))
        for null in ("gaussian", "rotated"):
            for name in ("delta_rho", "p_increase", "se", "sd"):
                found = getattr(one.null[null], name)
                assert found == pytest.approx(getattr(other.null[null], name), rel=1e-9)
            for name in ("rho", "se", "sd", "ratio", "ratio_se", "ratio_sd"):
                after = [getattr(each.null[null].after, name) for each in (one, other)]
                assert after[0] == pytest.approx(after[1], rel=1e-9)
        assert one.intertoken_distance == pytest.approx(other.intertoken_distance, rel=1e-12)
    assert host.initial_distance == pytest.approx(device.initial_distance, rel=1e-12)


def test_the_draws_are_where_the_arrays_are(case):
    layer, x, weights = case
    assert isinstance(null_draws.null_draws(layer, x, weights, 0, 0), HostDraws)
    half = x.astype(jnp.bfloat16)
    assert isinstance(null_draws.null_draws(layer, half, weights, 0, 0), DeviceDraws)


def test_gaussian_maps_are_gaussian():
    """Of 10^6 numbers the moments, the tails and the correlation of what one formula gives."""
    drawn = gaussian_map(1000, np.float32, 1000.0, 3)
    assert drawn.dtype == np.float32
    z = drawn.astype(np.float64).reshape(-1)
    assert abs(z.mean()) < 5e-3 and abs((z**2).mean() - 1) < 1e-6
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96e-6) and abs((z**3).mean()) < 5 * np.sqrt(15e-6)
    for bound, share in ((1, 0.317310508), (2, 0.045500264), (3, 0.002699796), (4, 6.334e-5)):
        assert abs(np.mean(np.abs(z) > bound) - share) < 5 * np.sqrt(share * 1e-6)
    # Cosine and sine of the same angle, with the same radius, and their squares.
    one, other = z[:500_000], z[500_000:]
    assert abs(np.mean(one * other)) < 5 * np.sqrt(2e-6)
    assert abs(np.mean((one**2 - 1) * (other**2 - 1))) < 5 * 2 * np.sqrt(2e-6)
    # Double precision has the same draws, to the norm that is asked for.
    double = gaussian_map(1000, np.float64, 1000.0, 3)
    np.testing.assert_allclose(drawn, double, rtol=1e-5)
    assert np.linalg.norm(double) == pytest.approx(1000, rel=1e-13)

"""Orbits: the maps average like all rotations, and training on them stays on the manifold."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped
from pmt.errors import RequestError
from pmt.experiments.loop_figure_1 import FIGURE_1_QUICK
from tests.tolerance import assert_close

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("d", [2, 3, 4, 5, 8])
def test_the_maps_average_every_matrix_to_a_multiple_of_the_identity(d):
    maps = looped.orbit_maps(d)
    assert len(maps) == looped.orbit_size(d) == d * 2 ** int(np.ceil(np.log2(d)))
    assert np.array_equal(maps[0], np.eye(d))
    # Signed permutations: one entry of one in every row and column.
    assert np.all(np.abs(maps).sum(axis=1) == 1) and np.all(np.abs(maps).sum(axis=2) == 1)
    matrix = RNG.normal(size=(d, d))
    average = np.mean(np.swapaxes(maps, 1, 2) @ matrix @ maps, axis=0)
    assert_close(average, np.trace(matrix) / d * np.eye(d), size=100, scale=1.0)


@pytest.fixture(scope="module")
def given():
    return jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3))(jax.random.key(0), 2, 4, 3)


def test_images_are_turned_samples_with_their_own_leading_space(given):
    images = looped.with_images(given)
    maps = looped.orbit_maps(3)
    assert images.data.shape == (24, 4, 3)
    for index in (0, 5, 17):
        sample, turn = index // 12, maps[index % 12]
        assert_close(images.data[index], np.asarray(given.data[sample]) @ turn.T, size=10)
        assert_close(images.query[index], turn @ np.asarray(given.query[sample]), size=10)
        covariance = np.asarray(images.data[index]).T @ np.asarray(images.data[index])
        leading = np.asarray(images.leading[index, :, 0])
        value = leading @ covariance @ leading
        assert_close(covariance @ leading, value * leading, size=100)


@pytest.mark.parametrize("whole", [True, False])
def test_the_gradient_of_an_orbit_is_tangent_to_the_manifold(given, whole):
    """And that of a sample alone is not."""
    samples = looped.with_images(given) if whole else given
    point = looped.on_manifold(1.3, 0.8, 3)

    def loss(weights):
        y = looped.apply(weights, samples.data, samples.query, 2, "l2")
        return jnp.mean(looped.sample_losses("subspace", y, samples))

    off = looped.off_manifold(jax.jit(jax.grad(loss))(point))
    largest = max(float(jnp.max(jnp.abs(part))) for part in off)
    assert largest < 1e-14 if whole else largest > 1e-3


ORBITS = looped.TrainConfig(
    d=2, n=3, loops=2, batch=16, train=64, test=8, epochs=10, every=10, dtype="float64", orbits=True
)


@pytest.mark.parametrize("draw", ["fixed", "fresh"])
def test_training_on_orbits_stays_on_the_manifold_and_on_samples_does_not(draw):
    config = replace(ORBITS, draw=draw)
    last = {name: rows[-1, 0] for name, rows in looped.train(config).history.items()}
    assert last["off_value"] < 1e-12 and last["off_key"] < 1e-12
    assert last["v"] > config.v
    assert config.drawn == 4
    if draw == "fixed":
        alone = looped.train(replace(config, orbits=False)).history
        assert alone["off_value"][-1, 0] > 1e-3


def test_a_batch_is_whole_orbits():
    with pytest.raises(RequestError, match="d is 0; it must be at least 1"):
        looped.orbit_size(0)
    with pytest.raises(RequestError, match="is not made of whole orbits, which have 4 samples"):
        replace(ORBITS, batch=18)


@pytest.mark.long
def test_descent_with_an_invariant_gradient_becomes_the_power_method():
    """Theorem 4.1 for the full matrices: growth as t^(1/4), and an angle of order 1 / (v w)."""
    config = replace(
        FIGURE_1_QUICK, orbits=True, batch=512, train=64 * 512, epochs=800, every=20, seed=3
    )
    run = looped.train(config)
    last = {name: rows[1:, 0] for name, rows in run.history.items()}
    assert last["algorithm_angle"][-1] < 1e-2
    product = last["algorithm_angle"] * last["v"] * last["w"]
    assert np.ptp(product) < 0.05 * product.mean()
    for name in ("v", "w"):
        assert abs(looped.fitted_exponent(run.steps, run.history[name][:, 0]).value - 0.25) < 0.03

"""Unit columns, prescribed spectra, and the eigenspaces that go with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped
from pmt.errors import RequestError
from tests.tolerance import assert_close, tolerance

KEY = jax.random.key(3)


def lengths(samples):
    return np.linalg.norm(np.asarray(samples.data), axis=-1)


def test_a_prescribed_spectrum_comes_out_with_unit_columns():
    n, wanted = 8, np.array([3.0, 3.0, 1.0, 0.5, 0.0])
    found = looped.prescribed_samples(KEY, 4, n, wanted)
    assert found.leading.shape == (4, 5, 2)
    assert_close(lengths(found), np.ones((4, n)), size=20 * n)
    values = np.linalg.eigvalsh(np.asarray(looped.covariance(found.data)))[:, ::-1]
    expected = np.broadcast_to(wanted * n / wanted.sum(), (4, 5))
    assert_close(values, expected, size=20 * n)
    image = looped.covariance(found.data) @ found.leading
    assert_close(image, found.leading * expected[0, 0], size=20 * n)
    assert not np.allclose(found.data[0], found.data[1])


def test_the_leading_space_is_the_one_of_the_largest_eigenvalues():
    found = looped.uniform_samples(KEY, 3, 6, 4)
    for index in range(3):
        u = np.linalg.svd(np.asarray(found.data[index]).T)[0][:, 0]
        assert abs(abs(u @ np.asarray(found.leading[index, :, 0])) - 1) < tolerance(
            u.dtype, size=50
        )
    assert_close(lengths(found), np.ones((3, 6)))


@pytest.mark.parametrize(
    "kind",
    ["spiked", *(pytest.param(kind, marks=pytest.mark.long) for kind in looped.OUTSIDE[1:])],
)
def test_other_distributions_have_unit_columns_too(kind):
    drawn = jax.jit(looped.outside_samples, static_argnums=(1, 2, 3, 4, 5))
    found = drawn(KEY, kind, 3, 8, 4, jnp.float32)
    assert found.data.dtype == found.query.dtype == jnp.float32
    assert_close(lengths(found), np.ones((3, 8)), size=200)
    values = np.linalg.eigvalsh(np.asarray(looped.covariance(found.data), np.float64))
    ratio = values[:, -2] / values[:, -1]
    assert np.all(ratio > 0.97) if kind == "near-degenerate" else np.all(ratio < 0.99)


@pytest.mark.parametrize(
    ("n", "values", "sentence"),
    [
        (3, [1.0, 1.0, 1.0, 1.0], "4 positive eigenvalues need as many columns, and n is 3"),
        (3, [1.0, -1.0], "at least 0"),
        (3, [0.0, 0.0], "at least one must be positive"),
        (3, [np.nan, 1.0], "finite numbers"),
    ],
)
def test_a_spectrum_that_cannot_be_is_refused(n, values, sentence):
    with pytest.raises(RequestError, match=sentence):
        looped.prescribed_samples(KEY, 2, n, values)


def test_an_unknown_distribution_is_refused():
    with pytest.raises(RequestError, match="'cubic'; it must be one of spiked"):
        looped.outside_samples(KEY, "cubic", 1, 4, 3)


@pytest.mark.parametrize("objective", looped.OBJECTIVES)
def test_the_objectives_in_numpy(objective):
    given = looped.uniform_samples(KEY, 3, 6, 4)
    y = jax.random.normal(jax.random.key(1), (3, 4))
    found = np.asarray(looped.sample_losses(objective, y, given))
    for index in range(3):
        x, a, out = (np.asarray(p[index]) for p in (given.data, given.query, y))
        u = np.linalg.svd(x.T)[0][:, 0]
        image = x.T @ x @ a
        expected = {
            "subspace": out @ out - (u @ out) ** 2,
            "sine": 1 - (u @ out) ** 2 / (out @ out),
            "power": np.sum((out - image) ** 2),
            "unit-power": np.sum((out - image / np.linalg.norm(image)) ** 2),
        }[objective]
        assert_close(found[index], np.asarray(expected), size=50, conditioning=20)


def test_angles_keep_their_digits_near_zero_and_know_their_limits():
    e = jnp.eye(3)
    tilted = e[0] + 1e-9 * e[1]
    assert_close(looped.angle_to_line(tilted, 5.0 * e[0]), np.asarray(1e-9), entrywise=True)
    assert_close(looped.angle_to_line(-e[0], e[0]), np.asarray(0.0), scale=1.0)
    assert_close(looped.angle_to_space(e[2], e[:, :2]), np.asarray(np.pi / 2))
    assert_close(looped.angle_to_space(jnp.zeros(3), e[:, :2]), np.asarray(np.pi / 2))

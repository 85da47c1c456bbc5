"""The manifold, the map on it as a system of the library, and the two-scalar dynamics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped, stability
from pmt.equilibria import consensus
from pmt.errors import RequestError
from tests.tolerance import assert_close
from theory import oracles_looped as oracle

D, N, LOOPS = 3, 5, 3


@pytest.fixture(scope="module")
def given():
    return looped.uniform_samples(jax.random.key(5), 300, N, D)


@pytest.fixture(scope="module")
def table(given):
    return looped.slope(looped.spectra(given), loops=LOOPS, points=200)


def test_one_loop_is_a_system_with_one_token_and_stability_knows_its_multipliers(given):
    rho = 2.5
    system = looped.one_token_map(given.data[0], rho)
    values = np.linalg.eigvalsh(np.asarray(looped.covariance(given.data[0])))[::-1]
    answer = stability.analyze(system, consensus(system, tokens=1))
    expected = (1 + rho * values[1:]) / (1 + rho * values[0])
    assert_close(np.sort(np.asarray(answer.eigenvalues).real)[::-1], expected, size=50)
    assert answer.verdict == "stable"
    step = looped.apply(looped.on_manifold(rho, 1.0, D), given.data[:1], given.query[:1], 1, "l2")
    assert_close(system(given.query[:1]), step, size=50)


def test_distances_from_the_manifold():
    point = looped.on_manifold(2.0, 3.0, D)
    off = np.random.default_rng(0).normal(size=(2, 2 * D, 2 * D))
    # What is left of a random matrix when its part on the manifold is taken away.
    off[0, D:, :D] -= np.trace(off[0, D:, :D]) / D * np.eye(D)
    off[1, :D, D:] -= np.trace(off[1, :D, D:]) / D * np.eye(D)
    moved = point._replace(value=point.value + off[0], key=point.key + off[1])
    found = looped.scalars(moved)
    assert_close(found.v, np.asarray(2.0), size=50)
    assert_close(found.w, np.asarray(3.0), size=50)
    distances = looped.distance_to_manifold(moved)
    for distance, part in zip(distances, off, strict=True):
        assert_close(distance, np.asarray(np.linalg.norm(part)), size=100)
    assert [float(part) for part in looped.distance_to_manifold(point)] == [0.0, 0.0]


def test_the_table_is_the_full_models_loss(given, table):
    index = 150
    rho = table.rho[index]
    weights = looped.on_manifold(rho, 1.0, D)
    y = looped.apply(weights, given.data, given.query, LOOPS, "l2")
    losses = np.asarray(looped.sample_losses("subspace", y, given))
    assert_close(table.loss[index], losses.mean(), size=300)
    assert_close(table.loss_error[index], losses.std(ddof=1) / np.sqrt(300), size=300)
    x, a = np.asarray(given.data[0]).T, np.asarray(given.query[0])
    assert_close(losses[0], np.asarray(oracle.subspace_loss(np.asarray(y[0]), x)), size=300)
    del a


@pytest.mark.parametrize("norm", ["l2", "none", "output"])
@pytest.mark.parametrize("objective", looped.OBJECTIVES)
def test_the_loss_on_the_manifold_needs_the_spectrum_only(given, norm, objective):
    found = looped.spectra(given)
    rho = 0.7
    y = looped.apply(looped.on_manifold(rho, 1.0, D), given.data[:3], given.query[:3], 2, norm)
    few = looped.Samples(*(part[:3] for part in given))
    expected = looped.sample_losses(objective, y, few)
    for index in range(3):
        one = looped.manifold_loss(
            rho, found.eigenvalues[index], found.coefficients[index], 1, 2, norm, objective
        )
        assert_close(one, expected[index], size=100, conditioning=100, scale=1.0)


def test_the_derivative_is_that_of_the_loss(table):
    middle = (table.loss[2:] - table.loss[:-2]) / (table.rho[2:] - table.rho[:-2])
    scale = np.abs(table.derivative).max()
    np.testing.assert_allclose(middle, table.derivative[1:-1], atol=0.02 * scale)
    assert np.all(table.error > 0)


def test_the_path_is_gradient_descent_on_the_table(table):
    v, w, rate, d = 0.4, 0.6, 0.5, D
    path = looped.integrate(table, d=d, v=v, w=w, rate=rate, steps=6, every=2)
    log = np.log(table.rho + 0.06)
    for _ in range(6):
        slope = np.interp(np.log(v * w + 0.06), log, table.derivative)
        v, w = v - rate / d * slope * w, w - rate / d * slope * v
    assert path.steps.tolist() == [0, 2, 4, 6]
    assert_close(path.v[-1], np.asarray(v), size=1000)
    assert_close(path.w[-1], np.asarray(w), size=1000)
    assert np.all(path.w_error[1:] > 0) and path.w_error[0] == 0


def test_v_and_w_grow_with_exponent_one_quarter(table):
    path = looped.integrate(table, d=D, v=0.5, w=0.7, rate=0.3, steps=100_000, every=500)
    for values in (path.v, path.w):
        fitted = looped.fitted_exponent(path.steps, values)
        assert abs(fitted.value - 0.25) < 0.03
        assert fitted.half_width < 0.01
    assert np.all(np.diff(path.loss) < 0)
    # Without Norm they stop growing, at the least loss that the table has.
    plain = looped.slope(
        looped.spectra(looped.uniform_samples(jax.random.key(1), 300, N, D)),
        loops=1,
        norm="none",
        objective="power",
        points=400,
    )
    end = looped.integrate(plain, d=D, v=0.5, w=0.7, rate=0.3, steps=20_000, every=20_000)
    best = plain.rho[np.argmin(plain.loss)]
    assert abs(end.rho[-1] - best) < 0.03 * best and end.loss[-1] > 0.1


def test_a_power_law_is_fitted_and_its_error_is_honest():
    t = np.arange(0, 4000, 20)
    exact = looped.fitted_exponent(t, 3.0 * np.maximum(t, 1) ** 0.3)
    assert_close(exact.value, 0.3, size=1000, dtype=np.float64)
    assert exact.half_width < 1e-9
    noisy = 3.0 * np.maximum(t, 1) ** 0.3 * np.exp(np.random.default_rng(0).normal(0, 0.02, len(t)))
    fitted = looped.fitted_exponent(t, noisy)
    assert 0.001 < fitted.half_width < 0.1
    assert abs(fitted.value - 0.3) < 2 * fitted.half_width
    # A curve that is no power law has slopes that differ from block to block.
    assert looped.fitted_exponent(t, np.exp(t / 4000)).half_width > 0.1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda table: looped.integrate(table, d=D, v=1.0, w=1.0, rate=0.1, steps=5, every=2),
            "multiple",
        ),
        (
            lambda table: looped.integrate(table, d=D, v=99.0, w=999.0, rate=0.1, steps=1),
            "leaves the table",
        ),
        (lambda table: looped.fitted_exponent(np.arange(9), np.arange(9)), "record more often"),
        (
            lambda table: looped.fitted_exponent(np.arange(99), np.zeros(99)),
            "finite positive values",
        ),
        (
            lambda table: looped.manifold_loss(1.0, jnp.ones(2), jnp.ones(2), 1, 1, "rms", "sine"),
            "does not stay on the manifold",
        ),
    ],
)
def test_a_wrong_request_is_one_sentence(table, call, sentence):
    with pytest.raises(RequestError, match=sentence):
        call(table)

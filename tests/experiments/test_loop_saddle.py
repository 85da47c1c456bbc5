"""The way down from the manifold: against autodiff, and against the model in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped
from pmt.errors import RequestError
from pmt.experiments.loop_saddle import way_down
from tests.tolerance import assert_close
from theory import oracles_looped as oracle

D, N, LOOPS, COUNT, RHO = 3, 5, 2, 40, 100.0
CONFIG = looped.TrainConfig(d=D, n=N, loops=LOOPS, dtype="float64")


@pytest.fixture(scope="module")
def given():
    return jax.jit(looped.uniform_samples, static_argnums=(1, 2, 3))(jax.random.key(0), COUNT, N, D)


@pytest.fixture(scope="module")
def found(given):
    return way_down(CONFIG, RHO, given)


def test_the_curvature_is_the_mixed_derivative(given, found):
    """Half of L(t, -t)'s second derivative is -d²L / d eps d delta, in directions of length one."""
    root = RHO**0.5
    point = looped.on_manifold(root, root, D)

    def loss(eps, delta):
        weights = looped.Weights(
            point.value.at[:D, D:].set(eps * jnp.eye(D)),
            point.key.at[D:, :D].set(delta * jnp.eye(D)),
            point.gain,
        )

        def one(x, a, basis):
            e = looped.embed(x, a)
            for _ in range(LOOPS):
                e = looped.loop(weights, e, "l2")
            y = e[-1, D:]
            return jnp.sum((y - basis @ (basis.T @ y)) ** 2)

        return jnp.mean(jax.vmap(one)(given.data, given.query, given.leading))

    mixed = jax.jit(jax.grad(jax.grad(loss), argnums=1))(0.0, 0.0)
    value, error = found.curvature
    # The next term is of fourth order in eps = 0.03.
    assert_close(value, -mixed / D, size=100, conditioning=0.03**2 / np.finfo(float).eps / 100)
    assert value < -5 * error
    assert value == pytest.approx(float(-mixed / D), rel=0.02)


def test_the_gain_is_over_the_power_method(given, found):
    root, size = RHO**0.5, found.size
    value, key = np.zeros((2, 2 * D, 2 * D))
    value[D:, :D], key[:D, D:] = root * np.eye(D), root * np.eye(D)
    value[:D, D:], key[D:, :D] = size * np.eye(D), -size * np.eye(D)
    gains = []
    for x, a in zip(np.asarray(given.data), np.asarray(given.query), strict=True):
        leading = np.linalg.eigh(x.T @ x)[1][:, -1]
        z = np.linalg.matrix_power(x.T @ x, LOOPS) @ a
        y = oracle.looped(x.T, a, value, key, np.ones(2 * D), LOOPS, "l2")
        least, mine = (1 - (leading @ u) ** 2 / (u @ u) for u in (z, y))
        # Nothing is gained by a shorter output: all of the last token is still in its lower half.
        assert y @ y == pytest.approx(1.0)
        gains.append(least - mine)
    assert found.gain[0] == pytest.approx(np.mean(gains), rel=1e-9)
    assert found.gain[1] == pytest.approx(np.std(gains, ddof=1) / COUNT**0.5, rel=1e-9)
    assert found.gain[0] > 0


@pytest.mark.parametrize(
    ("config", "rho", "count", "sentence"),
    [
        (looped.TrainConfig(norm="none"), 1.0, 2, "the way down is known for 'l2' alone"),
        (CONFIG, 0.0, 2, "rho is 0.0; it must be positive"),
        (CONFIG, 1.0, 1, "give at least two"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, config, rho, count, sentence):
    with pytest.raises(RequestError, match=sentence):
        way_down(config, rho, jax.tree.map(lambda part: part[:count], given))


def test_a_run_that_could_leave_the_blocks_has_no_way_down_to_report():
    from pmt.experiments.loop_figure_1 import loop_figure_1

    config = looped.TrainConfig(
        d=2, n=3, loops=2, batch=4, train=8, test=4, epochs=1, every=1, start="unstructured"
    )
    assert loop_figure_1(config).down is None

"""Periods and Lyapunov exponents, on maps whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.dynamics import (
    LayerStack,
    MultiHead,
    Oja,
    Outcome,
    SingleHead,
    bifurcation,
    detect_period,
    largest_lyapunov_exponent,
)
from pmt.errors import RequestError
from tests.tolerance import assert_close

VALUE = np.array([[1.0, 0.5], [0.5, -0.5]])
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])


def cascade(beta, alpha=0.25):
    """Theory II.9: the pair {e_1, -e_1} flips at beta = 8 and becomes chaotic."""
    return SingleHead(jnp.asarray(VALUE), -beta * jnp.asarray(SWAP), alpha)


def pair(angle=0.05):
    u = jnp.array([np.cos(angle), np.sin(angle)])
    return jnp.stack([u, -u])


def angle_map(beta, angle):
    """The same map on antipodal pairs, as a map of one angle in plain NumPy."""
    c, s = np.cos(angle), np.sin(angle)
    order = 0.25 * np.tanh(-2 * beta * c * s)
    return np.arctan2(s + order * 0.5 * (c - s), c + order * (c + 0.5 * s))


def angle_exponent(beta, steps=20_000):
    angle, total = 0.05, 0.0
    for step in range(steps + 500):
        if step >= 500:
            size = 1e-7
            slope = (angle_map(beta, angle + size) - angle_map(beta, angle - size)) / (2 * size)
            total += np.log(abs(slope))
        angle = angle_map(beta, angle)
    return total / steps


def test_the_two_cycle_of_oja_above_the_bound():
    """Lemma 4: V = diag(1, -3), alpha = 1.2 > 1 ends in {v_2, -v_2}, multipliers .846 and .385."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=1.2)
    x0 = sphere.uniform(jax.random.key(0), (3, 4, 2))
    found = detect_period(system, x0, transient=400, max_period=8)
    assert found.period.tolist() == [2, 2, 2]
    assert found.result.tolist() == [Outcome.DONE] * 3
    assert_close(found.residuals[:, 0], jnp.full(3, 2.0))
    assert found.residuals.shape == (3, 8)
    exponent = largest_lyapunov_exponent(system, x0, transient=400, steps=64, blocks=4)
    multiplier = (1 + 1.2) / abs(1 - 3.6)
    assert_close(exponent.exponent, jnp.full(3, np.log(multiplier)), conditioning=1e4)


def test_below_the_bound_it_is_an_equilibrium():
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=0.8)
    found = detect_period(system, pair(0.7), transient=400, max_period=8)
    assert (int(found.period), int(found.result)) == (1, Outcome.DONE)


def test_a_slow_oscillation_is_no_cycle_of_period_two():
    """Faults 72: at a multiplier near -1 f(f(x)) is nearly x long before x settles."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=0.999)
    x = sphere.normalize(jnp.array([[1.0, 1e-6], [1.0, 1e-6]]))
    found = detect_period(system, x, transient=50, max_period=8, tolerance=1e-8)
    assert (int(found.period), int(found.result)) == (0, Outcome.BUDGET_ENDED)
    assert float(found.residuals[1]) < 1e-8 < float(found.residuals[0])


@pytest.mark.parametrize(("beta", "period"), [(7.0, 1), (12.0, 2), (40.0, 4), (44.0, 8)])
def test_the_cascade_doubles_its_period(beta, period):
    """Theory II.9: flip at 8, period 4 at 40; the angle's own map says the same."""
    found = detect_period(cascade(jnp.asarray(beta)), pair(), transient=6000, max_period=16)
    assert int(found.period) == period
    angle = 0.05
    for _ in range(6000):
        angle = angle_map(beta, angle)
    later = [angle]
    for _ in range(16):
        later.append(angle_map(beta, later[-1]))
    returns = np.abs(np.array(later[1:]) - angle)
    assert np.flatnonzero(returns < 1e-9)[0] + 1 == period


@pytest.mark.parametrize("beta", [30.0, 60.0])
def test_the_exponent_of_the_cascade_is_that_of_the_angle(beta):
    system = cascade(jnp.asarray(beta))
    found = largest_lyapunov_exponent(system, pair(), transient=500, steps=8_000)
    assert int(found.result) == Outcome.DONE
    expected = angle_exponent(beta)
    # The angle's exponent is the largest one here, along the pair; across it the map contracts.
    error = 5 * float(found.standard_error) + 2e-3
    assert float(found.exponent) == pytest.approx(expected, abs=error)
    assert float(found.drift) < 4 * float(found.standard_error) + 1e-9
    if beta == 60.0:
        assert float(found.exponent) == pytest.approx(0.26, abs=0.01)
        none = detect_period(system, pair(), transient=1000)
        assert (int(none.period), int(none.result)) == (0, Outcome.BUDGET_ENDED)


def test_at_consensus_the_exponent_is_the_logarithm_of_the_spectral_radius():
    """II.6: V = diag(1, .5, -.3), alpha = .5: the radius at v_1 is 1.25/1.5."""
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5, -0.3])), jnp.eye(3), alpha=0.5)
    x0 = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (4, 3))
    found = largest_lyapunov_exponent(system, x0, transient=100, steps=64, blocks=4)
    assert_close(found.exponent, jnp.log(1.25 / 1.5), conditioning=100.0)
    assert float(found.standard_error) < 1e-12


def test_what_vanishes_has_the_exponent_minus_infinity():
    """V = -2I, alpha = 1/2, one token: every direction across is annihilated in one step."""
    system = Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.5)
    found = largest_lyapunov_exponent(
        system, jnp.array([[1.0, 0.0]]), transient=0, steps=8, blocks=2
    )
    assert float(found.exponent) == -np.inf and int(found.result) == Outcome.DONE
    line = largest_lyapunov_exponent(
        Oja(jnp.ones((1, 1))), jnp.ones((2, 1)), transient=0, steps=8, blocks=2
    )
    assert float(line.exponent) == -np.inf


def test_a_cancelled_token_is_reported_and_gives_no_number():
    system = Oja(jnp.diag(jnp.array([-2.0, 1.0])), alpha=0.5)
    x0 = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    assert int(detect_period(system, x0, transient=2, max_period=2).result) == Outcome.CANCELLED
    found = largest_lyapunov_exponent(system, x0, transient=1, steps=8, blocks=2)
    assert int(found.result) == Outcome.CANCELLED
    assert np.isnan(float(found.exponent)) and np.isnan(float(found.standard_error))


def test_a_bifurcation_diagram():
    found = bifurcation(
        cascade, jnp.array([4.0, 12.0, 60.0]), pair(), transient=1500, samples=8, steps=1600
    )
    assert found.period.tolist() == [1, 2, 0]
    assert found.states.shape == (3, 8, 2, 2)
    assert_close(found.states[0], jnp.broadcast_to(pair(0.0), (8, 2, 2)), conditioning=100.0)
    assert np.sign(np.asarray(found.exponent)).tolist() == [-1, -1, 1]
    # log of the larger multiplier: 1 - beta/4 = 0 and 7/8 - beta/8 = 3/8 at beta = 4.
    assert float(found.exponent[0]) == pytest.approx(np.log(3 / 8), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"transient": -1}, "transient is -1"),
        ({"max_period": 0}, "max_period is 0"),
        ({"tolerance": 2.0}, "tolerance is 2.0"),
    ],
)
def test_bad_requests_of_a_period(arguments, words):
    with pytest.raises(RequestError, match=words):
        detect_period(cascade(4.0), pair(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"blocks": 3}, "even"), ({"steps": 4}, "steps is 4"), ({"transient": True}, "transient")],
)
def test_bad_requests_of_an_exponent(arguments, words):
    with pytest.raises(RequestError, match=words):
        largest_lyapunov_exponent(cascade(4.0), pair(), **arguments)


def test_a_stack_has_no_cycles():
    heads = MultiHead.from_maps(VALUE[None], np.zeros((1, 2, 2)))
    stack = LayerStack.from_layers([heads, heads])
    for function in (detect_period, largest_lyapunov_exponent):
        with pytest.raises(RequestError, match="LayerStack"):
            function(stack, pair())
    with pytest.raises(RequestError, match="at least one value"):
        bifurcation(cascade, jnp.zeros(0), pair())

"""Runs to equilibrium: how they end, and how the equilibrium moves with the system."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import run_to_equilibrium, simulate, sphere
from pmt.dynamics import LayerStack, Oja, Outcome, SingleHead, implicit_derivative
from pmt.errors import RequestError
from tests.dynamics.conftest import make
from tests.tolerance import assert_close


def tokens(*shape, seed=0):
    return sphere.uniform(jax.random.key(seed), shape)


def gapped(seed=0, d=3):
    """A single-head system whose consensus at v1 attracts quickly; V is not symmetric."""
    rng = np.random.default_rng(seed)
    value = np.diag(np.linspace(1.0, -0.3, d)) + 0.1 * rng.normal(size=(d, d))
    return SingleHead(value, 0.5 * rng.normal(size=(d, d)), alpha=0.8)


@pytest.mark.float32
def test_converges_to_the_principal_eigenvector_with_its_residual():
    system, x = gapped(), tokens(5, 4, 3)
    run = run_to_equilibrium(system, x)
    assert (run.result == Outcome.CONVERGED).all()
    values, vectors = np.linalg.eig(np.asarray(system.value, float))
    v = vectors[:, np.argmax(values.real)].real
    assert_close(jnp.abs(run.x @ jnp.asarray(v, x.dtype)), np.ones((5, 4)), conditioning=20.0)
    image = jax.vmap(system)(run.x)
    moved = np.linalg.norm(np.asarray(image - run.x, float), axis=-1).max(-1)
    assert_close(run.residual, moved, scale=1.0)
    assert (np.asarray(run.steps) > 5).all()


def test_two_cycle_is_recognised():
    """Faults 72: V = diag(1, −3) beyond alpha = 1 ends in {v_2, −v_2} (Lemma 4)."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=1.2)
    run = run_to_equilibrium(system, tokens(3, 2))
    assert run.result == Outcome.TWO_CYCLE
    assert_close(run.residual, jnp.array(2.0))
    assert run.cycle_residual < 1e-13
    assert_close(jnp.abs(run.x[:, 1]), jnp.ones(3))


def test_slow_oscillation_is_not_taken_for_a_cycle():
    """A multiplier near −1 makes f(f(x)) nearly x long before x settles."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=0.999)
    x = sphere.normalize(jnp.array([[1.0, 0.05], [1.0, 0.05]]))
    run = run_to_equilibrium(system, x, max_steps=200_000)
    assert run.result == Outcome.CONVERGED
    early = run_to_equilibrium(system, x, max_steps=50)
    assert early.result == Outcome.BUDGET_ENDED


def test_budget_end_is_said():
    """Fault 71."""
    run = run_to_equilibrium(gapped(), tokens(4, 3), max_steps=3)
    assert run.result == Outcome.BUDGET_ENDED
    assert run.steps == 3
    assert run.residual > 1e-6


def test_longer_cycles_and_chaos_are_not_convergence():
    """Fault 72 and theory II.9: period 4 at β = 40, chaos at β = 60, period 2 at β = 20."""
    value = jnp.array([[1.0, 0.5], [0.5, -0.5]])
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    angle = 0.01
    turn = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
    start = sphere.normalize(jnp.stack([turn @ x[0], x[1]]))
    seen = {}
    for beta in (4.0, 20.0, 40.0, 60.0):
        query_key = -beta * jnp.array([[0.0, 1.0], [1.0, 0.0]])
        system = SingleHead(value, query_key, alpha=0.25)
        seen[beta] = Outcome(int(run_to_equilibrium(system, start, max_steps=20_000).result))
    assert seen[4.0] == Outcome.CONVERGED
    assert seen[20.0] == Outcome.TWO_CYCLE
    assert seen[40.0] == Outcome.BUDGET_ENDED
    assert seen[60.0] == Outcome.BUDGET_ENDED


def test_start_on_an_unstable_point_stays_there_in_zero_steps():
    """Fault 70."""
    system = Oja(jnp.diag(jnp.array([1.0, 0.5])), alpha=0.3)
    run = run_to_equilibrium(system, jnp.array([[0.0, 1.0]] * 3))
    assert run.result == Outcome.CONVERGED
    assert run.steps == 0


def test_cancellation_and_overflow_are_named():
    """Faults 48 and 55."""
    cancelling = Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.5)
    assert run_to_equilibrium(cancelling, jnp.array([[0.0, 1.0]])).result == Outcome.CANCELLED
    overflowing = SingleHead(jnp.eye(2), 1e308 * jnp.ones((2, 2)), scale=10.0)
    assert run_to_equilibrium(overflowing, tokens(3, 2)).result == Outcome.NONFINITE


def weighted(system, x0):
    weight = jnp.arange(1.0, x0.size + 1).reshape(x0.shape)
    return jnp.sum(run_to_equilibrium(system, x0).x * weight)


def test_implicit_derivative_equals_differences_and_the_unrolled_one():
    system, x0 = gapped(), tokens(3, 3)
    direction = np.random.default_rng(5).normal(size=(3, 3))

    def along(t):
        return weighted(dataclasses.replace(system, value=system.value + t * direction), x0)

    forward = jax.jvp(along, (0.0,), (1.0,))[1]
    backward = jax.grad(along)(0.0)
    h = 1e-6
    difference = (along(h) - along(-h)) / (2 * h)

    def unrolled(t):
        moved = dataclasses.replace(system, value=system.value + t * direction)
        weight = jnp.arange(1.0, 10.0).reshape(3, 3)
        return jnp.sum(simulate(moved, x0, 200, keep="last").x * weight)

    assert_close(forward, backward, size=100)
    assert_close(forward, jax.grad(unrolled)(0.0), size=100, conditioning=100.0)
    np.testing.assert_allclose(forward, difference, rtol=1e-7)


def test_equilibrium_does_not_move_with_the_start():
    system, x0 = gapped(), tokens(3, 3)
    assert not np.asarray(jax.grad(weighted, argnums=1)(system, x0)).any()


def test_singular_equilibria_have_a_code_and_no_number():
    """I − J is singular on the continuum of balanced pairs {x, −x} of Oja."""
    system = Oja(jnp.diag(jnp.array([1.0, 0.5])), alpha=0.3)
    x = jnp.array([[0.6, 0.8], [-0.6, -0.8]])
    tangent = jax.tree.map(jnp.zeros_like, system)
    tangent = dataclasses.replace(tangent, value=jnp.ones((2, 2)), alpha=0.0)
    answer = implicit_derivative(system, x, tangent)
    assert answer.result == Outcome.SINGULAR
    assert answer.reciprocal_condition < 1e-14
    assert np.isnan(np.asarray(answer.tangent)).all()
    assert np.isnan(np.asarray(jax.grad(lambda s: weighted(s, x))(system).value)).all()


def test_unconverged_runs_have_no_derivative():
    system, x0 = gapped(), tokens(3, 3)
    gradient = jax.grad(lambda s: jnp.sum(run_to_equilibrium(s, x0, max_steps=2).x))(system)
    assert np.isnan(np.asarray(gradient.value)).all()


def test_batch_and_family_equal_single_runs():
    systems = [gapped(seed) for seed in range(3)]
    family = jax.tree.map(lambda *a: jnp.stack([jnp.asarray(b) for b in a]), *systems)
    x = tokens(3, 4, 3)
    runs = jax.vmap(lambda s, x0: run_to_equilibrium(s, x0))(family, x)
    for b, system in enumerate(systems):
        alone = run_to_equilibrium(system, x[b])
        assert_close(runs.x[b], alone.x, size=100, conditioning=10.0)
        assert runs.result[b] == alone.result


def test_bad_requests_are_refused():
    system, x = gapped(), tokens(3, 3)
    with pytest.raises(RequestError, match="max_steps is -1"):
        run_to_equilibrium(system, x, max_steps=-1)
    with pytest.raises(RequestError, match="tolerance is 2.0; it must lie strictly between"):
        run_to_equilibrium(system, x, tolerance=2.0)
    stack = LayerStack.from_layers([make("multi", "full").system])
    with pytest.raises(RequestError, match=r"take one layer with system\.layer"):
        run_to_equilibrium(stack, tokens(3, 4))

"""Trajectories: against loops, batched, differentiated, stopped where the map ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import simulate, sphere
from pmt.dynamics import LayerStack, Oja, Outcome, SingleHead
from pmt.errors import RequestError
from tests.dynamics.conftest import D, N, make
from tests.tolerance import assert_close


def tokens(*shape, seed=0):
    return sphere.uniform(jax.random.key(seed), shape or (N, D))


@pytest.mark.float32
@pytest.mark.parametrize("kind", ["oja", "single", "multi", "biased"])
def test_path_equals_the_loop(kind):
    case, x = make(kind, "causal"), tokens()
    run = simulate(case.system, x, 3)
    expected = [np.asarray(x, float)]
    for _ in range(3):
        expected.append(case.loops(expected[-1]))
    assert run.x.shape == (4, N, D)
    # Three steps of a map with derivative of order ten.
    assert_close(run.x, np.stack(expected), size=N * D, conditioning=100.0)
    assert run.result == Outcome.DONE
    assert run.stopped_at == 3


def test_last_is_the_end_of_the_path_and_zero_steps_is_the_start():
    """Fault 68."""
    system, x = make("single", "full").system, tokens()
    assert_close(simulate(system, x, 7, keep="last").x, simulate(system, x, 7).x[-1])
    still = simulate(system, x, 0)
    np.testing.assert_array_equal(still.x, x[None])
    assert still.observables["step_length"].shape == (1,)


def test_batch_equals_the_single_runs_and_traces_once():
    traces = []

    def probe(system, x):
        traces.append(1)
        return x[0, 0]

    system, x = make("single", "window").system, tokens(3, N, D)
    chosen = {"probe": probe}
    batched = simulate(system, x, 5, observables=chosen)
    assert batched.x.shape == (3, 6, N, D)
    assert batched.observables["probe"].shape == (3, 6)
    made = len(traces)
    again = simulate(system, tokens(3, N, D, seed=1), 5, observables=chosen)
    assert len(traces) == made, "the same shapes were traced again"
    assert np.abs(again.x - batched.x).max() > 0.1
    for b in range(3):
        assert_close(batched.x[b], simulate(system, x[b], 5).x, size=N * D, conditioning=100.0)


def test_family_of_systems_by_vmap():
    systems = [make("single", "full", seed).system for seed in range(3)]
    family = jax.tree.map(lambda *a: jnp.stack([jnp.asarray(b) for b in a]), *systems)
    x = tokens(3, N, D)
    runs = jax.vmap(lambda s, x0: simulate(s, x0, 4, keep="last"))(family, x)
    for b, system in enumerate(systems):
        alone = simulate(system, x[b], 4, keep="last").x
        assert_close(runs.x[b], alone, size=N * D, conditioning=100.0)


def test_observables_are_those_of_the_path():
    system, x = make("single", "full").system, tokens()
    run = simulate(system, x, 4)
    for t in range(5):
        assert_close(
            run.observables["intertoken_distance"][t], sphere.intertoken_distance(run.x[t])
        )
    moves = np.linalg.norm(np.diff(run.x, axis=0), axis=-1).max(-1)
    assert_close(run.observables["step_length"][:4], moves, size=D)


def test_stack_moves_through_its_layers():
    layers = [make("multi", "full", seed).system for seed in range(3)]
    stack, x = LayerStack.from_layers(layers), tokens()
    run = simulate(stack, x)
    assert run.x.shape == (4, N, D)
    state = x
    for t, layer in enumerate(layers):
        state = layer(state)
        assert_close(run.x[t + 1], state, size=N * D, conditioning=100.0)
    assert simulate(stack, x, 2).x.shape == (3, N, D)
    with pytest.raises(RequestError, match="steps is 4 but the stack has 3 layers"):
        simulate(stack, x, 4)


def test_both_modes_of_differentiation_agree_with_differences():
    system, x = make("single", "full").system, tokens()
    weight = jax.random.normal(jax.random.key(7), (N, D))
    direction = jax.random.normal(jax.random.key(8), (D, D))

    def loss(value):
        end = simulate(dataclasses.replace(system, value=value), x, 4, keep="last").x
        return jnp.sum(end * weight)

    forward = jax.jvp(loss, (system.value,), (direction,))[1]
    backward = jnp.sum(jax.grad(loss)(system.value) * direction)
    h = 1e-5
    difference = (loss(system.value + h * direction) - loss(system.value - h * direction)) / (2 * h)
    assert_close(forward, backward, size=N * D, conditioning=1e3)
    # Central differences: h² truncation and eps / h rounding, both about 1e-10 here.
    np.testing.assert_allclose(forward, difference, rtol=1e-7)


@pytest.mark.float32
def test_cancellation_is_a_named_result_and_the_state_stays_valid():
    """Fault 48: at alpha λ = −1 the update of v cancels to zero."""
    system = Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.5)
    x = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    run = simulate(system, x, 5)
    assert run.result == Outcome.CANCELLED
    assert run.stopped_at == 0
    np.testing.assert_array_equal(run.x, jnp.broadcast_to(x, (6, 2, 2)))


def test_cancellation_up_to_rounding_is_found_too():
    angle = 0.7
    q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    system = Oja(q @ np.diag([1.0, -3.0]) @ q.T, alpha=1 / 3)
    run = simulate(system, jnp.asarray(np.stack([q[:, 1]] * 2)), 1)
    assert run.result == Outcome.CANCELLED


def test_overflow_is_a_named_result():
    """Fault 55: logits beyond the largest float."""
    system = SingleHead(jnp.eye(2), 1e308 * jnp.ones((2, 2)), alpha=1.0, scale=10.0)
    run = simulate(system, tokens(3, 2), 2)
    assert run.result == Outcome.NONFINITE
    assert np.isfinite(np.asarray(run.x)).all()


def test_overflow_of_the_update_is_not_called_a_cancellation():
    """Fault 64: a step size near the largest float."""
    system = Oja(4.0 * jnp.eye(2), alpha=1e308)
    assert simulate(system, tokens(3, 2), 1).result == Outcome.NONFINITE
    assert simulate(Oja(0.1 * jnp.eye(2), alpha=1e308), tokens(3, 2), 1).result == Outcome.DONE


@pytest.mark.parametrize("alpha", [0.0, -0.3, 1e300])
def test_zero_negative_and_huge_steps_are_maps_like_any_other(alpha):
    """Fault 64."""
    case = make("single", "full")
    system, x = dataclasses.replace(case.system, alpha=alpha), tokens()
    run = simulate(system, x, 1)
    assert run.result == Outcome.DONE
    if alpha == 0.0:
        assert_close(run.x[1], x, size=D)
    if alpha == 1e300:
        # The skip connection is lost in rounding: one pure power step.
        assert_close(run.x[1], sphere.normalize(system.update(x)), size=N * D)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (1, 1)])
def test_one_token_and_one_dimension(shape):
    """Faults 65 and 66."""
    d = shape[-1]
    run = simulate(SingleHead(jnp.eye(d), jnp.eye(d), alpha=0.5), tokens(*shape), 3)
    assert run.result == Outcome.DONE
    assert np.isfinite(np.asarray(run.x)).all()


def test_equal_and_antipodal_tokens_stay_so():
    """Fault 69."""
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5, -0.2])), jnp.eye(3), alpha=0.3)
    one = tokens(1, 3)
    equal = simulate(system, jnp.concatenate([one, one, one]), 10).x[-1]
    np.testing.assert_array_equal(equal[0], equal[1])
    opposite = simulate(system, jnp.concatenate([one, -one]), 10).x[-1]
    assert_close(opposite[0], -opposite[1], size=30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": jnp.zeros((3, D))}, "has norm 0; tokens are unit vectors"),
        ({"x0": 2 * tokens()}, "has norm 2; tokens are unit vectors"),
        ({"x0": tokens(3, D).at[1, 2].set(jnp.nan)}, "x0 holds nan at index (1, 2)"),
        ({"x0": tokens(3, D + 1)}, f"acts on tokens of dimension d = {D}"),
        ({"x0": tokens(3, D).astype(jnp.float16)}, "x0 is float16 but the system is float64"),
        ({"steps": -1}, "steps is -1; it must be an integer of at least 0"),
        ({"steps": None}, "steps is None"),
        ({"keep": "all"}, "keep is 'all'"),
    ],
)
def test_bad_requests_are_refused(change, message):
    """Faults 46, 47, 84."""
    arguments = {"x0": tokens(), "steps": 2, "keep": "path", **change}
    bare = simulate.__wrapped__ if hasattr(simulate, "__wrapped__") else simulate
    with pytest.raises(RequestError) as caught:
        bare(make("single", "full").system, **arguments)
    assert message in str(caught.value)

"""Many starts in chunks: the plain formulation's numbers and codes, whatever the batch."""

import dataclasses
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import attention, run_to_equilibrium, simulate, sphere
from pmt.dynamics import LayerStack, MultiHead, Oja, Outcome, SingleHead, batched, chunked
from pmt.dynamics.batched import ELEMENTWISE, MATRIX
from tests.tolerance import assert_close

N, D = 4, 3
PATTERN = jnp.asarray(
    np.array([[(i + 2 * j) % 3 != 1 or i == j for j in range(N)] for i in range(N)])
)


def tokens(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True))


def draws(*shapes):
    rng = np.random.default_rng(3)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def systems():
    v, m = draws((D, D), (D, D))
    q, k, w, o, bq, bk, bv, bo = draws(
        (2, 2, D), (2, 2, D), (2, 2, D), (2, D, 2), (2, 2), (2, 2), (2, 2), (D,)
    )
    biases = {"query_bias": bq, "key_bias": bk, "value_bias": bv, "output_bias": bo}
    per_head = jnp.stack([PATTERN, PATTERN.T])
    return {
        "oja": Oja(v, alpha=0.7),
        "oja, window": Oja(v, alpha=0.7, mask=attention.LocalWindow(2)),
        "single, causal": SingleHead(v, m, alpha=0.7, scale=0.8, mask="causal"),
        # Without the shift, exp overflows.
        "single, large logits": SingleHead(v, m, scale=5e3, mask=attention.Boolean(PATTERN)),
        "heads": MultiHead(q, k, w, o, alpha=0.7, mask=attention.Boolean(per_head), **biases),
    }


@pytest.mark.parametrize(
    ("formulation", "name"),
    [
        *((ELEMENTWISE, name) for name in systems()),
        *((MATRIX, name) for name in ("oja, window", "single, large logits", "heads")),
    ],
)
def test_a_step_equals_that_of_the_map(formulation, name):
    system, x = systems()[name], tokens(5, N, D)
    moved, code = jax.jit(partial(batched.step, formulation))(system, formulation.enter(x))
    # With large logits a rounding of a logit is a relative error of the weight as large as it.
    worst = 5e3 if "large" in name else 10.0
    expected = jnp.stack([system(one) for one in x])
    assert_close(formulation.leave(moved), expected, size=N * D, conditioning=worst)
    assert (np.asarray(code) == Outcome.DONE).all()


@pytest.mark.float32
def test_many_starts_are_the_plain_ones_and_those_that_stop_stop_alone():
    """Starts on v_2 cancel at alpha λ = −1; 1100 starts of this size are three chunks."""
    system = Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.5)
    x = tokens(1100, 2, 2)
    x = x.at[7].set(jnp.array([[0.0, 1.0], [0.0, 1.0]]))
    run = simulate(system, x, 3)
    plain = jax.jit(lambda system, x: simulate(system, x, 3))(system, x)
    assert run.x.shape == (1100, 4, 2, 2)
    # Three steps of a map with derivative below 4 (|I + alpha V| = 1.5 over lengths from 0.4).
    assert_close(run.x, plain.x, size=2, conditioning=64.0)
    np.testing.assert_array_equal(run.result, plain.result)
    np.testing.assert_array_equal(run.stopped_at, plain.stopped_at)
    assert run.result[7] == Outcome.CANCELLED
    assert (np.asarray(run.result) != Outcome.DONE).sum() == 1
    for name in plain.observables:
        moving = np.arange(1100) != 7
        found, expected = run.observables[name][moving], plain.observables[name][moving]
        assert_close(found, expected, size=2, conditioning=64.0)
    few = simulate(system, x[900:1080], 3)
    np.testing.assert_array_equal(few.x, run.x[900:1080])
    last = simulate(system, x, 3, keep="last", observables={})
    assert_close(last.x, run.x[:, -1], size=2, conditioning=64.0)
    np.testing.assert_array_equal(last.stopped_at, run.stopped_at)


def test_a_start_that_overflows_stays_where_it_was():
    system = SingleHead(jnp.eye(2), 1e308 * jnp.ones((2, 2)), scale=10.0)
    x = tokens(40, 3, 2)
    run = simulate(system, x, 2, keep="last", observables={})
    assert (np.asarray(run.result) == Outcome.NONFINITE).all()
    np.testing.assert_array_equal(run.x, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 3, 2), (2, 60, 30)])
def test_a_step_size_near_the_largest_number_is_a_power_step(shape, dtype):
    """Fault 64: neither a cancellation nor an overflow, in both formulations."""
    x = tokens(*shape).astype(dtype)
    value = jnp.diag(jnp.linspace(1.0, 0.5, shape[-1], dtype=dtype))
    # Means of unit tokens have no entry above 1.
    system = Oja(value, alpha=jnp.asarray(jnp.finfo(dtype).max, dtype))
    run = simulate(system, x, 1, keep="last", observables={})
    assert (np.asarray(run.result) == Outcome.DONE).all()
    mean = np.asarray(x, np.float64).mean(axis=1, keepdims=True) @ np.asarray(value, np.float64)
    expected = np.broadcast_to(mean / np.linalg.norm(mean, axis=-1, keepdims=True), shape)
    assert_close(run.x, expected.astype(dtype), size=shape[1])
    single = simulate(system, x[0], 1)
    assert single.result == Outcome.DONE
    assert_close(single.x[1], run.x[0], size=shape[1])
    beyond = simulate(Oja(1000 * value, alpha=system.alpha), x, 1, keep="last", observables={})
    assert (np.asarray(beyond.result) == Outcome.NONFINITE).any()


def test_equilibria_of_many_starts_and_their_codes_are_the_plain_ones():
    """V = diag(1, −3) beyond alpha = 1 ends in a 2-cycle: not from v_1, and late from near v_1."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=1.2)
    x = tokens(40, 2, 2)
    x = x.at[3].set(jnp.array([[1.0, 0.0], [1.0, 0.0]]))
    x = x.at[4].set(sphere.normalize(jnp.array([[1.0, 1e-9], [1.0, 1e-9]])))
    run = run_to_equilibrium(system, x, max_steps=300)
    plain = jax.jit(lambda system, x: run_to_equilibrium(system, x, max_steps=300))(system, x)
    np.testing.assert_array_equal(run.result, plain.result)
    assert set(np.asarray(run.result).tolist()) == {
        Outcome.CONVERGED,
        Outcome.TWO_CYCLE,
        Outcome.BUDGET_ENDED,
    }
    assert np.abs(np.asarray(run.steps) - np.asarray(plain.steps)).max() <= 1
    # Which of its two states a cycle is left in hangs on that one step.
    same = np.asarray(run.steps) == np.asarray(plain.steps)
    settled = same & (np.asarray(run.result) != Outcome.BUDGET_ENDED)
    assert settled.sum() > 30
    assert_close(run.x[settled], plain.x[settled], size=2, conditioning=10.0)
    assert_close(run.residual[settled], plain.residual[settled], size=2, conditioning=10.0)
    assert np.asarray(run.cycle_residual[settled]).max() < 1e-13


def test_nothing_is_traced_again_for_another_batch_number_of_steps_or_tolerance(monkeypatch):
    traces = []

    def counted(*arguments):
        traces.append(1)
        return batched.step(*arguments)

    monkeypatch.setattr(chunked, "step", counted)
    system = SingleHead(jnp.eye(2), jnp.eye(2), alpha=0.5)
    other = SingleHead(2 * jnp.eye(2), jnp.zeros((2, 2)), alpha=0.1)
    simulate(system, tokens(40, 5, 2), 2, keep="last", observables={})
    run_to_equilibrium(system, tokens(40, 5, 2), max_steps=3)
    made = len(traces)
    assert made > 0
    simulate(other, tokens(350, 5, 2), 4, keep="last", observables={})
    run_to_equilibrium(other, tokens(350, 5, 2), max_steps=5, tolerance=1e-3)
    assert len(traces) == made, "traced again"


def test_chunks_are_at_work_side_by_side_but_the_first(monkeypatch):
    monkeypatch.setattr(chunked, "_threads", lambda: 3)
    together, order, alone = threading.Barrier(3), [], []

    def run(system, chunk):
        if not alone:
            alone.append(threading.current_thread())
        else:
            together.wait(timeout=60)
        return chunk.sum() + system

    starts = np.arange(20.0).reshape(20, 1)
    for at, answer in chunked._dispatched(run, starts, 3, 1.0, ()):
        order.append(at)
        rows = starts[at : at + 3]
        assert answer == rows.sum() + (3 - len(rows)) * rows[-1, 0] + 1
    assert order == list(range(0, 20, 3)) and alone == [threading.current_thread()]

    # Of a program that has been run, the first chunk too has company.
    order.extend(at for at, _ in chunked._dispatched(run, starts[:9], 3, 2.0, ()))
    assert order[-3:] == [0, 3, 6]


def test_an_error_in_one_chunk_is_raised_and_no_thread_stays(monkeypatch):
    monkeypatch.setattr(chunked, "_threads", lambda: 2)
    before = threading.active_count()

    def run(system, chunk):
        if chunk[0, 0] == 6:
            raise ArithmeticError("the third")
        return chunk

    with pytest.raises(ArithmeticError, match="the third"):
        list(chunked._dispatched(run, np.arange(90.0).reshape(90, 1), 3, None, ()))
    assert threading.active_count() == before


def test_numbers_and_programs_are_the_same_for_any_number_of_threads(monkeypatch):
    """Settings of the calling thread alone hold in the others: else they would compile again."""
    traces = []

    def counted(*arguments):
        traces.append(1)
        return batched.step(*arguments)

    monkeypatch.setattr(chunked, "step", counted)
    found = []
    with jax.enable_x64(False):
        system = SingleHead(jnp.diag(jnp.array([1.0, -0.5, 0.2])), jnp.eye(3), alpha=0.5)
        x = jnp.asarray(tokens(1600, 7, 3), jnp.float32)
        for threads in (1, 3):
            monkeypatch.setattr(chunked, "_threads", lambda threads=threads: threads)
            found.append(simulate(system, x, 5, keep="last", observables={}))
    assert len(x) > 3 * chunked.chunk_size(ELEMENTWISE, 7, 3, 4) and len(traces) == 1
    assert found[0].x.dtype == jnp.float32
    np.testing.assert_array_equal(found[0].x, found[1].x)


def test_devices_that_share_a_processor_share_its_threads(monkeypatch):
    monkeypatch.setattr(chunked.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for devices, threads in ((1, 6), (2, 3), (8, 1)):
        monkeypatch.setattr(jax, "local_device_count", lambda backend, n=devices: n)
        assert chunked._threads() == threads


def test_transformations_of_many_starts_go_on_working():
    v, m = draws((D, D), (D, D))
    system, x = SingleHead(v, m, alpha=0.4), tokens(40, N, D)
    (weight,) = draws((40, N, D))

    def loss(system):
        return jnp.sum(weight * simulate(system, x, 2, keep="last", observables={}).x)

    inside, gradient = jax.jit(jax.value_and_grad(loss))(system)
    assert_close(inside, loss(system), size=40 * N * D, conditioning=10.0)
    assert_close(jax.jit(lambda: loss(system))(), inside, size=40 * N * D, conditioning=10.0)
    h = 1e-5
    up, down = (dataclasses.replace(system, alpha=0.4 + s * h) for s in (1, -1))
    # h² truncation and eps / h rounding of some hundred terms.
    difference = (loss(up) - loss(down)) / (2 * h)
    np.testing.assert_allclose(gradient.alpha, difference, rtol=1e-6)


def test_the_formulation_follows_the_size():
    choose = chunked.choose_formulation

    def single(d):
        return SingleHead(jnp.eye(d), jnp.eye(d))

    assert choose(single(3), tokens(100, 10, 3)) is ELEMENTWISE
    assert choose(single(32), tokens(100, 4, 32)) is MATRIX
    assert choose(single(3), tokens(100, 65, 3)) is None
    assert choose(single(3), tokens(3, 10, 3)) is None
    assert choose(single(3), tokens(10, 3)) is None
    heads = dataclasses.replace(systems()["heads"], mask=attention.Full())
    turned = dataclasses.replace(heads, rotary=attention.Rotary(jnp.ones(1)))
    assert choose(heads, tokens(100, N, D)) is ELEMENTWISE
    assert choose(turned, tokens(100, N, D)) is None
    assert choose(LayerStack.from_layers([heads]), tokens(100, N, D)) is None
    for n, d in [(10, 3), (16, 16), (64, 64)]:
        size = chunked.chunk_size(MATRIX, n, d, 8)
        assert 16 <= size <= 512
        assert size % 16 == 0

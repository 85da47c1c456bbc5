"""Training: against a loop written out, resumed bit for bit, stopped, and its wrong requests."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import looped
from pmt.errors import Interrupted, RequestError
from tests.tolerance import assert_close

TINY = looped.TrainConfig(
    d=2,
    n=3,
    loops=2,
    batch=4,
    train=10,
    test=6,
    epochs=4,
    every=2,
    rate=0.3,
    dtype="float64",
)


@pytest.fixture(scope="module")
def whole():
    with jax.enable_x64(True):
        return looped.train(TINY)


def test_an_epoch_is_sgd_on_the_shuffled_set(whole):
    given = jax.tree.map(lambda part: part[0], looped.train_set(TINY))
    weights = looped.on_manifold(0.5, 0.5, TINY.d)

    def loss(weights, rows):
        def one(x, a, basis):
            e = looped.embed(x, a)
            for _ in range(TINY.loops):
                e = looped.loop(weights, e, "l2")
            y = e[-1, TINY.d :]
            return jnp.sum((y - basis @ (basis.T @ y)) ** 2)

        return jnp.mean(jax.vmap(one)(given.data[rows], given.query[rows], given.leading[rows]))

    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
    walk = 0.0
    for epoch in range(TINY.epochs):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), TINY.train)
        for step in range(2):
            gradient = jax.grad(loss)(weights, order[4 * step : 4 * step + 4])
            weights = jax.tree.map(lambda a, b: a - TINY.rate * b, weights, gradient)
            walk = walk + looped.off_manifold(gradient)[0] ** 2
    assert_close(whole.weights.value[0], weights.value, size=1000)
    assert_close(whole.weights.key[0], weights.key, size=1000)
    found = whole.history["walk_value"][-1, 0]
    assert_close(found, TINY.rate * np.sqrt(np.sum(np.asarray(walk))), size=1000)
    assert whole.steps.tolist() == [0, 4, 8]
    distance = looped.distance_to_manifold(weights)
    assert_close(whole.history["off_value"][-1, 0], distance[0], size=1000)
    assert whole.finite.all() and whole.history["off_value"][0, 0] == 0


def test_resumed_is_uninterrupted_to_the_last_bit(whole, tmp_path):
    path, made = tmp_path / "run.npz", []

    def stop_after_three(count):
        made.append(count)
        if len(made) == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped after epoch 3 of 4; go on with the same"):
        looped.train(TINY, checkpoint=path, advance=stop_after_three)
    made.clear()
    resumed = looped.train(TINY, checkpoint=path, resume=True, advance=made.append)
    assert made == [3, 1]
    assert_same(resumed, whole)
    # From the end there is nothing to do, and a longer run goes on from there.
    assert_same(looped.train(TINY, checkpoint=path, resume=True), whole)
    longer = replace(TINY, epochs=6)
    further = looped.train(longer, checkpoint=path, resume=True)
    assert_same(further, looped.train(longer))
    with pytest.raises(RequestError, match="at epoch 6 already, and 4 epochs"):
        looped.train(TINY, checkpoint=path, resume=True)


def assert_same(one, other):
    for name, values in one.history.items():
        assert np.array_equal(values, other.history[name]), name
    for left, right in zip(one.weights, other.weights, strict=True):
        assert np.array_equal(left, right)
    assert np.array_equal(one.walk_scores, other.walk_scores, equal_nan=True)


def test_a_stop_without_a_folder_says_that_nothing_is_saved():
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="nothing was saved"):
        looped.train(TINY, advance=stop)


def test_two_seeds_at_once_are_the_two_runs(whole):
    both = looped.train(replace(TINY, seeds=2))
    assert both.history["v"].shape == (3, 2)
    for name, values in both.history.items():
        scale = max(1e-3, np.abs(whole.history[name]).max())
        assert_close(values[:, :1], whole.history[name], size=1000, scale=scale)
    assert not np.array_equal(both.history["v"][:, 0], both.history["v"][:, 1])


@pytest.mark.parametrize(
    "changed",
    [
        {"norm": "rms", "objective": "sine"},
        {"batch": 10, "dtype": "float32", "start": "unstructured", "norm": "layer"},
    ],
    ids=lambda changed: "-".join(map(str, changed.values())),
)
def test_other_runs_lower_their_loss(changed):
    config = replace(TINY, epochs=20, every=10, **changed)
    run = looped.train(config)
    first, *_, last = run.history["train_loss"][:, 0]
    assert last < first
    assert run.weights.value.dtype == np.dtype(config.dtype)
    assert np.any(run.weights.gain != run.weights.gain[0, 0])


def test_on_fresh_samples_entries_stay_within_the_noise(whole):
    run = looped.train(replace(TINY, draw="fresh", epochs=200, rate=0.1))
    scores = np.abs(run.walk_scores)
    assert scores.shape == (32, 1)
    # The two blocks; nothing else ever moves.
    assert np.count_nonzero(np.isfinite(scores)) == 2 * TINY.d**2
    assert np.nanmax(scores) < 3.0 and np.nanmax(scores) > 0.01
    assert run.history["train_loss"][-1, 0] < run.history["train_loss"][0, 0]
    assert np.all(run.weights.gain == whole.weights.gain)


def test_a_run_that_diverges_is_not_called_finite():
    config = replace(TINY, rate=1e300)
    assert not looped.train(config).finite.any()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    resume = partial(looped.train, checkpoint=path, resume=True)
    with pytest.raises(RequestError, match="there is no checkpoint .* start without --resume"):
        resume(TINY)
    path.write_bytes(b"PK no archive")
    with pytest.raises(RequestError, match="is not a whole checkpoint of pmt"):
        resume(TINY)
    looped.train(TINY, checkpoint=path)
    with pytest.raises(RequestError, match=r"of another run, with rate = 0.3; give the same"):
        resume(replace(TINY, rate=0.2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="is not a whole checkpoint"):
        resume(TINY)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"batch": 11}, "a batch of 11 is more than the 10"),
        ({"every": 3}, "do not divide 4 epochs"),
        ({"rate": float("nan")}, "the learning rate is nan"),
        ({"d": 1}, "d is 1"),
        ({"test": 0}, "test is 0"),
        ({"draw": "stale"}, "'fixed' or 'fresh'"),
        ({"start": "x"}, "it is one of structured"),
        ({"dtype": "float16"}, "'float32' or 'float64'"),
        ({"objective": "x"}, "one of subspace"),
    ],
)
def test_a_wrong_config_is_one_sentence(changed, sentence):
    with pytest.raises(RequestError, match=sentence):
        replace(TINY, **changed)


def test_float64_is_refused_where_jax_would_make_it_float32():
    with jax.enable_x64(False), pytest.raises(RequestError, match=r"jax.enable_x64\(True\)"):
        looped.train(TINY)

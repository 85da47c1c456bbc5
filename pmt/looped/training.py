"""Training the full matrices: every epoch is one compiled scan, several seeds are one vmap.

A run is a function of its config alone, to the last bit on one machine: interrupted and resumed it
ends where it would have ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax import lax
from jaxtyping import Array, Float

from pmt.errors import Interrupted
from pmt.looped import checkpoint as files
from pmt.looped.blocks import apply_blocks
from pmt.looped.config import TrainConfig
from pmt.looped.core import Weights, apply
from pmt.looped.data import Samples, uniform_samples
from pmt.looped.manifold import (
    angle_to_line,
    angle_to_space,
    off_manifold,
    power_iterate,
    scalars,
)
from pmt.looped.objectives import sample_losses
from pmt.looped.orbits import with_images
from pmt.looped.start import initial_weights

# Seconds between checkpoints.
_PAUSE = 30.0


class _State(NamedTuple):
    """What training changes; a leading ``seeds`` axis on every array.

    ``walk_value`` and ``walk_key`` are Σ_t g_t² entry by entry, g_t the gradient's part off the
    manifold: the variance, over η², of the random walk that the noise of the gradient makes.
    """

    weights: Weights
    walk_value: Any
    walk_key: Any


@dataclass(frozen=True)
class Training:
    """A finished run; arrays have a last axis of ``seeds``.

    Attributes:
      config: what was run.
      weights: after the last epoch, with a leading ``seeds`` axis.
      history: name -> values at every record, shape ``(records, seeds)``:
        ``v``, ``w``: means of the diagonals that the manifold has;
        ``off_value``, ``off_key``: Frobenius distances of V and W from the manifold;
        ``walk_value``, ``walk_key``: the same, expected of a walk driven by the gradient noise;
        ``train_loss``, ``test_loss``; ``algorithm_angle``: mean angle between y_L and the L-step
        power iterate; ``truth_angle``: between y_L and Z(X); both over the test set.
      power_loss, power_angle: of the L-step power method on the test set, shape ``(seeds,)``.
      walk_scores: entries of V and W off the manifold over the standard deviation of the walk,
        shape ``(entries, seeds)``; NaN for entries that no gradient ever moved.
      seconds: spent in this process.
    """

    config: TrainConfig
    weights: Weights
    history: dict[str, np.ndarray]
    power_loss: np.ndarray
    power_angle: np.ndarray
    walk_scores: np.ndarray
    seconds: float

    @property
    def steps(self) -> np.ndarray:
        """Steps made at every record."""
        return np.arange(len(self.history["v"])) * self.config.every * self.config.steps_per_epoch

    @property
    def finite(self) -> np.ndarray:
        """Which seeds stayed finite."""
        return np.isfinite(self.history["test_loss"]).all(axis=0)


class _Sets(NamedTuple):
    train: Samples
    test: Samples
    key: Any


def train(
    config: TrainConfig,
    *,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Training:
    """Train, and record what the theory speaks of.

    Args:
      config: see there.
      checkpoint: file to save the run to, at most every 30 seconds and when it ends or is stopped.
      resume: go on from that file.
      advance: called with 1 after every epoch; may raise ``KeyboardInterrupt`` to stop the run.

    Raises:
      RequestError: float64 without JAX's 64-bit mode, or a checkpoint of another run.
      Interrupted: when stopped, after the checkpoint is written.
    """
    dtype = config.array_dtype()
    started = time.monotonic()
    keys = _keys(config)
    sets = _sets(config)
    if resume and checkpoint is not None:
        found = files.read(checkpoint, config)
        epoch, history = found.epoch, {name: list(rows) for name, rows in found.history.items()}
        parts = [jnp.asarray(found.state[name], dtype) for name in files.STATE]
        state = _State(Weights(*parts[:3]), *parts[3:])
        advance(epoch)
    else:
        epoch, history = 0, {}
        state = _initial(config, keys)
    shape, rate = _compiled_for(config), jnp.asarray(config.rate, dtype)
    if not history:
        _record(history, _measure(shape, state, sets, rate))
    saved = time.monotonic()

    def save() -> None:
        if checkpoint is not None:
            files.write(checkpoint, _as_checkpoint(config, epoch, state, history))

    try:
        while epoch < config.epochs:
            state = jax.block_until_ready(_epoch(shape, state, sets, jnp.int32(epoch), rate))
            epoch += 1
            if epoch % config.every == 0:
                _record(history, _measure(shape, state, sets, rate))
            if time.monotonic() - saved > _PAUSE:
                save()
                saved = time.monotonic()
            advance(1)
    except KeyboardInterrupt as stop:
        save()
        message = f"stopped after epoch {epoch} of {config.epochs}; "
        message += (
            "nothing was saved, since no folder was given"
            if checkpoint is None
            else "go on with the same command and --resume"
        )
        raise Interrupted(message) from stop
    save()
    power_loss, power_angle = _power(shape, sets)
    return Training(
        config,
        jax.tree.map(np.asarray, state.weights),
        {name: np.asarray(rows) for name, rows in history.items()},
        np.asarray(power_loss),
        np.asarray(power_angle),
        _scores(config, state),
        time.monotonic() - started,
    )


def test_set(config: TrainConfig) -> Samples:
    """The test samples of a run, with a leading ``seeds`` axis."""
    return _sets(config).test


def train_set(config: TrainConfig) -> Samples:
    """The training samples of a run, with a leading ``seeds`` axis.

    Of a run with fresh samples: others, as many as the test samples.
    """
    return _sets(config).train


def _keys(config: TrainConfig) -> Any:
    return jnp.stack([jax.random.key(config.seed + index) for index in range(config.seeds)])


def _compiled_for(config: TrainConfig) -> TrainConfig:
    """The config without what the compiled step does not depend on."""
    return replace(config, rate=1.0, seed=0, epochs=1, every=1, v=1.0, w=1.0, scale=1.0)


def _sets(config: TrainConfig) -> _Sets:
    # With fresh samples the training set only serves to measure the loss.
    count = config.train if config.draw == "fixed" else config.test
    total, found = count + config.test, []
    # One seed after the other, since random numbers for several at once compile slowly.
    for key in _keys(config):
        drawn, order = jax.random.split(jax.random.fold_in(key, 0))
        both = _drawn(drawn, total, config.n, config.d, config.dtype)
        train = jax.tree.map(lambda part: part[:count], both)
        test = jax.tree.map(lambda part: part[count:], both)
        found.append(_Sets(train, test, order))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _drawn(key: Any, count: int, n: int, d: int, dtype: str) -> Samples:
    return uniform_samples(key, count, n, d, jnp.dtype(dtype))


def _over_seeds(one: Callable[..., Any], *arguments: Any) -> Any:
    """``one`` for every seed; without ``vmap`` where there is one, which is a fifth faster."""
    if len(jax.tree.leaves(arguments[0])[0]) > 1:
        return jax.vmap(one)(*arguments)
    alone = jax.tree.map(lambda leaf: leaf[0], arguments)
    return jax.tree.map(lambda leaf: leaf[None], one(*alone))


def _initial(config: TrainConfig, keys: Any) -> _State:
    def one(key: Any) -> Weights:
        return initial_weights(
            config.d,
            start=config.start,
            v=config.v,
            w=config.w,
            scale=config.scale,
            key=jax.random.fold_in(key, 1),
            dtype=jnp.dtype(config.dtype),
        )

    weights = _over_seeds(one, keys)
    zero = jnp.zeros_like(weights.value)
    return _State(weights, zero, zero)


def loss(config: TrainConfig, weights: Weights, batch: Samples) -> Float[Array, ""]:
    """The mean loss of a batch."""
    y = _output(config, weights, batch)
    return jnp.mean(sample_losses(config.objective, y, batch))


def _output(config: TrainConfig, weights: Weights, batch: Samples) -> Float[Array, "b d"]:
    model = apply_blocks if config.confined else apply
    return model(weights, batch.data, batch.query, config.loops, config.norm)


@partial(jax.jit, static_argnums=0)
def _epoch(config: TrainConfig, state: _State, sets: _Sets, epoch: Array, rate: Array) -> _State:
    optimizer = optax.sgd(rate)

    def step(state: _State, batch: Samples) -> _State:
        gradient = jax.grad(partial(loss, config))(state.weights, batch)
        updates, _ = optimizer.update(gradient, optimizer.init(state.weights))
        value, key = off_manifold(gradient)
        return _State(
            optax.apply_updates(state.weights, updates),
            state.walk_value + value * value,
            state.walk_key + key * key,
        )

    def draw(sets: _Sets, which: Array) -> Samples:
        if config.draw == "fresh":
            drawn = uniform_samples(which, config.drawn, config.n, config.d, sets.test.data.dtype)
        else:
            drawn = jax.tree.map(lambda part: part[which], sets.train)
        return with_images(drawn) if config.orbits else drawn

    def one(state: _State, sets: _Sets) -> _State:
        key, count = jax.random.fold_in(sets.key, epoch), config.steps_per_epoch
        if config.full_batch:
            return step(state, sets.train)
        if config.draw == "fresh":
            order = jax.random.split(key, count)
        else:
            rows = jax.random.permutation(key, config.train)[: count * config.drawn]
            order = rows.reshape(count, config.drawn)

        def move(state: _State, which: Array) -> tuple[_State, None]:
            return step(state, draw(sets, which)), None

        return lax.scan(move, state, order)[0]

    return _over_seeds(one, state, sets)


@partial(jax.jit, static_argnums=0)
def _measure(config: TrainConfig, state: _State, sets: _Sets, rate: Array) -> dict[str, Array]:
    def one(state: _State, sets: _Sets) -> dict[str, Array]:
        weights, test = state.weights, sets.test
        y = _output(config, weights, test)
        iterate = power_iterate(test.data, test.query, config.loops)
        seen = jax.tree.map(lambda part: part[: config.test], sets.train)
        point, off = scalars(weights), off_manifold(weights)
        return {
            "v": point.v,
            "w": point.w,
            "off_value": _frobenius(off[0]),
            "off_key": _frobenius(off[1]),
            "walk_value": rate * jnp.sqrt(jnp.sum(state.walk_value)),
            "walk_key": rate * jnp.sqrt(jnp.sum(state.walk_key)),
            "train_loss": loss(config, weights, seen),
            "test_loss": jnp.mean(sample_losses(config.objective, y, test)),
            "algorithm_angle": jnp.mean(angle_to_line(y, iterate)),
            "truth_angle": jnp.mean(angle_to_space(y, test.leading)),
        }

    return _over_seeds(one, state, sets)


@partial(jax.jit, static_argnums=0)
def _power(config: TrainConfig, sets: _Sets) -> tuple[Array, Array]:
    def one(test: Samples) -> tuple[Array, Array]:
        y = power_iterate(test.data, test.query, config.loops)
        angle = jnp.mean(angle_to_space(y, test.leading))
        return jnp.mean(sample_losses(config.objective, y, test)), angle

    return _over_seeds(one, sets.test)


def _frobenius(matrix: Array) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(matrix * matrix))


def _scores(config: TrainConfig, state: _State) -> np.ndarray:
    off = off_manifold(state.weights)
    walks = (state.walk_value, state.walk_key)
    found = []
    for part, walk in zip(off, walks, strict=True):
        deviation = config.rate * np.sqrt(np.asarray(walk, np.float64))
        scores = np.divide(
            np.asarray(part, np.float64),
            deviation,
            out=np.full_like(deviation, np.nan),
            where=deviation > 0,
        )
        found.append(scores.reshape(config.seeds, -1))
    return np.concatenate(found, axis=1).T


def _record(history: dict[str, list[Any]], row: dict[str, Array]) -> None:
    for name, values in row.items():
        history.setdefault(name, []).append(np.asarray(values))


def _as_checkpoint(
    config: TrainConfig, epoch: int, state: _State, history: dict[str, list[Any]]
) -> files.Checkpoint:
    parts = (*state.weights, state.walk_value, state.walk_key)
    return files.Checkpoint(
        config,
        epoch,
        {name: np.asarray(part) for name, part in zip(files.STATE, parts, strict=True)},
        {name: np.stack(rows) for name, rows in history.items()},
    )

"""Figure 2 of arXiv 2606.00605: one trained layer applied again and again, with and without Norm.

One layer (L = 1) is trained against one normalised power step; then it is applied L = 1..25 times.
Two gaps are kept apart: from the model to the algorithm it should have learned (the L-step power
iterate), and from that algorithm to the truth (the leading eigenspace).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from pmt import looped
from pmt.experiments.loop_figure_1 import finite
from pmt.experiments.loop_plateaus import Plateaus, plateaus
from pmt.looped import Samples, TrainConfig, Training, Weights
from pmt.looped.data import Outside
from pmt.looped.norms import Norm, normalized

SCHEMA = "pmt.loop-compare/1"


@dataclass(frozen=True)
class RepeatedConfig:
    """What is trained, for which norms, and how often it is applied.

    Attributes:
      training: of one layer; its norm is replaced by each of ``norms``.
      norms: to compare.
      most_loops: applications.
      late: from which application on a contraction factor is measured.
      outside: kinds of data from outside the training distribution.
    """

    training: TrainConfig = TrainConfig(loops=1, objective="unit-power")
    norms: tuple[Norm, ...] = ("l2", "none")
    most_loops: int = 25
    late: int = 15
    outside: tuple[Outside, ...] = looped.OUTSIDE


FIGURE_2 = RepeatedConfig()
FIGURE_2_QUICK = RepeatedConfig(
    TrainConfig(
        d=4,
        n=8,
        loops=1,
        objective="unit-power",
        train=1024,
        test=256,
        epochs=200,
        every=5,
        seeds=3,
    )
)


@dataclass(frozen=True)
class Repeated:
    """One trained layer applied 1, 2, ..., ``most_loops`` times; arrays are ``(loops, seeds)``.

    Attributes:
      truth_angle: mean angle between y_L and Z(X); NaN where a sample has overflowed.
      algorithm_angle: mean angle between y_L and the L-step power iterate.
      manifold_truth_angle: as ``truth_angle``, of the nearest point of the manifold.
      factor: contraction of tan φ per loop, the geometric mean over samples and late loops; NaN
        where a sample has overflowed. Shape ``(seeds,)``, as the next four.
      manifold_factor: as ``factor``, of that point; ``predicted``: the same mean of
        (1 + ρ λ_{r+1})/(1 + ρ λ_1); ``power``: of λ_{r+1}/λ_1.
      rank: effective rank (Σσ)²/Σσ² of the lower left block of V, d on the manifold. Without Norm
        it falls to about d/2: there the manifold's best point is a saddle, descent switches half
        of the directions off, and what is left has no leading eigenspace in common with XXᵀ.
      predicted_truth_angle: from loop ``late`` on, ``(loops - late + 1, seeds)``: the mean angle if
        tan φ of every sample shrinks by its λ_{r+1}/λ_1 a loop, or, without Norm, by its
        R* = (1 + γ* λ_{r+1})/(1 + γ* λ_1).
    """

    truth_angle: np.ndarray
    algorithm_angle: np.ndarray
    manifold_truth_angle: np.ndarray
    factor: np.ndarray
    manifold_factor: np.ndarray
    predicted: np.ndarray
    power: np.ndarray
    rank: np.ndarray
    predicted_truth_angle: np.ndarray


@dataclass(frozen=True)
class LoopFigure2:
    """The result.

    Attributes:
      config: what was run.
      trainings: by norm.
      repeated: by norm, on the test set.
      outside: by kind of data and norm, on samples from outside the training distribution.
      power_truth_angle: of the power method itself, ``(loops, seeds)``.
      plateaus: what one layer without Norm can reach, on the manifold and off it.
      bound: R*, the geometric mean over the test set of its factor at γ*, ``(seeds,)``.
    """

    config: RepeatedConfig
    trainings: Mapping[str, Training]
    repeated: Mapping[str, Repeated]
    outside: Mapping[str, Mapping[str, Repeated]]
    power_truth_angle: np.ndarray
    plateaus: Plateaus
    bound: np.ndarray


def loop_figure_2(
    config: RepeatedConfig = FIGURE_2,
    *,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> LoopFigure2:
    """Train a layer for every norm and apply it ``most_loops`` times.

    Args:
      config: see there.
      folder: for one checkpoint a norm.
      resume: go on from those that there are.
      advance: called with 1 after every epoch of every norm.

    Raises:
      Interrupted: as ``pmt.looped.train``.
    """
    trainings: dict[str, Training] = {}
    for norm in config.norms:
        path = None if folder is None else Path(folder) / f"checkpoint-{norm}.npz"
        trainings[norm] = looped.train(
            replace(config.training, norm=norm),
            checkpoint=path,
            resume=resume and path is not None and path.exists(),
            advance=advance,
        )
    test = looped.test_set(config.training)
    reached = plateaus(config.training)
    gamma = reached.gamma[0]
    outside: dict[str, dict[str, Repeated]] = {}
    for kind in config.outside:
        drawn = _outside(config.training, kind)
        outside[kind] = {
            norm: repeated(config, done, drawn, gamma) for norm, done in trainings.items()
        }
    return LoopFigure2(
        config,
        trainings,
        {norm: repeated(config, done, test, gamma) for norm, done in trainings.items()},
        outside,
        _power_angles(config, test),
        reached,
        np.exp(_log_factors(test, gamma).mean(axis=-1)),
    )


def repeated(config: RepeatedConfig, done: Training, given: Samples, gamma: float) -> Repeated:
    """The trained layer of every seed, applied to its own samples; ``gamma`` is γ*."""
    weights = Weights(*(jnp.asarray(part) for part in done.weights))
    norm, loops = done.config.norm, config.most_loops
    point = looped.scalars(weights)
    # In float64, so that small angles still shrink.
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda part: np.asarray(part, np.float64), (weights, given))
        full = jax.vmap(partial(_applied, loops=loops, norm=norm))(*wide)
        truth, algorithm, single = (np.asarray(part) for part in full)
    tangent = _manifold_tangents(given, np.asarray(point.rho, np.float64), loops)
    best = _log_factors(given, np.inf if norm == "l2" else gamma)
    ahead = np.arange(loops - config.late + 1)[:, None]
    expected = np.arctan(tangent[:, None, config.late - 1] * np.exp(ahead * best[:, None]))
    return Repeated(
        truth.T,
        algorithm.T,
        np.arctan(tangent).mean(axis=-1).T,
        _contraction(np.tan(single), config),
        _contraction(tangent, config),
        np.exp(_log_factors(given, np.asarray(point.rho)).mean(axis=-1)),
        np.exp(_log_factors(given, np.inf).mean(axis=-1)),
        _effective_rank(done.weights.value),
        expected.mean(axis=-1).T,
    )


def _contraction(tangent: np.ndarray, config: RepeatedConfig) -> np.ndarray:
    """Geometric mean over samples and late loops of the factors of tan φ, ``(seeds, loops, k)``."""
    late = np.log(tangent[:, -1]) - np.log(tangent[:, config.late - 1])
    return np.asarray(np.exp(late.mean(axis=-1) / (config.most_loops - config.late)))


def _effective_rank(value: Any) -> np.ndarray:
    """(Σσ)²/Σσ² of the lower left blocks of V, ``(seeds, 2d, 2d)``."""
    d = value.shape[-1] // 2
    sigma = np.linalg.svd(np.asarray(value, np.float64)[:, d:, :d], compute_uv=False)
    return np.asarray(sigma.sum(axis=-1) ** 2 / (sigma**2).sum(axis=-1))


@partial(jax.jit, static_argnames=("loops", "norm"))
def _applied(
    weights: Weights, given: Samples, *, loops: int, norm: Norm
) -> tuple[Array, Array, Array]:
    """(mean angle to Z, mean angle to the power iterate, angle to Z of every sample), by loop."""
    d = given.query.shape[-1]

    def one(given: Samples) -> tuple[Array, Array]:
        def move(state: tuple[Array, Array], _: None) -> tuple[Any, tuple[Array, Array]]:
            e, iterate = state
            e = looped.loop(weights, e, norm)
            iterate = looped.power_iterate(given.data, iterate, 1)
            # The last token's scale grows without Norm; only its direction is looked at.
            y = normalized("l2", e[-1, d:], weights.gain[d:])
            angles = looped.angle_to_space(y, given.leading), looped.angle_to_line(y, iterate)
            return (e, iterate), angles

        start = (looped.embed(given.data, given.query), given.query)
        return lax.scan(move, start, None, length=loops)[1]

    truth, algorithm = jax.vmap(one, out_axes=1)(given)
    return jnp.mean(truth, axis=1), jnp.mean(algorithm, axis=1), truth


@jax.jit
def _angles_of_power(given: Samples, loops: Array) -> Array:
    def one(given: Samples) -> Array:
        def move(iterate: Array, _: Array) -> tuple[Array, Array]:
            iterate = looped.power_iterate(given.data, iterate, 1)
            return iterate, looped.angle_to_space(iterate, given.leading)

        return lax.scan(move, given.query, loops)[1]

    return jnp.mean(jax.vmap(one, out_axes=1)(given), axis=1)


def _power_angles(config: RepeatedConfig, test: Samples) -> np.ndarray:
    loops = jnp.arange(config.most_loops)
    return np.asarray(jax.vmap(_angles_of_power, in_axes=(0, None))(test, loops)).T


def _manifold_tangents(given: Samples, rho: np.ndarray, loops: int) -> np.ndarray:
    """tan φ after each loop on the manifold, ``(seeds, loops, samples)``, from the spectra.

    In float64 and in eigencoordinates, where no angle is too small to be told from zero.
    """
    values, frames = np.linalg.eigh(np.asarray(looped.covariance(given.data), np.float64))
    query = np.asarray(given.query, np.float64)
    squares = np.einsum("...ij,...i->...j", frames, query)[..., ::-1] ** 2
    growth = 1.0 + rho[:, None, None] * values[..., ::-1]
    ratio = growth / growth[..., :1]
    rank, found = given.leading.shape[-1], []
    for loop in range(1, loops + 1):
        parts = ratio ** (2 * loop) * squares
        found.append(np.sqrt(parts[..., rank:].sum(-1) / parts[..., :rank].sum(-1)))
    return np.stack(found, axis=1)


def _log_factors(given: Samples, rho: Any) -> np.ndarray:
    """log((1 + ρ λ_{r+1})/(1 + ρ λ_1)) of every sample; ρ = ∞ gives the power method's."""
    values = np.linalg.eigvalsh(np.asarray(looped.covariance(given.data), np.float64))[..., ::-1]
    first, next_one = values[..., 0], values[..., given.leading.shape[-1]]
    rho = np.broadcast_to(np.asarray(rho, np.float64), values.shape[:1])[:, None]
    if np.all(np.isinf(rho)):
        return np.log(next_one / first)
    return np.log1p(rho * next_one) - np.log1p(rho * first)


def _outside(config: TrainConfig, kind: Any) -> Samples:
    keys = [jax.random.key(config.seed + seed + 2**21) for seed in range(config.seeds)]
    shape = (config.test, config.n, config.d, config.dtype)
    # One seed after the other: random numbers for several at once compile slowly.
    drawn = [_drawn_outside(key, kind, *shape) for key in keys]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *drawn)


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _drawn_outside(key: Any, kind: Any, count: int, n: int, d: int, dtype: str) -> Samples:
    return looped.outside_samples(key, kind, count, n, d, jnp.dtype(dtype))


def comparison_json(result: LoopFigure2) -> dict[str, Any]:
    """The object that ``pmt loop compare --json`` writes: schema ``pmt.loop-compare/1``."""
    config = result.config
    return {
        "schema": SCHEMA,
        "config": {
            "training": config.training.document(),
            "norms": list(config.norms),
            "most_loops": config.most_loops,
            "late": config.late,
            "outside": list(config.outside),
        },
        "plateaus": {
            name: {"value": value, "se": error}
            for name, (value, error) in vars(result.plateaus).items()
        },
        "bound": finite(result.bound),
        "power_truth_angle": finite(result.power_truth_angle),
        "norms": {
            norm: {
                "seconds": done.seconds,
                "steps": done.steps.tolist(),
                "history": {name: finite(values) for name, values in done.history.items()},
                "repeated": _repeated_json(result.repeated[norm]),
                "outside": {
                    kind: _repeated_json(each[norm]) for kind, each in result.outside.items()
                },
            }
            for norm, done in result.trainings.items()
        },
    }


def _repeated_json(one: Repeated) -> dict[str, Any]:
    return {name: finite(values) for name, values in vars(one).items()}

"""What one layer without Norm can reach: a plateau on the manifold, and a lower one off it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.looped import TrainConfig
from pmt.numerics import einsum


@dataclass(frozen=True)
class Plateaus:
    """Least losses of one layer without Norm over the population, each with its standard error.

    With A and B, the lower left block of V and the upper right one of W, it computes
    a + A XXᵀ B a. On the manifold A B = γ I. Where A = P projects on half of the coordinates and
    B = γ (I - P), the loss is smaller: the manifold's best point is a saddle over the full blocks,
    which noise leaves. Such a layer is no power method: A B = 0, so that y_L = a + L A XXᵀ B a.

    Attributes:
      gamma: γ* = E[XXᵀa · (target - a)] / E|XXᵀa|².
      manifold: the loss at γ*.
      split: the least loss with such a P, for the best γ.
      less: ``split`` less ``manifold`` on the same samples, so that its error is smaller.
    """

    gamma: tuple[float, float]
    manifold: tuple[float, float]
    split: tuple[float, float]
    less: tuple[float, float]


def plateaus(config: TrainConfig) -> Plateaus:
    """Over 50,000 fresh samples; the error of γ* is the delta method's for a ratio of means.

    Those of the losses are of means at fixed γ: to first order its own error does not move them.
    """
    key = jax.random.key(config.seed + 2**20)
    found = _residuals(key, config.n, config.d, config.dtype, config.objective)
    parts = {name: [np.asarray(each, np.float64) for each in found[name]] for name in found}
    losses, gammas = {}, {}
    for name in ("manifold", "split"):
        top, bottom = parts[name]
        gamma = float(top.mean() / bottom.mean())
        gammas[name] = gamma, _error(top - gamma * bottom) / float(bottom.mean())
        losses[name] = parts["start"][0] - 2 * gamma * top + gamma**2 * bottom
    less = losses["split"] - losses["manifold"]
    return Plateaus(
        gammas["manifold"], _mean(losses["manifold"]), _mean(losses["split"]), _mean(less)
    )


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), _error(values)


def _error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _residuals(
    key: Any, n: int, d: int, dtype: str, objective: str
) -> dict[str, tuple[Array, ...]]:
    """For 50,000 samples |r|², r = target - a, and of both images u of a, u · r and |u|²."""
    rows = sphere.uniform(key, (50_000, n + 1, d), jnp.dtype(dtype))
    data, query = rows[:, :n], rows[:, n]
    image = _image(data, query)
    residual = (image if objective == "power" else sphere.normalize(image)) - query
    half = jnp.arange(d) < d // 2
    split = jnp.where(half, _image(data, jnp.where(half, 0, query)), 0)
    return {
        "start": (jnp.sum(residual * residual, axis=1),),
        "manifold": (jnp.sum(image * residual, axis=1), jnp.sum(image * image, axis=1)),
        "split": (jnp.sum(split * residual, axis=1), jnp.sum(split * split, axis=1)),
    }


def _image(data: Array, query: Array) -> Array:
    """XXᵀ a."""
    return einsum("snd,se,sne->sd", data, query, data)

"""A way down from the manifold of Theorem 4.1, and below the loss of the power method itself.

From a structured start no step leaves two blocks of V and W (`pmt.looped.blocks`), but the manifold
is a saddle of the full matrices. With ε I in the upper right block of V and δ I in the lower left
one of W, the loss does not change while either is zero, and has a mixed derivative: it falls along
δ = −ε. The data tokens then go through x_i ← Norm(x_i − ε² (a·x_i) a): they lean away from what the
query has been, and the query, which has all its unwanted directions from there, loses them sooner.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt import looped
from pmt.errors import RequestError
from pmt.looped import Samples, TrainConfig

# Sizes of ε that are tried; the first gives the curvature.
SIZES = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class WayDown:
    """What is measured; pairs are a value and its standard error over the samples.

    Attributes:
      rho: v w of the point on the manifold where the way begins, with v = w.
      curvature: second derivative of the loss along (I, −I) in the two blocks, of length one;
        negative where the manifold is a saddle. From ε = 0.03, right to fourth order in it.
      size: the ε of ``SIZES`` with the least loss.
      gain: the power method's loss less that one, on the same samples; positive where the full
        matrices can do better than L steps of the power method. Its error leaves out that the size
        was chosen on these samples too.
    """

    rho: float
    curvature: tuple[float, float]
    size: float
    gain: tuple[float, float]

    def document(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "rho": self.rho,
            "curvature": {"value": self.curvature[0], "se": self.curvature[1]},
            "size": self.size,
            "gain": {"value": self.gain[0], "se": self.gain[1]},
        }


def way_down(config: TrainConfig, rho: float, given: Samples) -> WayDown:
    """Measure it at a point of the manifold, on samples without a ``seeds`` axis.

    Args:
      config: its norm must be ``l2``; d, loops and objective count too.
      rho: > 0.
      given: at least two samples, other than those that chose ρ.

    Raises:
      RequestError: another norm, ρ that is not positive, or fewer than two samples.
    """
    if config.norm != "l2":
        raise RequestError(f"the norm is {config.norm!r}; the way down is known for 'l2' alone")
    if not 0 < rho < float("inf"):
        raise RequestError(f"rho is {rho}; it must be positive and finite")
    if len(given.query) < 2:
        raise RequestError("one sample has no standard error; give at least two")
    losses = partial(_losses, config.loops, config.objective, given)
    root = float(np.sqrt(rho))
    same, opposite = losses(root, SIZES[0], SIZES[0]), losses(root, SIZES[0], -SIZES[0])
    bend = _mean((opposite - same) / (2.0 * SIZES[0] ** 2 * config.d))
    power = np.asarray(_power_losses(config.loops, config.objective, given), np.float64)
    found = [_mean(power - losses(root, size, -size)) for size in SIZES]
    best = int(np.argmax([gain for gain, _ in found]))
    return WayDown(float(rho), bend, SIZES[best], found[best])


def _losses(
    loops: int, objective: str, given: Samples, root: float, eps: float, delta: float
) -> np.ndarray:
    scalars = jnp.asarray([root, eps, delta], given.data.dtype)
    return np.asarray(_sample_losses(loops, objective, given, scalars), np.float64)


@partial(jax.jit, static_argnums=(0, 1))
def _sample_losses(loops: int, objective: str, given: Samples, scalars: jax.Array) -> jax.Array:
    root, eps, delta = scalars
    weights = looped.beside_manifold(root, root, eps, delta, given.query.shape[-1])
    y = looped.apply(weights, given.data, given.query, loops, "l2")
    return looped.sample_losses(objective, y, given)


@partial(jax.jit, static_argnums=(0, 1))
def _power_losses(loops: int, objective: str, given: Samples) -> jax.Array:
    y = looped.power_iterate(given.data, given.query, loops)
    return looped.sample_losses(objective, y, given)


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))

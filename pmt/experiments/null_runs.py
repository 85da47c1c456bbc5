"""The tokens under a null model whose one layer is applied again and again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.experiments.nulls import apply_gaussian, gaussian_maps
from pmt.experiments.states import distances, rho_of
from pmt.spectral import as_directions


@dataclass(frozen=True)
class NullRun:
    """The same tokens under draws of a null model.

    Attributes:
      rho: (draws, steps + 1, prompts, n), with the draw's own principal direction.
      dimensions: of that, for every draw.
      distance: (steps + 1,), mean intertoken distance.
      signed, plane: (draws, prompts, n), of the last states, as in ``SharedRun``; no plane for the
        Gaussian null, of which v_2 is not solved for.
    """

    rho: np.ndarray
    dimensions: tuple[int, ...]
    distance: np.ndarray
    signed: np.ndarray
    plane: np.ndarray | None


class NullDraw:
    """Tokens under one draw of a null model: one step, and the draw's own principal direction."""

    def __init__(self, move: Callable[[jax.Array], jax.Array], basis: np.ndarray, x: jax.Array):
        self._move, self.dimension = move, basis.shape[1]
        self._directions = as_directions(basis, x.dtype)
        self.rho: list[np.ndarray] = []
        self.distance: list[float] = []
        self._take(x)

    def step(self) -> None:
        """Apply the null's layer once more."""
        self._take(self._move(self.x))

    def state(self) -> dict[str, Any]:
        """The tokens, and what was measured so far."""
        return {"x": self.x, "rho": self.rho, "distance": self.distance}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """The same again from ``state``."""
        self.x, self.rho = jnp.asarray(state["x"]), list(state["rho"])
        self.distance = state["distance"].tolist()

    def _take(self, x: jax.Array) -> None:
        self.x = x
        self.rho.append(rho_of(x, self._directions))
        self.distance.append(float(distances(x).mean()))


def gaussian_step(layer: Any, key: tuple[int, ...], x: jax.Array) -> jax.Array:
    """One step under the Gaussian draw of that key."""
    # Drawn again at every step, since all maps together are h times as large as F.
    return apply_gaussian(layer, gaussian_maps(layer, *key), x)


def gather(
    nulls: list[NullDraw], first: list[np.ndarray], planes: list[np.ndarray] | None = None
) -> NullRun:
    """The draws of one null model; ``first`` is v_1, ``planes`` those of v_1 and v_2 in each."""
    last = [np.asarray(null.x, np.float64) for null in nulls]
    signed = np.stack([x @ v for x, v in zip(last, first, strict=True)])
    plane = None
    if planes is not None:
        pairs = zip(last, planes, strict=True)
        plane = np.stack([np.linalg.norm(x @ both, axis=-1) for x, both in pairs])
    return NullRun(
        rho=np.stack([null.rho for null in nulls]),
        dimensions=tuple(null.dimension for null in nulls),
        distance=np.mean([null.distance for null in nulls], axis=0),
        signed=signed,
        plane=plane,
    )

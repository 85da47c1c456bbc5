"""The tokens under a null model whose one layer is applied again and again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.experiments.nulls import apply_gaussian, gaussian_maps
from pmt.experiments.passage import mean_distance
from pmt.experiments.states import distances, rho_of, without_padding
from pmt.spectral import as_directions


@dataclass(frozen=True)
class NullRun:
    """The same tokens under draws of a null model.

    Attributes:
      rho: (draws, steps + 1, prompts, n), with the draw's own principal direction; this and the
        next are masked where there is padding.
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
    """Tokens under one draw of a null model: one step, and the draw's own principal direction.

    Args:
      move: the step, from the states and which of them are no padding.
      basis: of the direction.
      x: ``(prompts, n, d)``.
      present: ``(prompts, n)``, False for padding; None where there is none.
    """

    def __init__(
        self,
        move: Callable[[jax.Array, jax.Array | None], jax.Array],
        basis: np.ndarray,
        x: jax.Array,
        present: np.ndarray | None = None,
    ) -> None:
        self._move, self.dimension, self.present = move, basis.shape[1], present
        self._directions = as_directions(basis, x.dtype)
        self.rho: list[np.ndarray] = []
        self.distance: list[float] = []
        self._take(x)

    def step(self) -> None:
        """Apply the null's layer once more."""
        there = None if self.present is None else jnp.asarray(self.present)
        self._take(self._move(self.x, there))

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
        there = self.present
        self.distance.append(
            float(distances(x).mean()) if there is None else mean_distance(x, there)
        )


def gaussian_step(
    layer: Any, key: tuple[int, ...], x: jax.Array, present: jax.Array | None = None
) -> jax.Array:
    """One step under the Gaussian draw of that key; ``present`` as in ``apply_gaussian``."""
    # Drawn again at every step, since all maps together are h times as large as F.
    return apply_gaussian(layer, gaussian_maps(layer, *key), x, present)


def gather(
    nulls: list[NullDraw], first: list[np.ndarray], planes: list[np.ndarray] | None = None
) -> NullRun:
    """The draws of one null model; ``first`` is v_1, ``planes`` those of v_1 and v_2 in each."""
    last, present = [np.asarray(null.x, np.float64) for null in nulls], nulls[0].present
    signed = np.stack([x @ v for x, v in zip(last, first, strict=True)])
    plane = None
    if planes is not None:
        pairs = zip(last, planes, strict=True)
        plane = np.stack([np.linalg.norm(x @ both, axis=-1) for x, both in pairs])
    return NullRun(
        rho=without_padding(np.stack([null.rho for null in nulls]), present),
        dimensions=tuple(null.dimension for null in nulls),
        distance=np.mean([null.distance for null in nulls], axis=0),
        signed=without_padding(signed, present),
        plane=None if plane is None else without_padding(plane, present),
    )

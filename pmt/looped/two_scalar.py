"""The two-scalar dynamics: gradient descent on the manifold, where the loss depends on ρ = v w.

By invariance under rotations the population gradient in V at a point of the manifold is a multiple
of the identity in one block, (1/d) ∂L/∂v, and likewise for W; so the full descent with learning
rate η is v ← v − (η/d) w L'(ρ), w ← w − (η/d) v L'(ρ). L' is an average over spectra of XXᵀ and
squared coefficients of the query, tabulated with its standard error and interpolated.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt.errors import RequestError
from pmt.looped.data import Samples, covariance
from pmt.looped.norms import Norm
from pmt.looped.objectives import Objective
from pmt.numerics import einsum

_POINTS = 400
_CHUNK = 2048


class Spectra(NamedTuple):
    """Samples in the eigenbasis of XXᵀ: all that the loss on the manifold depends on.

    Attributes:
      eigenvalues: decreasing, shape ``(samples, d)``.
      coefficients: of the query, shape ``(samples, d)``.
      rank: dimension of Z, the first eigenvectors.
    """

    eigenvalues: Float[Array, "samples d"]
    coefficients: Float[Array, "samples d"]
    rank: int


def spectra(given: Samples) -> Spectra:
    """The samples in their eigenbases."""
    values, frames = jnp.linalg.eigh(covariance(given.data))
    coefficients = einsum("...ik,...i->...k", frames, given.query)
    return Spectra(values[..., ::-1], coefficients[..., ::-1], given.leading.shape[-1])


def manifold_loss(
    rho: Any,
    eigenvalues: Float[Array, " d"],
    coefficients: Float[Array, " d"],
    rank: int,
    loops: int,
    norm: Norm,
    objective: Objective,
) -> Float[Array, ""]:
    """The loss of one sample at the point ρ of the manifold, from its spectrum alone.

    With ``l2`` and ``output``, y_L is (I + ρ XXᵀ)^L a divided by its length; with ``none`` it is
    that vector itself. Large ρ do not overflow where y is normalised or its scale does not matter.

    Raises:
      RequestError: a normalisation that leaves the manifold (``rms``, ``layer``).
    """
    if norm in ("rms", "layer"):
        raise RequestError(f"the norm {norm!r} does not stay on the manifold; there is no ρ")
    growth = 1.0 + rho * eigenvalues
    if norm != "none" or objective == "sine":
        y = (growth / growth[0]) ** loops * coefficients
        y = y / jnp.sqrt(jnp.sum(y * y))
    else:
        y = growth**loops * coefficients
    if objective in ("subspace", "sine"):
        return jnp.sum(y[rank:] ** 2)
    target = eigenvalues * coefficients
    if objective == "unit-power":
        target = target / jnp.sqrt(jnp.sum(target * target))
    return jnp.sum((y - target) ** 2)


@dataclass(frozen=True)
class Slope:
    """L and L' as functions of ρ, from a sample of spectra.

    Attributes:
      rho: increasing, shape ``(points,)``.
      loss, derivative: means over the samples there.
      loss_error, error: their standard errors; of an average over a fixed training set they are
        its distance from the population, not an uncertainty.
    """

    rho: np.ndarray
    loss: np.ndarray
    loss_error: np.ndarray
    derivative: np.ndarray
    error: np.ndarray


def slope(
    found: Spectra,
    *,
    loops: int,
    norm: Norm = "l2",
    objective: Objective = "subspace",
    largest: float = 1e4,
    points: int = _POINTS,
) -> Slope:
    """Tabulates L and L' between −0.05 and ``largest``, densely where they vary.

    Args:
      found: from ``spectra``.
      loops, norm, objective: as of the model.
      largest: the last ρ.
      points: of the table.
    """
    # Evenly in log(ρ + 0.06): finely at 0, where the descent may end without normalisation.
    grid = np.geomspace(0.01, largest + 0.06, points) - 0.06
    rho = jnp.asarray(grid, found.eigenvalues.dtype)
    loss, loss_error, derivative, error = (
        np.asarray(part, np.float64)
        for part in _table(
            found.eigenvalues, found.coefficients, rho, found.rank, loops, norm, objective
        )
    )
    return Slope(np.asarray(grid), loss, loss_error, derivative, error)


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _table(
    eigenvalues: Any, coefficients: Any, rho: Any, rank: int, loops: int, norm: Any, objective: Any
) -> tuple[Array, ...]:
    count = eigenvalues.shape[0]

    def at(point: Array) -> tuple[Array, ...]:
        one = jax.value_and_grad(manifold_loss)
        both = jax.vmap(lambda lam, c: one(point, lam, c, rank, loops, norm, objective))
        values, slopes = both(eigenvalues, coefficients)
        root = max(count - 1, 1) ** 0.5
        return jnp.mean(values), jnp.std(values) / root, jnp.mean(slopes), jnp.std(slopes) / root

    return lax.map(at, rho)


@dataclass(frozen=True)
class ScalarPath:
    """The two-scalar dynamics.

    Attributes:
      steps: when it was recorded, from 0.
      v, w: there.
      loss: L(v w) there.
      v_error, w_error: half the distance between the paths with L' one standard error up and down
        at every ρ at once, which bounds what the sampling of L' does.
    """

    steps: np.ndarray
    v: np.ndarray
    w: np.ndarray
    loss: np.ndarray
    v_error: np.ndarray
    w_error: np.ndarray

    @property
    def rho(self) -> np.ndarray:
        """ρ = v w."""
        return self.v * self.w


def integrate(
    table: Slope, *, d: int, v: float, w: float, rate: float, steps: int, every: int = 1
) -> ScalarPath:
    """Gradient descent on (v, w) for ``steps`` steps, recorded every so many.

    Args:
      table: L' as a function of ρ.
      d: dimension of the data; the full model moves 1/d as fast as the scalars' own gradient.
      v, w: start.
      rate: learning rate η of the full model.
      steps, every: steps made, and between records.

    Raises:
      RequestError: a path that leaves the tabulated range of ρ, or a useless number of steps.
    """
    if steps < 1 or every < 1 or steps % every:
        raise RequestError(
            f"steps is {steps} and every {every}; steps must be a positive multiple of every"
        )
    grid = jnp.log(jnp.asarray(table.rho + 0.06))
    paths = []
    for shift in (0.0, -1.0, 1.0):
        derivative = jnp.asarray(table.derivative + shift * table.error)
        paths.append(np.asarray(_descend(grid, derivative, v, w, rate / d, steps // every, every)))
    (v_path, w_path), rho = paths[0], paths[0][0] * paths[0][1]
    if not np.all(np.isfinite(rho)) or rho.max() > table.rho[-1] or rho.min() < table.rho[0]:
        raise RequestError(
            f"the path leaves the table of L', which ends at rho = {table.rho[-1]:g}; "
            "tabulate it further, or take a smaller learning rate"
        )
    low, high = paths[1], paths[2]
    spread = np.abs(high - low) / 2.0
    loss = np.interp(np.log(rho + 0.06), np.asarray(grid), table.loss)
    at = np.arange(0, steps + 1, every)
    return ScalarPath(at, v_path, w_path, loss, spread[0], spread[1])


@partial(jax.jit, static_argnums=(5, 6))
def _descend(
    grid: Any, derivative: Any, v: Any, w: Any, rate: Any, records: int, every: int
) -> Array:
    step = grid[1] - grid[0]

    def at(rho: Array) -> Array:
        # The grid is even, so that no search is needed.
        place = (jnp.log(jnp.maximum(rho + 0.06, 0.01)) - grid[0]) / step
        index = jnp.clip(place.astype(jnp.int32), 0, grid.shape[0] - 2)
        part = place - index.astype(place.dtype)
        return derivative[index] * (1.0 - part) + derivative[index + 1] * part

    def move(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        v, w = state
        change = rate * at(v * w)
        return (v - change * w, w - change * v), None

    def record(state: tuple[Array, Array], _: None) -> tuple[Any, Array]:
        state, _ = lax.scan(move, state, None, length=every)
        return state, jnp.stack(state)

    start = (jnp.asarray(v, grid.dtype), jnp.asarray(w, grid.dtype))
    _, path = lax.scan(record, start, None, length=records)
    return jnp.concatenate([jnp.stack(start)[None], path]).T

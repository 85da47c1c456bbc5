"""Which class of Lemma 8 a state belongs to, with margins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse.csgraph import connected_components

from pmt import sphere
from pmt.dynamics.simulate import check_tokens
from pmt.equilibria.constructors import attended_means, describe
from pmt.equilibria.equilibrium import Kind, Status
from pmt.errors import RequestError
from pmt.numerics import AnyArray, einsum, epsilon

KINDS: tuple[Kind, ...] = ("consensus", "bipartite", "polygonal", "clustering")
"""The classes, the most specific first."""


@dataclass(frozen=True)
class Classification:
    """The class of a state.

    Attributes:
      kind: the most specific class that fits: consensus, bipartite, polygonal, clustering; None
        if the state is neither fixed nor a 2-cycle.
      status: as for ``Equilibrium``, within ``tolerance``.
      margins: for each test, ``tolerance`` minus the measured defect; positive means it passes.
        Tests: ``fixed`` (|f(x) − x| relative to alpha |F| where that is below 1), ``2-cycle``,
        ``equal tokens``, ``opposite tokens``, ``eigenvector``, ``attended means``. The classes
        overlap (a balanced pair at an eigenvector is bipartite and, for ``Oja``, polygonal): read
        the margins for all that hold.
      tolerance: the chord below which two tokens count as equal, and the bound on all defects.
      clusters: for each token the number of its cluster, counted from 0 by first appearance.
      cluster_count: m.
      cluster_gap: smallest chord between tokens of different clusters; infinite if m = 1.
      eigenvector: the common direction, for consensus and bipartite states, else None.
      eigenvalue: vᵀ F v there, else None.
      signs: the sign of each token along ``eigenvector``, else None.
    """

    kind: Kind | None
    status: Status
    margins: dict[str, float]
    tolerance: float
    clusters: Int[np.ndarray, " n"]
    cluster_count: int
    cluster_gap: float
    eigenvector: Float[Array, " d"] | None
    eigenvalue: float | None
    signs: Float[Array, " n"] | None


def classify(
    system: Any, x: Float[AnyArray, "n d"], tolerance: float | None = None
) -> Classification:
    """Tests x against the classes of Lemma 8, arXiv 2605.25619.

    Args:
      system: an autonomous map.
      x: unit tokens.
      tolerance: bound on every defect, in (0, 1); 64 sqrt(eps) of the dtype if None, which suits
        states that come out of ``run_to_equilibrium``.

    Raises:
      RequestError: tokens that do not fit the system, or a bad tolerance.
    """
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise RequestError(f"x has shape {x.shape}; classify one state of shape (n, d) at a time")
    check_tokens(x, system)
    point = describe(system, x, "clustering")
    tolerance = 64 * epsilon(x.dtype) ** 0.5 if tolerance is None else tolerance
    if not 0 < tolerance < 1:
        raise RequestError(f"tolerance is {tolerance!r}; it must lie strictly between 0 and 1")

    defects, signs = measure_defects(system, x)
    margins = {name: tolerance - float(value) for name, value in defects.items()}
    passes = {name: margin > 0 for name, margin in margins.items()}
    if point.status == "undefined":
        status: Status = "undefined"
    elif passes["fixed"]:
        status = "equilibrium"
    else:
        status = "2-cycle" if passes["2-cycle"] else "not fixed"
    fixed = status in ("equilibrium", "2-cycle")
    kind = KINDS[int(kind_number(passes))] if fixed else None
    signed = kind in ("consensus", "bipartite")
    labels, gap = _clusters(np.asarray(x, np.float64), tolerance)
    return Classification(
        kind=kind,
        status=status,
        margins=margins,
        tolerance=tolerance,
        clusters=labels,
        cluster_count=int(labels.max()) + 1,
        cluster_gap=gap,
        eigenvector=x[0] if signed else None,
        eigenvalue=_rayleigh(system.layer_matrix, x[0]) if signed else None,
        signs=signs if signed else None,
    )


@jax.jit
def measure_defects(
    system: Any, x: Float[Array, "n d"]
) -> tuple[dict[str, Array], Float[Array, " n"]]:
    """What the tests of ``classify`` measure, by name, and the sign of each token along the first.

    Pure JAX: ``vmap`` classifies many states at once.
    """
    image, matrix, reference = system(x), system.layer_matrix, x[0]
    signs = jnp.where(jnp.sum(x * reference[None, :], axis=-1) < 0, -1.0, 1.0).astype(x.dtype)
    along = einsum("de,e->d", matrix, reference)
    scale = jnp.maximum(jnp.linalg.norm(matrix), jnp.finfo(x.dtype).tiny)
    defects = {
        "fixed": beside_step(system, image, x),
        "2-cycle": jnp.max(sphere.norm(image + x)),
        "equal tokens": jnp.max(sphere.norm(x - reference[None, :])),
        "opposite tokens": jnp.max(sphere.norm(signs[:, None] * x - reference[None, :])),
        "eigenvector": sphere.norm(sphere.tangent_projection(reference, along)) / scale,
        "attended means": jnp.max(sphere.norm(attended_means(system, x))),
    }
    return defects, signs


def beside_step(
    system: Any, image: Float[Array, "n d"], x: Float[Array, "n d"]
) -> Float[Array, ""]:
    """max_i |image_i − x_i| relative to alpha |F| where that is below 1, rounding taken off.

    A small step moves every state little, so what counts is the move beside the step.
    """
    moved = jnp.maximum(jnp.max(sphere.norm(image - x)) - step_rounding(x), 0.0)
    return moved / relative_step(system, x.dtype)


def relative_step(system: Any, dtype: Any) -> Float[Array, ""]:
    """min(alpha |F|, 1), by which ``beside_step`` divides a motion; 1 where nothing moves."""
    size = jnp.abs(jnp.asarray(system.alpha, dtype)) * jnp.linalg.norm(system.layer_matrix)
    step = jnp.minimum(size, 1.0)
    return jnp.where(step > 0, step, 1.0)


def step_rounding(x: Float[Array, "n d"]) -> float:
    """What rounding can make of |f(x_i) − x_i|."""
    return 16 * epsilon(x.dtype) * x.shape[-1] ** 0.5


def kind_number(passes: Mapping[str, Any]) -> np.ndarray:
    """Index into ``KINDS`` of the most specific class; ``passes`` maps tests to booleans or arrays.

    For states that are fixed, or half of a 2-cycle.
    """
    along = passes["eigenvector"]
    tests = (passes["equal tokens"] & along, passes["opposite tokens"] & along)
    return np.select([*tests, passes["attended means"]], [0, 1, 2], 3)


def _rayleigh(matrix: Any, v: Any) -> float:
    direction = np.asarray(v, np.float64)
    return float(direction @ np.asarray(matrix, np.float64) @ direction)


def _clusters(x: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    chords = np.linalg.norm(x[:, None] - x[None], axis=-1)
    _, found = connected_components(chords <= tolerance, directed=False)
    order = {label: rank for rank, label in enumerate(dict.fromkeys(found.tolist()))}
    labels = np.array([order[label] for label in found.tolist()])
    apart = chords[labels[:, None] != labels[None]]
    return labels, float(apart.min()) if apart.size else float("inf")

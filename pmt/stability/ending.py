"""Where runs have ended, for many states at once: ``classify`` vmapped, and grey zones told apart.

A state that has not finished moving can look like several classes. What is returned here is a class
only if the state is at rest by a factor of 100 more than the tests of the classes ask for, and if
each test is passed or clearly failed; else the run has to go on.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float, Int

from pmt import linalg, sphere
from pmt.equilibria.classify import (
    beside_step,
    kind_number,
    measure_defects,
    relative_step,
    step_rounding,
)
from pmt.numerics import AnyArray

# How much smaller than the tolerance of the classes the motion must be.
_REST = 1e-2


@register_dataclass
@dataclass(frozen=True)
class Measured:
    """What ``measure`` finds at states ``(batch, n, d)``; arrays of shape ``(batch,)``.

    Attributes:
      defects: as measured by ``classify``, by test.
      returns: |f(f(x)) − x|, relative as the defect ``fixed``.
      index: the real eigenvector v_k of F that token 1 lies along, within the square root of the
        tolerance; −1 if there is none.
      positive: number of tokens on the side of +v_k, of token 1 where ``index`` is −1.
      clusters: number of clusters of tokens, chords within the tolerance being joined.
      gap: smallest chord between tokens of different clusters; infinite where there is one cluster.
      unseen: the largest motion, relative as ``fixed``, that is taken for rounding there.
    """

    defects: dict[str, AnyArray]
    returns: Float[AnyArray, "*batch"]
    index: Int[AnyArray, "*batch"]
    positive: Int[AnyArray, "*batch"]
    clusters: Int[AnyArray, "*batch"]
    gap: Float[AnyArray, "*batch"]
    unseen: Float[AnyArray, "*batch"]


def real_axes(system: Any) -> np.ndarray:
    """The real unit eigenvectors of F as columns, zero where an eigenvalue is complex: (d, d).

    Decreasing real part of the eigenvalue, sign as ``pmt.linalg.eigenpairs`` fixes it.
    """
    pairs = linalg.eigenpairs(np.asarray(system.layer_matrix, np.float64))
    return np.where(pairs.is_real[None], pairs.vectors.real, 0.0)


@jax.jit
def measure(
    system: Any,
    x: Float[Array, "batch n d"],
    axes: Float[Array, "d d"],
    tolerance: Float[Array, ""],
) -> Measured:
    """What decides where runs have ended, at many states; pure JAX.

    Args:
      system: an autonomous map.
      x: unit tokens.
      axes: ``real_axes(system)``.
      tolerance: as for ``classify``.
    """
    return jax.vmap(partial(_measure_one, system, axes, tolerance))(x)


def _measure_one(
    system: Any, axes: Float[Array, "d d"], tolerance: Float[Array, ""], x: Float[Array, "n d"]
) -> Measured:
    defects, signs = measure_defects(system, x)
    cosines = jnp.sum(x[0][:, None] * axes, axis=0)
    best = jnp.argmax(jnp.abs(cosines))
    axis = axes[:, best]
    side = jnp.where(cosines[best] < 0, -1.0, 1.0).astype(x.dtype)
    along = sphere.norm(x[0] - side * axis) < jnp.sqrt(tolerance)
    positive = jnp.where(along, side * signs, signs) > 0
    clusters, gap = _count_clusters(x, tolerance)
    return Measured(
        defects=defects,
        returns=beside_step(system, system(system(x)), x),
        index=jnp.where(along, best, -1).astype(jnp.int32),
        positive=jnp.sum(positive, dtype=jnp.int32),
        clusters=clusters,
        gap=gap,
        unseen=step_rounding(x) / relative_step(system, x.dtype),
    )


def _count_clusters(
    x: Float[Array, "n d"], tolerance: Float[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    chords = sphere.norm(x[:, None, :] - x[None, :, :])
    joined = chords <= tolerance
    tokens = jnp.arange(x.shape[0], dtype=jnp.int32)

    def spread(labels: Int[Array, " n"]) -> Int[Array, " n"]:
        return jnp.min(jnp.where(joined, labels[None, :], x.shape[0]), axis=1).astype(jnp.int32)

    def going_on(carry: Any) -> Bool[Array, ""]:
        return jnp.any(carry[0] != carry[1])

    # Each token takes the smallest number among its neighbours until nothing changes.
    _, labels = lax.while_loop(going_on, lambda c: (c[1], spread(c[1])), (tokens, spread(tokens)))
    apart = labels[:, None] != labels[None, :]
    gap = jnp.min(jnp.where(apart, chords, jnp.inf))
    return jnp.sum(labels == tokens, dtype=jnp.int32), gap


@dataclass(frozen=True)
class Ends:
    """Which runs are over and where, NumPy arrays of shape ``(batch,)``.

    Attributes:
      settled: at rest in a class of its own.
      cycle: on a 2-cycle.
      kind: index into ``KINDS``; meaningful where ``settled``.
      collinear: all tokens on one line.
    """

    settled: np.ndarray
    cycle: np.ndarray
    kind: np.ndarray
    collinear: np.ndarray


def read_ends(found: Measured, tolerance: float) -> Ends:
    """Applies the rules of ``classify`` where all of its tests are passed or clearly failed.

    At rest: ``fixed`` at most 0.01 ``tolerance``. Clearly failed: beyond the square root of the
    tolerance. On a 2-cycle: f(f(x)) returns as closely while f(x) is clearly elsewhere, as in
    ``run_to_equilibrium``. Where so little motion cannot be told from rounding, as with a small
    step in single precision, no run is over.
    """
    defects = {name: np.asarray(value) for name, value in found.defects.items()}
    clear = tolerance**0.5
    passes = {name: value < tolerance for name, value in defects.items()}
    grey = {n: ~passes[n] & (value <= clear) for n, value in defects.items()}
    gap = np.asarray(found.gap)
    # Where the attended means vanish every line is fixed, and the eigenvector does not matter.
    signed = passes["opposite tokens"] & passes["eigenvector"]
    doubtful = grey["equal tokens"] | grey["opposite tokens"] | grey["attended means"] & ~signed
    doubtful |= grey["eigenvector"] & passes["opposite tokens"] & ~passes["attended means"]
    doubtful |= gap <= clear
    visible = np.asarray(found.unseen) <= _REST * tolerance
    at_rest = visible & (defects["fixed"] <= _REST * tolerance)
    returns = visible & (np.asarray(found.returns) <= _REST * tolerance)
    return Ends(
        settled=at_rest & ~doubtful,
        cycle=returns & (defects["fixed"] > clear),
        kind=kind_number(passes),
        collinear=passes["opposite tokens"],
    )

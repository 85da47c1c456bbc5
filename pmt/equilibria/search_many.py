"""Equilibria of a map from many starts, each once: without the symmetric copies."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pmt import attention, sphere
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.simulate import run_to_equilibrium
from pmt.dynamics.systems import LayerStack, MultiHead, check_system
from pmt.equilibria.classify import Classification, classify
from pmt.equilibria.search import newton
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon, require_count


@dataclass(frozen=True)
class Found:
    """An equilibrium that a search reached.

    Attributes:
      x: one representative, shape ``(n, d)``.
      classification: its class, with margins (``classify``).
      settled: number of starts whose trajectory ended at it or at a symmetric copy.
      solved: number of starts from which Newton's method found it or a copy, stable or not.
      residual: max_i |f(x)_i − x_i|.
    """

    x: Float[Array, "n d"]
    classification: Classification
    settled: int
    solved: int
    residual: float


@dataclass(frozen=True)
class Search:
    """What ``search_equilibria`` returns.

    Attributes:
      found: distinct equilibria, the most often reached by trajectories first.
      starts: number of random starts, each used by a trajectory and by Newton's method.
      unsettled: trajectories that did not converge to an equilibrium: cycles, chaos, or the budget.
      unsolved: starts from which Newton's method did not converge.
    """

    found: tuple[Found, ...]
    starts: int
    unsettled: int
    unsolved: int


def search_equilibria(
    system: Any,
    tokens: int,
    *,
    starts: int = 128,
    key: PRNGKeyArray | None = None,
    max_steps: int = 5000,
    max_iterations: int = 50,
    tolerance: float | None = None,
) -> Search:
    """Runs the map and Newton's method from uniformly random starts and keeps what is distinct.

    Trajectories find what attracts, Newton's method unstable equilibria too. Two states count as
    one if some permutation of the tokens (where the mask is full, so that it is a symmetry) and
    the antipode x -> −x take one to the other within ``tolerance``. A continuum of equilibria
    (polygons, neutral rotations) comes out as many points of it. What a search did not find may
    exist all the same.

    Args:
      system: an autonomous map.
      tokens: n, at least 1.
      starts: number of random starts, at least 1.
      key: key 0 if None.
      max_steps: budget of every trajectory.
      max_iterations: budget of Newton's method.
      tolerance: chord within which tokens are equal, in (0, 1); 64 sqrt(eps) of the dtype if None,
        as for ``classify``.

    Raises:
      RequestError: a ``LayerStack``, a number out of range, or as for ``run_to_equilibrium``.
    """
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack has no equilibria; take one layer with system.layer(index)"
        )
    check_system(system, tokens)
    for name, value in (("tokens", tokens), ("starts", starts)):
        require_count(name, value, 1)
    matrix = system.layer_matrix
    if tolerance is None:
        tolerance = 64 * epsilon(matrix.dtype) ** 0.5
    if not 0 < tolerance < 1:
        raise RequestError(f"tolerance is {tolerance!r}; it must lie strictly between 0 and 1")
    key = jax.random.key(0) if key is None else key
    x0 = sphere.uniform(key, (int(starts), int(tokens), matrix.shape[-1]), matrix.dtype)
    runs = run_to_equilibrium(system, x0, max_steps=max_steps)
    solved = newton(system, x0, max_iterations=max_iterations)
    permutes = _tokens_are_alike(system)
    kept: list[tuple[Any, list[int]]] = []
    missed = [0, 0]
    for kind, (states, results) in enumerate(((runs.x, runs.result), (solved.x, solved.result))):
        codes = np.asarray(results)
        for x in np.asarray(states)[codes == Outcome.CONVERGED]:
            for known, counts in kept:
                if distance_modulo_symmetry(known, x, permute=permutes) <= tolerance:
                    counts[kind] += 1
                    break
            else:
                kept.append((x, [1 - kind, kind]))
        missed[kind] = int(np.sum(codes != Outcome.CONVERGED))
    found = [_describe(system, x, counts, tolerance) for x, counts in kept]
    found.sort(key=lambda one: (-one.settled, -one.solved))
    return Search(tuple(found), int(starts), *missed)


def search_clusters(system: Any, tokens: int, **options: Any) -> tuple[Found, ...]:
    """The clustering equilibria among what ``search_equilibria`` finds: class 4 of Lemma 8 only.

    States with 2 <= m <= n distinct points that are neither consensus, nor bipartite, nor
    polygonal. Their stability is ``pmt.stability.analyze(system, found.x)``.

    Args:
      system, tokens: as for ``search_equilibria``.
      options: passed on to ``search_equilibria``.

    Raises:
      RequestError: as for ``search_equilibria``.
    """
    return tuple(
        one
        for one in search_equilibria(system, tokens, **options).found
        if one.classification.kind == "clustering" and one.classification.cluster_count >= 2
    )


def distance_modulo_symmetry(
    x: Float[AnyArray, "n d"], y: Float[AnyArray, "n d"], *, permute: bool = True
) -> float:
    """The largest chord between matched tokens of x and ±y, for the best sign and matching.

    The matching minimises the sum of squared chords; with ``permute=False`` token i is matched
    with token i.
    """
    # A fifth of a second, for those alone who need it.
    from scipy.optimize import linear_sum_assignment

    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    best = np.inf
    for sign in (1.0, -1.0):
        chords = np.linalg.norm(first[:, None] - sign * second[None], axis=-1)
        rows = np.arange(len(first))
        columns = linear_sum_assignment(chords**2)[1] if permute else rows
        best = min(best, float(chords[rows, columns].max()))
    return best


def _tokens_are_alike(system: Any) -> bool:
    """Whether permutations of the tokens commute with the map."""
    rotary = isinstance(system, MultiHead) and system.rotary is not None
    return isinstance(system.mask, attention.Full) and not rotary


def _describe(system: Any, x: np.ndarray, counts: list[int], tolerance: float) -> Found:
    state = jnp.asarray(x)
    residual = float(jnp.max(sphere.norm(system(state) - state)))
    known = classify(system, state, tolerance)
    return Found(state, known, settled=counts[0], solved=counts[1], residual=residual)

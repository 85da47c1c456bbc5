"""The paper's three panels over layers, rho, its increment and the share of increases, and the same
for the direction that is steered to; with and without the edit.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from pmt.experiments.ahead import Ahead
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.states import present_alignment
from pmt.linalg import one_thread_each
from pmt.spectral import (
    Alignment,
    Average,
    Directions,
    Principal,
    Spectrum,
    all_directions,
    average_over_directions,
    chance,
)


@dataclass(frozen=True)
class Panel:
    """One layer, with the tokens before and after it.

    Attributes:
      index: from 1.
      target: alignment with the direction that is steered to.
      principal: with the layer's own principal direction; None where spectra were left out.
      average: over all eigendirections; None likewise.
      eigenvalue, dimension, chance: of the principal direction; None likewise.
      cosine: |cos| between the target and that direction (its projection onto a plane).
    """

    index: int
    target: Alignment
    principal: Alignment | None
    average: Average | None
    eigenvalue: complex | None
    dimension: int | None
    chance: float | None
    cosine: float | None


class Spectra:
    """Principal directions of layer matrices, each solved once however often it is asked for.

    Args:
      order: of the eigenvalues.
      dtype: of the eigendirections that are kept.
      progress: called with 1 after every solve.
      solver: of the eigenproblems.
    """

    def __init__(
        self, order: str, dtype: Any, progress: Callable[[int], None], solver: Solver
    ) -> None:
        self._order, self._dtype, self._progress = order, dtype, progress
        self._solver = solver
        self._known: dict[bytes, tuple[Spectrum, Directions]] = {}

    def solve(self, matrices: Sequence[np.ndarray]) -> list[tuple[Spectrum, Directions]]:
        """The principal direction of every matrix ``(d, d)``, and all eigendirections."""
        names = [hashlib.sha256(matrix.tobytes()).digest() for matrix in matrices]
        with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
            begun = set(self._known)
            for name, matrix in zip(names, matrices, strict=True):
                if name not in begun:
                    begun.add(name)
                    work = partial(self._solver.principal, matrix, self._order, 1.0)
                    ahead.add(work, partial(self._keep, name))
            ahead.finish()
        return [self._known[name] for name in names]

    def _keep(self, name: bytes, found: Principal) -> None:
        self._known[name] = (found.spectrum, all_directions(found.pairs, self._dtype))
        self._progress(1)


def panels(
    states: Sequence[Any],
    present: np.ndarray,
    target: np.ndarray,
    matrices: Sequence[np.ndarray] | None,
    spectra: Spectra,
) -> tuple[Panel, ...]:
    """The statistics of every layer.

    Args:
      states: ``(batch, n, d)`` each: the initial tokens, and the state after every layer.
      present: ``(batch, n)``. Tokens that count.
      target: ``(d,)``, of unit length.
      matrices: F of every layer, float64; None leaves the spectra out.
      spectra: where their eigenpairs are kept.
    """
    found = []
    solved = None if matrices is None else spectra.solve(matrices)
    for layer in range(len(states) - 1):
        before, after = states[layer], states[layer + 1]
        shown: dict[str, Any] = dict.fromkeys(
            ("principal", "average", "eigenvalue", "dimension", "chance", "cosine")
        )
        if solved is not None:
            own, directions = solved[layer]
            # A token weighs as much as any other, so that padding can be left out first.
            low, high = (
                jax.numpy.asarray(np.asarray(x)[present][:, None]) for x in (before, after)
            )
            shown = {
                "principal": present_alignment(own.basis, before, after, present),
                "average": average_over_directions(low, high, directions),
                "eigenvalue": own.eigenvalue,
                "dimension": own.dimension,
                "chance": chance(len(target), own.dimension),
                "cosine": float(np.linalg.norm(own.basis.T @ target)),
            }
        toward = present_alignment(target[:, None], before, after, present)
        found.append(Panel(index=layer + 1, target=toward, **shown))
    return tuple(found)

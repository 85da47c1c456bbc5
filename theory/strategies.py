"""Instances as hypothesis strategies: the same drawing functions, with hypothesis' own numbers.

hypothesis chooses the class, the shape and the seed of an instance; the pieces then build it, so
that the hypotheses hold by construction and nothing is filtered. Imports ``hypothesis`` only when
called, so that this module needs no extra.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from theory import instances, noise
from theory.statement import Hypotheses, Shape

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def cases(hypotheses: Hypotheses) -> "SearchStrategy[tuple[Shape, int, dict[str, np.ndarray]]]":
    """(shape, kind, instance): one of the shapes, a class of ``instances.KINDS``, its arrays."""
    from hypothesis import strategies as st

    drawers = {shape: _drawer(hypotheses, shape) for shape in hypotheses.shapes}

    def build(shape: Shape, kind: int, seed: int) -> tuple[Shape, int, dict[str, np.ndarray]]:
        return shape, kind, drawers[shape](kind, seed)

    return st.builds(
        build,
        st.sampled_from(hypotheses.shapes),
        st.sampled_from(range(len(instances.KINDS))),
        st.integers(0, 2**32 - 1),
    )


def _drawer(hypotheses: Hypotheses, shape: Shape) -> Any:
    @jax.jit
    def one(kind: Any, seed: Any) -> dict[str, jax.Array]:
        numbers = noise.raw(jax.random.key(seed), 1)
        source = jax.tree.map(lambda leaf: leaf[0], numbers)
        return instances.draw(hypotheses, source, kind, shape)

    def draw(kind: int, seed: int) -> dict[str, np.ndarray]:
        found = one(np.int32(kind), np.uint32(seed))
        return {name: np.asarray(value) for name, value in found.items()}

    return draw

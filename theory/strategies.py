"""Instances as hypothesis strategies: the same drawing functions, with hypothesis' own choices.

hypothesis chooses shape, classes, seed, and single random numbers far out in their range; the
pieces then build the instances, so that the hypotheses hold by construction and nothing is
filtered. Imports ``hypothesis`` only when called, so that this module needs no extra.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from theory import instances, noise
from theory.compilation import quick_options
from theory.statement import Case, Clause, Hypotheses, Shape

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

BATCH = 48
"""Instances of one example; a third of them of each class."""

EXTREME = 1e-6
"""How near to 0 and 1 a uniform number that hypothesis chose may come."""


@dataclass(frozen=True)
class Recipe:
    """What hypothesis chooses; ``Instances`` makes arrays of it.

    Attributes:
    ----------
    shape
        One of the hypotheses' shapes.
    order
        The classes of ``instances.KINDS`` in the order in which they are repeated in the batch.
    seed
        Of the random numbers.
    fixed
        Uniform numbers that are not random: index among them, and value in (0, 1).
    """

    shape: Shape
    order: tuple[int, int, int]
    seed: int
    fixed: Mapping[int, float] = field(default_factory=dict)

    @property
    def kinds(self) -> np.ndarray:
        """The class of every instance of the batch."""
        return np.resize(np.asarray(self.order, np.int32), BATCH)

    def noise(self) -> noise.Raw:
        """The random numbers of the batch."""
        numbers = noise.raw(self.seed, BATCH)
        uniform = np.array(numbers.uniform)
        for index, value in self.fixed.items():
            uniform[:, index] = value
        return noise.Raw(uniform, numbers.normal)


def recipes(hypotheses: Hypotheses) -> "SearchStrategy[Recipe]":
    """All recipes for instances of these hypotheses; compiles and builds nothing."""
    from hypothesis import strategies as st

    ends = st.sampled_from((EXTREME, 1.0 - EXTREME))
    return st.builds(
        Recipe,
        st.sampled_from(hypotheses.shapes),
        st.permutations(range(len(instances.KINDS))).map(tuple),
        st.integers(0, 2**32 - 1),
        st.dictionaries(
            st.integers(0, noise.UNIFORMS - 1),
            st.one_of(ends, st.floats(EXTREME, 1.0 - EXTREME)),
            max_size=3,
        ),
    )


@dataclass(frozen=True)
class Drawn:
    """The instances of a recipe, with a leading axis.

    Attributes:
    ----------
    cases
        Their arrays.
    margins
        Of every named hypothesis.
    """

    cases: dict[str, np.ndarray]
    margins: dict[str, np.ndarray]


def build(hypotheses: Hypotheses, recipe: Recipe) -> Drawn:
    """The instances and the margins of their hypotheses, compiled once for each shape."""
    found = _drawing(hypotheses, recipe.shape)(recipe.noise(), recipe.kinds)
    return Drawn(*jax.tree.map(np.asarray, found))


def conclude(clause: Clause, shape: Shape, cases: Case) -> tuple[np.ndarray, np.ndarray]:
    """Margins and tolerances of the conclusion, compiled once for each shape."""
    value, tolerance = _conclusion(clause.conclusion, shape, clause.long)(dict(cases))
    return np.asarray(value), np.asarray(tolerance)


def cases(hypotheses: Hypotheses) -> "SearchStrategy[tuple[Shape, int, dict[str, np.ndarray]]]":
    """(shape, kind, instance): one of the shapes, a class of ``instances.KINDS``, its arrays."""

    def first(recipe: Recipe) -> tuple[Shape, int, dict[str, np.ndarray]]:
        drawn = build(hypotheses, recipe)
        one = {name: np.asarray(value[0]) for name, value in drawn.cases.items()}
        return recipe.shape, recipe.order[0], one

    return recipes(hypotheses).map(first)


@cache
def _drawing(hypotheses: Hypotheses, shape: Shape) -> Any:
    def one(source: noise.Raw, kind: Any) -> tuple[Any, Any]:
        case = instances.draw(hypotheses, source, kind, shape)
        return case, hypotheses.margins(shape, case)

    return jax.jit(jax.vmap(one), compiler_options=quick_options())


@cache
def _conclusion(conclusion: Any, shape: Shape, thorough: bool) -> Any:
    options = {} if thorough else quick_options()
    return jax.jit(jax.vmap(lambda case: conclusion(shape, case)), compiler_options=options)

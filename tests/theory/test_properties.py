"""Every corrected statement as a property: hypothesis looks for an instance that breaks it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.known_statements import STATEMENTS
from theory import instances, margin, strategies
from theory.statement import Hypotheses, Piece, Shape

CLAUSES = {
    f"{name}: {clause.name}": clause
    for name, statement in STATEMENTS.items()
    for clause in statement.corrected.clauses
}
# One each of: any state, bipartite Jacobian, spectrum, inequality, criterion, run of many steps.
REPRESENTATIVE = (
    "lemma-2: entrywise",
    "lemma-12: any mask, any V",
    "lemma-14: intrinsic classes",
    "remark-10: unstable",
    "ii.4: closed form",
    "equation-6: ",
)
QUICK = [name for name in CLAUSES if name.startswith(REPRESENTATIVE)]


def check(clause, recipe):
    """No hypothesis and no conclusion fails on any instance of the batch."""
    drawn = strategies.build(clause.hypotheses, recipe)
    for what, values in drawn.margins.items():
        assert np.all(values >= 0), f"{what}: {values.min()}, instance {values.argmin()}"
    values, tolerances = strategies.conclude(clause, recipe.shape, drawn.cases)
    bad = np.flatnonzero(margin.violated(values, tolerances) | np.isnan(values))
    assert not len(bad), (
        f"instance {bad[0]} ({instances.KINDS[recipe.kinds[bad[0]]]}): margin {values[bad[0]]}"
    )


def property_of(clause, examples, hypotheses=None):
    """The clause as a function that hypothesis runs; nothing of it is shared with other clauses."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # An explanation runs many more examples.
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )
    @given(recipe=strategies.recipes(hypotheses or clause.hypotheses))
    def holds(recipe):
        check(clause, recipe)

    return holds


def smallest(clause):
    """The clause's hypotheses at its smallest shape: one compilation."""
    return dataclasses.replace(clause.hypotheses, shapes=clause.hypotheses.shapes[:1])


@pytest.mark.parametrize("name", QUICK)
def test_a_corrected_statement_holds_as_a_property(name):
    property_of(CLAUSES[name], 5, smallest(CLAUSES[name]))()


@pytest.mark.long
@pytest.mark.parametrize("name", CLAUSES)
def test_every_corrected_statement_holds_as_a_property(name):
    clause = CLAUSES[name]
    property_of(clause, 4 if clause.long else 25)()


def test_a_false_statement_is_found():
    """Remark 10 as read: the property fails, with a seed that shrank."""
    (clause,) = STATEMENTS["remark-10"].paper.clauses
    with pytest.raises(AssertionError, match="margin -"):
        property_of(clause, 5, smallest(clause))()


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_class_is_drawn_for_every_clause_of_a_statement(name):
    """In each example whatever it is, so nothing depends on how many examples there are."""
    clauses = [c for form in STATEMENTS[name].forms.values() for c in form.clauses]
    seen = []

    @settings(max_examples=3, database=None, phases=(Phase.generate,))
    @given(recipes=st.tuples(*(strategies.recipes(clause.hypotheses) for clause in clauses)))
    def draw(recipes):
        for clause, recipe in zip(clauses, recipes, strict=True):
            assert recipe.shape in clause.hypotheses.shapes
            shares = np.bincount(recipe.kinds, minlength=len(instances.KINDS)) / strategies.BATCH
            assert np.all(shares >= 0.25)
        seen.append(recipes)

    draw()
    assert seen


def test_every_shape_and_every_order_of_the_classes_can_be_drawn():
    hypotheses = CLAUSES["lemma-14: intrinsic classes"].hypotheses
    seen = []

    @settings(max_examples=60, derandomize=True, database=None, phases=(Phase.generate,))
    @given(recipe=strategies.recipes(hypotheses))
    def draw(recipe):
        seen.append(recipe)

    draw()
    assert {recipe.shape for recipe in seen} == set(hypotheses.shapes)
    assert {recipe.order[0] for recipe in seen} == set(range(len(instances.KINDS)))
    assert any(value < 1e-5 for recipe in seen for value in recipe.fixed.values())


def test_the_classes_reach_the_instances():
    """The class decides what is built: on this piece it is all there is."""
    told = Piece(lambda _noise, kind, _shape, _case: {"kind": kind})
    hypotheses = Hypotheses((told,), (Shape(2, 2),))
    recipe = strategies.Recipe(Shape(2, 2), (2, 0, 1), 5)
    kinds = strategies.build(hypotheses, recipe).cases["kind"]
    np.testing.assert_array_equal(kinds, np.resize([2, 0, 1], strategies.BATCH))


def test_boundary_and_nearly_degenerate_instances_are_what_they_are_called():
    """``test_instances`` shows it for every hypothesis; here that a recipe changes nothing."""
    clause = CLAUSES["remark-10: unstable"]
    hypotheses = smallest(clause)
    recipe = strategies.Recipe(hypotheses.shapes[0], (0, 1, 2), 9)
    drawn = strategies.build(hypotheses, recipe)
    nearest = np.min([np.minimum(v, 1.0) for v in drawn.margins.values()], axis=0)
    near = {kind: np.mean(nearest[recipe.kinds == kind] < 1e-2) for kind in range(3)}
    assert near[instances.BOUNDARY] > 0.5 > near[instances.GENERIC]


def test_a_number_that_hypothesis_fixed_is_used():
    drawn = Piece(lambda noise, _kind, _shape, _case: {"u": noise.uniforms(3)})
    hypotheses = Hypotheses((drawn,), (Shape(2, 2),))
    recipe = strategies.Recipe(Shape(2, 2), (0, 1, 2), 1, fixed={1: 0.125})
    values = strategies.build(hypotheses, recipe).cases["u"]
    assert np.all(values[:, 1] == 0.125)
    assert len(np.unique(values[:, 0])) == strategies.BATCH


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=3)
def test_a_recipe_says_everything(seed):
    hypotheses = CLAUSES["lemma-13: positive"].hypotheses
    recipe = strategies.Recipe(hypotheses.shapes[0], (0, 1, 2), seed)
    first, again = (strategies.build(hypotheses, recipe).cases for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])

"""Every class of instances is drawn, and the hypotheses hold on every instance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from tests.known_statements import STATEMENTS
from theory import instances, noise, strategies
from theory.compilation import quick_options

COUNT = 200
CLAUSES = {
    f"{statement.id} {name} {clause.name}": clause
    for statement in STATEMENTS.values()
    for name, form in statement.forms.items()
    for clause in form.clauses
}
# Clauses of both forms may share their hypotheses.
DISTINCT = {clause.hypotheses: name for name, clause in CLAUSES.items()}


@functools.cache
def drawn(hypotheses):
    """All instances of the last shape with their margins and degeneracies, on the host."""
    shape = hypotheses.shapes[-1]

    def one(source, kind):
        case = instances.draw(hypotheses, source, kind, shape)
        degeneracy = [
            piece.degeneracy(shape, case) for piece in hypotheses.pieces if piece.degeneracy
        ]
        return case, hypotheses.margins(shape, case), degeneracy

    batch = jax.jit(jax.vmap(one), compiler_options=quick_options())
    source = noise.raw(3, COUNT)
    return jax.tree.map(np.asarray, batch(source, instances.kinds(COUNT)))


@pytest.mark.parametrize("hypotheses", DISTINCT, ids=DISTINCT.values())
def test_the_hypotheses_hold_by_construction(hypotheses):
    _, margins, _ = drawn(hypotheses)
    assert margins
    for name, values in margins.items():
        assert np.all(values >= 0), f"{name}: {values.min()}"


@pytest.mark.parametrize("hypotheses", DISTINCT, ids=DISTINCT.values())
def test_every_class_is_drawn(hypotheses):
    _, margins, degeneracy = drawn(hypotheses)
    kinds = instances.kinds(COUNT)
    nearest = np.min([np.minimum(v, 1.0) for v in margins.values()], axis=0)
    boundary = nearest[kinds == instances.BOUNDARY]
    assert np.mean(boundary < 1e-2) > 0.25
    assert np.mean(nearest[kinds == instances.GENERIC] > 1e-3) > 0.5
    near = np.min(degeneracy, axis=0) if degeneracy else nearest
    assert np.mean(near[kinds == instances.DEGENERATE] < 1e-2) > 0.5
    assert np.mean(near[kinds == instances.GENERIC] > 1e-3) > 0.5


@pytest.mark.parametrize("hypotheses", DISTINCT, ids=DISTINCT.values())
def test_instances_differ(hypotheses):
    case, _, _ = drawn(hypotheses)
    alphas = case.get("alpha")
    assert len(np.unique(alphas)) > COUNT / 2


def test_the_shares_of_the_classes_are_fixed():
    kinds = instances.kinds(40)
    assert [int(np.sum(kinds == kind)) for kind in range(3)] == [20, 10, 10]


def test_explicit_instances_satisfy_the_hypotheses_of_their_clause():
    for name, clause in CLAUSES.items():
        for explicit in clause.explicit:
            case = {key: jnp.asarray(value) for key, value in explicit.case.items()}
            for what, value in clause.hypotheses.margins(explicit.shape, case).items():
                assert float(value) >= 0, f"{name}: {explicit.name}: {what}"


def test_noise_is_handed_out_once():
    source = jax.tree.map(lambda leaf: leaf[0], noise.raw(0, 1))
    first = noise.Noise(source)
    assert not np.any(np.isin(first.normal(4), first.normal(4)))
    with pytest.raises(ValueError, match="NORMALS"):
        first.normal(noise.NORMALS)
    with pytest.raises(ValueError, match="UNIFORMS"):
        first.uniforms(noise.UNIFORMS + 1)


@pytest.mark.parametrize(
    "name", ["lemma-14 corrected intrinsic classes", "lemma-2 corrected entrywise"]
)
def test_an_instance_needs_no_more_numbers_than_are_drawn_for_it(name):
    hypotheses = CLAUSES[name].hypotheses
    shape = hypotheses.shapes[-1]
    taken = instances.taken(hypotheses, shape)
    assert 0 < taken[0] < noise.UNIFORMS and 0 < taken[1] < noise.NORMALS
    source = jax.tree.map(lambda leaf: leaf[0], noise.raw(3, 1, taken))
    for kind in range(len(instances.KINDS)):
        few = instances.draw(hypotheses, source, jnp.int32(kind), shape)
        wide = noise.Raw(*(np.pad(each, (0, 50)) for each in source))
        many = instances.draw(hypotheses, wide, jnp.int32(kind), shape)
        assert all(np.array_equal(few[key], many[key]) for key in few)
    # One less of either is too few.
    for less, words in (
        (source._replace(uniform=source.uniform[1:]), "UNIFORMS"),
        (source._replace(normal=source.normal[1:]), "NORMALS"),
    ):
        with pytest.raises(ValueError, match=words):
            instances.draw(hypotheses, less, jnp.int32(0), shape)


BIPARTITE = CLAUSES["lemma-14 corrected intrinsic classes"].hypotheses


@given(drawn_by_hypothesis=strategies.cases(BIPARTITE))
def test_the_strategy_draws_what_the_generator_does(drawn_by_hypothesis):
    hypotheses = BIPARTITE
    shape, kind, case = drawn_by_hypothesis
    assert shape in hypotheses.shapes
    assert 0 <= kind < len(instances.KINDS)
    assert case["frame"].shape == (shape.d, shape.d)
    arrays = {name: jnp.asarray(value) for name, value in case.items()}
    for name, value in hypotheses.margins(shape, arrays).items():
        assert float(value) >= 0, name

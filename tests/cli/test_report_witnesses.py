"""From refuting instances to drawings: which map, which point, and a figure for each."""

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.cli import witness_drawings, witness_map
from pmt.cli.report import _refutations
from tests.known_statements import STATEMENTS
from theory.results import ClauseResult, Evaluated, FormResult, StatementResult
from theory.statement import Shape


def explicit():
    """The first explicit instance of every clause of a paper's form that should fall."""
    for statement in STATEMENTS.values():
        if statement.paper is None or statement.paper.expected != "refuted":
            continue
        for clause in statement.paper.clauses:
            for instance in clause.explicit[:1]:
                yield statement, clause, instance


def evaluated(clause, instance, numbers=None):
    case = {name: np.asarray(value) for name, value in instance.case.items()}
    return Evaluated(
        clause.name, instance.name, instance.shape, case, -0.5, 1e-13, instance.text, numbers or {}
    )


def result(statement, violations):
    clauses = tuple(ClauseResult(v.clause, 1, 0, -0.5, (v,), (v,), None) for v in violations)
    form = FormResult("paper", "text", "refuted", clauses, 0.1)
    return StatementResult(statement, (form,))


def test_transcriptions_and_maps_agree_at_every_witness():
    """The NumPy step that multipliers come from is the JAX map that runs come from."""
    checked = 0
    for statement, _, instance in explicit():
        found = witness_map.read_map(statement, instance.shape, instance.case)
        if found is None or found.point is None:
            continue
        checked += 1
        moved = np.asarray(found.system(jnp.asarray(found.point)))
        np.testing.assert_allclose(found.step(found.point), moved, atol=1e-13)
    assert checked > 15


def test_pictures_are_of_the_tokens_in_two_and_three_dimensions():
    for statement, clause, instance in explicit():
        at = evaluated(clause, instance)
        picture = witness_map.thumbnail(statement, at)
        point = witness_map.point_of(at.shape, at.case)
        if point is None or point.shape[1] > 3:
            assert picture is None
            continue
        assert len(picture["tokens"]) == len(point)
        lengths = [np.hypot(token["x"], token["y"]) for token in picture["tokens"]]
        assert max(lengths) < 1 + 1e-12
        assert picture["sphere"] == (point.shape[1] == 3)


@pytest.fixture(scope="module")
def lemma_15():
    found = [(s, c, i) for s, c, i in explicit() if s.id == "lemma-15"]
    statement, clause, instance = found[0]
    return statement, evaluated(clause, instance)


def test_a_stable_point_is_seen_to_attract(lemma_15):
    (figure,), note = witness_drawings.drawings(*lemma_15, "lemma-15-1")
    assert note == ""
    assert figure.png.startswith(b"\x89PNG")
    assert "spectral radius is 0.75" in figure.caption
    assert "50 of 50 starts" in figure.caption


def test_the_same_inputs_are_drawn_once(lemma_15, monkeypatch):
    statement, at = lemma_15
    drawn = []
    monkeypatch.setattr(
        witness_drawings, "drawings", lambda _, which, name: (drawn.append(name) or [], which.name)
    )
    witnesses, pictures = _refutations([result(statement, [at, at])])
    assert drawn == ["lemma-15-1"]
    assert [shown.note for shown in witnesses["lemma-15"]] == [
        at.name,
        "Drawn above: the same inputs.",
    ]
    assert set(pictures) == {"lemma-15"}


def test_what_has_no_map_shows_its_numbers_or_says_why(lemma_15):
    statement, at = lemma_15
    nothing = {"case": {"seed": np.array(1)}, "shape": Shape(2, 7)}
    bare = Evaluated("c", "n", nothing["shape"], nothing["case"], -1.0, 0.0)
    assert witness_map.thumbnail(statement, bare) is None
    figures, note = witness_drawings.drawings(statement, bare, "x")
    assert figures == []
    assert "in the table" in note
    told = Evaluated("c", "n", Shape(2, 7), nothing["case"], -1.0, 0.0, "", {"bound": [1.0, 2.0]})
    (figure,), _ = witness_drawings.drawings(statement, told, "x")
    assert "bars" in figure.caption

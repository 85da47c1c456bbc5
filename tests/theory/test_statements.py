"""Every statement on a few instances: the statuses come out as expected, and twins fail."""

import functools

import numpy as np
import pytest

from theory import registry, verify

STATEMENTS = registry.statements()
FORMS = [(name, form) for name in STATEMENTS for form in ("paper", "corrected")]
# Few enough that every clause compiles at one shape only.
COUNT = 30
REFUTED = {"lemma-3", "lemma-4", "theorem-2", "theorem-3", "remark-10"}


@functools.cache
def result(name):
    (found,) = verify.verify([STATEMENTS[name]], count=COUNT, seed=1)
    return {form.form: form for form in found.forms}


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_the_status_is_the_expected_one(name, form):
    found = result(name)[form]
    assert found.status == found.expected
    assert found.instances >= COUNT
    assert np.isfinite(found.worst_margin)


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_the_theory_calls_false_is_refuted_by_its_explicit_witness(name):
    paper = result(name)["paper"]
    assert (paper.status == "refuted") == (name in REFUTED)
    if name in REFUTED:
        assert paper.witness is not None and paper.witness.name is not None
        assert paper.witness.numbers


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_without_the_hypothesis_the_conclusion_fails(name, form):
    for twin in result(name)[form].twins:
        broken = {key for key, value in twin.hypotheses.items() if not value >= 0}
        assert broken == {twin.drops}
        assert twin.at.outcome == "refuted"
        assert twin.fails


@pytest.mark.parametrize("name", sorted(REFUTED))
def test_the_corrected_form_covers_what_refuted_the_paper(name):
    """Every witness either satisfies the corrected form, or breaks one of its hypotheses."""
    corrected = {clause.clause: clause for clause in result(name)["corrected"].clauses}
    told = [e for clause in corrected.values() for e in clause.explicit]
    dropped = [c.twin.at for c in corrected.values() if c.twin]
    names = {e.name for e in told if e.outcome == "supported"} | {e.name for e in dropped}
    for clause in STATEMENTS[name].paper.clauses:
        for witness in clause.explicit:
            pair = {"antipodal pair, n = 2": "a start that ends antipodal, n = 2"}
            assert pair.get(witness.name, witness.name) in names


def test_instances_depend_on_the_seed_and_on_nothing_else():
    chosen = STATEMENTS["remark-10"]
    runs = [
        verify.verify(statements, count=40, seed=seed)[-1].forms[1]
        for statements, seed in (
            ([chosen], 5),
            ([STATEMENTS["lemma-13"], chosen], 5),
            ([chosen], 6),
        )
    ]
    margins = [run.clauses[0].worst for run in runs]
    assert margins[0] == margins[1]
    assert margins[0] != margins[2]


def test_all_violations_are_kept_with_explicit_ones_first():
    paper = result("lemma-3")["paper"]
    assert paper.violations[0].name == "2-cycle"
    assert all(v.name is None and v.outcome == "refuted" for v in paper.violations[1:])


@pytest.mark.parametrize(
    ("undecided", "expected"),
    [(0, "supported"), (50, "supported"), (51, "undecided"), (100, "undecided")],
)
def test_a_form_is_supported_only_if_most_instances_were_decided(undecided, expected):
    clause = verify.ClauseResult("c", 100, undecided, 0.0, (), (), None)
    assert verify.FormResult("paper", "", "supported", (clause,), 0.0).status == expected


def test_one_violation_refutes():
    shape = STATEMENTS["lemma-2"].paper.clauses[0].hypotheses.shapes[0]
    bad = verify.Evaluated("c", None, shape, {}, -1.0, 0.1)
    clause = verify.ClauseResult("c", 100, 0, -1.0, (bad,), (), None)
    good = verify.ClauseResult("d", 100, 0, 0.5, (), (), None)
    assert verify.FormResult("paper", "", "supported", (good, clause), 0.0).status == "refuted"

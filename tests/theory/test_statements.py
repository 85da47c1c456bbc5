"""Every statement on a few instances: the statuses come out as expected, and twins fail."""

import numpy as np
import pytest

from tests.known_statements import STATEMENTS
from theory import verify
from theory.numbers import DISCREPANCIES

# Few enough that every clause compiles at one shape only.
COUNT = 30
# Statements of the paper that are false as read, by number; each has an explicit witness.
REFUTED = {*DISCREPANCIES.values(), "lemma-4", "section-d.4.3"} - {"theorem-1"}


def check(name, count):
    """All that must come out for one statement; in one test, since each statement compiles."""
    statement = STATEMENTS[name]
    (found,) = verify.verify([statement], count=count, seed=1)
    forms = {form.form: form for form in found.forms}
    for form in found.forms:
        assert form.status == form.expected, form
        assert form.instances >= count
        assert np.isfinite(form.worst_margin)
        for twin in form.twins:
            broken = {key for key, value in twin.hypotheses.items() if not value >= 0}
            assert broken == {twin.drops}
            assert twin.at.outcome == "refuted", twin
            assert twin.fails
    if statement.paper is None:
        return
    paper, corrected = forms["paper"], forms["corrected"]
    assert (paper.status == "refuted") == (name in REFUTED)
    if name in REFUTED:
        # By the explicit witness, which comes first, with the numbers it claims.
        assert paper.witness is not None and paper.witness.name is not None
        assert paper.witness.numbers
        assert all(v.outcome == "refuted" for v in paper.violations)
        covered = {
            e.name
            for clause in corrected.clauses
            for e in clause.explicit
            if e.outcome == "supported"
        } | {twin.at.name for twin in corrected.twins}
        # Both are the same system, once at its pair and once at a start that ends in one.
        covered |= (
            {"antipodal pair, n = 2"} if "a start that ends antipodal, n = 2" in covered else set()
        )
        told = {e.name for clause in statement.paper.clauses for e in clause.explicit}
        assert told <= covered


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_statuses_come_out_as_expected_and_twins_fail(name):
    check(name, COUNT)


@pytest.mark.long
@pytest.mark.parametrize("name", STATEMENTS)
def test_so_they_do_on_more_instances_of_every_shape(name):
    check(name, 3000)


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

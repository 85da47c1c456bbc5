import json

import numpy as np
import pytest

from pmt.errors import RequestError
from tests.known_statements import STATEMENTS
from theory import replay, verify


@pytest.fixture(scope="module")
def refuted():
    (found,) = verify.verify([STATEMENTS["remark-10"]], count=300, seed=0)
    return found.forms[0]


@pytest.fixture
def saved(refuted, tmp_path):
    return replay.save_violations(tmp_path, "remark-10", refuted, keep=3)


def test_the_inputs_come_back_exactly(refuted, saved):
    assert len(saved) == 3
    for path, violation in zip(saved, refuted.violations[:3], strict=True):
        again = replay.replay(path, STATEMENTS)
        assert again.recorded.case.keys() == violation.case.keys()
        for name, value in violation.case.items():
            assert np.array_equal(again.recorded.case[name], value), name
            assert again.recorded.case[name].shape == value.shape


def test_the_status_and_the_margin_come_out_again(refuted, saved):
    for path, violation in zip(saved, refuted.violations[:3], strict=True):
        again = replay.replay(path, STATEMENTS)
        assert again.agrees
        assert again.observed.outcome == "refuted"
        assert abs(again.observed.value - violation.value) <= again.allowed
        assert all(value >= 0 for value in again.hypotheses.values())


def test_a_random_violation_is_among_them(refuted):
    assert any(v.name is None for v in refuted.violations)


def test_a_changed_input_does_not_agree(saved):
    data = json.loads(saved[0].read_text())
    data["inputs"]["alpha"] = data["inputs"]["alpha"] * 1.01
    saved[0].write_text(json.dumps(data))
    assert not replay.replay(saved[0], STATEMENTS).agrees


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("inputs"), "not a complete record"),
        (lambda d: d.pop("schema"), "does not say schema"),
        (lambda d: d.update(statement="lemma-99"), "no clause"),
        (lambda d: d.update(clause="gone"), "no clause"),
        (lambda d: d["shape"].update(n=0), "from 1 to"),
        (lambda d: d["shape"].update(mask="round"), "not one of"),
        (lambda d: d["shape"].update(extra=1), "not a complete record"),
        (lambda d: d["inputs"].update(alpha="x"), "finite numbers"),
        (lambda d: d["inputs"].update(alpha=1e999), "finite numbers"),
        (lambda d: d["inputs"].pop("alpha"), "do not fit"),
        (lambda d: d["inputs"].update(frame=[[1.0]]), "do not fit"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(saved, change, message):
    data = json.loads(saved[0].read_text())
    change(data)
    saved[0].write_text(json.dumps(data))
    with pytest.raises(RequestError, match=message):
        replay.replay(saved[0], STATEMENTS)


@pytest.mark.parametrize("content", ["", "{", "[]", "\udc80", "[" * 100_000])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError):
        replay.replay(path, STATEMENTS)
    with pytest.raises(RequestError, match="cannot read"):
        replay.replay(tmp_path / "none.json", STATEMENTS)

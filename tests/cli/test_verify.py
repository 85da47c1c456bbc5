"""`pmt verify`: faults 76, 77, 83 and 84 of the list, and what it promises to other programs."""

import dataclasses
import json
import signal
import threading

import jax
import pytest

from pmt import cli
from tests.known_statements import STATEMENTS
from theory import registry

FORM_KEYS = [
    "form",
    "text",
    "status",
    "expected",
    "instances",
    "violations",
    "worst_margin",
    "witness",
    "seconds",
]


def test_json_is_as_the_schema_says(tmp_path, capsys):
    path = tmp_path / "prüfung.json"
    arguments = ["verify", "lemma-13", "remark-10", "--instances", "40", "--json", str(path)]
    assert cli.main(arguments) == 0
    found = json.loads(path.read_text())
    assert list(found) == ["schema", "statements"]
    assert found["schema"] == "pmt.verify/1"
    assert [s["id"] for s in found["statements"]] == ["lemma-13", "remark-10"]
    for statement in found["statements"]:
        assert list(statement) == ["id", "source", "text", "forms"]
        assert [form["form"] for form in statement["forms"]] == ["paper", "corrected"]
        for form in statement["forms"]:
            assert list(form) == FORM_KEYS
            assert form["status"] == form["expected"]
            assert form["instances"] >= 40
            assert (form["witness"] is not None) == (form["status"] == "refuted")
    witness = found["statements"][1]["forms"][0]["witness"]
    assert witness["inputs"]["eigenvalues"] == [1.0, -2.0]
    assert max(abs(m) for m in witness["numbers"]["multipliers"]) < 0.845
    out = capsys.readouterr().out
    assert "remark-10" in out
    assert "2 statements, 4 forms, 4 as expected" in out


def test_the_list_shows_every_statement_and_computes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pmt.cli.options.start_backend", pytest.fail)
    path = tmp_path / "list.json"
    assert cli.main(["verify", "--list", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    listed = json.loads(path.read_text())["statements"]
    for statement in STATEMENTS.values():
        assert statement.id in out
        assert statement.id in [entry["id"] for entry in listed]


def test_an_unknown_id_ends_with_2_and_names_close_ones(capsys):
    assert cli.main(["verify", "theorem2"]) == 2
    error = capsys.readouterr().err
    assert "theorem-2" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--instances", "0"],
        ["--instances", "many"],
        ["--seed", "-1"],
        ["--seed", "nan"],
        ["--list", "--replay", "x.json"],
        ["lemma-2", "--replay", "x.json"],
        ["--replay", "no-such-file.json"],
        ["--json", "/no/such/folder/x.json"],
        ["remark-10", "--hunt", "--replay", "x.json"],
        ["--hunt", "--list"],
        ["--hunt", "remark10"],
        ["--hunt", "remark-10", "--budget", "0"],
        ["--hunt", "remark-10", "--budget", "-1"],
        ["--hunt", "remark-10", "--budget", "nan"],
        ["--hunt", "remark-10", "--form", "other"],
        ["--hunt", "ii.1", "--form", "paper"],
        ["--hunt", "remark-10", "--out", "/dev/null/x"],
        ["remark-10", "--budget", "5"],
        ["remark-10", "--form", "paper"],
        ["remark-10", "--file", "mine.py"],
        ["--hunt", "--file", "mine.py", "--form", "corrected"],
        ["--file", "no-such-file.py"],
    ],
)
def test_a_wrong_request_ends_with_2_and_one_sentence(capsys, arguments):
    assert cli.main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error


def test_a_status_that_differs_ends_with_1(capsys, monkeypatch):
    statement = STATEMENTS["lemma-13"]
    wrong = dataclasses.replace(
        statement, paper=dataclasses.replace(statement.paper, expected="refuted")
    )
    monkeypatch.setattr(registry, "statements", lambda: {"lemma-13": wrong})
    assert cli.main(["verify", "--instances", "30"]) == 1
    assert "refuted (!)" in capsys.readouterr().out


def test_float64_is_used_whatever_the_default(tmp_path):
    jax.config.update("jax_enable_x64", False)
    path = tmp_path / "x.json"
    assert cli.main(["verify", "lemma-13", "--instances", "30", "--json", str(path)]) == 0
    # Boundary instances are decided at distances that single precision does not resolve.
    for form in json.loads(path.read_text())["statements"][0]["forms"]:
        assert form["status"] == "supported"


def test_violations_are_saved_and_replayed(tmp_path, capsys):
    folder = tmp_path / "fälle"
    arguments = ["verify", "remark-10", "--instances", "300", "--out", str(folder), "--keep", "2"]
    assert cli.main(arguments) == 0
    files = sorted(folder.glob("remark-10.paper.*.json"))
    assert len(files) == 2
    report = tmp_path / "replay.json"
    assert cli.main(["verify", "--replay", str(files[1]), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["agrees"] is True
    assert found["observed"]["status"] == "refuted"
    data = json.loads(files[1].read_text())
    data["inputs"]["alpha"] = 0.1 * data["inputs"]["alpha"]
    files[1].write_text(json.dumps(data))
    capsys.readouterr()
    assert cli.main(["verify", "--replay", str(files[1])]) == 1
    assert "NOT the same" in capsys.readouterr().out


def test_a_folder_of_somebody_else_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "thesis.tex").write_text("x")
    monkeypatch.setattr("theory.verify.verify", pytest.fail)
    assert cli.main(["verify", "--out", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def only(monkeypatch, **statements):
    """The registry holds these and no others: making all of them takes seconds."""
    known = {statement.id: statement for statement in statements.values()}
    monkeypatch.setattr(registry, "statements", lambda: known)


def hunted(tmp_path, *arguments):
    """Exit status, the JSON file and the folder of a hunt."""
    path, folder = tmp_path / "jagd.json", tmp_path / "jagd"
    status = cli.main(["verify", "--hunt", *arguments, "--json", str(path), "--out", str(folder)])
    return status, json.loads(path.read_text()) if path.exists() else None, folder


@pytest.fixture
def one_shape(monkeypatch):
    """Remark 10 at its smallest shape alone, since each compiles."""
    statement = STATEMENTS["remark-10"]
    (clause,) = statement.paper.clauses
    small = dataclasses.replace(clause.hypotheses, shapes=clause.hypotheses.shapes[:1])
    form = dataclasses.replace(
        statement.paper, clauses=(dataclasses.replace(clause, hypotheses=small),)
    )
    only(monkeypatch, small=dataclasses.replace(statement, paper=form))


def test_a_hunt_shows_saves_and_replays_what_it_finds(tmp_path, capsys, one_shape):
    status, found, folder = hunted(tmp_path, "remark-10", "--instances", "256")
    assert status == 0
    assert found["schema"] == "pmt.hunt/1" and found["interrupted"] is False
    (hunt,) = found["hunts"]
    assert (hunt["form"], hunt["status"], hunt["as_expected"]) == ("paper", "refuted", True)
    assert hunt["witness"]["margin"] < -hunt["witness"]["tolerance"]
    assert min(hunt["hypotheses"].values()) > 0
    assert sum(tried["random"] for tried in hunt["tried"]) > 0
    out = capsys.readouterr().out
    assert "as expected" in out and "eigenvalues = " in out
    # Saved as it was found, and shrunk.
    files = sorted(folder.glob("*.hunt.*.json"))
    assert [str(path) for path in files] == sorted(hunt["files"]) and len(files) == 2
    assert cli.main(["verify", "--replay", hunt["files"][0]]) == 0
    assert "the same" in capsys.readouterr().out


def test_a_hunt_that_does_not_find_what_should_fall_ends_with_1(tmp_path, capsys, monkeypatch):
    statement = STATEMENTS["lemma-13"]
    wrong = dataclasses.replace(
        statement, corrected=dataclasses.replace(statement.corrected, expected="refuted")
    )
    only(monkeypatch, wrong=wrong)
    status, found, folder = hunted(tmp_path, "lemma-13", "--form", "corrected", "--budget", "0.5")
    assert status == 1
    assert "no violation found within 0.5 s" in capsys.readouterr().out
    (hunt,) = found["hunts"]
    assert (hunt["status"], hunt["as_expected"], hunt["witness"]) == ("undecided", False, None)
    # The instance nearest to a violation is kept.
    (path,) = folder.glob("*.hunt.*.json")
    assert json.loads(path.read_text())["margin"] == hunt["nearest"]["margin"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stopped_hunt_ends_with_3_and_keeps_the_best_so_far(tmp_path, capsys, monkeypatch, name):
    """Fault 74."""
    from theory.hunt import Hunter

    only(monkeypatch, one=STATEMENTS["lemma-13"])
    looked, signals = Hunter._look, [getattr(signal, name)]

    def look_and_be_stopped(self, *batch):
        looked(self, *batch)
        if signals:
            # To the main thread, as a signal from outside comes.
            signal.pthread_kill(threading.main_thread().ident, signals.pop())

    monkeypatch.setattr(Hunter, "_look", look_and_be_stopped)
    status, found, folder = hunted(tmp_path, "lemma-13", "--form", "corrected", "--budget", "600")
    assert status == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error or "interrupted" in error
    (path,) = folder.glob("lemma-13.corrected.hunt.nearest.json")
    assert "not refuted so far, smallest margin" in error and str(path) in error
    assert found["interrupted"] is True
    assert found["hunts"][0]["status"] == "undecided"

"""`pmt verify`: faults 76, 77, 83 and 84 of the list, and what it promises to other programs."""

import dataclasses
import json

import jax
import pytest

from pmt import cli
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
    for statement in registry.statements().values():
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
    ],
)
def test_a_wrong_request_ends_with_2_and_one_sentence(capsys, arguments):
    assert cli.main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error


def test_a_status_that_differs_ends_with_1(capsys, monkeypatch):
    statement = registry.statements()["lemma-13"]
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

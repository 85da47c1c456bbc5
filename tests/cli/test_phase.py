"""`pmt phase`: the boundary of the theory, and requests that make no sense."""

import csv
import json
from dataclasses import replace
from math import tanh

import numpy as np
import pytest

from pmt.cli import main
from pmt.stability import phase as library

GRID = ["--theta", "0.1:10:7", "--ratio", "0:0.9:5", "--split", "3,3"]


def phase(*arguments):
    return main(["phase", *map(str, arguments)])


def test_the_cells_below_psi_are_stable(tmp_path, capsys):
    """For a balanced split the boundary Ψ(θ) is tanh θ."""
    assert phase(*GRID, "--json", tmp_path / "r.json", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["schema"] == "pmt.phase/1" and found["split"] == [3, 3]
    theta, ratio = np.array(found["theta"]), np.array(found["ratio"])
    np.testing.assert_allclose(theta, np.geomspace(0.1, 10, 7))
    np.testing.assert_allclose(ratio, np.linspace(0, 0.9, 5))
    expected = ratio[:, None] < np.tanh(theta)[None, :]
    np.testing.assert_array_equal(found["stable"], expected)
    assert f"in {expected.sum()} of 35 cells" in shown and "the same in every cell" in shown
    assert found["fraction"] is None and found["disagreements"] == 0
    rows = list(csv.DictReader((tmp_path / "out" / "cells.csv").read_text().splitlines()))
    assert len(rows) == 35 and "fraction" not in rows[0]
    for row in rows:
        assert float(row["boundary"]) == pytest.approx(tanh(float(row["theta"])))
        assert (row["stable"] == "True") == (float(row["ratio"]) < float(row["boundary"]))
    assert (tmp_path / "out" / "phase.png").exists()


def test_runs_and_a_disagreement_are_said_and_the_latter_is_a_no(monkeypatch, tmp_path, capsys):
    asked = {}

    def diagram(theta, ratio, *, samples, **options):
        asked.update(options, samples=samples)
        found = genuine(theta, ratio, **options | {"samples": 0})
        share = np.where(found.stable, 0.75, 0.0)
        return replace(
            found, disagreements=2, fraction=share, low=share, high=share,
            unresolved=share * 0, samples=samples,
        )  # fmt: skip

    genuine = library.phase_diagram
    monkeypatch.setattr(library, "phase_diagram", diagram)
    options = ["--samples", 8, "--alpha", 0.1, "--others", "-0.3,-0.5", "--ratio", "-0.2:0.9:5"]
    assert phase(*GRID, *options, "--out", tmp_path / "out") == 1
    shown = capsys.readouterr().out
    assert "something else in 2 cells" in shown
    assert "where it is stable, 0.7500 of" in shown and "unstable, 0.0000 of" in shown
    assert (asked["alpha"], asked["others"], asked["samples"]) == (0.1, (-0.3, -0.5), 8)
    rows = list(csv.DictReader((tmp_path / "out" / "cells.csv").read_text().splitlines()))
    assert {row["fraction"] for row in rows} == {"0.75", "0.0"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--theta", "1:2"], "--theta is '1:2'; it must be LOW:HIGH:COUNT"),
        (["--theta", "0:2:5"], "its bounds must be positive"),
        (["--ratio", "0.5:0.1:5"], "the second the larger one"),
        (["--ratio", "nan:0.1:5"], "two finite numbers"),
        (["--ratio", "0:1.5:5"], "expected others <= ratio < 1"),
        (["--theta", "1:2:2000", "--ratio", "0:0.5:2000"], "at most 1,000,000 are possible"),
        (["--split", "3"], "--split is '3'; it must be two counts"),
        (["--split", "3,0"], "each at least 1"),
        (["--others", "a"], "--others is 'a'; it must be numbers"),
        (["--others", "nan"], "others are (nan,); expected others <= ratio < 1"),
        (["--others", "-1"], "others in (-1, 1)"),
        (["--alpha", "1.5"], "1.5 is not below 1"),
    ],
)
def test_fault_84_requests_that_make_no_sense(arguments, words, one_sentence):
    assert phase(*arguments) == 2
    assert words in one_sentence()

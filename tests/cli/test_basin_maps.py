"""`pmt basin-map`: where geometry says what the map is, and requests that make no sense."""

import csv
import json

import numpy as np
import pytest

from pmt.cli import main

POWER = ["--value", "diag:1,0.4,0.2", "--alpha", "0.5", "--tokens", "1", "--tolerance", "1e-4"]
QUICK = ["--resolution", "8", "--max-steps", "1024", "--seed", "3"]


def basin_map(*arguments):
    return main(["basin-map", *map(str, arguments)])


def test_one_token_over_the_sphere_ends_on_its_own_side(tmp_path, capsys):
    """The power method: both discs are one basin each, half of the sphere."""
    target, folder = tmp_path / "карта.json", tmp_path / "out"
    assert basin_map(*POWER, *QUICK, "--json", target, "--out", folder) == 0
    out, err = capsys.readouterr()
    assert err == "" and "consensus at +v1" in out and "0.5000" in out
    document = json.loads(target.read_text(encoding="utf-8"))
    assert (document["schema"], document["over"]) == ("pmt.basin-map/1", "sphere")
    names = [each["name"] for each in document["attractors"]]
    assert names == ["consensus at +v1", "consensus at -v1"]
    label = np.array(document["label"])
    assert label.shape == (2, 8, 8)
    for disc, number in zip(label, (0, 1), strict=True):
        assert set(disc[disc >= 0]) == {number}
    np.testing.assert_array_equal(np.load(folder / "label.npy"), label)
    rows = list(csv.DictReader((folder / "attractors.csv").read_text().splitlines()))
    assert [row["share"] for row in rows] == ["0.5", "0.5"]
    assert {"map.png", "map.svg"} <= {path.name for path in folder.iterdir()}
    assert document["settings"]["seed"] == 3 and document["settings"]["max_steps"] == 1024


def test_a_slice_changes_hands_at_a_quarter_of_a_great_circle(tmp_path):
    """From v_1 along e_2 and e_3 every start beyond the distance π/2 goes to −v_1."""
    for name, row in (("start", [2.0, 0, 0]), ("first", [0, 1.0, 0]), ("second", [0, 0, 1.0])):
        np.save(tmp_path / f"{name}.npy", np.array([row]))
    files = ["--start", tmp_path / "start.npy", "--first", tmp_path / "first.npy"]
    files += ["--second", tmp_path / "second.npy", "--json", tmp_path / "r.json"]
    rest = [each for each in POWER if each not in ("--tokens", "1")]
    assert basin_map(*rest, *QUICK, "--over", "slice", "--extent", 3, *files) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert "lengths that differ from 1" in found["start"]["source"]
    names = [each["name"] for each in found["attractors"]]
    a, b = np.meshgrid(found["coordinate"], found["coordinate"])
    near = np.hypot(a, b) < np.pi / 2
    label = np.array(found["label"])
    assert set(label[near]) == {names.index("consensus at +v1")}
    assert set(label[~near]) == {names.index("consensus at -v1")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--value", "diag:1,0.5", "--over", "sphere"], "--over sphere is for d = 3"),
        ([*POWER, "--extent", 2], "--extent is about a slice"),
        ([*POWER, "--token", 2], "--token is 2, and the state has 1 tokens"),
        ([*POWER, "--over", "slice", "--token", 2], "--token is about the sphere"),
        ([*POWER, "--over", "slice", "--first", "none.npy"], "cannot use none.npy"),
        ([*POWER, "--start", "bipartite", "--split", "2,1"], "--tokens and --split contradict"),
        ([*POWER, "--resolution", 1], "Invalid value for '--resolution'"),
        (["--tokens", 3], "no system is given"),
    ],
)
def test_fault_84_requests_that_make_no_sense(arguments, words, one_sentence):
    assert basin_map(*QUICK, *arguments) == 2
    assert words in one_sentence()

"""`pmt basin`: the library's fractions, said in full, and requests that make no sense."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pmt.cli import main
from pmt.cli.basin_lines import escape_words
from pmt.errors import RequestError

POWER = ["--value", "diag:1,0.4,0.2", "--alpha", "0.5", "--tokens", "1", "--tolerance", "1e-4"]
QUICK = ["--samples", "256", "--max-steps", "1024", "--seed", "3"]


def test_the_fractions_the_map_and_the_radius_are_shown_and_written(tmp_path, capsys):
    target, folder = tmp_path / "antwort größe.json", tmp_path / "out"
    more = ["--confidence", "0.999", "--map", "9", "--lost", "consensus", "--directions", "20"]
    files = ["--json", str(target), "--out", str(folder)]
    assert main(["basin", *POWER, *QUICK, *more, *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(target.read_text(encoding="utf-8"))
    found = document["basins"]
    assert document["schema"] == "pmt.basin/1"
    assert (found["samples"], found["seed"], found["tokens"]) == (256, 3, 1)
    shares = {a["name"]: a["share"] for a in found["attractors"]}
    assert set(shares) == {"consensus at +v1", "consensus at -v1"}
    assert sum(share["count"] for share in shares.values()) == 256
    for name, share in shares.items():
        assert share["low"] < 0.5 < share["high"]
        assert f"{share['fraction']:.5f}" in out and name in out
    assert all(a["verdict"] == "stable" for a in found["attractors"])
    assert document["map"]["area"] == [0.5, 0.5]
    (median,) = [radius for p, radius in document["lost"]["quantiles"] if p == 0.5]
    assert abs(median - np.pi / 2) < 0.02
    assert f"50% {median:.3f}" in out
    drawn = {path.name for path in folder.iterdir()}
    assert {"fractions.png", "map.png", "lost.svg"} <= drawn


def test_what_was_never_lost_is_beyond_the_reach():
    far = SimpleNamespace(
        quantiles=((0.5, 1.2), (0.95, np.inf)), reach=7.695, kept=np.ones(4), doubtful=np.zeros(4)
    )
    assert "50% 1.200, 95% beyond 7.7" in escape_words(far)


def test_intervals_that_stay_too_wide_are_a_no(capsys):
    assert main(["basin", *POWER, *QUICK, "--width", "0.01"]) == 1
    assert "0.01 not reached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--map", "9", "--value", "diag:1,0.5"], "--map is for d = 3"),
        ([*POWER, "--width", "2"], "2 is not below 1"),
        ([*POWER[:4], "--split", "2,1"], "--split says nothing about a random state"),
        (["--tokens", "3"], "no system is given"),
        ([*POWER, "--lost", "consensus", "--index", "7"], "--index is 7"),
        ([*POWER, "--lost", "bipartite", "--split", "2,1"], "--tokens is 1 and --split has 3"),
    ],
)
def test_requests_that_make_no_sense_end_in_one_sentence(arguments, words, one_sentence):
    """Fault 84."""
    assert main(["basin", *arguments, *QUICK]) == 2
    assert words in one_sentence()


def test_the_split_says_how_many_tokens_there_are(monkeypatch):
    asked = []

    def stop(_system, tokens, **_options):
        asked.append(tokens)
        raise RequestError("enough")

    monkeypatch.setattr("pmt.stability.basin.basin_fractions", stop)
    for option in (["--split", "2,1"], ["--signs", "++-"]):
        assert main(["basin", *POWER[:4], "--lost", "bipartite", *option, *QUICK]) == 2
    assert asked == [3, 3]

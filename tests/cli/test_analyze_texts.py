"""`pmt analyze` on texts, in stripped and in full mode, and its cache of eigenproblems."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pmt.cli import main
from pmt.experiments import AnalysisConfig

TINY = Path(__file__).parents[1] / "parity" / "data" / "bert-tanh"


def analyze(*arguments):
    return main(["analyze", *map(str, arguments)])


def found(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_own_texts_in_both_modes_and_without_special_tokens(readable, texts, tmp_path, capsys):
    record, out = tmp_path / "r.json", tmp_path / "Ergebnis"
    call = (readable, "--prompts", texts, "--json", record)
    assert analyze(*call) == 0
    stripped = found(record)
    said = capsys.readouterr().out
    assert "3 given texts of up to 5 tokens, 10 in all" in said
    law = stripped["first_order_law"]
    assert not law["applies"] and law["reason"].startswith("the tokens were given")
    assert f"the first-order law does not apply: {law['reason']}, and the tokens that" in said
    assert stripped["settings"]["tokens"] == [3, 5, 24] and stripped["settings"]["mode"] == (
        "stripped"
    )
    assert stripped["settings"]["counted_tokens"] == 10
    assert analyze(*call, "--mode", "full", "--no-special-tokens", "--out", out) == 0
    full = found(record)
    said = capsys.readouterr().out
    law = full["first_order_law"]
    assert "full mode: embedding" in said and law["reason"] == law["other_layers"]
    assert f"does not apply: {law['reason']}\n" in said and "do more than att" in law["reason"]
    assert full["settings"]["mode"] == "full" and full["settings"]["counted_tokens"] == 7
    assert full["settings"]["biases"] is True and full["settings"]["tokens"] == [3, 4, 24]
    assert (out / "alignment.svg").exists() and found(out / "analysis.json") == full
    for one, other in zip(stripped["layers"], full["layers"], strict=True):
        # The same matrices, other states.
        assert one["eigenvalues"] == other["eigenvalues"]
        assert one["delta_rho"] != other["delta_rho"] and set(other["null"]) == set(one["null"])


def test_a_second_analysis_solves_nothing_again(tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(2, 3, 24)))
    call = (TINY, "--tokens", tmp_path / "X.npy", "--json", tmp_path / "r.json")
    call += ("--repeat-layer", 2, "--steps", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert analyze(*call) == 0
    first = found(tmp_path / "r.json")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cache/pmt/eigen").iterdir()}
    # Of every layer its own eigenproblem, those of the draws, and what the null models showed.
    assert len(kept) == 3 * (2 + AnalysisConfig().draws)
    # Whoever asks for them.
    monkeypatch.setattr("pmt.spectral.eigen.solve_all", None)
    monkeypatch.setattr("pmt.experiments.eigen_cache.leading_basis", None)
    assert analyze(*call) == 0
    assert found(tmp_path / "r.json") == first
    shutil.copytree(tmp_path / "cache/pmt/eigen", tmp_path / "own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert analyze(*call, "--eigen-cache", tmp_path / "own") == 0
    assert not (tmp_path / "none").exists()


def test_texts_are_read_before_the_model_is_looked_for(one_sentence):
    assert analyze("no/such/model", "--prompts", "nothing.txt") == 2
    assert "cannot read nothing.txt" in one_sentence()


def test_faults_28_77_a_cache_that_cannot_be_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(2, 3, 24)))
    assert analyze(TINY, "--tokens", tmp_path / "X.npy") == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no text; give one text a line"),
        (b" \n\n", "holds no text; give one text a line"),
        (b"caf\xe9\n", "is not UTF-8 text; save it as UTF-8"),
        (b"a\n" + b"b " * 13, "has 14 tokens; this model takes at most 13: give shorter texts"),
    ],
)
def test_faults_84_texts_that_cannot_be_used(readable, texts, content, sentence, one_sentence):
    texts.write_bytes(content)
    assert analyze(readable, "--prompts", texts) == 2
    assert sentence in one_sentence()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--prompts", "nothing.txt"), "cannot read nothing.txt"),
        (("--prompts", "p", "--tokens", "t"), "--tokens and --prompts contradict each other"),
        (("--mode", "full", "--tokens", "t"), "--mode full and --tokens contradict"),
        (("--mode", "full", "--repeat-layer", 1), "--mode full and --repeat-layer contradict"),
        (("--prompts", "p", "--repeat-layer", 1), "--prompts and --repeat-layer contradict"),
        (("--mode", "full", "--alpha", 2), "has no step size but 1"),
        (("--mode", "full", "--biases"), "--biases and --rotary are about stripped mode"),
        (("--no-special-tokens",), "--no-special-tokens goes with --prompts"),
        (("--mode", "full"), "has no tokenizer.json"),
    ],
)
def test_fault_84_options_that_do_not_fit(arguments, sentence, one_sentence):
    assert analyze(TINY, *arguments) == 2
    assert sentence in one_sentence()

"""`pmt analyze`: what it writes and shows, and one sentence for every wrong request."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pmt.cli import main
from tests.checkpoints import conftest

hub, cache = conftest.hub, conftest.cache
TINY = Path(__file__).parents[1] / "parity" / "data" / "bert-tanh"


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 3, 24)))
    return path


def analyze(*arguments):
    return main(["analyze", *map(str, arguments)])


def test_it_shows_the_tables_and_what_follows_from_them(tokens, capsys):
    assert analyze(TINY, "--tokens", tokens) == 0
    shown = capsys.readouterr().out
    assert "bert, 3 layers, d = 24, h = 3" in shown and "4 prompts of 3 tokens" in shown
    assert "exceeds the mean over all directions in" in shown
    assert "Gaussian null" in shown and "rotated null" in shown


def test_everything_at_once_into_a_folder_faults_76_83(tokens, tmp_path, capsys):
    out, record = tmp_path / "Ergebnis-図", tmp_path / "a.json"
    options = ("--repeat-layer", 2, "--steps", 9, "--order", "skip", "--dtype", "float64")
    assert analyze(TINY, "--tokens", tokens, "--out", out, "--json", record, *options) == 0
    assert "layer 2 repeated 9 times" in capsys.readouterr().out
    names = ["alignment", "alignment-column", "distance", "spectra"]
    names += ["repetition", "repetition-column"]
    expected = {f"{name}.{form}" for name in names for form in ("png", "svg")}
    expected |= {"analysis.json", "layers.csv", ".pmt-output.json"}
    assert {path.name for path in out.iterdir()} == expected
    found = json.loads(record.read_text())
    assert found == json.loads((out / "analysis.json").read_text())
    assert found["schema"] == "pmt.analysis/1" and len(found["repeat"]["rho"]) == 10
    assert found["settings"]["order"] == "skip" and found["settings"]["seed"] == 0
    rows = list(csv.DictReader((out / "layers.csv").read_text().splitlines()))
    for row, layer in zip(rows, found["layers"], strict=True):
        assert float(row["delta_rho"]) == layer["delta_rho"]
        assert float(row["principal.eigenvalue.re"]) == layer["principal"]["eigenvalue"][0]
    # Again into its own folder, to the same files.
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert analyze(TINY, "--tokens", tokens, "--out", out, *options) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_seed_decides_about_random_tokens_and_nulls(tmp_path, capsys):
    records = []
    for seed in (0, 0, 1):
        path = tmp_path / "r.json"
        assert analyze(TINY, "--json", path, "--seed", seed) == 0
        records.append(json.loads(path.read_text()))
    assert records[0] == records[1]
    assert records[0]["settings"]["tokens"] == [100, 10, 24]
    law = records[0]["first_order_law"]
    assert law["layer"] == 1 and law["attention_spread"] > 1e-3
    assert f"the first-order law does not apply: {law['reason']}, and" in capsys.readouterr().out
    assert records[0]["layers"][0]["delta_rho"] != records[2]["layers"][0]["delta_rho"]


def test_a_model_of_the_hub_is_fetched_said_and_then_taken_from_the_cache(
    hub, tokens, tmp_path, capsys
):
    files = {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix != ".npz"}
    old = hub.add("someone/tiny", files, revision="v1")
    hub.add("someone/tiny", files | {"config.json": b"{}"})
    record = tmp_path / "r.json"
    options = ("--tokens", tokens, "--json", record, "--cache-dir", tmp_path / "own cache")
    assert analyze("someone/tiny", "--revision", "v1", *options) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"pmt: fetching someone/tiny at {old[:12]}: model.safetensors (")
    model = json.loads(record.read_text())["model"]
    assert (model["name"], model["revision"]) == ("someone/tiny", old)
    asked = len(hub.requests)
    assert analyze("someone/tiny", "--revision", "v1", "--local-files-only", *options) == 0
    assert capsys.readouterr().err == "" and len(hub.requests) == asked
    assert json.loads(record.read_text())["model"] == model


def test_rotary_positions_that_are_kept_are_recorded_and_shown(tokens, tmp_path, capsys):
    record = tmp_path / "r.json"
    np.save(tokens, np.load(tokens)[..., :12])
    options = ("--rotary", "--tokens", tokens, "--json", record)
    assert analyze(TINY.parent / "llama-plain", *options) == 0
    assert json.loads(record.read_text())["settings"]["rotary"] is True
    assert "stripped mode, with rotary positions, alpha" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TINY, "--steps", 5), "--steps goes with --repeat-layer"),
        ((TINY, "--repeat-layer", 4), "no layer 4; the model has layers 1 to 3"),
        ((TINY, "--repeat-layer", 0), "greater than or equal to 1"),
        ((TINY, "--order", "size"), "'size' is not one of"),
        ((TINY, "--alpha", "nan"), "'nan' is not a finite number"),
        ((TINY, "--alpha", "1e300"), "which float32 cannot hold"),
        ((TINY, "--dtype", "float16"), "'float16' is not one of"),
        (("no/such/model",), "no directory 'no/such/model'"),
        (("someone/model", "--local-files-only", "--cache-dir", "empty"), "the Hub is not asked"),
        ((TINY, "--revision", "main"), "the directory"),
        ((TINY, "--tokens", "nothing.npy"), "cannot read nothing.npy"),
        ((TINY, "--json", "/nowhere/at/all.json"), "cannot write /nowhere/at/all.json"),
        ((), "Missing argument 'MODEL'"),
    ],
)
def test_faults_64_77_84_wrong_requests(arguments, sentence, one_sentence):
    assert analyze(*arguments) == 2
    assert sentence in one_sentence()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[0], "shape (3, 24); expected (prompts, n, d)"),
        (lambda x: x[..., :23], "dimension 23"),
        (lambda x: np.where(x == x[1, 2, 3], np.nan, x), "nan at prompt 1, token 2, entry 3"),
        (lambda x: x * (np.arange(3) != 1)[:, None], "token 1 of prompt 0 is zero"),
        (lambda x: x.astype(str), "must be real numbers"),
    ],
)
def test_faults_46_47_tokens_that_cannot_be_used(tokens, change, sentence, one_sentence):
    np.save(tokens, change(np.load(tokens)))
    assert analyze(TINY, "--tokens", tokens) == 2
    assert sentence in one_sentence()


def test_fault_76_a_folder_with_other_files_is_left_alone(tokens, tmp_path, one_sentence):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "alignment.png").write_text("my own")
    assert analyze(TINY, "--tokens", tokens, "--out", out) == 2
    assert "choose another folder, or give --overwrite" in one_sentence()
    assert [path.name for path in out.iterdir()] == ["alignment.png"]
    assert (out / "alignment.png").read_text() == "my own"


def test_fault_14_truncated_weights(tokens, tmp_path, one_sentence):
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert analyze(copy, "--tokens", tokens) == 2
    assert "is not a valid safetensors file" in one_sentence()


def test_leading_pairs_only_are_written_without_the_means(tokens, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole.json"
    options = ("--tokens", tokens, "--eigen-cache", tmp_path / "cache", "--dtype", "float64")
    assert analyze(TINY, *options, "--leading", 2, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "only the 2 leading eigenpairs of each layer were asked for" in shown
    assert "mean over all directions" not in shown and "  mean  " not in shown
    assert analyze(TINY, *options, "--json", whole) == 0
    assert "mean over all directions" in (shown := capsys.readouterr().out) and "  mean  " in shown
    found, full = (json.loads(path.read_text()) for path in (out / "analysis.json", whole))
    assert found["settings"]["leading"] == 2 and "leading" not in full["settings"]
    for one, other in zip(found["layers"], full["layers"], strict=True):
        assert one["mean_delta_rho"] is None and other["mean_delta_rho"] is not None
        assert len(one["leading"]["residuals"]) in (2, 3)
        assert one["delta_rho"] == pytest.approx(other["delta_rho"], abs=1e-9)
        assert one["null"]["gaussian"]["delta_rho"] == pytest.approx(
            other["null"]["gaussian"]["delta_rho"], abs=1e-9
        )
    rows = list(csv.DictReader((out / "layers.csv").read_text().splitlines()))
    assert rows[0]["mean_delta_rho"] == "" and float(rows[0]["leading.residuals.0"]) < 1e-10


def test_fault_84_leading_with_what_it_contradicts(one_sentence):
    assert analyze(TINY, "--leading", 2, "--repeat-layer", 1) == 2
    assert "--leading and --repeat-layer contradict each other" in one_sentence()
    assert analyze(TINY, "--leading", 0) == 2
    assert "'--leading'" in one_sentence()


def test_a_gpu_that_was_named_solves_and_one_that_is_just_there_does_not(
    tokens, tmp_path, monkeypatch, capsys
):
    """With the CPU in the GPU's place; its answers pass the check of every residual."""
    import jax

    from pmt.cli import analyze as command

    monkeypatch.setattr(command, "start_backend", lambda device, dtype: "gpu")
    monkeypatch.setattr(command, "gpu", lambda: jax.devices("cpu")[0])
    record = tmp_path / "r.json"
    for asked, method in ((("--device", "gpu"), "accelerator"), ((), "lapack")):
        assert analyze(TINY, "--tokens", tokens, "--json", record, *asked) == 0
        found = [layer["principal"] for layer in json.loads(record.read_text())["layers"]]
        assert {each.get("method", "lapack") for each in found} == {method}
        assert all(each.get("fallback") is None and each["residual"] < 1e-12 for each in found)
        assert ("on the accelerator in 3" in capsys.readouterr().out) == bool(asked)

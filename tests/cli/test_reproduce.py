"""`pmt reproduce`: what it writes and shows, and one sentence for every wrong request."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pmt.cli import main
from pmt.errors import RequestError
from pmt.experiments.eigen_cache import Solver, user_cache
from pmt.experiments.items import ITEMS, LOOPED
from pmt.models import from_pretrained, open_layers
from pmt.spectral import layer_matrix

DATA = Path(__file__).parents[1] / "parity" / "data"
TINY = DATA / "bert-tanh"
FAMILIES = ["distilbert-learned", "gpt-neo-untied", "gpt-neox-parallel", "gpt2-unscaled"]
FAMILIES += ["llama-linear", "mistral-window", "qwen2-mixed", "roberta-tied"]


def reproduce(*arguments):
    return main(["reproduce", *map(str, arguments)])


def test_the_list_names_every_item(tmp_path, capsys):
    assert reproduce("--list", "--json", tmp_path / "list.json") == 0
    shown = capsys.readouterr().out
    assert all(item.name in shown and item.title in shown for item in (*ITEMS, *LOOPED))
    rows = json.loads((tmp_path / "list.json").read_text())["list"]
    assert [row["name"] for row in rows] == [item.name for item in (*ITEMS, *LOOPED)]
    assert {row["name"]: row["config"] for row in rows}["figure-2b"]["prompts"] == 100
    options = {row["name"]: set(row["options"]) for row in rows}
    assert options["figure-11"] == {"--model", "--order", "--prompts", "--eigen-cache"}
    assert {"--tokens", "--layer"} < options["figure-2a"] and not options["loop-figure-1"]
    assert "--layer is for figure-2a, figure-6a, figure-6b, figure-6c\n" in shown


def test_every_item_of_a_model_with_shared_weights_into_a_folder(tmp_path, capsys):
    """All of them, small, then again without a solve; one file for every promise."""
    out, record = tmp_path / "Bilder-図", tmp_path / "all.json"
    call = ("--all", "--quick", "--model", DATA / "albert-uneven", "--out", out, "--json", record)
    assert reproduce(*call) == 0
    first = capsys.readouterr()
    assert first.err.startswith("pmt: left out: figure-11 reads text: the checkpoint")
    found = {each["name"]: each for each in json.loads(record.read_text())["items"]}
    items = [item for item in ITEMS if item.needs != "text"]
    assert set(found) == {item.name for item in items} and len(items) == len(ITEMS) - 1
    for item in items:
        folder = out / item.name
        assert json.loads((folder / "result.json").read_text()) == found[item.name]
        tables = [path.read_text().splitlines() for path in folder.glob("*.csv")]
        assert tables and all(len(list(csv.DictReader(lines))) > 0 for lines in tables)
        if item.figure is not None:
            assert (folder / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
            assert b"</svg>" in (folder / "figure.svg").read_bytes()
        assert (folder / "animation.gif").exists() is (item.figure == "sphere_runs")
        assert all(sentence in first.out for sentence in found[item.name]["sentences"])
    # Two of its three layers have the same weights.
    assert found["figure-6a"]["result"]["shared_weights"] is False
    assert "about shared weights, which not all layers of" in first.err
    assert found["figure-2b"]["settings"]["config"]["order"] == "real"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert reproduce(*call) == 0
    assert "(done before)" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert {each["name"]: each for each in json.loads(record.read_text())["items"]} == found
    # Fault 75: another seed is another request.
    assert reproduce("table-1", "--model", TINY, "--out", out) == 2
    assert "holds results for model." in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("name", ["loop-figure-1", "loop-figure-2"])
def test_the_figures_of_the_second_paper(name, tmp_path):
    assert reproduce(name, "--quick", "--out", tmp_path) == 0
    assert (tmp_path / name / "result.json").exists() and (tmp_path / name / "figure.svg").exists()
    found = json.loads((tmp_path / name / "result.json").read_text())["result"]
    rows = list(csv.DictReader((tmp_path / name / "training.csv").read_text().splitlines()))
    own = found if name == "loop-figure-1" else found["norms"]["l2"]
    assert len(rows) == np.size(own["history"]["v"]) * (1 if own is found else len(found["norms"]))
    assert float(rows[1]["test_loss"]) == np.ravel(own["history"]["test_loss"])[1]
    assert "seconds" not in own and len(list((tmp_path / name).glob("*.csv"))) == 3


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_every_item_of_every_family(name, tmp_path):
    assert reproduce("--all", "--quick", "--model", DATA / name, "--out", tmp_path) == 0
    assert len(list(tmp_path.glob("*/result.json"))) == len(ITEMS) - 1


def test_one_layer_of_any_model_is_repeated_and_said_so(tmp_path, capsys):
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(2, 3, 24)))
    call = ("consensus", "--quick", "--model", TINY, "--tokens", tmp_path / "X.npy")
    assert reproduce(*call, "--order", "modulus", "--json", tmp_path / "r.json") == 0
    assert "its last layer, 3, is repeated instead (--layer chooses" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "r.json").read_text())["items"]
    assert found["result"]["layer"] == 3 and found["result"]["order"] == "modulus"
    assert len(found["settings"]["tokens"]) == 64
    assert reproduce(*call, "--layer", 1, "--json", tmp_path / "s.json") == 0
    assert capsys.readouterr().err == ""
    (other,) = json.loads((tmp_path / "s.json").read_text())["items"]
    assert other["result"]["layer"] == 1
    assert other["result"]["intertoken_distance"] != found["result"]["intertoken_distance"]


def test_own_texts_go_through_the_whole_model(tmp_path, monkeypatch):
    """Against NumPy on the model's own hidden states; padding does not count.

    All of them and whole, where of the packaged texts six would be read up to some length.
    """
    monkeypatch.setattr("pmt.experiments.plain_text._LONGEST", 3)
    texts = ["A stitch in time saves nine.", "Yes.", *"abcde"]
    (tmp_path / "p.txt").write_text("\n\n".join(texts) + "\n")
    call = ("figure-10", "--quick", "--model", "minilm", "--prompts", tmp_path / "p.txt")
    assert reproduce(*call, "--json", tmp_path / "r.json") == 0
    (found,) = json.loads((tmp_path / "r.json").read_text())["items"]
    model = from_pretrained("minilm")
    tokens = model.tokenize(texts)
    states = np.asarray(model(tokens).hidden_states, np.float64)
    stack = model.layer_stack()
    assert found["result"]["counted_tokens"] == tokens.present.sum() < tokens.present.size
    assert found["settings"]["mode"] == found["result"]["settings"]["mode"] == "full"
    for index, layer in enumerate(found["result"]["layers"]):
        values, vectors = np.linalg.eig(layer_matrix(stack.layer(index)))
        first = vectors[:, np.argmax(values.real)]
        basis = np.linalg.qr(np.stack([first.real, first.imag], axis=1))[0]
        if not first.imag.any():
            basis = first.real[:, None]
        low, high = (
            np.linalg.norm(x @ basis, axis=-1) / np.linalg.norm(x, axis=-1)
            for x in (states[index][tokens.present], states[index + 1][tokens.present])
        )
        assert abs(layer["rho_after"] - high.mean()) < 1e-5
        assert abs(layer["delta_rho"] - (high - low).mean()) < 1e-5
        assert set(layer["null"]) == {"gaussian", "rotated"}


@pytest.fixture
def spoilt(tmp_path):
    """A checkpoint whose first layer holds a value matrix that is not finite."""
    folder = tmp_path / "spoilt"
    shutil.copytree(TINY, folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = (each for each in weights if each.endswith("layer.0.attention.self.value.weight"))
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, folder / "model.safetensors")
    return folder


def test_an_item_that_fails_is_named_and_leaves_the_others_theirs(spoilt, tmp_path, capsys):
    call = ("table-1", "figure-2a", "figure-6-eigenvalues", "figure-13b", "--quick")
    call = (*call, "--layer", 1, "--model", spoilt, "--json", tmp_path / "r.json")
    assert reproduce(*call) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("pmt: 2 of 4 items failed; figure-2a, figure-6-eigenvalues: the check")
    assert "layer.0.attention.self.value.weight" in line
    found = json.loads((tmp_path / "r.json").read_text())
    assert [each["name"] for each in found["items"]] == ["table-1", "figure-13b"]
    assert [each["name"] for each in found["failed"]] == ["figure-2a", "figure-6-eigenvalues"]
    assert line.endswith(found["failed"][0]["reason"])
    shown = (sentence for each in found["items"] for sentence in each["sentences"])
    assert all(sentence in said.out for sentence in shown)


def test_an_item_that_fails_alone_is_named_and_replaces_no_file(spoilt, tmp_path, one_sentence):
    (tmp_path / "r.json").write_text("of before")
    call = ("figure-6-eigenvalues", "--model", spoilt, "--json", tmp_path / "r.json")
    assert reproduce(*call) == 2
    assert one_sentence().startswith("figure-6-eigenvalues: the checkpoint does not fit")
    assert (tmp_path / "r.json").read_text() == "of before"


@pytest.mark.parametrize(("cause", "status"), [(OSError(5, "failed"), 2), (KeyboardInterrupt(), 3)])
def test_what_no_item_can_help_stops_all_of_them(cause, status, tmp_path, monkeypatch, capsys):
    """A disk in the way, as the reader of a checkpoint reports it, and a request to end."""
    from pmt.experiments import reproduce as runs

    ran = []

    def fails(item, *rest):
        ran.append(item.name)
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        raise RequestError("cannot read the disk") from cause

    monkeypatch.setattr(runs, "run_item", fails)
    assert reproduce("table-1", "figure-13a", "--out", tmp_path / "out") == status
    assert ran == ["table-1"] and "items failed" not in capsys.readouterr().err


def test_what_had_failed_is_named_when_the_rest_is_interrupted(tmp_path, monkeypatch, one_sentence):
    from pmt.experiments import reproduce as runs

    def stops(item, *rest):
        raise RequestError("no") if item.name == "table-1" else KeyboardInterrupt

    monkeypatch.setattr(runs, "run_item", stops)
    assert reproduce("table-1", "figure-13a", "figure-13b", "--out", tmp_path / "out") == 3
    assert one_sentence() == (
        f"interrupted; 0 of 3 items are in {tmp_path / 'out'}, and the same command goes on from "
        "there; 1 of 3 items failed; table-1: no"
    )
    assert reproduce("table-1", "figure-13a") == 3
    assert one_sentence() == "interrupted; 1 of 2 items failed; table-1: no"


def test_quick_that_changes_nothing_is_said(tmp_path, capsys):
    assert reproduce("table-1", "--quick") == 0
    said = "pmt: --quick changes nothing: there is no smaller form of table-1\n"
    assert capsys.readouterr().err == said
    assert reproduce("table-1", "figure-13b", "--quick") == 0
    assert capsys.readouterr().err == ""


def test_a_corrected_command_goes_into_the_folder_of_the_one_that_failed(spoilt, tmp_path):
    call = ("figure-6-eigenvalues", "--out", tmp_path / "out", "--model")
    assert reproduce(*call, spoilt) == 2
    left = [path.name for path in (tmp_path / "out" / "figure-6-eigenvalues").iterdir()]
    assert left == ["request.json"]
    assert reproduce(*call, TINY) == 0
    assert (tmp_path / "out" / "figure-6-eigenvalues" / "result.json").exists()
    assert reproduce(*call, spoilt) == 2
    assert (tmp_path / "out" / "figure-6-eigenvalues" / "result.json").exists()


def test_tokens_are_refused_before_any_folder_is_made(tmp_path, one_sentence):
    tokens = np.random.default_rng(0).normal(size=(2, 3, 24))
    tokens[1, 2, 3] = np.nan
    np.save(tmp_path / "wrong.npy", tokens)
    call = ("figure-6a", "--model", TINY, "--quick", "--out", tmp_path / "out")
    assert reproduce(*call, "--tokens", tmp_path / "wrong.npy") == 2
    assert "the tokens hold nan at prompt 1, token 2, entry 3" in one_sentence()
    assert not (tmp_path / "out").exists()


def test_the_users_cache_serves_every_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    solved, solve = [], Solver.principal
    monkeypatch.setattr(Solver, "principal", lambda *rest: [solved.append(rest), solve(*rest)][1])
    # As `pmt analyze` does, in that order and with that step size.
    with open_layers(TINY) as layers:
        for index in range(layers.depth):
            user_cache().principal(layer_matrix(layers.layer(index)), "real", 1.0)
    call = ("figure-6-eigenvalues", "--model", TINY)
    assert reproduce(*call) == reproduce(*call, "--out", tmp_path / "out") == 0
    assert len(solved) == 3 and not (tmp_path / "out" / "eigen").exists()
    assert reproduce(*call, "--eigen-cache", tmp_path / "own") == 0
    assert len(solved) == 6 and len(list((tmp_path / "own").iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no item was named; name some, or give --all"),
        (("--all", "table-1"), "contradict each other"),
        (("figure-99",), "there is no item 'figure-99'"),
        (("figure-2b",), "figure-2b is about the layers of a model; give --model"),
        (("--all",), "give --model with a name on the Hub"),
        (("figure-6a", "--model", TINY, "--layer", 4), "no layer 4; the model has layers 1 to 3"),
        (("figure-8", "--model", TINY, "--tokens", "nothing.npy"), "cannot read nothing.npy"),
        (("figure-11", "--model", TINY), "figure-11 reads text: the checkpoint"),
        (("figure-11", "--prompts", "nothing.txt"), "cannot read nothing.txt"),
        (("figure-8", "--model", TINY, "--prompts", __file__), "has no tokenizer.json, so it can"),
        (("--all", "--model", TINY, "--prompts", __file__), "figure-11 reads text: the checkpoint"),
        (("leading-eigenvalues", "--prompts", "p"), "can use it; leave it out, or name one that"),
        (("--all", "--prompts", "p", "--tokens", "t"), "--tokens and --prompts contradict each"),
        (("figure-11", "--tokens", "t"), "name one that can: figure-2a, figure-2b, figure-2b-or"),
        (("leading-eigenvalues", "--tokens", "t"), "--tokens was given, and none of the chosen"),
        (("table-1", "--revision", "main"), "--revision goes with --model; give the model too"),
        (("table-1", "--cache-dir", "c"), "--cache-dir goes with --model; give the model too"),
        (("table-1", "--local-files-only"), "--local-files-only goes with --model; give the"),
        (("table-1", "--layer", 7), "name one that can: figure-2a, figure-6a, figure-6b, figure-"),
        (("figure-2b-orders", "--order", "skip"), "--order was given, and none of the chosen"),
        (("figure-13a", "--model", TINY), "--model was given, and none of the chosen items can"),
        (("figure-13a", "--eigen-cache", "c"), "--eigen-cache was given, and none of the chosen"),
        (("--list", "table-1"), "--list and names of items contradict each other"),
        (("--list", "--all", "--model", "xyz"), "--list and --all contradict each other"),
        (("--list", "--seed", 3), "--list and --seed contradict each other"),
        (("--list", "--dtype", "float64"), "--list and --dtype contradict each other"),
        (("figure-8", "--model", "no/such/model"), "no directory 'no/such/model'"),
        (("table-1", "--out", "/dev/null/here"), "there is a file in its way"),
        (("table-1", "--json", "/nowhere/at/all.json"), "cannot write /nowhere/at/all.json"),
    ],
)
def test_faults_77_84_wrong_requests(arguments, sentence, one_sentence):
    assert reproduce(*arguments) == 2
    assert sentence in one_sentence()

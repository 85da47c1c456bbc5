"""`pmt steer`: what it writes and shows, and one sentence for every wrong request."""

import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pmt.cli import main
from pmt.errors import Interrupted

DATA = Path(__file__).parents[1] / "parity" / "data"
TINY, ALBERT = DATA / "bert-tanh", DATA / "albert-groups"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.random.default_rng(0).normal(size=24))
    np.save("X.npy", np.random.default_rng(1).normal(size=(3, 4, 24)))


def steer(*arguments):
    return main(["steer", *map(str, arguments)])


AIM = ("--direction", "w.npy", "--tokens", "X.npy")


def same(one, other):
    return one.keys() == other.keys() and all(one[k].tobytes() == other[k].tobytes() for k in one)


def test_all_of_it_into_a_folder_applied_and_reverted_faults_76_82_83(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("DISPLAY", raising=False)
    out = tmp_path / "gesteuert-図"
    options = (*AIM, "--alignment", 0.8, "--out", out, "--json", "s.json")
    assert steer(TINY, *options) == 0
    shown = capsys.readouterr().out
    assert "0.8000 with the edit (0.8 was asked for)" in shown and "on the side of +w" in shown
    assert "within the stated error of the prediction at 15 of 15 strengths" in shown
    assert "the cost was not measured" in shown
    names = {path.name for path in out.iterdir()} - {".pmt-output.json"}
    assert names == {"delta.safetensors", "model", "steer.json", "steering.png", "steering.svg"}
    found = json.loads(Path("s.json").read_text())
    assert found == json.loads((out / "steer.json").read_text())
    assert found["schema"] == "pmt.steer/1" and found["settings"]["asked"] == {"alignment": 0.8}
    assert abs(found["alignment"]["after"] - 0.8) < 1e-5
    assert (
        found["layers"][2]["steered"]["eigenvalue"] != found["layers"][2]["unedited"]["eigenvalue"]
    )
    # The written model is what the small file makes of the base, and back.
    before = load_file(TINY / "model.safetensors")
    edited = load_file(out / "model" / "model.safetensors")
    assert [name for name in before if before[name].tobytes() != edited[name].tobytes()] == [
        found["delta"]["tensor"]
    ]
    delta = out / "delta.safetensors"
    assert steer(TINY, "--apply", delta, "--out", "applied") == 0
    assert same(load_file("applied/model.safetensors"), edited)
    assert steer("applied", "--revert", delta, "--base", TINY, "--out", "back") == 0
    assert same(load_file("back/model.safetensors"), before)
    capsys.readouterr()
    for arguments, sentence in (
        ((out / "model", "--apply", delta, "--out", "twice"), "it is applied only once"),
        ((TINY, "--revert", delta, "--base", TINY, "--out", "t"), "is the base already"),
        ((ALBERT, "--apply", delta, "--out", "t"), "has no such tensor"),
        ((TINY, "--apply", TINY / "config.json", "--out", "t"), "is not a valid safetensors"),
    ):
        assert steer(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
    assert not Path("twice").exists() and not Path("t").exists()
    # Again into its own folder, to the same files.
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert steer(TINY, *options) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept


def test_a_shared_layer_is_refused_or_untied(one_sentence, capsys):
    aim = ("--direction", "w.npy", "--c", 30, "--no-spectra")
    assert steer(ALBERT, *aim) == 2
    assert "would change layers 6, 8; give --all-layers" in one_sentence()
    np.save("w.npy", np.random.default_rng(0).normal(size=8))
    assert steer(ALBERT, *aim, "--untie-last", "--out", "own", "--delta-only") == 0
    assert {path.name for path in Path("own").iterdir()} >= {"untied", "delta.safetensors"}
    assert not Path("own/model").exists()
    capsys.readouterr()
    assert steer("own/untied", "--apply", "own/delta.safetensors", "--out", "new") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TINY, "--c", 3), "none of --toward, --direction, --difference, --eigenvector was given"),
        ((TINY, *AIM), "none of --strength, --c, --alignment was given"),
        ((TINY, *AIM, "--c", 3, "--strength", 2), "--strength and --c contradict each other"),
        ((TINY, *AIM, "--toward", "sea", "--c", 3), "--toward and --direction contradict"),
        ((TINY, *AIM, "--c", "nan"), "'nan' is not a finite number"),
        ((TINY, *AIM, "--alignment", 1), "is not below 1"),
        ((TINY, *AIM, "--c", "1e39"), "which float32 cannot hold; give a smaller one"),
        ((TINY, *AIM, "--c", 3, "--layer", 4), "no layer 4; the model has layers 1 to 3"),
        ((TINY, *AIM, "--c", 3, "--read", "left"), "'left' is not one of"),
        ((TINY, *AIM, "--c", 3, "--mode", "full"), "--tokens are for stripped mode"),
        ((TINY, "--direction", "w.npy", "--c", 3, "--mode", "full"), "give texts"),
        ((TINY, *AIM, "--c", 3, "--precompensate"), "choose full mode too"),
        ((TINY, *AIM, "--c", 3, "--untie-last"), "give --out"),
        ((TINY, *AIM, "--c", 3, "--read", "fit", "--read-file", "w.npy"), "contradict each other"),
        ((TINY, *AIM, "--c", 3, "--delta-only"), "give --out"),
        ((TINY, *AIM, "--c", 3, "--base", TINY), "--base goes with --revert"),
        ((TINY, *AIM, "--c", 3, "--all-layers", "--untie-last"), "contradict each other"),
        ((TINY, "--toward", "sea", "--c", 3), "has no tokenizer.json"),
        ((TINY, "--direction", "none.npy", "--c", 3), "cannot read none.npy"),
        ((TINY, "--direction", "X.npy", "--c", 3), "has shape (3, 4, 24)"),
        ((TINY, "--eigenvector", 25, "--c", 3), "no eigenvector 25; layer 3 has 1 to 24"),
        ((TINY, "--apply", "d", "--revert", "d"), "--apply and --revert contradict"),
        ((TINY, "--apply", "d"), "give --out DIR"),
        ((TINY, "--revert", "d", "--out", "x"), "--revert needs --base"),
        ((TINY, "--apply", "none", "--out", "x"), "cannot read none"),
        ((TINY, "--apply", "d", "--out", "x", "--c", 5, "--layer", 2), "leave out --c, --layer"),
        ((TINY, "--apply", "d", "--out", "x", "--json", "j"), "leave out --json"),
        (
            (TINY, "--revert", "d", "--base", TINY, "--out", "x", "--mode", "full", "--delta-only"),
            "leave out --mode, --delta-only",
        ),
        ((TINY, *AIM, "--c", 3, "--out", "/proc/none"), "cannot write to the folder /proc/none"),
        ((TINY, *AIM, "--c", 3, "--json", "/nowhere/at/all.json"), "cannot write"),
    ],
)
def test_faults_61_62_77_84_wrong_requests(arguments, sentence, one_sentence):
    assert steer(*arguments) == 2
    assert sentence in one_sentence()


def test_fault_76_a_folder_with_other_files_is_left_alone(one_sentence):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("my own")
    assert steer(TINY, *AIM, "--c", 3, "--out", "mine") == 2
    assert "choose another folder, or give --overwrite" in one_sentence()
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


QUICK = (TINY, *AIM, "--c", 3, "--no-spectra")


def test_fault_73_a_full_disk_leaves_nothing_half_written(monkeypatch, one_sentence):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pmt.checkpoints.write._Shards.write", full)
    assert steer(*QUICK, "--out", "out") == 2
    assert "No space left on device" in one_sentence()
    assert [path.name for path in Path("out").iterdir()] == [".pmt-output.json"]


def test_fault_74_an_interrupt_leaves_nothing_half_written(monkeypatch, one_sentence):
    monkeypatch.setattr("pmt.figures.save", _stopped)
    assert steer(*QUICK, "--out", "out", "--delta-only") == 3
    assert "stopped by SIGTERM" in one_sentence()
    # A folder without steer.json is not complete, and what is in it is whole.
    assert {path.name for path in Path("out").iterdir()} == {
        ".pmt-output.json",
        "delta.safetensors",
    }


def test_a_second_edit_in_one_folder_leaves_nothing_of_the_first(monkeypatch, one_sentence, capsys):
    assert steer(*QUICK, "--out", "out") == 0
    kept = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    other = (TINY, *AIM, "--c", 50, "--no-spectra", "--out", "out")
    capsys.readouterr()
    assert steer(*other, "--delta-only") == 2
    assert "--delta-only would leave it beside another edit" in one_sentence()
    assert {p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()} == kept
    with monkeypatch.context() as patch:
        patch.setattr("pmt.figures.save", _stopped)
        assert steer(*other) == 3
    # The first one's numbers would be taken for those of the second one's model.
    names = {path.name for path in Path("out").iterdir()}
    assert names == {".pmt-output.json", "delta.safetensors", "model"}
    assert steer(*other, "--delta-only", "--overwrite") == 0
    assert not Path("out/model").exists()
    assert json.loads(Path("out/steer.json").read_text())["settings"]["asked"] == {"c": 50.0}


def _stopped(*_, **__):
    raise Interrupted("stopped by SIGTERM; no file was left half-written")


def test_what_the_screen_says_of_signs_and_of_the_condition(capsys):
    """Nothing is promised that the measured numbers of the same line deny."""
    said = {}
    for name, options in {
        "none": ("--c", 0),
        "weak": ("--c", 1.5),
        "strong": ("--c", 1e4),
        "fit": ("--c", 1e4, "--read", "fit"),
    }.items():
        assert steer(TINY, *AIM, "--no-spectra", *options) == 0
        said[name] = " ".join(capsys.readouterr().out.split())
    assert "with c = 0 nothing is turned" in said["none"]
    assert "c is too small for the first order in 1/c" in said["weak"]
    assert "c |κ| is not above |y| the edit does not decide it" in said["weak"]
    assert "an eigenvector of F' is at tan" in said["strong"]
    # What is to be done about signs that differ is said whatever the strength.
    assert "--read fit looks for the read vector" in said["strong"]
    assert "does not decide it; --read fit looks for the read vector" in said["weak"]
    assert "--read fit" not in said["fit"]


def test_the_principal_direction_is_named_as_it_is(capsys):
    """Where the first order says nothing the direction may be near the target all the same."""
    assert steer(TINY, *AIM, "--c", 7, "--json", "s.json") == 0
    shown = " ".join(capsys.readouterr().out.split())
    found = json.loads(Path("s.json").read_text())
    assert found["edit"]["tilt"] > 0.3 and "c is too small for the first order" in shown
    last = found["layers"][-1]
    assert (
        f"the layer's principal line has |cos| = {last['steered']['cosine']:.4f} with the target "
        f"(without the edit {last['unedited']['cosine']:.4f})"
    ) in shown
    assert last["steered"]["cosine"] > 0.9


def test_layers_that_share_the_edited_weights_are_named(capsys):
    np.save("w.npy", np.random.default_rng(0).normal(size=8))
    aim = ("--direction", "w.npy", "--c", 30, "--no-spectra", "--layer", 6)
    assert steer(ALBERT, *aim, "--all-layers", "--json", "s.json") == 0
    found = json.loads(Path("s.json").read_text())["layers"][-1]["steered"]["target"]["rho_after"]
    shown = " ".join(capsys.readouterr().out.split())
    assert f"after the last layer the alignment is {found:.4f}" in shown


def test_fault_81_a_closed_reader_comes_after_the_files(monkeypatch):
    class Closed:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

        def isatty(self):
            return False

        def fileno(self):
            return 1

    monkeypatch.setattr(sys, "stdout", Closed())
    assert steer(*QUICK, "--read-file", "w.npy", "--json", "s.json") == 3
    found = json.loads(Path("s.json").read_text())
    assert found["schema"] == "pmt.steer/1" and found["settings"]["read"] == "given"


def test_an_alignment_that_is_missed_is_a_no(monkeypatch, capsys):
    """In float16 storage a small edit drowns; here the measurement is moved instead."""
    from dataclasses import replace

    from pmt.experiments import steer as experiment

    real = experiment.steer
    monkeypatch.setattr(experiment, "steer", lambda *a, **k: replace(real(*a, **k), after=0.7))
    assert steer(TINY, *AIM, "--alignment", 0.8, "--no-spectra") == 1
    assert "0.7000 with the edit (0.8 was asked for, and was missed)" in capsys.readouterr().out

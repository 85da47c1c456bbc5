"""`pmt analyze` on several hosts, and stopped: the numbers of one run that nothing happened to."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pmt.cli import analyze as command
from pmt.cli import main
from pmt.files import write_json
from tests.cli.two_processes import start_processes, stopped_after

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "parity" / "data"
TINY = DATA / "bert-tanh"


@pytest.fixture
def request_of_all(tmp_path):
    """A command whose result is known in a moment."""
    path = tmp_path / "X.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 3, 24)))
    return ["analyze", str(TINY), "--tokens", str(path)]


def test_a_stopped_run_goes_on_to_the_same_result(request_of_all, tmp_path, capsys, monkeypatch):
    """Faults 74, 75 and 76."""
    # Without its figures.
    monkeypatch.setattr(
        command, "_write", lambda folder, *rest: write_json(folder / "analysis.json", rest[-1])
    )
    whole, again, out = tmp_path / "whole.json", tmp_path / "again.json", tmp_path / "out"
    assert main([*request_of_all, "--json", str(whole)]) == 0
    resumed = [*request_of_all, "--out", str(out), "--json", str(again)]
    capsys.readouterr()
    with stopped_after(2) as before:
        assert main(resumed) == 3
    assert f"what was finished is kept in {out}" in capsys.readouterr().err
    assert [unit.last for _, unit in before] == [1, 2] and not again.exists()
    for other, words in (
        (["--seed", "6"], "config.seed = 0 and not 6"),
        (["--dtype", "float64"], 'dtype = "float32" and not "float64"'),
    ):
        assert main([*resumed, *other]) == 2
        assert f"unfinished run with {words}" in capsys.readouterr().err
    with stopped_after(None) as after:
        assert main(resumed) == 0
    assert [unit.last for _, unit in after] == [3] and again.read_bytes() == whole.read_bytes()
    assert not (out / "unfinished").exists()
    assert (out / "analysis.json").read_bytes() == whole.read_bytes()


def test_of_a_wrong_request_nothing_is_kept(tmp_path, one_sentence):
    """Other tokens may follow, without --overwrite."""
    out, path = tmp_path / "out", tmp_path / "X.npy"
    np.save(path, np.full((1, 1, 24), np.nan))
    assert main(["analyze", str(TINY), "--tokens", str(path), "--out", str(out)]) == 2
    assert "every entry must be finite" in one_sentence()
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--process-id", "0"], "--process-id is for several hosts, and --coordinator is missing"),
        (["--host-timeout", "1"], "greater than or equal to 2"),
    ],
)
def test_places_that_make_no_sense_are_refused(options, words, request_of_all, one_sentence):
    """Fault 84."""
    assert main([*request_of_all, *options]) == 2
    assert words in one_sentence()


@pytest.mark.long
def test_two_processes_give_the_numbers_of_one_and_the_first_writes_them(request_of_all, tmp_path):
    """Fault 80; what is not divided, a layer again and again, process 0 does."""
    asked = [*request_of_all, "--repeat-layer", "2", "--steps", "3"]
    processes = start_processes(asked, tmp_path)
    assert main([*asked, "--json", str(tmp_path / "one.json")]) == 0
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    words = re.fullmatch(
        r"process 1 of 2 is done after (\d) units? of work; process 0 has the result\n", said[1][0]
    )
    assert words and int(words[1]) <= 3 and said[1][1] == ""
    assert "layer 2 repeated 3 times" in said[0][0] and said[0][1] == ""
    assert not (tmp_path / "1.json").exists() and not (tmp_path / "out1").exists()
    assert (tmp_path / "out0" / "alignment.png").exists()
    assert not (tmp_path / "out0" / "unfinished").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "asked",
    [
        ["minilm", "--mode", "full"],
        [str(DATA / "albert-groups"), "--dtype", "float64"],
        ["minilm", "--leading", "2", "--order", "modulus"],
        # Twenty chunks of prompts, and 23 MB of states; those of full mode have two.
        [str(TINY), "--tokens", "X.npy"],
    ],
)
def test_two_processes_and_eight_devices_give_the_file_of_one(asked, tmp_path):
    """Fault 80."""
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(10000, 8, 24)))
    asked = ["analyze", *(str(tmp_path / each) if each == "X.npy" else each for each in asked)]
    processes = start_processes(asked, tmp_path)
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for devices in (1, 8):
        flags = os.environ.get("XLA_FLAGS", "")
        subprocess.run(
            [sys.executable, "-m", "pmt", *asked, "--json", str(tmp_path / f"{devices}.json")],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
            },
            stdout=subprocess.DEVNULL,
            timeout=600,
            check=True,
        )
        assert (tmp_path / f"{devices}.json").read_bytes() == (tmp_path / "0.json").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_is_killed_the_other_ends_and_the_run_is_resumed(tmp_path, victim):
    """Fault 79."""
    asked = ["analyze", "minilm", "--dtype", "float64"]
    processes = start_processes(asked, tmp_path, timeout=5)
    unfinished = tmp_path / "out0" / "unfinished"
    deadline = time.monotonic() + 200
    while not list(unfinished.glob("*.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = time.monotonic()
    processes[victim].send_signal(signal.SIGKILL)
    _, complaint = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode == 3
    assert time.monotonic() - killed < 5 + 15
    assert len(complaint.splitlines()) == 1
    assert "has died, or was not heard of for 5 s" in complaint or "cannot be reached" in complaint
    processes[victim].communicate(timeout=60)
    assert list(unfinished.glob("*.npz"))
    again = start_processes(asked, tmp_path)
    said = [process.communicate(timeout=600) for process in again]
    assert [process.returncode for process in again] == [0, 0], said
    assert main([*asked, "--json", str(tmp_path / "one.json")]) == 0
    one, two = (
        json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("one.json", "0.json")
    )
    assert two == one

"""`pmt basin` on several hosts, and resumed: the numbers of one run that nothing happened to."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from pmt.cli import main
from pmt.parallel.units import split_units
from tests.cli.two_processes import start_processes, stopped_after

ROOT = Path(__file__).parents[2]
# Units of 64 runs; those left over make units of 16.
SMALL = ["basin", "--value", "diag:1,-0.5", "--query-key", "diag:2,0", "--alpha", "0.2"]
SMALL += ["--tokens", "2", "--max-steps", "512", "--chunk", "32", "--seed", "5"]

# For two processes: so many that none is done before the other has begun.
UNITS_OF_TWO = 200

SUPERVISED = """
import os, signal, sys, time
from pmt.cli import exits
from pmt.cli.hosts import finished, supervised
from pmt.parallel.hosts import Hosts
def action(arguments, call):
    ended = supervised(7)
    if ended is not None:
        return ended
    {child}
sys.exit(exits.guarded(action, []))
"""


def supervise(child, **options):
    code = SUPERVISED.format(child=child)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )


@pytest.mark.parametrize(
    ("child", "status", "words"),
    [
        ("return 1", 1, ""),
        ("raise exits.RequestError('too wide')", 2, "pmt: too wide"),
        (
            "os.write(2, b'CoordinationService'); os.abort()",
            3,
            "has died, or was not heard of",
        ),
        ("os.write(2, b'RPC: /RegisterTask'); os.abort()", 3, "not all processes of the run came"),
        ("os.write(2, b'Failed to add port to'); os.abort()", 2, "cannot open the port"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, "was ended by SIGKILL"),
        # What is finished stays so, whatever the runtime does when it is left.
        ("finished(Hosts(1, 2, None), 1); os.write(2, b'CoordinationService'); os.abort()", 1, ""),
    ],
)
def test_the_parent_says_why_the_child_ended(child, status, words):
    """Fault 79."""
    process = supervise(child)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == status
    lines = complaint.splitlines()
    assert len(lines) == bool(words) and all(words in line for line in lines)


def test_a_request_to_end_is_handed_on_and_a_killed_parent_takes_the_child_with_it():
    """Fault 74."""
    waiting = "print(os.getpid(), flush=True); time.sleep(60)"
    process = supervise(waiting)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 3
    assert complaint == "pmt: stopped by SIGTERM; no file was left half-written\n"
    process = supervise(waiting)
    child = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)
    # Gone, or about to be taken away by whoever takes orphans.
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").split()[2]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--process-id", "0"], "--process-id is for several hosts, and --coordinator is missing"),
        (["--num-processes", "2"], "--num-processes is for several hosts"),
        (["--host-timeout", "1"], "greater than or equal to 2"),
    ],
)
def test_places_that_make_no_sense_are_refused(options, words, one_sentence):
    """Fault 84."""
    assert main([*SMALL, *options]) == 2
    assert words in one_sentence()


def test_an_interrupted_run_is_resumed_to_the_same_result(tmp_path, capsys):
    """Faults 74, 75 and 76."""
    run = [*SMALL, "--samples", "600"]
    whole, again, out = tmp_path / "whole.json", tmp_path / "again.json", tmp_path / "out"
    assert main([*run, "--json", str(whole)]) == 0
    resumed = [*run, "--out", str(out), "--json", str(again)]
    capsys.readouterr()
    with stopped_after(4) as before:
        assert main(resumed) == 3
    assert f"what was finished is kept in {out}" in capsys.readouterr().err
    assert not again.exists()
    assert main([*resumed, "--seed", "6"]) == 2
    assert "unfinished run with seed = 5 and not 6" in capsys.readouterr().err
    with jax.threefry_partitionable(False):
        assert main(resumed) == 2
    assert "threefry_partitionable = true and not false" in capsys.readouterr().err
    with stopped_after(None) as after:
        assert main(resumed) == 0
    assert again.read_bytes() == whole.read_bytes()
    units = [("runs", unit) for unit in split_units(0, 600, 64)]
    # The runs left over by the units come last.
    assert before == units[:4] and after[:6] == units[4:]
    assert after[6:] and {name for name, _ in after[6:]} == {"rest"}
    # Nothing is left that another request would have to overwrite.
    assert sorted(path.name for path in out.iterdir()) == [
        ".pmt-output.json", "fractions.png", "fractions.svg", "result.json",
    ]  # fmt: skip
    assert (out / "result.json").read_bytes() == whole.read_bytes()


def test_two_processes_give_the_numbers_of_one_and_the_first_writes_them(tmp_path):
    """Fault 80."""
    samples = ["--samples", str(64 * UNITS_OF_TWO)]
    processes = start_processes([*SMALL, *samples], tmp_path)
    assert main([*SMALL, *samples, "--json", str(tmp_path / "one.json")]) == 0
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    words = re.fullmatch(
        r"process 1 of 2 is done after (\d+) units? of work; process 0 has the result\n", said[1][0]
    )
    assert words and said[1][1] == ""
    # Both have run some, and process 0 the rest of at least so many.
    assert 0 < int(words[1]) < UNITS_OF_TWO
    assert "consensus at +v1" in said[0][0] and said[0][1] == ""
    assert not (tmp_path / "1.json").exists() and not (tmp_path / "out1").exists()
    assert (tmp_path / "out0" / "fractions.png").exists()


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_is_killed_the_other_ends_and_the_run_is_resumed(tmp_path, victim):
    """Fault 79."""
    samples = ["--samples", "20000"]
    processes = start_processes([*SMALL, *samples], tmp_path, timeout=5)
    unfinished = tmp_path / "out0" / "unfinished"
    deadline = time.monotonic() + 120
    while len(list(unfinished.glob("*.npz"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed = time.monotonic()
    processes[victim].kill()
    _, complaint = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode == 3
    assert time.monotonic() - killed < 5 + 15
    assert len(complaint.splitlines()) == 1
    assert "has died, or was not heard of for 5 s" in complaint or "cannot be reached" in complaint
    processes[victim].communicate(timeout=60)
    kept = {path.name for path in unfinished.glob("*.npz")}
    assert len(kept) >= 3
    again = start_processes([*SMALL, *samples], tmp_path)
    said = [process.communicate(timeout=300) for process in again]
    assert [process.returncode for process in again] == [0, 0], said
    assert main([*SMALL, *samples, "--json", str(tmp_path / "one.json")]) == 0
    one, two = (
        json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("one.json", "0.json")
    )
    assert two == one


@pytest.mark.long
def test_a_result_is_not_lost_with_a_process_that_dies_at_the_end(tmp_path):
    """Fault 79."""
    processes = start_processes([*SMALL, "--samples", "1300"], tmp_path, timeout=5)
    deadline = time.monotonic() + 120
    # Written once the total is there; process 1 waits for the rest then.
    while not (tmp_path / "out0" / "fractions.png").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes[1].kill()
    said, complaint = processes[0].communicate(timeout=60)
    processes[1].communicate(timeout=60)
    assert processes[0].returncode == 0 and complaint == "", complaint
    assert "consensus at +v1" in said
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "out0/result.json").read_bytes()

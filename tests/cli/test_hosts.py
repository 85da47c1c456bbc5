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
from pmt.cli.hosts import Place
from pmt.errors import RequestError
from pmt.parallel import hosts as hosts_module
from pmt.parallel.hosts import Hosts
from pmt.parallel.units import split_units
from tests.cli.two_processes import free_port, start_processes, stopped_after
from tests.parallel.tools import Keys

ROOT = Path(__file__).parents[2]
# Units of 64 runs; those left over make units of 16.
SMALL = ["basin", "--value", "diag:1,-0.5", "--query-key", "diag:2,0", "--alpha", "0.2"]
SMALL += ["--tokens", "2", "--max-steps", "512", "--chunk", "32", "--seed", "5"]

# For two processes: so many that none is done before the other has begun.
UNITS_OF_TWO = 200

SUPERVISED = """
import os, signal, sys, time
from pmt.cli import exits, hosts
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
        # What was found to be wrong stays so, whoever goes away first; so does a killed finder's.
        ("hosts._note_refusal('θ'); os.write(2, b'CoordinationService'); os.abort()", 2, "pmt: θ"),
        ("hosts._note_refusal('wrong'); os.kill(os.getpid(), signal.SIGKILL)", 2, "pmt: wrong"),
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


@pytest.mark.parametrize("found", [0, 1])
def test_the_parent_is_told_at_once_what_is_wrong(found, monkeypatch, capfd):
    """While the other devices finish their units, process 0 may go away, and then this one dies."""
    keys = Keys()
    monkeypatch.setattr(hosts_module, "join_hosts", lambda *_place, **_times: Hosts(1, 2, keys))
    monkeypatch.setattr(hosts_module, "_LEAVE", 0)
    Hosts(found, 2, keys).stop(RequestError("θ is\nwrong"))
    with (
        pytest.raises(RequestError, match="^θ is$"),
        Place("here:1234", 2, 1, 60).joined() as hosts,
    ):
        try:
            hosts.wait_for_writing(lambda _done: None)
        finally:
            assert capfd.readouterr().err == '\npmt was asked for what it cannot do: "\\u03b8 is"\n'


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


@pytest.mark.parametrize("finder", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_mistake_that_one_process_finds_is_said_by_both(tmp_path, finder):
    """Status 2 and one sentence, also where the other one is about to need process 0."""
    if finder == 0:
        (tmp_path / "out0").mkdir()
        (tmp_path / "out0" / "thesis.tex").write_text("mine", encoding="utf-8")
    other = finder * ["--tokens", "3"]
    processes = start_processes([*SMALL, "--samples", "640"], tmp_path, other=other)
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    words = "did not write" if finder == 0 else "process 1 was given another command"
    assert said[0][1] == said[1][1] and words in said[0][1]
    assert len(said[0][1].splitlines()) == 1


# Process 0 finds it while the other one is in a long unit; or that one does, and is killed at once.
RACE = """
import os, signal, sys, time
import numpy as np
from pmt.cli import exits
from pmt.cli.hosts import Place, supervised
from pmt.errors import RequestError
from pmt.parallel.units import Unit
finder, index, port = map(int, sys.argv[1:])
def work(_shared, unit, report):
    if index != finder:
        time.sleep(60 if finder == 0 else 1)
        return {"x": np.zeros(1)}
    time.sleep(3)
    if finder == 1:
        group.stop(RequestError("token 3 cancels"))
        os.kill(os.getpid(), signal.SIGKILL)
    raise RequestError("token 3 cancels")
def action(arguments, call):
    global group
    if (ended := supervised(5)) is not None:
        return ended
    with Place(f"127.0.0.1:{port}", 2, index, 5).joined() as group:
        from pmt.parallel.workers import Workers
        units = [Unit(0, 1), Unit(1, 2)]
        Workers(hosts=group).reduce("a", work, None, units, lambda a, b: a, lambda done: None)
    return 0
sys.exit(exits.guarded(action, []))
"""


@pytest.mark.long
@pytest.mark.parametrize("finder", [0, 1])
def test_a_mistake_is_said_by_both_whichever_of_them_is_gone_first(finder):
    """Fault 79: the runtime aborts whoever is left, and the parent knows better than it."""
    command = [sys.executable, "-c", RACE, str(finder)]
    port, began = str(free_port()), time.monotonic()
    both = [
        subprocess.Popen([*command, str(index), port], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    assert said == 2 * ["pmt: token 3 cancels\n"]
    # Not after the long unit: process 0 waits for 20 s at most.
    assert time.monotonic() - began < 50


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


DIAGONAL = "--value diag:1,-0.5,0.2 --query-key diag:2,0,0 --alpha 0.2 --tokens 2"
SPHERE = ["basin", *DIAGONAL.split(), "--max-steps", "512", "--samples", "64", "--map", "100"]
MAP = ["basin-map", *SMALL[1:7], "--tokens", "2", "--max-steps", "512", "--over", "slice"]
MAP += ["--resolution", "100", "--tolerance", "1e-4"]
PHASE = ["phase", "--split", "1,1", "--others", "none", "--theta", "0.5:3:6", "--ratio", "0:0.9:3"]
PHASE += ["--samples", "32", "--max-steps", "512"]
RADIUS = [*SMALL, "--samples", "1280", "--lost", "consensus", "--directions", "300"]


@pytest.mark.parametrize("asked", [PHASE, pytest.param(MAP, marks=pytest.mark.long)])
def test_a_stopped_map_or_diagram_is_gone_on_with(tmp_path, capsys, asked):
    """Faults 74 to 76; and a request that is wrong leaves nothing in the way of a right one."""
    whole, again, out = tmp_path / "whole.json", tmp_path / "again.json", tmp_path / "out"
    assert main([*asked, "--json", str(whole)]) == 0
    wrong = [*asked, "--ratio", "0:2:3"] if asked is PHASE else [*asked, "--first", str(tmp_path)]
    assert main([*wrong, "--out", str(out)]) == 2
    resumed = [*asked, "--out", str(out), "--json", str(again)]
    with stopped_after(1):
        assert main(resumed) == 3
    assert f"what was finished is kept in {out}" in capsys.readouterr().err
    assert main([*resumed, "--max-steps", "256"]) == 2
    assert "unfinished run with max_steps = 512 and not 256" in capsys.readouterr().err
    with stopped_after(None) as after:
        assert main(resumed) == 0
    assert after and again.read_bytes() == whole.read_bytes()
    assert not (out / "unfinished").exists()


@pytest.mark.long
@pytest.mark.parametrize("asked", [PHASE, MAP, RADIUS, SPHERE])
def test_two_processes_divide_maps_radii_and_diagrams(tmp_path, asked):
    """Fault 80."""
    processes = start_processes(asked, tmp_path)
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert main([*asked, "--json", str(tmp_path / "one.json")]) == 0
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert re.match(r"process 1 of 2 is done after \d+ units? of work; ", said[1][0])
    assert said[0][1] == said[1][1] == "" and not (tmp_path / "1.json").exists()
    assert list((tmp_path / "out0").glob("*.png")) and not (tmp_path / "out1").exists()
    assert not (tmp_path / "out0" / "unfinished").exists()

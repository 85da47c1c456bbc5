"""Signals in the middle of a write (fault 74): one sentence, status 3, all of a file or none."""

import random
import signal
import time

import pytest

from tests.cli.conftest import shell, start


def begin(target):
    process = start("slow", target)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_request_to_end_leaves_the_old_file_and_nothing_else(tmp_path, name, existed):
    target = tmp_path / "result.json"
    if existed:
        target.write_text("old", encoding="utf-8")
    process = begin(target)
    process.send_signal(getattr(signal, name))
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 3
    stopped = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert complaint == f"pmt: {stopped}; no file was left half-written\n"
    assert [path.name for path in tmp_path.iterdir()] == (["result.json"] if existed else [])
    assert not existed or target.read_text(encoding="utf-8") == "old"


def test_being_killed_leaves_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old", encoding="utf-8")
    process = begin(target)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert target.read_text(encoding="utf-8") == "old"
    # What could not be cleaned up is plainly no result.
    others = [path.name for path in tmp_path.iterdir() if path != target]
    assert all(name.startswith(".pmt-tmp-") for name in others)


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path):
    target = tmp_path / "x"
    done = shell(
        f"trap '' HUP; $PMT slow '{target}' --seconds 1 --no-ready & sleep 0.7;"
        "kill -HUP $!; wait $!; echo status $?"
    )
    assert done.stdout == "status 0\n"
    assert target.read_bytes() == b"first half, second half"


@pytest.mark.long
def test_killed_at_any_moment_a_file_is_whole(tmp_path):
    generator = random.Random(0)
    target = tmp_path / "result.json"
    for _ in range(40):
        process = start("slow", target, "--seconds", "0.05", "--no-ready")
        time.sleep(generator.uniform(0.0, 0.5))
        process.kill()
        process.communicate(timeout=30)
        if target.exists():
            assert target.read_bytes() == b"first half, second half"
    assert target.exists()

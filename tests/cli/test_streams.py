"""Standard output that is closed, full or no longer read (fault 81), and non-ASCII (fault 83)."""

import pytest

from tests.cli.conftest import shell


@pytest.mark.parametrize("command", ["chatter", "table"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_it_quietly(command, unbuffered):
    done = shell(
        f"$PMT {command} | head -1; echo status ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered
    )
    assert done.stdout == "line 0\nstatus 3\n"
    assert done.stderr == ""


def test_a_reader_that_never_reads_at_all():
    done = shell("$PMT --help | true; echo status ${PIPESTATUS[0]}")
    assert done.stdout in ("status 0\n", "status 3\n")
    assert done.stderr == ""


def test_closed_output_is_nowhere_and_not_in_the_next_file(tmp_path):
    target = tmp_path / "größe.txt"
    done = shell(f"$PMT echo héllo --out '{target}' >&-; echo status $?")
    assert done.stdout == "status 0\n"
    assert done.stderr == ""
    assert target.read_text(encoding="utf-8") == "héllo"


def test_all_streams_closed(tmp_path):
    target = tmp_path / "x.txt"
    done = shell(f"$PMT echo text --out '{target}' <&- >&- 2>&-; echo status $?")
    assert done.stdout == "status 0\n"
    assert target.read_text(encoding="utf-8") == "text"


def test_closed_standard_error_leaves_the_status():
    done = shell("$PMT nonsense 2>&-; echo status $?")
    assert done.stdout == "status 2\n"


@pytest.mark.parametrize("command", ["chatter", "--help", "--version"])
def test_a_full_disk_behind_standard_output(command):
    done = shell(f"$PMT {command} > /dev/full; echo status $?")
    assert done.stdout == "status 2\n"
    assert done.stderr == (
        "pmt: cannot go on: No space left on device; free some space and run it again\n"
    )


def test_an_ascii_terminal_gets_all_of_its_output(tmp_path):
    done = shell(
        f"$PMT echo é --out '{tmp_path}/x'; echo status $?", LC_ALL="C", PYTHONIOENCODING="ascii"
    )
    assert done.stdout == "on the screen: \\xe9\nalso on the screen\nstatus 0\n"

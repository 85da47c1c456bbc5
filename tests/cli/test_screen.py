"""Progress is for people: shown on a terminal, silent elsewhere; results are complete in a pipe."""

import os
import pty
import re
import subprocess
import sys

from rich.table import Table

from pmt.cli.screen import progress, show

WORK = """
from pmt.cli.screen import progress
with progress("instances", total=3) as advance:
    for _ in range(3):
        advance(1)
"""


def test_progress_is_silent_where_nobody_watches(capsys):
    with progress("instances", total=3) as advance:
        advance(3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_is_shown_on_a_terminal_and_not_on_standard_output():
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "instances" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "3/3" in plain and "left 0:00:00" in plain
    assert done.stdout == b""


def test_a_table_is_not_cut_in_a_pipe(capsys):
    table = Table("id", "text", box=None)
    table.add_row("[1, 2]", "x" * 500)
    show("interval [0, 1]", table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "interval [0, 1]"
    assert lines[-1].split() == ["[1,", "2]", "x" * 500]

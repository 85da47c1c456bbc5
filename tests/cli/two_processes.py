"""A command in two processes on this machine, or stopped after some finished units."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pmt.parallel.store import UnitStore

ROOT = Path(__file__).parents[2]


def free_port():
    """A port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_processes(asked, folder, timeout=60, other=()):
    """The command as process 0 and as process 1, each with a file and a folder of its own.

    ``other``: what process 1 is given beside.
    """
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    place += ["--host-timeout", str(timeout)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "pmt", *asked, *place, "--process-id", str(index)]
            + ["--json", str(folder / f"{index}.json"), "--out", str(folder / f"out{index}")]
            + index * list(other),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for index in range(2)
    ]


@contextmanager
def stopped_after(units):
    """Interrupts the run once so many units have been kept; yields the units that were run."""
    put, kept = UnitStore.put, []

    def counted(self, name, unit, payload):
        put(self, name, unit, payload)
        kept.append((name.split("-")[0], unit))
        if len(kept) == units:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnitStore, "put", counted)
        yield kept

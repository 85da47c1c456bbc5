"""Every way a command can end has one exit status and at most one sentence."""

import errno
import os
from pathlib import Path

import pytest
import typer

from pmt.cli import app, main
from pmt.errors import IncompleteError, Interrupted, RequestError


def raising(error):
    def probe():
        """Fail."""
        raise error

    return probe


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1), (True, 1), (False, 0)])
def test_what_a_command_returns_is_its_status(pmt_with, capsys, result, status):
    def probe():
        """Return."""
        return result

    assert pmt_with(probe)() == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_command_may_also_end_by_exit(pmt_with, capsys, status):
    assert pmt_with(raising(typer.Exit(status)))() == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (RequestError("alpha is nan"), 2, "alpha is nan"),
        (
            typer.BadParameter("no such thing."),
            2,
            "Invalid value: no such thing (see 'pmt probe --help')",
        ),
        (IncompleteError("3 of 5 done; repeat to go on"), 3, "3 of 5 done; repeat to go on"),
        (Interrupted("stopped; repeat to go on"), 3, "stopped; repeat to go on"),
        (KeyboardInterrupt(), 3, "interrupted; no file was left half-written"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "größe.npy"),
            2,
            "cannot use größe.npy: No such file or directory",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            2,
            "cannot use out: Permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a.json"),
            2,
            "cannot use out/a.json: No space left on device; free some space and run it again",
        ),
        (OSError(errno.EMFILE, "Too many open files"), 2, "cannot go on: Too many open files"),
        (MemoryError(), 2, "this needs more memory than there is; ask for less"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_one_sentence(pmt_with, one_sentence, error, status, sentence):
    assert pmt_with(raising(error))() == status
    assert one_sentence() == sentence


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (ValueError("two\nlines"), "ValueError: two"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (OSError("of some library"), "OSError: of some library"),
    ],
)
def test_a_fault_of_ours_is_called_one(pmt_with, one_sentence, error, summary):
    assert pmt_with(raising(error))() == 70
    assert one_sentence() == (
        f"a fault in pmt ({summary}); please report it with what PMT_DEBUG=1 shows"
    )


@pytest.mark.parametrize("error", [ValueError("inside"), RequestError("inside")])
def test_the_traceback_is_shown_on_demand_only(pmt_with, capsys, monkeypatch, error):
    probe = raising(error)
    pmt_with(probe)()
    assert "Traceback" not in capsys.readouterr().err
    main(["--debug", "probe"])
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PMT_DEBUG", "1")
    main(["probe"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verfy"], "No such command 'verfy'. Did you mean 'verify'? (see 'pmt --help')"),
        (["--nonsense"], "No such option: --nonsense (see 'pmt --help')"),
    ],
)
def test_a_wrong_call_says_where_help_is(one_sentence, arguments, sentence):
    assert main(arguments) == 2
    assert one_sentence() == sentence


def test_a_wrong_option_of_a_command_points_to_its_own_help(pmt_with, one_sentence):
    def probe(steps: int = 1):
        """Take steps."""

    assert pmt_with(probe)("--steps", "many") == 2
    assert one_sentence().endswith("(see 'pmt probe --help')")


def test_without_a_command_the_help_is_shown_and_the_status_says_so(capsys):
    assert main([]) == 2
    assert "verify" in capsys.readouterr().out


def test_the_version(capsys):
    import pmt

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pmt {pmt.__version__}\n"


def test_signal_handlers_are_put_back(pmt_with):
    import signal

    seen = []

    def probe():
        """Look."""
        seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    pmt_with(probe)()
    assert callable(seen[0])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_real_missing_file_is_named(pmt_with, one_sentence, tmp_path):
    missing = tmp_path / "näher" / "x.npy"

    def probe():
        """Open it."""
        os.open(missing, os.O_RDONLY)

    assert pmt_with(probe)() == 2
    assert one_sentence() == f"cannot use {missing}: No such file or directory"


def test_fault_78_a_device_without_memory_says_what_to_reduce(monkeypatch, tmp_path, one_sentence):
    """Whatever compiled call runs out of it, and whichever command called that."""
    import jax

    def full(*_given, **_options):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 16106127360 bytes."
        )

    data = Path(__file__).parents[1] / "parity" / "data" / "bert-tanh"
    record = tmp_path / "r.json"
    calls = {
        "pmt.dynamics.simulate": ("simulate", "--value", "diag:1,0.5", "--steps", "3"),
        "pmt.stability.basin.basin_fractions": ("basin", "--value", "diag:1,0.5"),
        "pmt.experiments.stripped.simulate": ("analyze", str(data)),
        "theory.verify.verify": ("verify", "--instances", "8"),
        "pmt.looped.training._sets": ("loop", "train", "--quick"),
    }
    for target, call in calls.items():
        monkeypatch.setattr(target, full)
        assert main([*call, "--json", str(record)]) == 3
        monkeypatch.undo()
        sentence = one_sentence()
        smaller = next(entry.smaller for entry in app.COMMANDS if entry.name == call[0])
        assert sentence.startswith(f"the device has not enough memory for this; reduce {smaller},")
        assert list(tmp_path.iterdir()) == []

"""The README is a promise: its examples run and print what it says."""

import doctest
from pathlib import Path

import jax

README = Path(__file__).parents[2] / "README.md"


def test_examples_run_as_printed():
    # As a user has it: float32 by default, the example asks for float64 itself.
    jax.config.update("jax_enable_x64", False)
    found = doctest.testfile(str(README), module_relative=False, optionflags=doctest.FAIL_FAST)
    assert found.attempted >= 8
    assert found.failed == 0


def test_commands_it_names_exist():
    from pmt.cli.app import COMMANDS

    text = README.read_text(encoding="utf-8")
    names = {row if isinstance(row, str) else row.name for row in COMMANDS}
    assert {f"`pmt {name}" for name in names if f"`pmt {name}" not in text} == set()

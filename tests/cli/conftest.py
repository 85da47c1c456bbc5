"""Running `pmt` with a subcommand made for the test, in this process or in one of its own."""

import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from pmt.cli import app, main

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "parity" / "data" / "bert-tanh"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A user's cache of eigenproblems that is not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "user-cache"))


@pytest.fixture
def pmt_with(monkeypatch):
    """`pmt_with(function)(*arguments)` runs `pmt probe arguments` and returns its exit status."""

    def register(function):
        module = types.ModuleType("tests.cli.made_for_this_test")
        module.probe = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = app.Entry("probe", module.__name__, "Only here.")
        monkeypatch.setattr(app, "COMMANDS", (entry,))
        return lambda *arguments: main(["probe", *arguments])

    return register


@pytest.fixture
def readable(tmp_path):
    """A tiny model with a tokenizer of whole words, whose first is added to every text."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    words = {word: index for index, word in enumerate(["[U]", "[C]", "a", "b", "c"])}
    fast = Tokenizer(models.WordLevel(words, unk_token="[U]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.add_special_tokens(["[C]"])
    fast.post_processor = TemplateProcessing(single="[C] $A", special_tokens=[("[C]", 1)])
    fast.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "Sätze.txt"
    path.write_bytes("\ufeffa b c a\n\n  c b \nb\n".encode())
    return path


@pytest.fixture
def one_sentence(capsys):
    """What is on standard error, which must be one line of `pmt: ...`."""

    def read():
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("pmt: ")
        return lines[0].removeprefix("pmt: ")

    return read


def shell(script, **settings):
    """Run a line of shell in which $PMT is the command line with the probes."""
    return subprocess.run(
        ["bash", "-c", script],
        env={"PMT": f"{sys.executable} -m tests.cli.probes", **settings},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def start(*arguments, **options):
    """Start the command line with the probes and return the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.probes", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )

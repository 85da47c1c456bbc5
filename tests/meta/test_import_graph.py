"""A room imports only from rooms below it: the house as it is, and houses with one fault each."""

from pathlib import Path

import pytest

from tests.meta.import_graph import GROUND, ROOMS, imports, violations

ROOT = Path(__file__).parents[2]


def test_no_room_imports_what_it_may_not():
    assert violations(ROOT) == []


def test_the_walk_sees_the_tree():
    files = [path for package in ("pmt", "theory") for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 20
    targets = {each.target for each in imports(ROOT / "pmt/files.py", "pmt.files")}
    assert {"json", "pmt.errors.RequestError"} <= targets


def house(root, files):
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return violations(root)


ALLOWED = {
    "pmt/__init__.py": "from pmt import report",
    "pmt/errors.py": "",
    "pmt/sphere.py": "import jax\nfrom pmt.errors import RequestError",
    "pmt/dynamics/__init__.py": "from pmt.dynamics.systems import Oja",
    "pmt/dynamics/systems.py": "from .. import sphere\nfrom . import run\nimport pmt.attention",
    "pmt/figures/style.py": "import matplotlib.pyplot as plt\nfrom pmt import __version__, models",
    "pmt/cli/app.py": "import typer\ndef f():\n    import jax, theory.oja\n    import pmt.models",
    "pmt/__main__.py": "from pmt.cli import main",
    "theory/oja.py": "from theory.statement import S\nfrom pmt import steering, looped",
}


def test_what_is_allowed_is_not_reported(tmp_path):
    assert house(tmp_path, ALLOWED) == []


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("pmt/sphere.py", "from pmt.dynamics import Oja", "sphere may not import dynamics"),
        ("pmt/sphere.py", "from pmt import dynamics", "sphere may not import dynamics"),
        ("pmt/dynamics/a.py", "from ..stability import x", "dynamics may not import stability"),
        ("pmt/dynamics/a.py", "def f():\n    import pmt.cli", "dynamics may not import cli"),
        ("pmt/errors.py", "import pmt.sphere", "errors may not import sphere"),
        ("pmt/sphere.py", "from pmt import Oja", "no room"),
        ("pmt/sphere.py", "import pmt", "no room"),
        ("pmt/attic.py", "import json", "attic is no room"),
        ("pmt/models/bert.py", "import transformers", "nobody imports transformers"),
        ("pmt/models/bert.py", "def f():\n    import torch.nn", "nobody imports torch"),
        ("pmt/report/page.py", "import matplotlib.pyplot", "only figures may import matplotlib"),
        ("pmt/report/page.py", "from theory import registry", "only cli may import theory"),
        ("theory/oja.py", "from matplotlib import pyplot", "only figures may import matplotlib"),
        ("theory/oja.py", "from pmt.models import bert", "theory may not import models"),
        ("theory/oja.py", "from pmt import experiments", "theory may not import experiments"),
        ("theory/oja.py", "import pmt.cli.app", "theory may not import cli"),
        ("theory/oja.py", "from pmt.checkpoints import read", "theory may not import checkpoints"),
        ("theory/oja.py", "import hypothesis", "nobody imports hypothesis"),
        ("pmt/cli/verify.py", "import numpy as np", "too heavy"),
        ("pmt/cli/verify.py", "from theory import registry", "too heavy"),
        (
            "pmt/cli/verify.py",
            "try:\n    from pmt import dynamics\nfinally:\n    pass",
            "too heavy",
        ),
    ],
)
def test_each_fault_is_caught(tmp_path, name, source, reason):
    found = house(tmp_path, {**ALLOWED, name: source})
    assert len(found) == 1
    assert found[0].startswith(name)
    assert reason in found[0]


def test_every_room_of_the_tree_is_in_the_order():
    there = {
        path.stem for path in (ROOT / "pmt").iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert there - {"__init__", "__main__", "__pycache__"} <= {*ROOMS, *GROUND}

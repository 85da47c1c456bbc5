"""Checkpoints to break: a tiny real one, written again with one thing changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

DATA = Path(__file__).parents[1] / "parity" / "data"


class Tiny:
    """A copy of a tiny checkpoint whose config and tensors can be changed."""

    def __init__(self, folder: Path, name: str) -> None:
        shutil.copytree(DATA / name, folder)
        self.folder = folder
        self.expected = np.load(folder / "expected.npz")

    def config(self, **changes):
        path = self.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def without(self, *names):
        path = self.folder / "config.json"
        raw = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in raw.items() if k not in names}))

    def tensors(self, change):
        path = self.folder / "model.safetensors"
        loaded = load_file(path)
        path.unlink()
        save_file({k: np.ascontiguousarray(v) for k, v in change(loaded).items()}, path)


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path / "tiny", "bert-tanh")

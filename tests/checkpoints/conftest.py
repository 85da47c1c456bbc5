"""Checkpoints to be found, and a Hub to find them on."""

import json

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from tests.checkpoints import fake_hub

CONFIG = b'{"model_type": "bert"}'
SHARDS = {
    "model-00001-of-00002.safetensors": {"a": np.arange(3.0), "b": np.ones((2, 2))},
    "model-00002-of-00002.safetensors": {"c": np.zeros(4, np.float32)},
}


def index_of(shards):
    weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    return {"metadata": {"total_size": 72}, "weight_map": weight_map}


@pytest.fixture
def directory(tmp_path):
    """A checkpoint in one file."""
    (tmp_path / "config.json").write_bytes(CONFIG)
    save_file({"a": np.arange(3.0)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    """A checkpoint in two files."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    for shard, tensors in SHARDS.items():
        save_file(tensors, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_of(SHARDS)))
    return folder


@pytest.fixture
def files():
    """What a repository on the Hub holds of a checkpoint, and much that is not needed."""
    return {
        "config.json": CONFIG,
        "model.safetensors": save({"a": np.arange(300.0)}),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"model_max_length": 512}',
        "vocab.txt": b"a",
        "README.md": b"#",
        "pytorch_model.bin": b"pickle",
        "tf_model.h5": b"hdf5",
        "modeling_own.py": b"raise SystemExit",
        "onnx/model.onnx": b"onnx",
    }


@pytest.fixture
def sharded_files():
    return {
        "config.json": CONFIG,
        "model.safetensors.index.json": json.dumps(index_of(SHARDS)).encode(),
        "model-00003-of-00003.safetensors": save({"stale": np.zeros(1)}),
    } | {shard: save(tensors) for shard, tensors in SHARDS.items()}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, cache):
    """A Hub that is empty, and the library pointed at it and at an empty cache."""
    import huggingface_hub
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with fake_hub.serve() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()

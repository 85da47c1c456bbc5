"""Names on the Hub become files of one commit in the cache; only what is needed is fetched."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from pmt.checkpoints import locate
from pmt.checkpoints.hub import in_units, is_hub_name

NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_only_the_needed_files_are_fetched_and_all_of_one_commit(hub, cache, files):
    commit = hub.add("owner/tiny", files)
    found = locate("owner/tiny")
    assert found.revision == commit
    assert found.directory == cache / "models--owner--tiny" / "snapshots" / commit
    assert names_in(found.directory) == NEEDED == set(hub.fetched())
    assert found.sha256 == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert found.tokenizer_file == found.directory / "tokenizer.json"
    assert found.config() == {"model_type": "bert"}
    with found.open() as weights:
        np.testing.assert_array_equal(weights.read("a"), np.arange(300.0))
    # One question for the commit, and every file by that commit.
    resolved = {path.split("/")[3] for _, path in hub.requests if "/resolve/" in path}
    assert resolved == {commit}


def test_fault_31_code_of_a_repository_is_not_even_fetched(hub, files):
    config = b'{"model_type": "own", "auto_map": {"AutoModel": "modeling_own.Own"}}'
    hub.add("owner/code", files | {"config.json": config})
    found = locate("owner/code")
    assert not list(found.directory.glob("*.py"))
    assert found.config()["auto_map"] == {"AutoModel": "modeling_own.Own"}


def test_vocabularies_are_fetched_where_there_is_no_tokenizer_json(hub, files):
    words = {"vocab.txt": b"[PAD]\n", "vocab.json": b"{}", "merges.txt": b""}
    hub.add("owner/both", files | words)
    assert names_in(locate("owner/both").directory) == NEEDED
    hub.add("owner/old", {n: c for n, c in files.items() if n != "tokenizer.json"} | words)
    assert names_in(locate("owner/old").directory) == (NEEDED - {"tokenizer.json"}) | set(words)


def test_a_name_without_an_owner(hub, files):
    commit = hub.add("tiny", files)
    assert locate("tiny").revision == commit


def test_the_user_is_told_before_anything_is_fetched(hub, files):
    commit = hub.add("owner/tiny", files)
    told = []

    def notify(sentence):
        told.append((sentence, list(hub.fetched())))

    locate("owner/tiny", notify=notify)
    size = in_units(len(files["model.safetensors"]))
    assert told == [
        (
            f"fetching owner/tiny at {commit[:12]}: model.safetensors ({size}), "
            "config.json (22 B), tokenizer.json (2 B), tokenizer_config.json (25 B), "
            f"{in_units(sum(len(files[name]) for name in NEEDED))} together",
            [],
        )
    ]


def test_what_is_in_the_cache_is_not_fetched_again(hub, files):
    hub.add("owner/tiny", files)
    locate("owner/tiny")
    told, before = [], len(hub.fetched())
    locate("owner/tiny", notify=told.append)
    assert (told, len(hub.fetched())) == ([], before)

    # A new commit with other weights: what it shares with the old one is in the cache.
    changed = files | {"model.safetensors": save({"a": np.zeros(1)})}
    commit = hub.add("owner/tiny", changed)
    found = locate("owner/tiny", notify=told.append)
    assert found.revision == commit
    assert hub.fetched()[before:] == ["model.safetensors"]
    assert told == [
        f"fetching owner/tiny at {commit[:12]}: model.safetensors "
        f"({len(changed['model.safetensors'])} B); already in the cache: config.json, "
        "tokenizer.json, tokenizer_config.json"
    ]


@pytest.mark.parametrize("given", ["v1", "refs/pr/1", "the commit", "its beginning"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, files, given):
    old = hub.add("owner/tiny", files, revision="refs/pr/1" if given == "refs/pr/1" else "v1")
    hub.add("owner/tiny", files | {"config.json": b"{}"})
    revision = {"the commit": old, "its beginning": old[:8]}.get(given, given)
    assert locate("owner/tiny", revision=revision).revision == old
    # The revision was noted, so that it can be found without asking.
    assert locate("owner/tiny", revision=revision, local_files_only=True).revision == old


def test_shards_are_fetched_as_the_index_names_them(hub, sharded_files):
    """Fault 20: a stale extra shard is not even fetched."""
    commit = hub.add("owner/big", sharded_files)
    told = []
    found = locate("owner/big", notify=told.append)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert [path.name for path in found.weights] == shards
    assert hub.fetched() == ["model.safetensors.index.json", *shards, "config.json"]
    assert told[0].startswith(f"fetching owner/big at {commit[:12]}: model.safetensors.index.json")
    assert [shard in told[1] for shard in shards] == [True, True]
    assert found.tokenizer_file is None


def test_fault_21_both_a_single_file_and_shards_on_the_hub(hub, files, sharded_files):
    hub.add("owner/both", files | sharded_files)
    found = locate("owner/both")
    assert names_in(found.directory) == NEEDED


def test_a_private_model_with_its_token(hub, files):
    hub.add("owner/private", files, token="hf_right")
    assert locate("owner/private", token="hf_right").name == "owner/private"


def test_offline_with_a_complete_cache_asks_no_one(hub, files, sharded_files, monkeypatch):
    commits = {name: hub.add(name, held) for name, held in (("a", files), ("b", sharded_files))}
    for name in commits:
        locate(name)
    hub.requests.clear()
    for name, commit in commits.items():
        assert locate(name, local_files_only=True).revision == commit
        assert locate(name, local_files_only=True, revision=commit).revision == commit
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate("a").revision == commits["a"]
    assert hub.requests == []


def test_what_another_program_fetched_is_found_offline(hub, files):
    """As transformers fetches: by the branch, and no more than it needs."""
    from huggingface_hub import hf_hub_download

    commit = hub.add("owner/tiny", files)
    for name in ("config.json", "model.safetensors"):
        hf_hub_download("owner/tiny", name)
    found = locate("owner/tiny", local_files_only=True)
    assert (found.revision, found.tokenizer_file) == (commit, None)


@pytest.mark.parametrize("answer", [None, (503, b"")], ids=["no network", "server error"])
def test_without_the_hub_a_complete_cache_serves_and_says_so(hub, files, monkeypatch, answer):
    commit = hub.add("owner/tiny", files)
    locate("owner/tiny")
    if answer is None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub.answer = answer
    told = []
    assert locate("owner/tiny", notify=told.append).revision == commit
    assert len(told) == 1
    assert "cannot be reached" in told[0]
    assert f"using what the cache has of owner/tiny, {commit[:12]}" in told[0]


def test_fault_29_a_relative_cache_directory(hub, files, tmp_path, monkeypatch):
    hub.add("owner/tiny", files)
    monkeypatch.chdir(tmp_path)
    found = locate("owner/tiny", cache_dir="here/../models")
    assert found.directory.is_relative_to(tmp_path / "models")
    assert found.directory.is_absolute()
    monkeypatch.chdir("/")
    assert found.config() == {"model_type": "bert"}
    assert len(found.sha256) == 64


def test_fault_83_a_cache_with_a_non_ascii_name(hub, files, tmp_path):
    hub.add("owner/tiny", files)
    found = locate("owner/tiny", cache_dir=tmp_path / "重み é")
    assert found.config() == {"model_type": "bert"}


def test_fault_28_a_read_only_cache_that_is_complete_serves(hub, files, cache, monkeypatch):
    commit = hub.add("owner/tiny", files)
    locate("owner/tiny")
    # A tag that the cache has not noted yet.
    hub.repos["owner/tiny"].refs["v1"] = commit

    def refuse(*arguments, **settings):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pmt.checkpoints.hub.write_atomically", refuse)
    monkeypatch.setattr("os.makedirs", refuse)
    assert locate("owner/tiny", revision="v1").revision == commit


# The environment as the library reads it, which is once a process, and after ours was imported.
READS_ENVIRONMENT = """
import os, sys
import pmt.checkpoints
assert "huggingface_hub" not in sys.modules
os.environ.update({settings!r})
print(pmt.checkpoints.locate("owner/tiny").directory)
"""


def run(settings, cache):
    return subprocess.Popen(
        [sys.executable, "-c", READS_ENVIRONMENT.format(settings=settings)],
        env={**os.environ, "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return Path(out.strip())


def test_the_environment_is_read_at_the_first_call(hub, files, tmp_path):
    commit = hub.add("owner/tiny", files)
    home = tmp_path / "home"
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home)}
    expected = home / "hub" / "models--owner--tiny" / "snapshots" / commit
    assert result(run(settings, tmp_path)) == expected
    hub.requests.clear()
    assert result(run({**settings, "HF_HUB_OFFLINE": "1"}, tmp_path)) == expected
    assert hub.requests == []


def test_fault_30_two_processes_fetch_at_once(hub, files, tmp_path):
    commit = hub.add("owner/tiny", files)
    hub.delay, hub.together = 0.1, threading.Barrier(2)
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "shared")}
    folders = [result(each) for each in [run(settings, tmp_path) for _ in range(2)]]
    assert folders[0] == folders[1]
    assert folders[0].name == commit
    assert {path.name: path.read_bytes() for path in folders[0].iterdir()} == {
        name: files[name] for name in NEEDED
    }
    assert [path for path in (tmp_path / "shared").rglob("*.incomplete")] == []


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (684, "684 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (47_372_894, "47.4 MB"),
        (5_000_000_000, "5.0 GB"),
        (10**13, "10.0 TB"),
        (None, "size unknown"),
    ],
)
def test_sizes_as_people_read_them(size, text):
    assert in_units(size) == text


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("gpt2", True),
        ("EleutherAI/gpt-neo-1.3B", True),
        ("a/b/c", False),
        ("./a", False),
        ("/a", False),
        ("a--b", False),
        ("a..b", False),
        ("-a", False),
        ("a.git", False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("a" * 97, False),
    ],
)
def test_what_can_be_a_name_on_the_hub(name, valid):
    assert is_hub_name(name) == valid

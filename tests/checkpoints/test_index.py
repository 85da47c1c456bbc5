"""Checkpoints in several files: the index is checked, and nothing outside is opened."""

import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from pmt.checkpoints import locate
from pmt.checkpoints.index import is_plain_name
from pmt.errors import RequestError
from tests.checkpoints.conftest import SHARDS, index_of

FIRST, SECOND = SHARDS
INDEX = "model.safetensors.index.json"


def rewrite(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def refused(folder):
    with pytest.raises(RequestError) as caught:
        locate(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_tensors_of_all_files(sharded):
    found = locate(sharded)
    assert found.weights == (sharded / FIRST, sharded / SECOND)
    with found.open() as weights:
        assert set(weights.entries) == {"a", "b", "c"}
        for tensors in SHARDS.values():
            for name, array in tensors.items():
                np.testing.assert_array_equal(weights.read(name), array)


def test_the_hash_of_several_files(sharded):
    lines = [
        f"{hashlib.sha256((sharded / name).read_bytes()).hexdigest()}  {name}\n" for name in SHARDS
    ]
    expected = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert locate(sharded).sha256 == expected
    # A swap of the files' contents is another checkpoint.
    (sharded / FIRST).rename(sharded / "aside")
    (sharded / SECOND).rename(sharded / FIRST)
    (sharded / "aside").rename(sharded / SECOND)
    rewrite(sharded, {"a": SECOND, "b": SECOND, "c": FIRST})
    assert locate(sharded).sha256 != expected


def test_fault_18_missing_shards_are_all_named(sharded):
    for name in SHARDS:
        (sharded / name).unlink()
    assert f"lacks files that its {INDEX} names: {FIRST}, {SECOND}; fetch" in refused(sharded)


def test_fault_19_a_tensor_that_is_not_in_its_shard(sharded):
    rewrite(sharded, index_of(SHARDS)["weight_map"] | {"d": FIRST})
    assert f"'d' is not in {FIRST}" in refused(sharded)


def test_fault_19_a_tensor_that_is_in_another_shard(sharded):
    rewrite(sharded, {"a": FIRST, "b": SECOND, "c": SECOND})
    sentence = refused(sharded)
    assert f"'b' is not in {SECOND}" in sentence
    assert f"'b' is in {FIRST}, where the index has it in {SECOND}" in sentence


def test_fault_19_a_tensor_that_the_index_does_not_name(sharded):
    rewrite(sharded, {"a": FIRST, "c": SECOND})
    assert f"'b' is in {FIRST}, where the index does not have it" in refused(sharded)


def test_fault_19_many_tensors_are_counted(sharded):
    rewrite(sharded, index_of(SHARDS)["weight_map"] | {f"x{i}": FIRST for i in range(100)})
    sentence = refused(sharded)
    assert "and 95 more" in sentence
    assert len(sentence) < 600


def test_fault_20_a_stale_extra_shard_is_left_alone(sharded):
    stale = sharded / "model-00003-of-00003.safetensors"
    save_file({"a": np.zeros(1), "stale": np.zeros(1)}, stale)
    found = locate(sharded)
    assert stale not in found.weights
    with found.open() as weights:
        np.testing.assert_array_equal(weights.read("a"), SHARDS[FIRST]["a"])


def test_fault_21_both_a_single_file_and_shards(sharded):
    """The single file is taken, as transformers does."""
    save_file({"single": np.zeros(1)}, sharded / "model.safetensors")
    found = locate(sharded)
    assert found.weights == (sharded / "model.safetensors",)
    with found.open() as weights:
        assert set(weights.entries) == {"single"}


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "..safetensors",
        ".safetensors",
        "model\n.safetensors",
        "model\x00.safetensors",
        "model\u202e.safetensors",
        "a" * 250 + ".safetensors",
        "model.bin",
        "model.safetensors.bin",
        "..",
        "",
    ],
)
def test_fault_22_a_name_that_is_not_plain(sharded, name):
    assert not is_plain_name(name)
    rewrite(sharded, {"a": name})
    assert "only plain names that end in .safetensors" in refused(sharded)


@pytest.mark.parametrize("name", [FIRST, "a.safetensors", "Gewichte-重み é.safetensors"])
def test_fault_83_other_names_are_plain(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", [FIRST, "config.json", "model.safetensors", INDEX, "tokenizer.json"]
)
def test_fault_23_a_link_that_leaves_the_directory(sharded, tmp_path, name):
    target = tmp_path / "elsewhere"
    original = sharded / name
    if original.exists():
        original.rename(target)
    else:
        target.write_text("{}")
    original.symlink_to(target)
    sentence = refused(sharded)
    assert f"{original} is a link to {target}, outside the checkpoint's directory" in sentence
    assert "copy the file into the directory" in sentence


def test_fault_23_a_link_within_the_directory_and_a_linked_directory(sharded, tmp_path):
    (sharded / FIRST).rename(sharded / "data")
    (sharded / FIRST).symlink_to("data")
    linked = tmp_path / "linked"
    linked.symlink_to(sharded)
    with locate(linked).open() as weights:
        np.testing.assert_array_equal(weights.read("a"), SHARDS[FIRST]["a"])


def test_fault_23_a_circle_of_links(sharded):
    (sharded / FIRST).unlink()
    (sharded / FIRST).symlink_to(FIRST)
    assert f"cannot read {sharded / FIRST}" in refused(sharded)


def test_fault_23_a_link_that_points_nowhere_is_a_missing_file(sharded):
    (sharded / FIRST).unlink()
    (sharded / FIRST).symlink_to("nowhere")
    assert f"names: {FIRST}; fetch" in refused(sharded)


def as_snapshot(sharded, tmp_path, blobs):
    """The files as the Hub's cache has them: links from a snapshot to blobs."""
    snapshot = tmp_path / "hub" / "models--owner--tiny" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "hub" / blobs
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(sharded.iterdir())):
        blob = blobs / f"{number:02}{'ab' * 31}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_fault_23_the_links_of_the_hubs_cache_are_followed(sharded, tmp_path):
    snapshot = as_snapshot(sharded, tmp_path, "models--owner--tiny/blobs")
    assert locate(snapshot).weights == (snapshot / FIRST, snapshot / SECOND)


@pytest.mark.parametrize(
    "blobs", ["models--owner--other/blobs", "blobs", "blobs/ab", "models--owner--tiny/blobs/sub"]
)
def test_fault_23_links_to_other_places_of_the_cache_are_not(sharded, tmp_path, blobs):
    assert "outside the checkpoint's directory" in refused(as_snapshot(sharded, tmp_path, blobs))


def test_fault_23_blobs_that_the_cache_shares_between_repositories(sharded, tmp_path):
    """CACHE/blobs/<two digits>/<hash>, to which the blobs of a repository may be links."""
    snapshot = as_snapshot(sharded, tmp_path, "models--owner--tiny/blobs")
    for blob in (tmp_path / "hub" / "models--owner--tiny" / "blobs").iterdir():
        shared = tmp_path / "hub" / "blobs" / blob.name[:2] / blob.name
        shared.parent.mkdir(parents=True)
        blob.rename(shared)
        blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert len(locate(snapshot).weights) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a valid index"),
        (b"\xff{}", "not a valid index"),
        (b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' is there twice"),
        (b'{"weight_map": {"a": NaN}}', "holds NaN"),
        (b'{"weight_map": {"a": "\\ud800.safetensors"}}', "half a pair of surrogates"),
        (b"[" * 10**5, "nested too deeply"),
        (b"[]", "has no weight_map"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map": {}}', "has no weight_map"),
        (b'{"weight_map": ["a"]}', "has no weight_map"),
        (b'{"weight_map": {"a": 1}}', "names no file for the tensor 'a'"),
    ],
    ids=[
        "empty",
        "utf-8",
        "twice",
        "nan",
        "surrogate",
        "deep",
        "list",
        "none",
        "no tensors",
        "array",
        "number",
    ],
)
def test_an_index_that_is_none(sharded, content, reason):
    (sharded / INDEX).write_bytes(content)
    assert reason in refused(sharded)


def test_an_index_that_is_too_large(sharded, monkeypatch):
    monkeypatch.setattr("pmt.checkpoints.index._LARGEST_INDEX", 100)
    assert "more than 100 bytes" in refused(sharded)


def test_a_shard_that_is_broken(sharded):
    """Fault 14: the sentence names the file."""
    content = (sharded / SECOND).read_bytes()
    (sharded / SECOND).write_bytes(content[:-1])
    assert f"{sharded / SECOND} is not a valid safetensors file" in refused(sharded)

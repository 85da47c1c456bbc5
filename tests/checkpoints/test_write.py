"""Directories that transformers loads, written as a whole or not at all."""

import contextlib
import json
import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save

from pmt.checkpoints import locate, write_checkpoint
from pmt.errors import RequestError
from pmt.files import held_folder

CONFIG = {"model_type": "bert", "hidden_size": 4, "nested": {"a": [1, 2.5, None, True]}}
INDEX = "model.safetensors.index.json"
MARKER = ".pmt-output.json"


def arrays():
    rng = np.random.default_rng(0)
    return {
        "flags": np.array([True, False, True]),
        "embedding": rng.normal(size=(5, 4)).astype(np.float32),
        "scalar": np.array(2.5),
        "ids": np.arange(3),
        "bf16": rng.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
        "half": rng.normal(size=7).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "ключ 重み": np.arange(4, dtype=np.uint8),
    }


def contents(folder):
    """Every file below the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check(found, expected):
    with found.open() as weights:
        assert set(weights.entries) == set(expected)
        for name, array in expected.items():
            read = weights.read(name)
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert read.tobytes() == array.tobytes()


def refused(directory, **changes):
    """The one sentence that a call ends in; nothing was written anywhere."""
    settings = {"config": CONFIG, "tensors": arrays()} | changes
    before = contents(directory.parent)
    with pytest.raises(RequestError) as caught:
        write_checkpoint(directory, **settings)
    assert contents(directory.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["mapping", "functions", "pairs"])
def test_what_is_written_is_read(tmp_path, form):
    given = {
        "mapping": arrays(),
        "functions": {name: lambda array=array: array for name, array in arrays().items()},
        "pairs": iter(arrays().items()),
    }[form]
    folder = write_checkpoint(tmp_path / "new", config=CONFIG, tensors=given)
    assert folder == tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", MARKER}
    found = locate(folder)
    assert found.config() == CONFIG
    check(found, arrays())


def test_the_formats_own_library_reads_it(tmp_path):
    tensors = arrays()
    del tensors["bf16"]
    file = write_checkpoint(tmp_path / "new", config={}, tensors=tensors) / "model.safetensors"
    read = load_file(file)
    assert read.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_bfloat16_as_the_library_has_it(tmp_path):
    """Byte for byte what safetensors' own `save` makes of the same numbers."""
    array = np.arange(-3, 3).astype(ml_dtypes.bfloat16)
    content = save({"a": array}, {"format": "pt"})
    folder = write_checkpoint(tmp_path / "new", config={}, tensors={"a": array})
    written = (folder / "model.safetensors").read_bytes()
    data = dict(safetensors.deserialize(written))["a"]
    assert (data["dtype"], bytes(data["data"])) == ("BF16", array.tobytes())
    assert written == content


def test_every_tensor_is_aligned(tmp_path):
    """Torch refuses a view of bytes that does not begin at a multiple of its width."""
    folder = write_checkpoint(tmp_path / "new", config={}, tensors=arrays())
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert length % 8 == 0
    for name, fields in header.items():
        assert fields["data_offsets"][0] % arrays()[name].dtype.itemsize == 0


def test_arrays_in_any_memory_order(tmp_path):
    plain = np.arange(12.0).reshape(3, 4)
    given = {
        "transposed": plain.T,
        "strided": plain[::2, ::-1],
        "big-endian": plain.astype(">f8"),
        "fortran": np.asfortranarray(plain),
    }
    found = locate(write_checkpoint(tmp_path / "new", config={}, tensors=given))
    with found.open() as weights:
        for name, array in given.items():
            np.testing.assert_array_equal(weights.read(name), array)


def test_several_files_with_their_index(tmp_path):
    tensors = {f"layer.{i}": np.full(10, i, np.float32) for i in range(5)}
    folder = write_checkpoint(tmp_path / "new", config={}, tensors=tensors, max_shard_bytes=80)
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", INDEX, MARKER, *shards}
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"] == {"total_size": 200}
    assert index["weight_map"] == {f"layer.{i}": shards[i // 2] for i in range(5)}
    found = locate(folder)
    assert [path.name for path in found.weights] == shards
    check(found, tensors)
    # A tensor that is larger than the limit has a file to itself.
    large = {"a": np.zeros(1), "b": np.zeros(100), "c": np.zeros(1)}
    found = locate(
        write_checkpoint(tmp_path / "large", config={}, tensors=large, max_shard_bytes=16)
    )
    assert len(found.weights) == 3
    check(found, large)
    # Exactly the limit is one file.
    found = locate(
        write_checkpoint(tmp_path / "one", config={}, tensors=tensors, max_shard_bytes=200)
    )
    assert [path.name for path in found.weights] == ["model.safetensors"]


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    size = 8 * 10**5
    tensors = {str(i): lambda i=i: np.full(10**5, float(i)) for i in range(20)}
    tracemalloc.start()
    folder = write_checkpoint(
        tmp_path / "new", config={}, tensors=tensors, max_shard_bytes=10 * size
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(locate(folder).weights) == 2
    # The tensor, the one before it, and the piece that is copied.
    assert peak < 2.5 * size + 10 * size


def test_other_files_are_copied(tmp_path):
    original = tmp_path / "blob"
    original.write_text("{}")
    (tmp_path / "tokenizer.json").symlink_to(original)
    folder = write_checkpoint(
        tmp_path / "new", config={}, tensors={}, copy=[tmp_path / "tokenizer.json"]
    )
    copied = locate(folder).tokenizer_file
    assert copied.read_text() == "{}"
    assert not copied.is_symlink()


def test_a_relative_path_and_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    for name in ("new", "deep/er"):
        check(locate(write_checkpoint(name, config={}, tensors=arrays())), arrays())


def test_fault_76_what_exists_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "is not empty; choose another" in refused(tmp_path / "mine")
    assert "were not written as a checkpoint here" in refused(tmp_path / "mine", overwrite=True)
    write_checkpoint(tmp_path / "ours", config={}, tensors={})
    assert "is not empty; choose another" in refused(tmp_path / "ours")
    assert "a file in its way" in refused(tmp_path / "mine" / "notes.txt")
    assert "a file in its way" in refused(tmp_path / "mine" / "notes.txt" / "below")


def test_what_was_written_here_is_overwritten_and_other_files_stay(tmp_path):
    folder = tmp_path / "ours"
    tensors = {"a": np.zeros(9), "b": np.zeros(9)}
    write_checkpoint(folder, config={}, tensors=tensors, max_shard_bytes=72)
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("mine too")
    new = {"a": np.ones(3)}
    found = locate(write_checkpoint(folder, config=CONFIG, tensors=new, overwrite=True))
    check(found, new)
    assert found.config() == CONFIG
    # Shards of the old checkpoint would be taken for the new one's.
    assert set(contents(folder)) == {
        "config.json",
        "model.safetensors",
        MARKER,
        "notes.txt",
        "more/notes.txt",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"ours"}


def test_an_edited_copy_in_place_of_its_source(tmp_path):
    """Tensors are read from the old files until the new ones take their place."""
    folder = write_checkpoint(tmp_path / "ours", config={}, tensors={"a": np.arange(4.0)})
    with locate(folder).open() as weights:
        edited = {"a": lambda: weights.read("a") + 1}
        write_checkpoint(folder, config={}, tensors=edited, overwrite=True)
    check(locate(folder), {"a": np.arange(4.0) + 1})


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, RequestError])
def test_fault_74_an_interrupt_leaves_everything_as_it_was(tmp_path, overwrite, kind):
    folder = tmp_path / "ours"
    if overwrite:
        write_checkpoint(folder, config={}, tensors={"a": np.zeros(1)})
    before = contents(tmp_path)

    def interrupted():
        yield "a", np.ones(1)
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        write_checkpoint(folder, config={}, tensors=interrupted(), overwrite=overwrite)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["ours"] if overwrite else [])


def test_fault_74_an_interrupt_while_the_directories_change_places(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "ours", config={}, tensors={"a": np.zeros(1)})
    before, rename, interrupted = contents(tmp_path), os.rename, []

    def interrupt_last(source, target):
        if target == folder and not interrupted:
            interrupted.append(list(tmp_path.glob("ours")))
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("pmt.checkpoints.write.os.rename", interrupt_last)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, config={}, tensors={"a": np.ones(1)}, overwrite=True)
    assert interrupted == [[]]  # The old one was out of the way, and came back.
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@contextlib.contextmanager
def files_no_larger_than(size):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [10**5, 10**6], ids=["in the spool", "in the file"])
def test_fault_73_a_disk_that_fills_up_in_mid_write(tmp_path, size):
    """Standing in for a full disk: the system refuses files above a size."""
    tensors = {str(i): np.zeros(10**4) for i in range(12)} | {"last": np.zeros(5000)}
    with files_no_larger_than(size):
        sentence = refused(tmp_path / "new", tensors=tensors)
    assert f"cannot write the checkpoint {tmp_path / 'new'}: File too large" in sentence
    assert "it is as it was before" in sentence
    assert list(tmp_path.iterdir()) == []


def test_fault_77_unwritable_path(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert "Read-only file system" in refused(tmp_path / "new")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tensors": [("a", np.zeros(1)), ("a", np.zeros(1))]}, "two tensors of the name 'a'"),
        ({"tensors": {"__metadata__": np.zeros(1)}}, "is no name for a tensor"),
        ({"tensors": {"": np.zeros(1)}}, "is no name for a tensor"),
        ({"tensors": {"\ud800": np.zeros(1)}}, "is no name for a tensor"),
        ({"tensors": {"a": np.zeros(1, complex)}}, "dtype complex128, which is not written"),
        ({"tensors": {"a": np.array(["text"])}}, "which is not written"),
        ({"tensors": {"a": np.array([None])}}, "which is not written"),
        ({"config": {"eps": float("nan")}}, "the number at $.eps is nan"),
        ({"config": {"a": object()}}, "the config cannot be written"),
        ({"max_shard_bytes": 0}, "must be positive"),
    ],
)
def test_fault_84_what_cannot_be_written(tmp_path, changes, part):
    assert part in refused(tmp_path / "new", **changes)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", INDEX, "nothing.json"])
def test_a_file_that_cannot_be_copied(tmp_path, name):
    source = tmp_path / "source" / name
    source.parent.mkdir()
    if name != "nothing.json":
        source.write_text("{}")
    assert f"cannot copy {source}: " in refused(tmp_path / "new", copy=[source])


def test_two_copies_of_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vocab.txt").write_text(folder)
    both = [tmp_path / folder / "vocab.txt" for folder in ("a", "b")]
    assert "another file of the checkpoint has the name vocab.txt" in refused(
        tmp_path / "new", copy=both
    )


def test_fault_74_folders_that_killed_writers_left_are_removed_and_those_of_others_kept(tmp_path):
    folders = {name: tmp_path / f".pmt-tmp-{name}" for name in ("dead", "held", "new")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "spool").write_bytes(b"half of a model")
        if name != "new":
            os.utime(folder, (0, 0))
    with held_folder(folders["held"]):
        write_checkpoint(tmp_path / "model", config=CONFIG, tensors=arrays())
        assert not folders["dead"].exists()
        assert folders["held"].exists() and folders["new"].exists()
    # What its writer let go of goes with the next.
    write_checkpoint(tmp_path / "model", config=CONFIG, tensors=arrays(), overwrite=True)
    assert not folders["held"].exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model", folders["new"].name}


def test_fault_77_a_place_that_cannot_be_written_to_is_named_as_it_was_given():
    with pytest.raises(RequestError, match="cannot write the checkpoint /proc/none: "):
        write_checkpoint("/proc/none", config=CONFIG, tensors=arrays())

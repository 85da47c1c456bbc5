"""Files that are broken in one way each: every one ends in one sentence, never in wrong numbers."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pmt.checkpoints import locate, open_weights
from pmt.errors import RequestError


def tensor(offsets, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


TWICE = b'{"a": %s, "a": %s}' % ((json.dumps(tensor([0, 4])).encode(),) * 2)
BROKEN = {
    "fault 1 empty file": (b"", "has 0 bytes"),
    "fault 2 under 8 bytes": (b"abc", "has 3 bytes"),
    "fault 3 header beyond the file": (raw({}, length=1000), "claims 1000 bytes of a file of 10"),
    "fault 4 header over 100 MB": (raw({}, length=2 * 10**8), "over the limit of 100 MB"),
    "fault 5 header not UTF-8": (raw(b"\xff\xfe{}\x00"), "not a valid safetensors file"),
    "fault 6 header not JSON": (raw(b"not json"), "its header does not begin with"),
    "fault 6 header is cut": (raw(b'{"a": '), "its header: Expecting value"),
    "fault 6 header nested deeply": (raw(b'{"a":' + b"[" * 10**6), "nested too deeply"),
    "fault 6 header is a list": (raw([]), "does not begin with"),
    "fault 6 metadata that is no text": (raw({"__metadata__": {"a": 1}}), "from text to text"),
    "fault 6 a tensor that is a number": (raw({"a": 1}), "exactly the fields"),
    "fault 6 an unknown field": (raw({"a": tensor([0, 0], [0]) | {"x": 1}}), "exactly the fields"),
    "fault 6 a boolean axis": (
        raw({"a": tensor([0, 4], [True])}, b"\0" * 4),
        "no list of integers",
    ),
    "fault 6 an axis of 1.0": (raw({"a": tensor([0, 4], [1.0])}, b"\0" * 4), "no list of integers"),
    "fault 6 three offsets": (raw({"a": tensor([0, 4, 4])}, b"\0" * 4), "no pair of integers"),
    "fault 6 a name that is no text": (
        raw({"\ud800": tensor([0, 4])}, b"\0" * 4),
        "half a pair of surrogates",
    ),
    "fault 7 duplicate names": (raw(TWICE, b"\0" * 4), "'a' is there twice"),
    "fault 8 overlapping offsets": (
        raw({"a": tensor([0, 8], (2,)), "b": tensor([4, 8])}, b"\0" * 8),
        "invalid offset",
    ),
    "fault 8 the same place twice": (
        raw({"a": tensor([0, 4]), "b": tensor([0, 4])}, b"\0" * 4),
        "invalid offset",
    ),
    "fault 8 negative offsets": (raw({"a": tensor([-4, 0])}, b"\0" * 4), "may be negative"),
    "fault 8 offsets that disagree with the shape": (
        raw({"a": tensor([0, 8])}, b"\0" * 8),
        "'a' has the offsets 0 to 8, and 4 bytes by its shape",
    ),
    "fault 9 holes": (raw({"a": tensor([0, 4]), "b": tensor([8, 12])}, b"\0" * 12), "offset"),
    "fault 9 a hole at the start": (raw({"a": tensor([4, 8])}, b"\0" * 8), "invalid offset 4"),
    "fault 10 trailing bytes": (raw({"a": tensor([0, 4])}, b"\0" * 12), "not fully covered"),
    "fault 11 shape overflow": (raw({"a": tensor([0, 4], (2**40, 2**40))}, b"\0" * 4), "overflow"),
    "fault 11 overflow beside an axis of zero": (
        raw({"a": tensor([0, 0], (0, 2**40, 2**40))}),
        "overflow",
    ),
    "fault 11 more axes than NumPy has": (
        raw({"a": tensor([0, 4], (1,) * 65)}, b"\0" * 4),
        "65 axes",
    ),
    "fault 12 a sub-byte dtype that ends within a byte": (
        raw({"a": tensor([0, 1], (3,), "F4")}, b"\0"),
        "ends within a byte",
    ),
    "fault 12 unknown dtype": (raw({"a": tensor([0, 4], dtype="Q9")}, b"\0" * 4), "Q9"),
    "fault 14 truncated": (raw({"a": tensor([0, 16], (4,))}, b"\0" * 12), "not fully covered"),
    "fault 16 git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:53\nsize 90868376\n",
        "git lfs pull",
    ),
    "fault 17 pickle": (pickle.dumps({"a": 1}), "is a pickle"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_file(tmp_path, content, reason):
    with pytest.raises(RequestError, match=reason):
        open_weights([write(tmp_path, content)])


def test_fault_17_zipped_pickle(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x")
    with pytest.raises(RequestError, match="is a pickle under the name"):
        open_weights([path])


def test_a_valid_file_that_begins_as_a_pickle_does(tmp_path):
    """A header of 640 bytes: its length is stored as 80 02, then zeros."""
    header = json.dumps({"a": tensor([0, 4])}).encode().ljust(640)
    path = write(tmp_path, raw(header, b"\0" * 4))
    assert path.read_bytes()[:2] == pickle.dumps(0, protocol=2)[:2]
    with open_weights([path]) as weights:
        np.testing.assert_array_equal(weights.read("a"), np.zeros(1, np.float32))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"])
def test_fault_12_eight_bit_floats_are_refused_when_read(tmp_path, dtype):
    shape = (8,) if dtype == "F4" else (4,)
    path = write(tmp_path, raw({"a": tensor([0, 4], shape, dtype)}, b"\0" * 4))
    with open_weights([path]) as weights:
        assert weights.entries["a"].dtype is None
        with pytest.raises(RequestError, match=f"'a' in .* is stored as {dtype}.*not quantised"):
            weights.read("a")


def test_a_boolean_that_is_none(tmp_path):
    path = write(tmp_path, raw({"a": tensor([0, 2], (2,), "BOOL")}, b"\1\2"))
    with (
        open_weights([path]) as weights,
        pytest.raises(RequestError, match="bytes other than 0 and 1"),
    ):
        weights.read("a")


@pytest.mark.parametrize("shape", [(0, 3), (0,), (2, 0, 2**40)])
def test_fault_13_zero_size_tensor(tmp_path, shape):
    path = write(tmp_path, raw({"a": tensor([0, 0], shape), "b": tensor([0, 4])}, b"\0" * 4))
    with open_weights([path]) as weights:
        assert weights.read("a").shape == shape
        assert weights.read("b").shape == (1,)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float64,
        np.float32,
        np.float16,
        ml_dtypes.bfloat16,
        np.complex64,
        np.int64,
        np.int8,
        np.uint64,
        np.uint16,
        np.bool_,
    ],
)
def test_reads_what_was_written(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    scalar = np.ones((), dtype)
    save_file({"a": array, "scalar": scalar}, tmp_path / "x.safetensors")
    with open_weights([tmp_path / "x.safetensors"]) as weights:
        assert weights.entries["a"].shape == (2, 3)
        assert weights.entries["a"].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(weights.read("a"), array)
        np.testing.assert_array_equal(weights.read("scalar"), scalar)
        assert weights.read("scalar").shape == ()


def test_a_tensor_that_is_not_there(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")
    with (
        open_weights([tmp_path / "x.safetensors"]) as weights,
        pytest.raises(RequestError, match="'b'"),
    ):
        weights.read("b")


def test_the_same_name_in_two_files(tmp_path):
    for name in ("x", "y"):
        save_file({"a": np.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(RequestError, match="'a' is in two files"):
        open_weights([tmp_path / "x.safetensors", tmp_path / "y.safetensors"])


def test_a_missing_file(tmp_path):
    with pytest.raises(RequestError, match="cannot read .*: No such file"):
        open_weights([tmp_path / "nothing.safetensors"])


@pytest.fixture
def large(tmp_path):
    """Larger than what a system reads ahead."""
    path = tmp_path / "x.safetensors"
    save_file({"a": np.arange(10**6), "b": np.ones(10**6)}, path)
    os.utime(path, ns=(0, 0))
    return path


def truncate(path):
    os.truncate(path, 10**6)


def empty(path):
    path.write_bytes(b"")


def grow(path):
    with open(path, "ab") as file:
        file.write(b"\0")


def rewrite(path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")


def replace(path):
    copy = path.with_name("y.safetensors")
    save_file({"a": np.zeros(10**6, int), "b": np.ones(10**6)}, copy)
    os.utime(copy, ns=(0, 0))
    os.replace(copy, path)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [truncate, empty, grow, rewrite, replace, remove])
def test_fault_15_a_file_that_is_changed_while_it_is_open(large, change):
    """The first read is right, and the next is refused; a map would kill the process."""
    with open_weights([large]) as weights:
        np.testing.assert_array_equal(weights.read("a"), np.arange(10**6))
        change(large)
        with pytest.raises(RequestError, match="was changed while it was in use.*try again"):
            weights.read("b")


def test_fault_15_a_file_that_shrinks_between_two_parts_of_a_read(large, monkeypatch):
    """After the numbers are there, their file is looked at once more."""
    with open_weights([large]) as weights:
        file = weights._files[0]
        fill = file._fill

        def fill_and_shrink(target, offset):
            complete = fill(target, offset)
            truncate(large)
            return complete

        monkeypatch.setattr(file, "_fill", fill_and_shrink)
        with pytest.raises(RequestError, match="was changed while it was in use"):
            weights.read("a")


@pytest.mark.parametrize("at", ["start", "header"])
def test_fault_15_a_file_that_shrinks_while_its_header_is_read(large, monkeypatch, at):
    fstat = os.fstat

    def fstat_and_shrink(descriptor):
        status = fstat(descriptor)
        os.truncate(large, 20 if at == "header" else 0)
        return status

    monkeypatch.setattr("pmt.checkpoints.read.os.fstat", fstat_and_shrink)
    with pytest.raises(RequestError, match="was changed while it was in use"):
        open_weights([large])


def test_several_threads_read_the_same_file(large):
    with open_weights([large]) as weights, ThreadPoolExecutor(8) as threads:
        arrays = list(threads.map(weights.read, ["a", "b"] * 20))
    for array, expected in zip(arrays, [np.arange(10**6), np.ones(10**6)] * 20, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_memory_stays_at_one_tensor(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({str(i): np.full(10**5, i) for i in range(10)}, path)
    with open_weights([path]) as weights:
        tracemalloc.start()
        for name in weights.entries:
            assert weights.read(name)[0] == int(name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2.5 * 8 * 10**5


def test_files_are_let_go_of_when_one_of_them_is_broken(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"")
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(RequestError, match=r"y\.safetensors .*has 0 bytes"):
        open_weights([tmp_path / "x.safetensors", tmp_path / "y.safetensors"])
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_is_read_after_the_end(large):
    with open_weights([large]) as weights:
        pass
    with pytest.raises(ValueError, match="closed"):
        weights.read("a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="no regular file"):
        open_weights([tmp_path / "pipe"])


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(RequestError, match="cannot read .*: Is a directory"):
        open_weights([tmp_path])


def test_a_hash_or_an_opening_after_a_change_is_refused(directory):
    """Fault 15: what was located, hashed and read is one and the same."""
    found = locate(directory)
    os.utime(directory / "model.safetensors", ns=(0, 0))
    with pytest.raises(RequestError, match="were changed while they were in use"):
        found.open()
    with pytest.raises(RequestError, match="were changed while they were in use"):
        found.sha256  # noqa: B018


def test_a_hash_is_computed_once(directory):
    found = locate(directory)
    first = found.sha256
    (directory / "model.safetensors").unlink()
    assert found.sha256 == first

"""Files that are broken in one way each: every one ends in one sentence, never in wrong numbers."""

import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pmt.checkpoints import open_weights
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
    "fault 6 header not JSON": (raw(b"not json"), "its header: Expecting value"),
    "fault 6 header nested deeply": (raw(b"[" * 10**6), "not a valid safetensors file"),
    "fault 7 duplicate names": (raw(TWICE, b"\0" * 4), "'a' is there twice"),
    "fault 8 overlapping offsets": (
        raw({"a": tensor([0, 8], (2,)), "b": tensor([4, 8])}, b"\0" * 8),
        "invalid offset",
    ),
    "fault 9 holes": (raw({"a": tensor([0, 4]), "b": tensor([8, 12])}, b"\0" * 12), "offset"),
    "fault 10 trailing bytes": (raw({"a": tensor([0, 4])}, b"\0" * 12), "not fully covered"),
    "fault 11 shape overflow": (raw({"a": tensor([0, 4], (2**40, 2**40))}, b"\0" * 4), "overflow"),
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


def test_fault_12_eight_bit_floats_are_refused_when_read(tmp_path):
    path = write(tmp_path, raw({"a": tensor([0, 4], (4,), "F8_E4M3")}, b"\0" * 4))
    with open_weights([path]) as weights:
        assert weights.entries["a"].dtype is None
        with pytest.raises(RequestError, match="'a' in .* is stored as F8_E4M3.*not quantised"):
            weights.read("a")


def test_fault_13_zero_size_tensor(tmp_path):
    with open_weights([write(tmp_path, raw({"a": tensor([0, 0], (0, 3))}))]) as weights:
        assert weights.read("a").shape == (0, 3)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64]
)
def test_reads_what_was_written(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    save_file({"a": array}, tmp_path / "x.safetensors")
    with open_weights([tmp_path / "x.safetensors"]) as weights:
        assert weights.entries["a"].shape == (2, 3)
        assert weights.entries["a"].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(weights.read("a"), array)


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

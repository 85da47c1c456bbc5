"""An edit as a file: applied once, refused twice, reverted to the very bits; hostile files."""

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pmt.checkpoints import locate, open_weights
from pmt.checkpoints.delta import (
    Delta,
    apply_delta,
    edit_tensor,
    read_delta,
    revert_delta,
    tensor_sha256,
    write_delta,
)
from pmt.errors import RequestError
from tests.models.conftest import DATA

NAME = "h.weight"


def make(tensor, *, axis=0, strength=40.0, seed=0):
    rng = np.random.default_rng(seed)
    d, width = tensor.shape if axis == 0 else tensor.shape[::-1]
    w, z, a = (rng.normal(size=size) for size in (d, d, width))
    edited = edit_tensor(tensor, strength, w, a, axis)
    return Delta(
        w=w,
        z=z,
        a=a,
        strength=strength,
        layer=2,
        tensor=NAME,
        axis=axis,
        dtype={"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[str(tensor.dtype)],
        base_sha256=tensor_sha256(tensor),
        edited_sha256=tensor_sha256(edited),
        base="someone/model",
        revision="abc",
        model_sha256=None,
    )


def random_tensor(shape=(4, 6), dtype=np.float32):
    return np.random.default_rng(7).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
def test_applied_once_refused_twice_reverted_to_the_bits(dtype, axis):
    base = random_tensor(dtype=dtype)
    delta = make(base, axis=axis)
    edited = delta.apply(base)
    change = 40.0 * np.outer(delta.w, delta.a)
    wanted = base.astype(np.float64) + (change if axis == 0 else change.T)
    assert edited.dtype == base.dtype
    np.testing.assert_array_equal(edited, wanted.astype(dtype))
    with pytest.raises(RequestError, match="has this edit already, and it is applied only once"):
        delta.apply(edited)
    # What a subtraction could not do: the low bits are gone from the edited tensor.
    subtracted = (edited.astype(np.float64) - (wanted - base.astype(np.float64))).astype(dtype)
    assert subtracted.tobytes() != base.tobytes()
    assert delta.revert(edited, base).tobytes() == base.tobytes()


def test_another_base_is_refused_both_ways():
    base = random_tensor()
    delta = make(base)
    other = base.copy()
    other[0, 0] = np.nextafter(other[0, 0], 2, dtype=np.float32)
    for tensor in (other, -base, base.astype(np.float16)):
        with pytest.raises(RequestError, match=r"another checkpoint.* 'someone/model' at abc"):
            delta.apply(tensor)
    with pytest.raises(RequestError, match="the base that was given is another one"):
        delta.revert(delta.apply(base), other)
    with pytest.raises(RequestError, match="is the base already, so there is nothing"):
        delta.revert(base, base)
    with pytest.raises(RequestError, match="has another edit"):
        delta.revert(other, base)


def test_fault_62_strength_zero_changes_no_bit():
    base = random_tensor()
    base[0, 0] = -0.0
    delta = make(base, strength=0.0)
    assert delta.apply(base).tobytes() == base.tobytes()


def test_the_file_holds_all_of_it_and_is_small_faults_76_83(tmp_path):
    delta = make(random_tensor(), strength=1 / 3)
    path = write_delta(tmp_path / "Änderung-図.safetensors", delta)
    again = read_delta(path)
    for name in ("w", "z", "a"):
        np.testing.assert_array_equal(getattr(again, name), getattr(delta, name))
    plain = {"w": None, "z": None, "a": None}
    assert vars(again) | plain == vars(delta) | plain
    assert path.stat().st_size < 2000
    # Others read it too.
    assert set(load_file(path)) == {"w", "z", "a"}
    write_delta(path, again)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def rewrite(path, *, tensors=None, **changes):
    """The file with other fields or tensors, written by the format's own library."""
    delta = read_delta(path)
    fields = {k: v for k, v in vars(delta).items() if k not in "wza"} | {"schema": "pmt.delta/1"}
    fields = {k: v for k, v in (fields | changes).items() if v is not ...}
    arrays = {"w": delta.w, "z": delta.z, "a": delta.a} | (tensors or {})
    arrays = {k: v for k, v in arrays.items() if v is not None}
    save_file(arrays, path, metadata={"delta": json.dumps(fields)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "pmt.delta/2"}, "its schema is not pmt.delta/1"),
        ({"strength": ...}, "'strength' is missing or unknown"),
        ({"surprise": 1}, "'surprise' is missing or unknown"),
        ({"strength": "3"}, "the field 'strength' is '3'"),
        ({"strength": True}, "the field 'strength' is True"),
        ({"strength": 10**400}, "the field 'strength' is 1000"),
        ({"axis": 2}, "the field 'axis' is 2"),
        ({"axis": True}, "the field 'axis' is True"),
        ({"layer": 0}, "the field 'layer' is 0"),
        ({"operation": "rank-two"}, "the field 'operation' is 'rank-two'"),
        ({"tensor": ["x"]}, "the field 'tensor'"),
        ({"base_sha256": "12"}, "the field 'base_sha256' is '12'"),
        ({"tensors": {"w": None}}, "it has no vector 'w' in F64"),
        ({"tensors": {"w": np.ones(4, np.float32)}}, "it has no vector 'w' in F64"),
        ({"tensors": {"a": np.ones((2, 3))}}, "it has no vector 'a' in F64"),
        ({"tensors": {"z": np.array([1.0, np.nan])}}, "the vector 'z' holds NaN"),
        ({"tensors": {"b": np.ones(3)}}, r"it holds the tensors \['a', 'b', 'w', 'z'\]"),
    ],
)
def test_files_that_are_no_edit_end_in_a_sentence(tmp_path, change, reason):
    path = write_delta(tmp_path / "d.safetensors", make(random_tensor()))
    rewrite(path, **change)
    with pytest.raises(RequestError, match=reason) as caught:
        read_delta(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a valid safetensors"),
        (b"\x80\x04pickle" * 20, "."),
        (b"{}", "."),
        (None, "cannot read"),
    ],
    ids=["fault 1", "fault 17", "fault 2", "missing"],
)
def test_files_that_are_no_safetensors(tmp_path, content, reason):
    path = tmp_path / "d.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=reason):
        read_delta(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    whole = write_delta(tmp_path / "d.safetensors", make(random_tensor())).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(RequestError):
            read_delta(path)


def test_a_checkpoint_or_metadata_without_an_edit_is_no_delta(tmp_path):
    with pytest.raises(RequestError, match="metadata have no 'delta'"):
        read_delta(DATA / "bert-tanh" / "model.safetensors")
    path = tmp_path / "d.safetensors"
    for text in ("{", "[]", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        save_file({"w": np.ones(2)}, path, metadata={"delta": text})
        with pytest.raises(RequestError, match="is no steering edit"):
            read_delta(path)


def test_vectors_that_do_not_fit_and_an_altered_strength():
    base = random_tensor()
    delta = make(base)
    with pytest.raises(RequestError, match="does not give the tensor whose sha256 it states"):
        replace(delta, strength=41.0).apply(base)
    with pytest.raises(RequestError, match=r"has shape \(4, 6\), and the edit is for \(3, 6\)"):
        replace(delta, w=delta.w[:3]).apply(base)


@pytest.mark.parametrize(
    ("model", "name", "axis"),
    [
        ("bert-tanh", "bert.encoder.layer.2.attention.output.dense.weight", 0),
        ("gpt2-inverse", "transformer.h.1.attn.c_proj.weight", 1),
    ],
)
def test_a_checkpoint_there_and_back_again(tmp_path, model, name, axis):
    checkpoint = locate(DATA / model)
    before = load_file(DATA / model / "model.safetensors")
    name = next(key for key in before if key.endswith(name.split(".", 1)[1]))
    delta = replace(make(before[name], axis=axis), tensor=name)
    apply_delta(checkpoint, delta, tmp_path / "edited")
    edited = locate(tmp_path / "edited")
    with open_weights(edited.weights) as weights:
        after = {key: weights.read(key) for key in weights.entries}
    changed = [key for key in before if after[key].tobytes() != before[key].tobytes()]
    assert changed == [name] and after.keys() == before.keys()
    with pytest.raises(RequestError, match="applied only once"):
        apply_delta(edited, delta, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    revert_delta(edited, delta, checkpoint, tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(back[key].tobytes() == before[key].tobytes() for key in before)
    with pytest.raises(RequestError, match=r"has no such tensor; give .* 'someone/model'"):
        apply_delta(locate(DATA / "llama-plain"), delta, tmp_path / "other")
    with pytest.raises(RequestError, match="in F16, and the checkpoint .* stores it as F32"):
        apply_delta(checkpoint, replace(delta, dtype="F16"), tmp_path / "other")

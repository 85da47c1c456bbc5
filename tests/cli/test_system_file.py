"""Systems from files and flags: read as they were written, each fault one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from pmt.cli.reading import read_npy
from pmt.cli.system_file import as_description, read_system
from pmt.cli.system_options import requested_system
from pmt.dynamics import MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.files import write_json

EYE = [[1, 0], [0, 0.5]]
OJA = {"kind": "oja", "value": EYE}
SINGLE = {"kind": "single-head", "value": EYE, "query_key": [[2, 0], [0, 0]]}
MULTI = {"kind": "multi-head", "value_output": [EYE, EYE], "query_key": [EYE, "diag:1,2"]}


def factors(d=3, h=2, k=2, v=4):
    draw = np.random.default_rng(0).standard_normal
    return {
        "kind": "multi-head",
        "query": draw((h, k, d)).tolist(),
        "key": draw((h, k, d)).tolist(),
        "value": draw((h, v, d)).tolist(),
        "output": draw((h, d, v)).tolist(),
    }


def by_flags(**given):
    names = ("value", "query_key", "random", "kind", "alpha", "scale", "mask")
    options = {name: None for name in names} | {"seed": 0, "file": None} | given
    return requested_system(options.pop("file"), **options)


def test_every_kind_becomes_the_map_that_it_says():
    oja = as_description({**OJA, "alpha": 0.25, "mask": "causal"}).build("float64")
    assert isinstance(oja, Oja)
    assert oja.alpha == 0.25
    assert oja.mask.allowed(3).tolist() == np.tril(np.ones((3, 3), bool)).tolist()
    single = as_description({**SINGLE, "scale": 3, "mask": "window:2"}).build("float64")
    assert isinstance(single, SingleHead)
    assert (single.alpha, single.scale, single.mask.size) == (1.0, 3.0, 2)
    np.testing.assert_array_equal(single.query_key, SINGLE["query_key"])
    multi = as_description(MULTI).build("float64")
    assert isinstance(multi, MultiHead)
    np.testing.assert_array_equal(multi.head_matrices, [EYE, EYE])
    np.testing.assert_array_equal(multi.query_key_matrices, [EYE, np.diag([1.0, 2.0])])
    assert multi.scale == 1.0
    given = factors()
    built = as_description(given).build("float32")
    assert built.scale == pytest.approx(2**-0.5)
    np.testing.assert_array_equal(built.output, np.asarray(given["output"], np.float32))


@pytest.mark.parametrize(
    "document",
    [
        OJA,
        {**OJA, "mask": [[True, False], [True, True]]},
        {**SINGLE, "alpha": 0.3, "scale": 2, "mask": {"window": 3, "causal": True}},
        {**MULTI, "mask": [[[True]], [[True]]]},
        factors(),
    ],
    ids=["oja", "boolean mask", "single-head", "mask a head", "factors"],
)
@pytest.mark.parametrize("form", ["json", "npz"])
def test_a_written_system_reads_back_as_it_was(tmp_path, document, form):
    path = tmp_path / f"größe 系.{form}"  # fault 83
    described = as_description(document)
    written = described.document()
    if form == "json":
        write_json(path, written)
    else:
        # An object has no form among arrays, so windows are texts there.
        mask = "window:3" if isinstance(written["mask"], dict) else written["mask"]
        np.savez(path, **{**written, "mask": mask})
    again = read_system(path)
    assert again.kind == described.kind
    assert (again.alpha, again.scale) == (described.alpha, described.scale)
    np.testing.assert_array_equal(again.mask, described.mask)
    assert again.arrays.keys() == described.arrays.keys()
    for name, array in described.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


WRONG_DOCUMENTS = [
    ([1, 2], "the file holds a list"),
    ({}, "there is no kind"),
    ({"kind": "transformer"}, "the kind is 'transformer'"),
    ({"kind": None, "value": EYE}, "there is no kind"),
    ({**OJA, "schema": "pmt.analysis/1"}, "the schema is 'pmt.analysis/1'"),
    ({**OJA, "values": EYE}, "unknown key 'values'"),
    ({**OJA, "scale": 1}, "unknown key 'scale'"),
    ({**SINGLE, "key": EYE}, "unknown key 'key'"),
    ({"kind": "oja"}, "needs value; given: none"),
    ({"kind": "single-head", "value": EYE}, "needs value and query_key; given: value"),
    ({**MULTI, "query": [EYE]}, "needs value_output and query_key, or query, key, value"),
    ({"kind": "oja", "value": [[1, 2, 3], [4, 5, 6]]}, "value has shape (2, 3)"),
    ({"kind": "oja", "value": [[1, 2], [3]]}, "value, row 2 has 1 entries but row 1 has 2"),
    ({"kind": "oja", "value": []}, "value is an empty list"),
    ({"kind": "oja", "value": [[]]}, "value, row 1 is an empty list"),
    ({"kind": "oja", "value": [1, 2]}, "value, row 1 is a number; it must be a list of numbers"),
    ({"kind": "oja", "value": 1.0}, "value is a number; it must be a list of rows"),
    ({"kind": "oja", "value": None}, "value is a null"),
    ({"kind": "oja", "value": [[[1]]]}, "value, row 1, column 1 is a list"),
    ({"kind": "oja", "value": [["a"]]}, "value, row 1, column 1 is a text"),
    ({"kind": "oja", "value": [[True]]}, "value, row 1, column 1 is a truth value"),
    ({"kind": "oja", "value": [[1, 0], [0, 10**400]]}, "value, row 2, column 2 is inf"),
    ({"kind": "oja", "value": "diag:1,nan"}, "value is 'diag:1,nan'"),
    ({"kind": "oja", "value": "eye:2"}, "value is 'eye:2'"),
    ({**SINGLE, "query_key": [[1]]}, "value has shape (2, 2) but query_key (1, 1)"),
    ({**MULTI, "query_key": [EYE]}, "value_output has shape (2, 2, 2) but query_key (1, 2, 2)"),
    ({**MULTI, "query_key": [EYE, [[1]]]}, "query_key, head 2 has shape (1, 1) but head 1"),
    ({**factors(), "key": factors(k=3)["key"]}, "their head dimensions must agree"),
    ({**factors(), "output": factors(v=3)["output"]}, "their head dimensions must agree"),
    ({**factors(), "output": factors(d=4)["output"]}, "heads and token dimension must agree"),
    ({**OJA, "alpha": "0.3"}, "alpha is a text; it must be a number"),
    ({**OJA, "alpha": True}, "alpha is a truth value"),
    ({**OJA, "alpha": None}, "alpha is a null"),
    ({**OJA, "alpha": [1]}, "alpha is a list"),
    ({**OJA, "alpha": float("nan")}, "alpha is nan; it must be a finite number"),
    ({**SINGLE, "scale": float("inf")}, "scale is inf"),
    ({**OJA, "mask": "none"}, "the mask is 'none'"),
    ({**OJA, "mask": "window:0"}, "the window of the mask is 0"),
    ({**OJA, "mask": "window:-1"}, "the mask is 'window:-1'"),
    ({**OJA, "mask": "window:" + 30 * "9"}, "the mask is 'window:999"),
    ({**OJA, "mask": {"window": 2.5}}, "the mask is {'window': 2.5}"),
    ({**OJA, "mask": {"size": 2}}, "the mask is {'size': 2}"),
    ({**OJA, "mask": {"window": 2**40}}, "the window of the mask is 1099511627776"),
    ({**OJA, "mask": [[1, 0], [0, 1]]}, "the mask must be a square matrix of true and false"),
    ({**OJA, "mask": [[True, True]]}, "the mask must be a square matrix of true and false"),
    ({**OJA, "mask": [[True], [True, True]]}, "the mask must be a square matrix"),
    ({**OJA, "mask": [[True, True], [False, False]]}, "row 2 of the mask is all false"),
    ({**OJA, "mask": [[[True]]]}, "one matrix a head"),
    ({**MULTI, "mask": [[[True]]]}, "one matrix a head"),
]


@pytest.mark.parametrize(("document", "reason"), WRONG_DOCUMENTS, ids=lambda value: str(value)[:40])
def test_a_document_that_is_no_system_is_refused(document, reason):
    """Faults 46, 64, 84."""
    with pytest.raises(RequestError) as refusal:
        as_description(document)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_faults_in_arrays_are_found_too(tmp_path):
    """Fault 46, and what only `.npz` can hold."""
    for entries, reason in [
        ({"kind": "oja", "value": np.array([[1.0, np.nan], [0, 1]])}, "value holds nan at (0, 1)"),
        ({"kind": "oja", "value": np.array([[1j]])}, "complex128"),
        ({"kind": "oja", "value": np.array([["a"]])}, "value is an array of <U1"),
        ({"kind": "oja", "value": np.zeros((0, 0))}, "shape (0, 0)"),
        ({"kind": "oja", "value": np.eye(2), "alpha": np.array([1.0])}, "array of shape (1,)"),
        ({"kind": np.array(["oja"]), "value": np.eye(2)}, "the kind is array(['oja']"),
        ({"kind": "oja", "value": np.eye(2), "mask": np.eye(2)}, "matrix of true and false"),
        ({"kind": "oja", "value": np.array([[None]])}, "cannot be read as .npz: Object arrays"),
    ]:
        path = tmp_path / "system.npz"
        np.savez(path, **entries)
        with pytest.raises(RequestError) as refusal:
            read_system(path)
        assert str(refusal.value).startswith(str(path))
        assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"", "it is empty"),
        ("a.json", b"{", "Expecting property name"),
        ("a.json", b'{"kind": NaN}', "NaN is no number in JSON"),
        ("a.json", b'{"kind": "oja", "value": [[-Infinity]]}', "-Infinity is no number in JSON"),
        ("a.json", b'{"kind": "oja", "kind": "oja"}', "the key 'kind' stands there twice"),
        ("a.json", b"\xff\xfe{}", "it is not UTF-8"),
        ("a.json", b"[" * 100_000, "it is nested too deeply"),
        ("a.json", b'{"alpha": ' + b"9" * 5000 + b"}", "integer string conversion"),
        ("a.npz", b"", "cannot be read as .npz"),
        ("a.npz", b"PK\x03\x04 truncated", "cannot be read as .npz"),
        ("a.npz", b"\x93NUMPY\x01\x00", "cannot be read as .npz"),
        ("a.npz", b'{"kind": "oja"}', "cannot be read as .npz"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RequestError) as refusal:
        read_system(path)
    assert str(refusal.value).startswith(str(path))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"nonsense", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'"]
)
def test_a_damaged_token_file_is_refused(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="cannot be read as .npy"):
        read_npy(path)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.array([[1j]]), np.array([["a"]])])
def test_a_token_file_without_real_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(RequestError, match="it must hold real numbers"):
        read_npy(tmp_path / "x.npy")


def test_a_file_in_plain_unicode_with_a_mark_at_its_start_is_read(tmp_path):
    path = tmp_path / "system.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SINGLE).encode())
    assert read_system(path).kind == "single-head"


def test_flags_make_the_kind_that_their_matrices_mean():
    assert by_flags(value=["diag:1,2"]).kind == "oja"
    single = by_flags(value=["diag:1,2"], query_key=["[[0, 1], [-1, 0]]"], alpha=0.1, scale=2.0)
    assert (single.kind, single.alpha, single.scale) == ("single-head", 0.1, 2.0)
    np.testing.assert_array_equal(single.arrays["query_key"], [[0, 1], [-1, 0]])
    multi = by_flags(value=["diag:1,2"] * 3, query_key=["diag:0,1"] * 3, mask="causal")
    assert (multi.kind, multi.heads, multi.mask) == ("multi-head", 3, "causal")
    one = by_flags(value=["diag:1,2"], query_key=["diag:0,1"], kind="multi-head")
    assert (one.kind, one.heads) == ("multi-head", 1)


def test_random_systems_depend_on_their_seed_and_nothing_else():
    first = by_flags(random="4", seed=3)
    assert (first.kind, first.dimension) == ("single-head", 4)
    again, other = by_flags(random="4", seed=3, alpha=0.5), by_flags(random="4", seed=4)
    np.testing.assert_array_equal(first.arrays["value"], again.arrays["value"])
    assert np.abs(first.arrays["value"] - other.arrays["value"]).max() > 0.1
    assert by_flags(random="4", kind="oja").kind == "oja"
    many = by_flags(random="60,8")
    assert (many.kind, many.heads) == ("multi-head", 8)
    total = many.arrays["value_output"].sum(axis=0)
    np.testing.assert_array_equal(total, total.T)
    # Wigner's semicircle ends at 1; finite matrices scatter about it by d^(-2/3).
    assert 0.8 < np.abs(np.linalg.eigvalsh(total)).max() < 1.2


def test_flags_replace_alpha_scale_and_mask_of_a_file(tmp_path):
    path = tmp_path / "system.json"
    write_json(path, {**SINGLE, "alpha": 0.3, "mask": "causal"})
    kept, replaced = by_flags(file=path), by_flags(file=path, alpha=0.7, mask="full")
    assert (kept.alpha, kept.mask) == (0.3, "causal")
    assert (replaced.alpha, replaced.mask) == (0.7, "full")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "no system is given"),
        ({"query_key": ["diag:1"]}, "there are 0 --value and 1 --query-key"),
        ({"value": ["diag:1"], "random": "3"}, "--value and --random contradict each other"),
        ({"file": Path("a.json"), "random": "3"}, "a SYSTEM file and --random contradict"),
        ({"value": ["diag:1"], "query_key": ["diag:1"] * 2}, "one of each for every head"),
        ({"value": ["diag:1"] * 2}, "there are 2 --value and 0 --query-key"),
        ({"value": ["diag:1"], "kind": "single-head"}, "--kind single-head contradicts"),
        ({"value": ["diag:1"], "query_key": ["diag:1"], "kind": "oja"}, "--kind oja contradicts"),
        ({"value": ["diag:"]}, "--value is 'diag:'"),
        ({"value": ["[[1, 2], [3]]"]}, "value, row 2 has 1 entries"),
        ({"value": ["[[1, NaN]]"]}, "--value is no JSON (NaN is no number"),
        ({"value": ["[[1"]}, "--value is no JSON"),
        ({"value": ["1"]}, "--value is '1'"),
        ({"value": ["diag:1"], "scale": 2.0}, "--scale contradicts the kind oja"),
        ({"value": ["diag:1"], "mask": "some"}, "the mask is 'some'"),
        ({"random": "0"}, "--random is '0'"),
        ({"random": "3,0"}, "--random is '3,0'"),
        ({"random": "3,2,1"}, "--random is '3,2,1'"),
        ({"random": "-3"}, "--random is '-3'"),
        ({"random": "100000"}, "--random is '100000'"),
        ({"random": "3,2", "kind": "oja"}, "--kind oja contradicts --random 3,2"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_contradictory_flags_are_refused(given, reason):
    """Fault 84."""
    with pytest.raises(RequestError) as refusal:
        by_flags(**given)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("document", "dtype", "reason"),
    [
        ({**OJA, "value": "diag:1e300,1"}, "float32", "value holds 1e+300, which float32 cannot"),
        ({**OJA, "alpha": 1e300}, "float32", "alpha holds 1e+300"),
        ({**SINGLE, "scale": 1e300}, "float32", "scale holds 1e+300"),
        ({**OJA, "value": "diag:1e308,1"}, "float64", "value reaches 1e+308"),
        ({**OJA, "alpha": -1e308}, "float64", "too large for the squares"),
    ],
    ids=str,
)
def test_numbers_beyond_the_precision_are_refused(document, dtype, reason):
    """Faults 55, 64."""
    with pytest.raises(RequestError) as refusal:
        as_description(document).build(dtype)
    assert reason in str(refusal.value)

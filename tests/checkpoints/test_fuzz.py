"""Mutated headers and indexes: refused in a sentence, or read as the format's rules say.

The invariant, for every mutation: nothing but `RequestError` is raised; and where nothing is
raised, the tensors' names, dtypes, shapes and bytes are those that a slow reader of the same bytes
finds, which shares no code with pmt and follows the format's description by the letter. A header
that is accepted here is accepted by the format's own library, too, with the same bytes.
"""

import json
import random
import re
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors

from pmt.checkpoints import locate, open_weights
from pmt.errors import RequestError
from tests.checkpoints import oracle
from tests.checkpoints.conftest import SHARDS

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "C64": np.complex64, "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
NUMBERS = ["0", "1", "2", "3", "4", "6", "8", "-1", "-0", "1.0", "4e0", "true", "null", '"4"', "04"]
NUMBERS += [str(2**63), str(2**64), "9" * 400, "NaN"]
SPELLINGS = [b"%s.0", b"%se0", b"0%s", b"-%s", b'"%s"', b"%s.", b"+%s", b"%s0", b"[%s]", b" %s "]
VALUES = ["1", "null", "true", "[]", "{}", '"x"', '{"a": "b"}', "[1]"]
FRAGMENTS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    " ",
    "\0",
    "\\u0061",
    "\\ud800",
    "é",
    "\ufeff",
]
INDEX = "model.safetensors.index.json"


def entry(dtype, shape, start, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": entry("F32", [2, 2], 0, 16),
    "b": entry("BF16", [2], 16, 20),
    "b.c": entry("F64", [], 20, 28),
    "empty": entry("I64", [0, 3], 28, 28),
    "é": entry("U8", [4], 28, 32),
    "flag": entry("BOOL", [2], 32, 34),
    "f8": entry("F8_E4M3", [2], 34, 36),
    "f4": entry("F4", [4], 36, 38),
}
DATA = bytes(range(32)) + b"\0\1" + b"wxyz"


def flip(rng, text):
    i = rng.randrange(len(text))
    return text[:i] + bytes([text[i] ^ 1 << rng.randrange(8)]) + text[i + 1 :]


def insert(rng, text):
    i = rng.randrange(len(text) + 1)
    return text[:i] + rng.choice(FRAGMENTS).encode() + text[i:]


def delete(rng, text):
    i = rng.randrange(len(text))
    return text[:i] + text[i + rng.choice([1, 1, 1, 8]) :]


def number(rng, text):
    places = list(re.finditer(rb"\d+", text))
    if not places:
        return text
    place = rng.choice(places)
    if rng.random() < 0.5:
        new = rng.choice(SPELLINGS) % place.group()
    else:
        new = rng.choice(NUMBERS).encode()
    return text[: place.start()] + new + text[place.end() :]


def shift(rng, text):
    """All numbers from one on, by the same amount, as a wrong writer would."""
    limit, amount = rng.randrange(1, 36), rng.choice([-8, -4, -1, 1, 4, 8])
    return re.sub(
        rb"\d+",
        lambda m: str(max(int(m[0]) + amount, 0)).encode() if int(m[0]) >= limit else m[0],
        text,
    )


def swap(rng, text):
    """Two names, dtypes, files or numbers change places, or one becomes the other."""
    words = sorted(set(re.findall(rb'"[^"]*"|\d+', text)))
    if not words:
        return text
    one, other = rng.choice(words), rng.choice(words)
    if rng.random() < 0.5:
        return text.replace(one, other, 1)
    return text.replace(one, b"\1").replace(other, one).replace(b"\1", other)


def dtype(rng, text):
    found = re.findall(rb'"(?:[BFIU][A-Z0-9]+)"', text)
    if not found:
        return text
    return text.replace(rng.choice(found), b'"%s"' % rng.choice(list(oracle.BITS)).encode(), 1)


def duplicate(rng, text):
    """A member of an object or an item of a list, once more."""
    parts = text.split(b",")
    i = rng.randrange(len(parts))
    return b",".join([*parts[:i], parts[i], *parts[i:]])


def reorder(rng, text):
    """Another order or another spelling of the same; mostly valid."""
    try:
        value = json.loads(text)
        members = list(value.items())
    except (ValueError, AttributeError, RecursionError):
        return text
    rng.shuffle(members)
    ascii_only = rng.random() < 0.5
    spelled = json.dumps(dict(members), ensure_ascii=ascii_only, indent=rng.choice([None, 1]))
    return spelled.encode("utf-8", "surrogatepass") + b" " * rng.randrange(9)


def value(rng, text):
    """Another kind of value, where a text, a number or an empty list is."""
    places = list(re.finditer(rb'"[^"]*"|\d+|\[\]', text))
    if not places:
        return text
    # Half of them among the first, where the metadata are.
    place = rng.choice(places[:3] if rng.random() < 0.5 else places)
    return text[: place.start()] + rng.choice(VALUES).encode() + text[place.end() :]


TEXT = [flip, insert, delete, number, number, value, shift, swap, dtype, duplicate, reorder]


def mutated_text(rng, text):
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if text:
            text = rng.choice(TEXT)(rng, text)
    return text


def mutated_file(rng):
    text, data = mutated_text(rng, json.dumps(HEADER, ensure_ascii=False).encode()), DATA
    choice = rng.random()
    if choice < 0.05:
        data = data[: rng.randrange(len(data))]
    elif choice < 0.1:
        data += bytes(rng.randrange(1, 9))
    # Mostly the length that the header has now, so that what is in it matters.
    length = (
        len(text) if rng.random() < 0.9 else rng.choice([0, 1, len(text) - 1, 2**31, 2**64 - 1])
    )
    content = struct.pack("<Q", length % 2**64) + text + data
    choice = rng.random()
    if choice < 0.03:
        return content[: rng.randrange(len(content))]
    return flip(rng, content) if choice < 0.1 else content


def read_all(path):
    """Name -> (dtype in the file, NumPy's dtype, shape, bytes or the refusal to read them)."""
    found = {}
    with open_weights([path]) as weights:
        for name, described in weights.entries.items():
            try:
                array = weights.read(name)
            except RequestError as error:
                found[name] = (described.stored, described.dtype, described.shape, str(error))
            else:
                assert array.dtype == described.dtype
                found[name] = (described.stored, array.dtype, array.shape, array.tobytes())
    return found


def as_read(slow):
    """What the slow reader found, as `read_all` has it."""
    return {
        name: (stored, np.dtype(DTYPES[stored]) if stored in DTYPES else None, shape, content)
        for name, (stored, shape, content) in slow.items()
    }


def is_same(found, expected):
    if not isinstance(found[3], str):
        return found == expected
    # What is never read: other dtypes, and truth values that are neither.
    unreadable = expected[1] is None or (expected[0] == "BOOL" and max(expected[3], default=0) > 1)
    return found[:3] == expected[:3] and unreadable


def check_file(content, path):
    """The invariant; whether the file was accepted."""
    path.write_bytes(content)
    try:
        found = read_all(path)
    except RequestError as error:
        assert "\n" not in str(error), content
        return False
    expected = as_read(oracle.tensors(content))
    assert found.keys() == expected.keys(), content
    assert all(is_same(found[name], expected[name]) for name in found), content
    library = dict(safetensors.deserialize(content))
    assert found.keys() == library.keys(), content
    assert all(bytes(library[name]["data"]) == expected[name][3] for name in found), content
    return True


def check_index(content, folder):
    """The invariant for an index of two files that are sound; whether it was accepted."""
    (folder / INDEX).write_bytes(content)
    try:
        found = locate(folder)
    except RequestError as error:
        assert "\n" not in str(error), content
        return False
    expected = oracle.weight_map(content)
    held = {name: shard for shard, tensors in SHARDS.items() for name in tensors}
    assert {name: held.get(name) for name in expected} == expected, content
    assert [path.name for path in found.weights] == sorted(set(expected.values())), content
    with found.open() as weights:
        assert set(weights.entries) == set(expected), content
    return True


def campaign(mutations, seed, mutate, check):
    """How many of the mutated contents were accepted, all of them rightly."""
    rng = random.Random(seed)
    return sum(check(mutate(rng)) for _ in range(mutations))


def fuzz_headers(mutations, path):
    accepted = campaign(mutations, 0, mutated_file, lambda content: check_file(content, path))
    # Both ends of the invariant were there.
    assert 0.02 * mutations < accepted < 0.5 * mutations


def fuzz_indexes(mutations, folder):
    content = (folder / INDEX).read_bytes()
    accepted = campaign(
        mutations, 1, lambda rng: mutated_text(rng, content), lambda text: check_index(text, folder)
    )
    assert 0.02 * mutations < accepted < 0.7 * mutations


def test_what_is_mutated_is_valid(tmp_path):
    text = json.dumps(HEADER, ensure_ascii=False).encode()
    assert check_file(struct.pack("<Q", len(text)) + text + DATA, tmp_path / "x.safetensors")


def test_a_thousand_headers(tmp_path):
    fuzz_headers(1000, tmp_path / "x.safetensors")


def test_a_thousand_indexes(sharded):
    fuzz_indexes(1000, sharded)


@pytest.mark.long
def test_a_hundred_thousand_headers(tmp_path):
    fuzz_headers(100_000, tmp_path / "x.safetensors")


@pytest.mark.long
def test_twenty_thousand_indexes(sharded):
    fuzz_indexes(20_000, sharded)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2) + b"{}" + b"x",
        struct.pack("<Q", 3) + b" {}",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 20) + b'{"a": {}, "a": {}}  ',
        struct.pack("<Q", 8) + b'{"\\ud8"}',
        struct.pack("<Q", 13) + b'{"a":"\\ud800"}'[:13],
    ],
)
def test_the_slow_reader_refuses(content):
    with pytest.raises(oracle.Refusal):
        oracle.tensors(content)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, false, null, "x\\n\\u00e9\\ud83d\\ude00"], "": {}}',
        "[]",
        " 0 ",
        "-0.0",
        '"é"',
    ],
)
def test_the_slow_reader_knows_json(text):
    assert oracle.json_value(text.encode()) == json.loads(text)
    for i in range(len(text)):
        cut = text[:i].encode()
        try:
            expected = json.loads(cut.decode())
        except ValueError:
            with pytest.raises(oracle.Refusal):
                oracle.json_value(cut)
        else:
            assert oracle.json_value(cut) == expected

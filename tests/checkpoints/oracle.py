"""The format of safetensors and of its index, read slowly and by the letter; nothing of pmt.

A JSON parser by RFC 8259, character by character, and the rules of the format's description
(github.com/huggingface/safetensors, "Format"). `Refusal` is raised wherever a rule is broken.
"""

import math
import re

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32,
    "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6,
    "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Refusal(Exception):
    """The bytes are not what they should be."""


def tensors(content):
    """Name -> (dtype, shape, bytes) of a safetensors file's content."""
    if len(content) < 8:
        raise Refusal("too short")
    length = sum(byte << 8 * i for i, byte in enumerate(content[:8]))
    if length > 100_000_000 or 8 + length > len(content):
        raise Refusal("header length")
    if content[8:9] != b"{":
        raise Refusal("begins otherwise")
    header, data = json_value(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        raise Refusal("metadata")
    found, covered = {}, [0] * len(data)
    for name, fields in header.items():
        if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
            raise Refusal("fields")
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if type(dtype) is not str or dtype not in BITS:
            raise Refusal("dtype")
        if not isinstance(shape, list) or not all(is_natural(axis) for axis in shape):
            raise Refusal("shape")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_natural, offsets)):
            raise Refusal("offsets")
        start, stop = offsets
        if not start <= stop <= len(data) or 8 * (stop - start) != math.prod(shape) * BITS[dtype]:
            raise Refusal("size")
        for i in range(start, stop):
            covered[i] += 1
        found[name] = (dtype, tuple(shape), data[start:stop])
    if any(count != 1 for count in covered):
        raise Refusal("overlap or hole")
    return found


def weight_map(content):
    """Tensor -> file of an index's content."""
    value = json_value(content)
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or any(type(file) is not str for file in found.values()):
        raise Refusal("weight_map")
    return found


def is_natural(value):
    return type(value) is int and value >= 0


def json_value(content):
    """The one value of a UTF-8 JSON text, in which no object has a key twice."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("utf-8") from None
    value, end = parse(text, skip(text, 0))
    if skip(text, end) != len(text):
        raise Refusal("something after the value")
    return value


def skip(text, i):
    while i < len(text) and text[i] in " \t\n\r":
        i += 1
    return i


def expect(text, i, wanted):
    if not text.startswith(wanted, i):
        raise Refusal(f"no {wanted} at {i}")
    return i + len(wanted)


def parse(text, i):
    start = text[i : i + 1]
    if start == "{":
        return members(text, i)
    if start == "[":
        return items(text, i)
    if start == '"':
        return string(text, i)
    for literal, value in (("true", True), ("false", False), ("null", None)):
        if text.startswith(literal, i):
            return value, i + len(literal)
    match = NUMBER.match(text, i)
    if match is None or not match.group().isascii():
        raise Refusal(f"no value at {i}")
    whole = match.group(1) is None and match.group(2) is None
    return (int if whole else float)(match.group()), match.end()


def members(text, i):
    found, i = {}, skip(text, i + 1)
    if text.startswith("}", i):
        return found, i + 1
    while True:
        key, i = string(text, skip(text, i))
        if key in found:
            raise Refusal("twice")
        i = expect(text, skip(text, i), ":")
        found[key], i = parse(text, skip(text, i))
        i = skip(text, i)
        if text.startswith("}", i):
            return found, i + 1
        i = expect(text, i, ",")


def items(text, i):
    found, i = [], skip(text, i + 1)
    if text.startswith("]", i):
        return found, i + 1
    while True:
        value, i = parse(text, skip(text, i))
        found.append(value)
        i = skip(text, i)
        if text.startswith("]", i):
            return found, i + 1
        i = expect(text, i, ",")


def string(text, i):
    i, units = expect(text, i, '"'), []
    while not text.startswith('"', i):
        if i >= len(text) or ord(text[i]) < 32:
            raise Refusal("string")
        if text[i] != "\\":
            units.append(text[i])
            i += 1
        elif text[i + 1 : i + 2] == "u":
            digits = text[i + 2 : i + 6]
            if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                raise Refusal("escape")
            units.append(chr(int(digits, 16)))
            i += 6
        elif text[i + 1 : i + 2] in ESCAPES and i + 1 < len(text):
            units.append(ESCAPES[text[i + 1]])
            i += 2
        else:
            raise Refusal("escape")
    try:
        joined = "".join(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise Refusal("half of a pair of surrogates") from None
    return joined, i + 1

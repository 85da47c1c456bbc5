"""Checkpoints with vocab.txt, or vocab.json and merges.txt, in place of tokenizer.json."""

import json
import re
import shutil

import numpy as np
import pytest

from pmt.checkpoints import Checkpoint, locate
from pmt.errors import RequestError
from pmt.models import Tokenizer

TEXTS = [
    "Tokens align.",
    "Naïve café — ÀÉÎ, 漢字 and   spaces\tand\nlines; don't [MASK] it!",
    "unbelievablyantidisestablishmentarianism 3.14159 e-mail@example.org 🙂",
]
# The byte-level alphabet in order, then what is merged in the order in which it was learned.
MERGES = ["t h", "th e", "Ġ the", "i n", "Ġ t", "o k", "e n", "ok en", "Ġt oken", "r e", "in g"]
PIECES = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def alphabet():
    """Bytes as printable characters, as GPT-2 writes them."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {b: chr(b) for b in kept} | {b: chr(256 + i) for i, b in enumerate(moved)}


def by_hand(text, vocabulary):
    """Byte-pair encoding in plain Python: the merge that was learned first goes first."""
    letters, ranks = alphabet(), {tuple(m.split()): i for i, m in enumerate(MERGES)}
    ids = []
    for piece in PIECES.findall(text):
        parts = [letters[byte] for byte in piece.encode()]
        while True:
            pairs = [p for p in zip(parts, parts[1:], strict=False) if p in ranks]
            if not pairs:
                break
            best, merged, i = min(pairs, key=ranks.get), [], 0
            while i < len(parts):
                two = tuple(parts[i : i + 2]) == best
                merged.append("".join(best) if two else parts[i])
                i += 1 + two
            parts = merged
        ids += [vocabulary[part] for part in parts]
    return ids


@pytest.fixture
def folder(tmp_path):
    """Writes a checkpoint of a family, without weights, and gives its tokenizer."""

    def make(family, settings=None, **files):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        if settings is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_text(content, encoding="utf-8")
        return Checkpoint("tiny", tmp_path, (), None, ())

    return make


@pytest.fixture
def vocabulary():
    words = [*alphabet().values(), *(m.replace(" ", "") for m in MERGES)]
    words += ["<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    return {word: i for i, word in enumerate(words)}


def byte_pairs(folder, vocabulary, family, settings=None):
    merges = "\n".join(["#version: 0.2", *MERGES, ""])
    return folder(family, settings, vocab_json=json.dumps(vocabulary), merges_txt=merges)


def test_word_pieces_are_those_of_the_tokenizer_that_the_model_came_with(folder):
    packaged = locate("minilm")
    checkpoint = folder("bert")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(packaged.directory / name, checkpoint.directory)
    ours, theirs = Tokenizer(checkpoint)(TEXTS), Tokenizer(packaged)(TEXTS)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.special, theirs.special)


def test_upper_case_is_kept_where_the_settings_say_so(folder):
    words = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tokens", "Tokens"])
    lower = Tokenizer(folder("bert", vocab_txt=words))(["Tokens"])
    upper = Tokenizer(folder("bert", {"do_lower_case": False}, vocab_txt=words))(["Tokens"])
    np.testing.assert_array_equal(lower.ids, [[2, 5, 3]])
    np.testing.assert_array_equal(upper.ids, [[2, 6, 3]])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo"])
def test_byte_pairs_equal_the_ones_merged_by_hand(folder, vocabulary, family):
    tokenizer = Tokenizer(byte_pairs(folder, vocabulary, family))
    texts = ["The token in the thing", "re-tokening  it's\n the end: 12 + é_x"]
    found = tokenizer(texts)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(
            found.ids[row, : found.lengths[row]], by_hand(text, vocabulary)
        )
    assert vocabulary["Ġtoken"] in found.ids[0]
    assert not found.special.any()
    end = tokenizer(["the<|endoftext|>"]).ids[0]
    np.testing.assert_array_equal(end, [vocabulary["the"], vocabulary["<|endoftext|>"]])


def test_what_is_added_to_every_text(folder, vocabulary):
    asked = {"add_bos_token": True, "bos_token": {"content": "<|endoftext|>"}}
    first = Tokenizer(byte_pairs(folder, vocabulary, "gpt2", asked))(["the"])
    np.testing.assert_array_equal(first.ids, [[vocabulary["<|endoftext|>"], vocabulary["the"]]])
    both = Tokenizer(byte_pairs(folder, vocabulary, "roberta", {}))(["the"])
    wanted = [vocabulary[name] for name in ("<s>", "the", "</s>")]
    np.testing.assert_array_equal(both.ids, [wanted])
    np.testing.assert_array_equal(both.special, [[True, False, True]])


def test_files_that_are_not_valid(folder, vocabulary):
    broken = folder("gpt2", vocab_json="{", merges_txt="")
    with pytest.raises(RequestError, match=r"not a valid vocabulary \(.*fetch the checkpoint"):
        Tokenizer(broken)
    with pytest.raises(RequestError, match="no '\\[CLS\\]', which the tokenizer adds"):
        Tokenizer(folder("bert", vocab_txt="[UNK]\n[SEP]\nword\n"))
    settings = byte_pairs(folder, vocabulary, "gpt2")
    (settings.directory / "tokenizer_config.json").write_text('{"add_bos_token": NaN}')
    with pytest.raises(RequestError, match="tokenizer_config.json is not valid JSON"):
        Tokenizer(settings)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_without_files_a_text_is_refused_with_the_way_to_get_them(folder, family):
    with pytest.raises(RequestError, match=r"no tokenizer\.json, so it cannot read texts"):
        Tokenizer(folder(family, vocab_json="{}"))

"""Texts through the model's own tokenizer."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers

from pmt.checkpoints import locate
from pmt.errors import RequestError
from pmt.models import Tokenizer, from_pretrained
from tests.models.conftest import Tiny

TEXTS = ["Tokens align.", "The power method finds the leading eigenvector of a matrix."]


@pytest.fixture(scope="module")
def model():
    return from_pretrained("minilm", dtype="float64")


def test_texts_of_unequal_length_are_padded_at_their_end(model):
    tokens = model.tokenize(TEXTS)
    assert tokens.ids.shape == tokens.present.shape == tokens.special.shape == (2, 16)
    np.testing.assert_array_equal(tokens.lengths, [6, 16])
    np.testing.assert_array_equal(tokens.ids[0, :6], [101, 19204, 2015, 25705, 1012, 102])
    np.testing.assert_array_equal(tokens.special[0], [True] + [False] * 4 + [True] + [False] * 10)
    assert not tokens.present[0, 6:].any()


def test_padding_does_not_change_the_states_of_a_text(model):
    together = model(model.tokenize(TEXTS)).hidden_states[:, 0, :6]
    alone = model(model.tokenize(TEXTS[:1])).hidden_states[:, 0]
    np.testing.assert_allclose(together, alone, rtol=1e-10, atol=1e-12)


def test_special_tokens_can_be_left_out(model):
    tokens = model.tokenize(TEXTS, special_tokens=False)
    np.testing.assert_array_equal(tokens.lengths, [4, 14])
    assert not tokens.special.any()


def test_truncation_and_padding_of_the_stored_tokenizer_are_not_used(model):
    """MiniLM's pads to 128 tokens and cuts there."""
    assert model.tokenize(["word " * 300]).ids.shape == (1, 302)


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "at least one text"), ("one text", "must be a list")],
)
def test_what_is_no_list_of_texts(model, texts, message):
    tokenizer = Tokenizer(model.checkpoint)
    with pytest.raises(RequestError, match=message):
        tokenizer(texts)


def test_a_text_without_tokens(model):
    with pytest.raises(RequestError, match=r"text 1 \(counted from 0\), '', has no token"):
        model.tokenize(["word", ""], special_tokens=False)


def test_a_text_that_is_no_unicode(model):
    """Bytes of a command line that are no UTF-8 arrive as half a character (fault 84)."""
    with pytest.raises(RequestError, match=r"text 1 \(counted from 0\), 'a\\udcff', is not Unic"):
        model.tokenize(["word", "a\udcff"])


def small(folder, **config):
    """A tokenizer of whole words beside a tiny model."""
    fast = Fast(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.save(str(folder / "tokenizer.json"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_padding_is_the_config_s_own_token(tmp_path):
    """RoBERTa tells padding by its id."""
    copy = Tiny(tmp_path / "copy", "roberta-untied")
    small(copy.folder, pad_token_id=3)
    model = from_pretrained(copy.folder)
    tokens = model.tokenize(["a b a", "b"])
    np.testing.assert_array_equal(tokens.ids, [[1, 2, 1], [2, 3, 3]])
    together, alone = model(tokens), model(model.tokenize(["b"]))
    np.testing.assert_allclose(
        together.hidden_states[:, 1, :1], alone.hidden_states[:, 0], rtol=1e-5, atol=1e-5
    )


def test_a_checkpoint_without_a_tokenizer_or_with_a_damaged_one(tmp_path):
    copy = Tiny(tmp_path / "copy", "bert-erf")
    with pytest.raises(RequestError, match=r"has no tokenizer\.json.*AutoTokenizer"):
        from_pretrained(copy.folder).tokenize(["a"])
    (copy.folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(RequestError, match="is not a valid tokenizer"):
        Tokenizer(locate(copy.folder))


def test_the_text_of_a_token(model):
    tokenizer = Tokenizer(model.checkpoint)
    assert tokenizer.text(102) == "[SEP]"
    for missing in (-1, 10**9):
        with pytest.raises(RequestError, match="no token"):
            tokenizer.text(missing)

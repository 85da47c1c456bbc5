"""The plain text that comes with the package, to measure what an edit costs."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from pmt.errors import RequestError
from pmt.experiments.stage import require_states
from pmt.models import Tokens
from pmt.models.partial import embed
from pmt.models.vocabulary import from_vocabulary

SOURCE = (
    "A. Lincoln, Gettysburg Address (1863); T. Jefferson and others, The Declaration of "
    "Independence (1776); L. Carroll, Alice's Adventures in Wonderland (1865); public domain"
)
# Tokens a text: what fits most models and keeps attention cheap.
_LONGEST = 256
# Attention weights of all texts in one layer, 4 GB in single precision.
_MOST_WEIGHTS = 10**9


def paragraphs() -> list[str]:
    """The paragraphs of the text, for models that predict the next token."""
    text = (files("pmt.experiments") / "data" / "plain_text.txt").read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [" ".join(each.split()) for each in kept.split("\n\n") if each.strip()]


def sentences() -> list[str]:
    """Its sentences, for models that embed sentences."""
    return [
        sentence
        for paragraph in paragraphs()
        for sentence in re.split(r"(?<=[.!?])(?<!Oh dear!)\s+(?=[A-Z])", paragraph)
    ]


def can_read(model: Any) -> bool:
    """Whether the model's checkpoint has a tokenizer.

    Raises:
      RequestError: one that is not valid.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        return False
    return checkpoint.tokenizer_file is not None or from_vocabulary(checkpoint) is not None


def read_tokens(model: Any, texts: Sequence[str]) -> Tokens:
    """Texts as the model's tokenizer reads them, the ends of those that are too long left out.

    Raises:
      RequestError: a model without a tokenizer, a text without a token.
    """
    tokens = model.tokenize(list(texts))
    positions = model.dimensions.positions
    longest = min(_LONGEST, tokens.ids.shape[1] if positions is None else positions)
    return Tokens(**{name: value[:, :longest] for name, value in vars(tokens).items()})


def read_own(model: Any, texts: Sequence[str], *, special_tokens: bool = True) -> Tokens:
    """A user's texts as the model's tokenizer reads them, whole.

    Args:
      model: with its checkpoint.
      texts: at least one.
      special_tokens: whether to add those that the tokenizer adds, such as [CLS].

    Raises:
      RequestError: a model without a tokenizer, a text without a token, one that is longer than
        the model's positions reach, or texts whose attention weights would not fit into memory.
    """
    tokens: Tokens = model.tokenize(list(texts), special_tokens=special_tokens)
    shape, lengths = model.dimensions, tokens.lengths
    longest = int(np.argmax(lengths))
    if shape.positions is not None and lengths[longest] > shape.positions:
        raise RequestError(
            f"text {longest} (counted from 0), {_start(texts[longest])!r}, has {lengths[longest]} "
            f"tokens; this model takes at most {shape.positions}: give shorter texts"
        )
    held = len(lengths) * shape.heads * int(lengths[longest]) ** 2
    if held > _MOST_WEIGHTS:
        raise RequestError(
            f"{len(lengths)} texts of up to {lengths[longest]} tokens have {held:.1e} attention "
            f"weights in a layer, and {_MOST_WEIGHTS:.0e} is the most: give fewer or shorter texts"
        )
    return tokens


def initial_tokens(
    model: Any, texts: Sequence[str], *, special_tokens: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A user's texts as the tokens that stripped mode starts from: their embeddings.

    Args:
      model, texts, special_tokens: as in ``read_own``.

    Returns:
      ``(texts, n, d)`` with n tokens in the longest text, and ``(texts, n)``, False for padding.

    Raises:
      RequestError: as ``read_own``, or an embedding that is zero or not finite.
    """
    read = read_own(model, texts, special_tokens=special_tokens)
    states = embed(model, read)
    require_states(states, read.present, "the embeddings")
    return unit_states(states, read.present), read.present


def unit_states(states: Any, present: np.ndarray) -> np.ndarray:
    """Embeddings ``(texts, n, d)`` as initial tokens; padding repeats the text's first token."""
    x = np.asarray(states)
    return np.where(present[..., None], x, x[:, :1])


def _start(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def load_texts(path: Any) -> list[str]:
    """The lines of a UTF-8 file, one text each; empty ones are left out.

    Raises:
      RequestError: a file that cannot be read, is not UTF-8, or has no text in it.
    """
    try:
        # A byte order mark, which some editors write, is no part of the first text.
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    texts = [line for line in lines if line]
    if not texts:
        raise RequestError(f"{path} holds no text; give one text a line")
    return texts

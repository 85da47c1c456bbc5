"""The plain text that comes with the package, to measure what an edit costs."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pmt.errors import RequestError
from pmt.models import Tokens
from pmt.models.vocabulary import from_vocabulary

SOURCE = (
    "A. Lincoln, Gettysburg Address (1863); T. Jefferson and others, The Declaration of "
    "Independence (1776); L. Carroll, Alice's Adventures in Wonderland (1865); public domain"
)
# Tokens a text: what fits most models and keeps attention cheap.
_LONGEST = 256


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


def load_texts(path: Any) -> list[str]:
    """The lines of a UTF-8 file, one text each; empty ones are left out.

    Raises:
      RequestError: a file that cannot be read, is not UTF-8, or has no text in it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    texts = [line for line in lines if line]
    if not texts:
        raise RequestError(f"{path} holds no text; give one text a line")
    return texts

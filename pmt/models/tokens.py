"""From texts to token ids, with the model's own tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from pmt.checkpoints import Checkpoint
from pmt.errors import RequestError
from pmt.models.vocabulary import from_vocabulary


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids, padded at their end to the length of the longest.

    Attributes:
      ids: int32, padding included.
      present: False for padding.
      segments: int32, 0 for a single text in every tokenizer there is.
      special: True for what the tokenizer added, such as [CLS]; padding is not special here.
    """

    ids: Int[np.ndarray, "batch n"]
    present: Bool[np.ndarray, "batch n"]
    segments: Int[np.ndarray, "batch n"]
    special: Bool[np.ndarray, "batch n"]

    @property
    def lengths(self) -> Int[np.ndarray, "batch"]:
        """How many tokens each text has."""
        return self.present.sum(axis=1)


class NoTokenError(RequestError):
    """A text that has no token."""


class Tokenizer:
    """The tokenizer of a checkpoint: its tokenizer.json, or what its vocabulary's files say.

    Neither its truncation nor its padding is used: a text that is too long for the model is
    refused by the model, and padding is no longer than it must be.

    Raises:
      RequestError: a checkpoint without these files, or with files that are not valid.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        path = checkpoint.tokenizer_file
        fast = from_vocabulary(checkpoint) if path is None else _from_file(path)
        if fast is None:
            raise RequestError(
                f"the checkpoint {checkpoint.name} has no tokenizer.json, so it cannot read texts; "
                "let transformers write one: AutoTokenizer.from_pretrained(X).save_pretrained(DIR)"
            )
        self._fast = fast
        self._padding = _padding_id(checkpoint.config(), self._fast.padding)
        self._fast.no_truncation()
        self._fast.no_padding()

    def __call__(self, texts: Sequence[str], *, special_tokens: bool = True) -> Tokens:
        """The ids of several texts.

        Args:
          texts: at least one.
          special_tokens: whether to add those that the model was trained with, as its tokenizer
            does.

        Raises:
          NoTokenError: a text without any token.
          RequestError: no text, one text that is not in a list, a text that is no Unicode.
        """
        if isinstance(texts, str) or not texts:
            raise RequestError(f"texts is {texts!r}; it must be a list of at least one text")
        for index, text in enumerate(texts):
            _require_unicode(index, text)
        encoded = self._fast.encode_batch(list(texts), add_special_tokens=special_tokens)
        lengths = np.array([len(one.ids) for one in encoded])
        if not lengths.all():
            empty = int(np.argmin(lengths))
            raise NoTokenError(
                f"text {empty} (counted from 0), {texts[empty]!r}, has no token; "
                "give a longer one, or keep the special tokens"
            )
        shape = (len(encoded), int(lengths.max()))
        ids, segments = np.full(shape, self._padding, np.int32), np.zeros(shape, np.int32)
        special = np.zeros(shape, bool)
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = one.ids
            segments[row, : len(one.ids)] = one.type_ids
            special[row, : len(one.ids)] = one.special_tokens_mask
        present = np.arange(shape[1])[None, :] < lengths[:, None]
        return Tokens(ids, present, segments, special & present & special_tokens)

    def text(self, token: int) -> str:
        """What a token stands for, as the vocabulary spells it.

        Raises:
          RequestError: there is no such token.
        """
        found = self._fast.id_to_token(token) if token >= 0 else None
        if found is None:
            raise RequestError(f"the tokenizer has no token {token}")
        return found


def _require_unicode(index: int, text: str) -> None:
    """Refuse halves of characters, which bytes in a command line that are no UTF-8 become."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"text {index} (counted from 0), {text!r}, is not Unicode: "
            f"{text[error.start]!r} at {error.start} is no character; give it in UTF-8"
        ) from error


def _from_file(path: Path) -> Any:
    from tokenizers import Tokenizer as Fast

    try:
        return Fast.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error
    # The library raises bare exceptions.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{path} is not a valid tokenizer ({reason}); fetch the checkpoint again"
        ) from error


def _padding_id(config: Any, padding: Any) -> int:
    """The id that padding has; nothing attends to it, but it must be in the vocabulary."""
    stated = config.get("pad_token_id")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
        return stated
    return int(padding["pad_id"]) if padding else 0

"""Directions to steer to: from a file, a token, two sets of prompts, an eigenvector.

All are ``(d,)`` in float64, of any length; `pmt.steering.design` makes them unit vectors.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.errors import RequestError
from pmt.experiments.plain_text import read_own
from pmt.experiments.tokens import load_tokens
from pmt.models.heads import Decode
from pmt.models.partial import embed, run_layers
from pmt.models.tokens import NoTokenError, Tokenizer
from pmt.spectral import eigenpairs, layer_matrix
from pmt.steering import unit

# How tokenizers spell a token that they do not know.
_UNKNOWN = ("[UNK]", "<unk>")


@dataclass(frozen=True)
class Direction:
    """A direction, and where it comes from.

    Attributes:
      vector: ``(d,)``, float64, not normalised.
      source: in words, for the record.
    """

    vector: np.ndarray
    source: str


def from_file(path: str | os.PathLike[str], d: int) -> Direction:
    """The vector in a ``.npy`` file.

    Raises:
      RequestError: not readable, or no direction in R^d (see `pmt.steering.unit`).
    """
    vector = load_tokens(path)
    unit(f"the vector in {os.fspath(path)}", vector, d)
    return Direction(np.asarray(vector, np.float64), f"the vector in {os.fspath(path)}")


def from_token(model: Any, text: str) -> Direction:
    """The row of one token in the model's output embeddings, or, where those are tied or behind a
    nonlinear head, in its input embeddings.

    Raises:
      RequestError: a model without a tokenizer; a text that is no token, more than one, or one
        that the vocabulary has not.
    """
    if model.checkpoint is None:
        raise RequestError("the model came from no checkpoint, so it has no tokenizer")
    if not text:
        raise RequestError("the text is empty; give one token, such as ' ocean'")
    tokenizer = Tokenizer(model.checkpoint)
    try:
        ids = tokenizer([text], special_tokens=False).ids[0]
    except NoTokenError as error:
        raise RequestError(
            f"{text!r} has no token of its own in the model's vocabulary; give one token, such as "
            "' ocean', or a vector file"
        ) from error
    spelled = [tokenizer.text(int(token)) for token in ids]
    if len(ids) != 1:
        raise RequestError(
            f"{text!r} is {len(ids)} tokens, {', '.join(map(repr, spelled))}; give a text that is "
            "one token, or a vector file"
        )
    if spelled[0] in _UNKNOWN:
        raise RequestError(f"{text!r} is not in the model's vocabulary; give another text")
    own = isinstance(model.head, Decode) and model.head.table is not None
    table = np.asarray(model.head.table[...] if own else model.token_table)
    row = table[int(ids[0])].astype(np.float64)
    project = getattr(model.embeddings, "project", None)
    if not own and project is not None:
        row = row @ np.asarray(project.kernel[...], np.float64)
    kind = "unembedding" if own else "embedding"
    return Direction(row, f"the {kind} of the token {spelled[0]!r} (id {int(ids[0])})")


def from_difference(
    model: Any, index: int, toward: Sequence[str], away: Sequence[str]
) -> Direction:
    """The mean state of one set of prompts minus that of another, as they leave a layer.

    In full mode; tokens weigh equally, special ones included. The texts are read whole.

    Args:
      model: with a tokenizer.
      index: of the layer, from 0.
      toward, away: the texts.

    Raises:
      RequestError: a model without a tokenizer, a text without tokens or longer than the model
        can read, more texts than fit into memory, equal means.
    """
    means = []
    for texts in (toward, away):
        tokens = read_own(model, texts)
        (*_, state) = run_layers(model, embed(model, tokens), tokens.present, 0, index + 1)
        means.append(np.asarray(state, np.float64)[tokens.present].mean(axis=0))
    vector = means[0] - means[1]
    if np.linalg.norm(vector) <= 1e-7 * np.linalg.norm(means[0]):
        raise RequestError(
            "the two sets of prompts have the same mean state, so their difference is no "
            "direction; give different texts"
        )
    counts = f"{len(toward)} and {len(away)} prompts"
    return Direction(vector, f"the difference of the mean states of {counts}")


def from_eigenvector(model: Any, index: int, position: int, order: str = "real") -> Direction:
    """The unit eigenvector of the layer matrix F of a real eigenvalue.

    Its sign is fixed by its largest entry, which is positive, on every machine. At a defective or
    nearly repeated eigenvalue it is poorly determined; its condition number is in ``source``.

    Args:
      model: its layers are taken without biases, as in stripped mode.
      index: of the layer, from 0.
      position: of the eigenvalue in the order, from 0.
      order: ``"real"``, ``"skip"`` or ``"modulus"``.

    Raises:
      RequestError: there is no such eigenvalue, or it is one of a complex pair.
    """
    pairs = eigenpairs(layer_matrix(model.layer_map(index)), order)
    count = len(pairs.values)
    if not 0 <= position < count:
        raise RequestError(
            f"there is no eigenvector {position + 1}; layer {index + 1} has 1 to {count}"
        )
    value = pairs.values[position]
    if value.imag != 0:
        real = np.flatnonzero(pairs.is_real)
        near = (
            ""
            if not len(real)
            else (
                f"; the nearest real one is number {real[np.argmin(np.abs(real - position))] + 1}"
            )
        )
        raise RequestError(
            f"eigenvalue {position + 1} of layer {index + 1} is complex ({value:.4g}) and has a "
            f"plane instead of a direction{near}"
        )
    source = (
        f"eigenvector {position + 1} of layer {index + 1} (eigenvalue {value.real:.6g}, condition "
        f"{pairs.conditions[position]:.3g})"
    )
    return Direction(pairs.vectors[:, position].real.copy(), source)

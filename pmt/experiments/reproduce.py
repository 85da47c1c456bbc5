"""Runs items into folders, one each, such that an interrupted run is gone on with.

An item that is complete for the same request is not run again; of one that is not, what is left of
an earlier run (results of layers, solved eigenproblems) is taken up. Either way the data files are
the same byte for byte.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pmt.checkpoints.directory import CONFIG, TOKENIZER, VOCABULARY
from pmt.errors import RequestError
from pmt.experiments.analysis import ModelInfo
from pmt.experiments.chunks import Chunks
from pmt.experiments.items import Given, Item
from pmt.experiments.record import csv_text, versions
from pmt.files import as_json
from pmt.models.tokens import Tokenizer

SCHEMA = "pmt.item/1"

# From the key and result of an item to the contents of its figures' files by name.
Draw = Callable[[str | None, Any], Mapping[str, bytes]]


@dataclass(frozen=True)
class Done:
    """What became of an item.

    Attributes:
      item: it; found: its ``result.json``, as an object.
      folder: where its files are; None where none were written.
      before: whether an earlier run had done it.
    """

    item: Item
    found: dict[str, Any]
    folder: Path | None
    before: bool


def settings(item: Item, quick: bool, order: str | None = None, dtype: str | None = None) -> Any:
    """The item's config, small where ``quick``; in another order or dtype where it has one."""
    config = item.quick if quick else item.config
    if order is not None and _has(config, "order"):
        config = replace(config, order=order)
    if dtype is not None and _has(config, "dtype"):
        config = replace(config, dtype=dtype)
    if dtype is not None and _has(config, "training"):
        config = replace(config, training=replace(config.training, dtype=dtype))
    return config


def is_about_layers(item: Item) -> bool:
    """Whether the item is about the layers of a model and their eigenproblems."""
    return item.needs != "nothing"


def uses_a_model(item: Item) -> bool:
    """Whether the item's results depend on a model, if there is one."""
    return is_about_layers(item) or item.name == "table-1"


def repeats_a_layer(item: Item) -> bool:
    """Whether the item repeats one layer, which a user may choose."""
    return item.needs == "one layer"


def has_a_smaller_form(item: Item) -> bool:
    """Whether there is less to it with fewer prompts."""
    return bool(item.quick != item.config)


def takes_an_order(item: Item) -> bool:
    """Whether a user may choose the order of the eigenvalues."""
    return _has(item.config, "order")


def runs_on_text(item: Item) -> bool:
    """Whether the item takes texts through the whole model, a user's or others."""
    return item.needs == "text"


def reads_texts(item: Item) -> bool:
    """Whether a user's texts can be given to the item, whole or for their tokens."""
    return runs_on_text(item) or takes_tokens(item)


def takes_tokens(item: Item) -> bool:
    """Whether a user's tokens can be given to the item, in place of random ones."""
    return item.needs in ("layers", "one layer") and _has(item.config, "tokens")


def _has(config: Any, name: str) -> bool:
    return any(field.name == name for field in fields(config))


def check(item: Item, given: Given) -> None:
    """Refuse what the item cannot run on.

    Raises:
      RequestError: no model, no such layer, or a model without layers that could be read.
    """
    if not is_about_layers(item):
        return
    if given.layers is None:
        raise RequestError(
            f"{item.name} is about the layers of a model; give --model with a name on the Hub, "
            "a directory, or minilm, which is packaged"
        )
    if repeats_a_layer(item) and not 1 <= given.layer <= given.layers.depth:
        raise RequestError(
            f"there is no layer {given.layer}; the model has layers 1 to {given.layers.depth}"
        )
    if runs_on_text(item):
        # Its tokenizer only, which is there or not.
        try:
            Tokenizer(given.layers.checkpoint)
        except RequestError as error:
            raise RequestError(f"{item.name} reads text: {error}") from error


def request(item: Item, config: Any, given: Given, dtype: str) -> dict[str, Any]:
    """All that the item's results depend on, as JSON has it."""
    about, text = is_about_layers(item), runs_on_text(item)
    # What else the tokens of texts depend on is the model's.
    texts = given.texts if reads_texts(item) else None
    tokens = given.tokens if takes_tokens(item) and texts is None else None
    model: ModelInfo | None = given.model if uses_a_model(item) else None
    return as_json(
        {
            "schema": SCHEMA,
            "item": item.name,
            "config": vars(config),
            "seed": given.seed,
            "model": model,
            "model_files": None if model is None else _files(given.layers, text or bool(texts)),
            "layer": given.layer if repeats_a_layer(item) else None,
            "tokens": _digest(tokens),
            "texts": list(texts) if texts else None,
            "mode": ("full" if text else "stripped") if about else None,
            "dtype": dtype if about else _trained_in(config) or "float64",
            "device": jax.devices()[0].platform,
            "versions": versions(),
        }
    )


def open_folder(
    item: Item, config: Any, given: Given, dtype: str, out: Path, overwrite: bool
) -> Chunks:
    """The item's folder in ``out``.

    Raises:
      RequestError: it holds results of another request, unless ``overwrite``.
    """
    return Chunks(out / item.name, request(item, config, given, dtype), overwrite=overwrite)


def run_item(
    item: Item, config: Any, given: Given, dtype: str, chunks: Chunks | None, draw: Draw
) -> Done:
    """Run it, or take what an earlier run found, and write its files.

    The order of writing: layers as they come, tables, figures, and the result last.

    Raises:
      RequestError: as the item does; nothing is kept of it then, unless the same request may
        succeed.
    """
    if chunks is not None:
        known = chunks.result
        if known is not None:
            return Done(item, known, chunks.folder, before=True)
        given = replace(given, folder=chunks.folder, keep=chunks.put, recall=chunks.get)
        given = replace(given, units=chunks.units)
    try:
        result = item.run(config, given)
    except RequestError as error:
        # It will fail again, and what is kept would bar the way of the one that is right.
        if chunks is not None and not error.may_succeed:
            chunks.discard()
        raise
    found = as_json(
        {
            "name": item.name,
            "number": item.number,
            "title": item.title,
            "sentences": item.sentences(result),
            "settings": request(item, config, given, dtype),
            "result": item.record(result),
        }
    )
    # As a reader of the file has it, so that both ways to it give the same.
    found = json.loads(json.dumps(found, allow_nan=False))
    if chunks is None:
        return Done(item, found, None, before=False)
    for name, rows in item.tables(result).items():
        chunks.write(f"{name}.csv", csv_text(rows))
    for name, content in draw(item.figure, result).items():
        chunks.write(name, content)
    chunks.close(found)
    return Done(item, found, chunks.folder, before=False)


def _files(layers: Any, text: bool) -> dict[str, str] | None:
    """The SHA-256 of what is read beside the weights, by name; None without a checkpoint.

    Raises:
      RequestError: a file that cannot be read, or a link that leaves the directory.
    """
    checkpoint = getattr(layers, "checkpoint", None)
    if checkpoint is None:
        return None
    names = [CONFIG]
    if text:
        # As in `Tokenizer`: the others only count where there is no tokenizer.json.
        whole = checkpoint.tokenizer_file is not None
        names += [TOKENIZER] if whole else ["tokenizer_config.json", *VOCABULARY]
    found = {}
    for name in names:
        path = checkpoint.file(name)
        if path is None:
            continue
        try:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from error
    return found


def _trained_in(config: Any) -> str | None:
    """The dtype of an item that trains; None of others."""
    dtype: str | None = getattr(getattr(config, "training", config), "dtype", None)
    return dtype


def _digest(tokens: Any) -> str | None:
    if tokens is None:
        return None
    array = np.ascontiguousarray(tokens)
    head = f"{array.dtype} {array.shape}\n".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()

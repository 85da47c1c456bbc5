"""An edit of a layer's output weights: on which stored tensor, and on the model in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from pmt.checkpoints import Checkpoint
from pmt.checkpoints.delta import Delta, edit_tensor, tensor_sha256
from pmt.checkpoints.header import DTYPES
from pmt.errors import RequestError
from pmt.models.layouts import CONV_OUT_OF_HEADS, OUT_OF_HEADS
from pmt.models.loading import Binding
from pmt.models.pretrained import FAMILIES
from pmt.models.saving import _COMPANIONS
from pmt.models.transformer import Transformer
from pmt.steering import Edit


@dataclass(frozen=True)
class OutputTensor:
    """The stored output weights of a layer.

    Attributes:
      name: in the checkpoint.
      array: as stored.
      axis: that the model's dimension d lies on; the heads' values lie on the other.
    """

    name: str
    array: np.ndarray
    axis: int


def layers_with(model: Transformer, index: int) -> list[int]:
    """The layers, from 0, that have the weights of layer ``index``: itself, and more in ALBERT."""
    return [each for each, block in enumerate(model.schedule) if block == model.schedule[index]]


def require_layer(model: Transformer, index: int, *, all_layers: bool = False) -> int:
    """The layer to be steered, from 0: with shared weights the first that has them.

    Raises:
      RequestError: there is no such layer; other layers have its weights and ``all_layers`` does
        not say that they may be edited too.
    """
    depth = len(model.schedule)
    if not 0 <= index < depth:
        raise RequestError(f"there is no layer {index + 1}; the model has layers 1 to {depth}")
    shared = layers_with(model, index)
    if len(shared) > 1 and not all_layers:
        raise RequestError(
            f"layer {index + 1} shares its weights, so that an edit would change layers "
            f"{', '.join(str(each + 1) for each in shared)}; give --all-layers to edit them all, "
            "or --untie-last to give every layer weights of its own first"
        )
    return shared[0]


def output_tensor(model: Transformer, index: int) -> OutputTensor:
    """The stored output weights of layer ``index``, from 0, read from the model's checkpoint.

    Raises:
      RequestError: a model without a checkpoint, or one whose files were changed.
    """
    if model.checkpoint is None:
        raise RequestError("the model came from no checkpoint, so there is no tensor to edit")
    parameter = f"blocks.{model.schedule[index]}.attention.output"
    with model.checkpoint.open() as weights:
        binding = Binding(FAMILIES[model.family], model.config, weights, model.token_table.dtype)
        binding.require_fit()
        for name, rules in binding.rules.items():
            for rule in rules:
                if rule.parameter == parameter:
                    axis = {OUT_OF_HEADS: 0, CONV_OUT_OF_HEADS: 1}[rule.layout]
                    return OutputTensor(name, weights.read(name), axis)
    raise ValueError(f"the table of {model.family} has no rule for {parameter}")


def make_delta(model: Transformer, index: int, edit: Edit) -> Delta:
    """The edit as a file would hold it, with the hashes of the tensor before and after.

    Raises:
      RequestError: as `output_tensor`; a tensor that is stored in more digits than the model has;
        an entry that the stored dtype cannot hold.
    """
    tensor = output_tensor(model, index)
    stored = np.dtype(tensor.array.dtype)
    if stored.itemsize > np.dtype(model.token_table.dtype).itemsize:
        raise RequestError(
            f"the output weights are stored in {stored} and the model was loaded in "
            f"{model.token_table.dtype}; give --dtype {stored}"
        )
    edited = edit_tensor(tensor.array, edit.strength, edit.direction, edit.flat, tensor.axis)
    checkpoint = model.checkpoint
    return Delta(
        w=edit.direction,
        z=edit.read,
        a=edit.flat,
        strength=edit.strength,
        layer=index + 1,
        tensor=tensor.name,
        axis=tensor.axis,
        dtype=next(name for name, dtype in DTYPES.items() if dtype == stored),
        base_sha256=tensor_sha256(tensor.array),
        edited_sha256=tensor_sha256(edited),
        base=checkpoint.name,
        revision=checkpoint.revision,
        model_sha256=checkpoint.sha256,
    )


@contextmanager
def steered(
    model: Transformer, index: int, edit: Edit, dtype: np.dtype | str | None = None
) -> Iterator[Transformer]:
    """The model with the edit, rounded to ``dtype``; at the end it is what it was, bit for bit.

    Raises:
      RequestError: an entry that the dtype cannot hold.
    """
    parameter = model.layer(index).attention.output
    before = parameter[...]
    stored = edit.output(before, dtype)
    parameter[...] = jnp.asarray(stored.astype(before.dtype))
    try:
        yield model
    finally:
        parameter[...] = before


def companion_files(checkpoint: Checkpoint) -> list[Path]:
    """The files of a checkpoint besides its config and weights, such as the tokenizer's."""
    paths = [checkpoint.directory / name for name in _COMPANIONS]
    return [path for path in paths if path.is_file()]

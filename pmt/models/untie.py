"""ALBERT with weights of its own for every layer, so that one layer can be edited."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pmt.checkpoints import write_checkpoint
from pmt.errors import RequestError
from pmt.models.editing import companion_files
from pmt.models.transformer import Transformer

_GROUP = re.compile(r"(?<=albert_layer_groups\.)\d+(?=\.)")


def untie(
    model: Transformer, directory: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write the checkpoint with one group of blocks a layer, each a copy of the one it had.

    The family knows no model in which only the last layer has weights of its own: its layers are
    dealt out to groups evenly. With as many groups as layers it computes the same, and every layer
    can be edited by itself; the blocks take as many times more room.

    Raises:
      RequestError: a family without shared weights, a model without a checkpoint, a directory that
        cannot be written.
    """
    config = model.config
    if model.family != "albert" or model.checkpoint is None:
        raise RequestError(
            "the layers of this model share no weights, so there is nothing to untie; leave "
            "--untie-last out"
        )
    layers, inner = config.num_hidden_layers, config.inner_group_num
    group_of = [config.schedule[layer * inner] // inner for layer in range(layers)]
    raw = {**model.checkpoint.config(), "num_hidden_groups": layers}
    with model.checkpoint.open() as weights:

        def tensors() -> Iterator[tuple[str, np.ndarray]]:
            for name in weights.entries:
                found = _GROUP.search(name)
                array = weights.read(name)
                if found is None:
                    yield name, array
                    continue
                for layer, group in enumerate(group_of):
                    if group == int(found[0]):
                        yield _GROUP.sub(str(layer), name, count=1), array

        return write_checkpoint(
            directory,
            config=raw,
            tensors=tensors(),
            copy=companion_files(model.checkpoint),
            overwrite=overwrite,
        )

"""A model as a checkpoint that `transformers` loads."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from pmt.checkpoints import Weights, write_checkpoint
from pmt.errors import RequestError
from pmt.models.family import Rule
from pmt.models.layouts import Shape
from pmt.models.loading import Binding
from pmt.models.pretrained import FAMILIES
from pmt.models.rotary import rotary_as_json
from pmt.models.transformer import Transformer

# What belongs to a checkpoint besides its config and its weights.
_COMPANIONS = (
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def save_pretrained(
    model: Transformer, directory: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a model, edited or not, as a directory that `transformers` and `from_pretrained` load.

    A model that came from a checkpoint is written as that one was: the same config, the same
    tensors under the same names in the same dtypes, those that the model does not use included,
    and the tokenizer's files. Numbers that were not changed are the same bit for bit.
    Any other model is written under the names of the family's class with a language head, in the
    dtype of its parameters.

    Args:
      model: from `from_pretrained`, perhaps with other numbers in its parameters, or built anew.
      directory: new or empty, or, with ``overwrite``, one that was written by this function.
      overwrite: whether to replace such a one.

    Returns:
      The directory.

    Raises:
      RequestError: a parameter with NaN or infinity, or one too large for the stored dtype; a
        checkpoint that was changed or removed since the model was read; a directory that cannot
        be written.
    """
    parameters = {
        ".".join(map(str, path)): leaf[...]
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    for name, value in parameters.items():
        if not bool(jnp.isfinite(value).all()):
            raise RequestError(
                f"the parameter {name} holds NaN or infinity; only finite numbers are saved"
            )
    if model.checkpoint is None:
        tensors = _fresh(model, parameters)
        return write_checkpoint(
            directory, config=config_json(model), tensors=tensors, overwrite=overwrite
        )
    copies = [model.checkpoint.directory / name for name in _COMPANIONS]
    with model.checkpoint.open() as weights:
        return write_checkpoint(
            directory,
            config=model.checkpoint.config(),
            tensors=_as_it_was(model, parameters, weights),
            copy=[path for path in copies if path.is_file()],
            overwrite=overwrite,
        )


def config_json(model: Transformer) -> dict[str, Any]:
    """The config.json of a model that came from no checkpoint."""
    family = FAMILIES[model.family]
    settings = asdict(model.config)
    if "rope_theta" in settings:
        settings["rope_parameters"] = rotary_as_json(settings)
        for name in ("rope_theta", "rope_scaling", "rotary_pct"):
            settings.pop(name, None)
    return {
        "model_type": family.name,
        "architectures": [family.architecture],
        "dtype": str(model.token_table.dtype),
        **settings,
    }


def _as_it_was(
    model: Transformer, parameters: Mapping[str, Any], weights: Weights
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of the model's checkpoint, with the model's numbers."""
    dtype = next(iter(parameters.values())).dtype
    binding = Binding(FAMILIES[model.family], model.config, weights, dtype)
    binding.require_fit()
    for name in weights.entries:
        stored = weights.read(name)
        rules = binding.rules.get(binding.repeats.get(name, name))
        if rules is None:
            yield name, stored
            continue
        with np.errstate(over="ignore"):
            before = stored.astype(dtype)
        now = _assemble(rules, parameters, stored.shape, np.dtype(dtype))
        # What was not touched keeps the digits that the model's dtype may not have.
        untouched = _bits(before) == _bits(now)
        yield name, np.where(untouched, stored, _narrowed(name, now, stored.dtype))


def _fresh(model: Transformer, parameters: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that the family's table names."""
    together: dict[str, list[Rule]] = {}
    for rule in FAMILIES[model.family].table(model.config, model.parts):
        together.setdefault(rule.stored, []).append(rule)
    for name, rules in together.items():
        first = parameters[rules[0].parameter]
        shape = rules[0].layout.stored(tuple(first.shape))
        yield name, _assemble(rules, parameters, shape, np.dtype(first.dtype))


def _assemble(
    rules: list[Rule], parameters: Mapping[str, Any], shape: Shape, dtype: np.dtype
) -> np.ndarray:
    tensor = np.full(shape, np.nan, dtype)
    for rule in rules:
        value = np.asarray(parameters[rule.parameter])
        rule.layout.view(tensor, value.shape)[...] = value
    if np.isnan(tensor).any():
        raise ValueError(f"the rules for {rules[0].stored} leave a part of it out")
    return tensor


def _narrowed(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrowed = tensor.astype(dtype)
    if not np.isfinite(narrowed).all():
        raise RequestError(
            f"the edited {name} holds {np.abs(tensor).max():.3g}, which {dtype} cannot hold; "
            "make the edit smaller, or start from a checkpoint in a wider dtype"
        )
    return narrowed


def _bits(array: np.ndarray) -> np.ndarray:
    # So that -0 is not taken for 0.
    return array.view(np.dtype(f"u{array.itemsize}"))

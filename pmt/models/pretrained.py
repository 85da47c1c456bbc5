"""A model from the name or directory of its checkpoint."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from pmt.checkpoints import Checkpoint, Weights, locate, open_weights
from pmt.errors import RequestError
from pmt.models import bert
from pmt.models.loading import expand, load, plain_names

# float16 and bfloat16 checkpoints are read, but not computed in: the statistics need more digits.
DTYPES = ("float32", "float64")


def from_pretrained(name_or_directory: str | os.PathLike[str], *, dtype: Any = "float32") -> Any:
    """The Flax model of a checkpoint, with its weights.

    Args:
      name_or_directory: ``"minilm"``, the packaged all-MiniLM-L6-v2, or a directory with
        config.json and model.safetensors; see `pmt.checkpoints.locate`.
      dtype: float32 or float64 (which needs JAX's 64-bit mode); weights are converted once.

    Raises:
      RequestError: a checkpoint that is not found, not valid, of a family that is not supported,
        with a config that cannot be honoured, or whose tensors do not fit it.
    """
    wanted = _require_dtype(dtype)
    checkpoint = locate(name_or_directory)
    raw = checkpoint.config()
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise RequestError(
            f"the checkpoint {checkpoint.name} is of the family {family!r}; supported are "
            f"{', '.join(sorted(FAMILIES))}"
        )
    with open_weights(checkpoint.weights) as weights:
        return FAMILIES[family](checkpoint, raw, weights, wanted)


def _bert(checkpoint: Checkpoint, raw: Mapping[str, Any], weights: Weights, dtype: str) -> Any:
    config = bert.BertConfig.from_dict(raw)
    names = plain_names(weights, bert.PREFIX)
    pooler = any(name.startswith("pooler.") for name in names)

    def build() -> bert.Bert:
        return bert.Bert(
            config, pooler=pooler, dtype=dtype, rngs=nnx.Rngs(0), checkpoint=checkpoint
        )

    rules = expand((*bert.TABLE, *(bert.POOLER if pooler else ())), config.num_hidden_layers)
    return load(nnx.eval_shape(build), weights, names, rules, bert.IGNORED, dtype)


FAMILIES: Mapping[str, Callable[..., Any]] = MappingProxyType({"bert": _bert})


def _require_dtype(dtype: Any) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise RequestError(f"the dtype is {name}; it must be {' or '.join(DTYPES)}")
    if name == "float64" and jnp.result_type(float) != np.float64:
        raise RequestError(
            "float64 needs JAX's 64-bit mode; work inside 'with jax.enable_x64(True):', "
            "or choose float32"
        )
    return name

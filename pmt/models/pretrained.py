"""A model from the name or directory of its checkpoint, whole or one layer at a time."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt.checkpoints import Checkpoint, locate
from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.models import (
    albert,
    bert,
    distilbert,
    gpt2,
    gpt_neo,
    gpt_neox,
    llama,
    mistral,
    qwen2,
    roberta,
)
from pmt.models.config import Dimensions
from pmt.models.family import Family, Parts
from pmt.models.loading import Binding

# float16 and bfloat16 checkpoints are read, but not computed in: the statistics need more digits.
DTYPES = ("float32", "float64")

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        module.FAMILY.name: module.FAMILY
        for module in (
            albert,
            bert,
            distilbert,
            gpt2,
            gpt_neo,
            gpt_neox,
            llama,
            mistral,
            qwen2,
            roberta,
        )
    }
)


def from_pretrained(
    name_or_directory: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    notify: Callable[[str], None] | None = None,
) -> Any:
    """The Flax model of a checkpoint, with its weights.

    Args:
      name_or_directory: ``"minilm"``, the packaged all-MiniLM-L6-v2; a directory with config.json
        and safetensors; or a name on the Hugging Face Hub.
      dtype: float32 or float64 (which needs JAX's 64-bit mode); weights are converted once.
      revision, cache_dir, local_files_only, token, notify: as in `pmt.checkpoints.locate`.

    Raises:
      RequestError: a checkpoint that is not found, not valid, of a family that is not supported,
        with a config that cannot be honoured, or whose tensors do not fit it.
    """
    wanted = _require_dtype(dtype)
    checkpoint = locate(
        name_or_directory,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        notify=notify,
    )
    family, config, required = _identify(checkpoint)
    with checkpoint.open() as weights:
        model = Binding(family, config, weights, wanted, required).fill()
    model.checkpoint = checkpoint
    return model


class Layers:
    """The layers of a checkpoint in stripped mode, read from its files one at a time.

    Names, shapes and dtypes of all tensors are checked at once, numbers when they are read. Use
    it as a context manager, or call `close`.

    Attributes:
      family, config, checkpoint: as of the model.
      dimensions: d, heads, layers and the like.
      shared: whether some layers have the same weights.
      depth: how many layers there are.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: Any, biases: bool, rotary: bool, alpha: float
    ) -> None:
        family, self.config, required = _identify(checkpoint)
        self.family, self.checkpoint = family.name, checkpoint
        self._kept = {"biases": biases, "rotary": rotary, "alpha": alpha}
        self._weights = checkpoint.open()
        try:
            self._binding = Binding(family, self.config, self._weights, dtype, required)
            self._binding.require_fit()
        except BaseException:
            self.close()
            raise
        self._schedule = self._binding.skeleton.schedule
        self.dimensions: Dimensions = self.config.dimensions
        self.shared = len(set(self._schedule)) < len(self._schedule)
        self.depth = len(self._schedule)

    def block(self, index: int) -> int:
        """Which of the distinct blocks is layer ``index``, from 0."""
        return self._schedule[index]

    def layer(self, index: int) -> MultiHead:
        """Layer ``index``, from 0, read now; nothing of it is kept here.

        Raises:
          RequestError: no such layer, NaN or infinity in its weights, a file that changed.
        """
        if not 0 <= index < self.depth:
            raise RequestError(f"layer index {index} is outside 0..{self.depth - 1}")
        block = self._schedule[index]
        module = self._binding.skeleton.blocks[block].attention
        filled = self._binding.fill_module(module, f"blocks.{block}.attention")
        return filled.as_map(**self._kept)

    def close(self) -> None:
        """Let go of the files."""
        self._weights.close()

    def __enter__(self) -> "Layers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_layers(
    name_or_directory: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    biases: bool = False,
    rotary: bool = False,
    alpha: float = 1.0,
    identify: bool = False,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    notify: Callable[[str], None] | None = None,
) -> Layers:
    """The layers of a checkpoint as maps, each read when it is asked for.

    The maps are those of ``from_pretrained(...).layer_stack(...)``, without ever holding more
    than one of them; see there for the arguments. With ``identify`` the hash of the weights, which
    the record of an analysis has, is begun at once, on a core that has nothing else to do yet.

    Raises:
      RequestError: see ``from_pretrained``.
    """
    wanted = _require_dtype(dtype)
    checkpoint = locate(
        name_or_directory,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        notify=notify,
    )
    if identify:
        checkpoint.begin_sha256()
    return Layers(checkpoint, dtype=wanted, biases=biases, rotary=rotary, alpha=alpha)


def _identify(checkpoint: Checkpoint) -> tuple[Family, Any, Parts]:
    """The family, the config, and the optional parts that the config says there are."""
    raw = checkpoint.config()
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise RequestError(
            f"the checkpoint {checkpoint.name} is of the family {name!r}; supported are "
            f"{', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[name]
    config = family.read_config(raw)
    classes = raw.get("architectures") or ()
    stated = isinstance(classes, list) and any(
        str(one).endswith(("ForCausalLM", "ForMaskedLM", "ForPreTraining", "LMHeadModel"))
        for one in classes
    )
    return family, config, frozenset({"head"}) if stated else frozenset()


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

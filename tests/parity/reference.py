"""What transformers computes, with nothing of it in less than float64.

`model.double()` is not enough. Several modules of transformers name float32 themselves, which in
half precision protects a result and in double precision spoils it at 1e-8:

- RMSNorm (Llama, Mistral, Qwen2) converts to `torch.float32`;
- eager attention (Llama, Mistral, Qwen2, GPT-NeoX) asks softmax for `torch.float32`;
- GPT-Neo converts queries and keys, GPT-2 with `reorder_and_upcast_attn` as well;
- rotary angles go through `.float()` and `torch.float`, from `inv_freq`, a float32 buffer.

`exact` replaces the name `torch` in the modules that do this by a stand-in whose `float32` and
`float` are float64, makes `Tensor.float` convert to float64, and makes float64 the default.
`load` computes `inv_freq` again in that setting, from the config. Every operation is watched: one
with a floating tensor of another type, given or made, is an error, so that a later transformers
with a new conversion cannot pass unnoticed.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import activations, masking_utils, modeling_rope_utils, pytorch_utils

# Where the model keeps its blocks, and the norm after the last one; post-norm families have none.
BLOCKS = {
    "albert": ("encoder.albert_layer_groups", None),
    "bert": ("encoder.layer", None),
    "roberta": ("encoder.layer", None),
    "distilbert": ("transformer.layer", None),
    "gpt2": ("h", "ln_f"),
    "gpt_neo": ("h", "ln_f"),
    "llama": ("layers", "norm"),
    "mistral": ("layers", "norm"),
    "qwen2": ("layers", "norm"),
    "gpt_neox": ("layers", "final_layer_norm"),
}


class _Float64Torch:
    """The module torch, whose single precision is double precision."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _OnlyFloat64(TorchDispatchMode):
    """Refuses every floating argument and result that is not float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                if leaf.dtype != torch.float64:
                    raise TypeError(f"{func} of the reference computes in {leaf.dtype}")
        return result


@contextlib.contextmanager
def exact(model: torch.nn.Module) -> Iterator[None]:
    """Everything that `model` computes inside is computed in float64, and checked to be."""
    modules: set[ModuleType] = {sys.modules[type(part).__module__] for part in model.modules()}
    modules |= {activations, masking_utils, modeling_rope_utils, pytorch_utils}
    default = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for module in modules:
            if module.__name__.startswith("transformers.") and hasattr(module, "torch"):
                stack.enter_context(mock.patch.object(module, "torch", _Float64Torch()))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_OnlyFloat64())
        yield


def load(folder: Path, cls: str | None = None, **options: Any) -> torch.nn.Module:
    """A saved model in float64, of the class that its config names unless another is given."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, cls or config.architectures[0])
    model = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options
    )
    model = model.double().eval()
    with exact(model):
        for part in model.modules():
            if hasattr(part, "inv_freq"):
                angles = modeling_rope_utils.ROPE_INIT_FUNCTIONS.get(
                    part.rope_type, part.compute_default_rope_parameters
                )
                part.inv_freq, part.attention_scaling = angles(part.config)
                part.original_inv_freq = part.inv_freq.clone()
    return model


def compute(
    model: torch.nn.Module, ids: np.ndarray, present: np.ndarray, segments: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The states of a model in float64, by hooks on its blocks.

    Args:
      model: from `load`.
      ids: (batch, n) tokens.
      present: (batch, n), False where there is padding.
      segments: (batch, n) segment ids, or None.

    Returns:
      By name: `hidden_states` (layers + 1, batch, n, d), what enters the first block and what
      leaves each; `final` (batch, n, d), the last one after the final norm, in pre-norm families;
      `pooled` (batch, d) where there is a pooler; `logits` (batch, n, vocabulary) where there is a
      head. ALBERT's inner layers count as layers, as they do in what transformers itself records.
    """
    kind = model.config.model_type
    where, norm = BLOCKS[kind]
    base = model.base_model
    given = dict(
        input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(present.astype(np.int64))
    )
    if segments is not None:
        given["token_type_ids"] = torch.from_numpy(segments)
    blocks = list(base.get_submodule(where))
    if kind == "albert":
        blocks = [layer for group in blocks for layer in group.albert_layers]
    with _recorded(blocks) as states, contextlib.ExitStack() as stack:
        final = stack.enter_context(_recorded([base.get_submodule(norm)])) if norm else []
        stack.enter_context(exact(model))
        output = base(**given)
    result = {"hidden_states": np.stack(states)}
    if norm:
        result["final"] = final[-1]
    if getattr(output, "pooler_output", None) is not None:
        result["pooled"] = output.pooler_output.numpy()
    if model is not base:
        with exact(model):
            output = model(**given)
        logits = output.prediction_logits if "prediction_logits" in output else output.logits
        result["logits"] = logits.numpy()
    return result


@contextlib.contextmanager
def _recorded(parts: list[torch.nn.Module]) -> Iterator[list[np.ndarray]]:
    """A list that receives what enters the first call of any of `parts`, and what leaves each."""
    states: list[np.ndarray] = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        if not states:
            states.append((args[0] if args else kwargs["hidden_states"]).numpy())

    def after(_: Any, args: Any, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output).numpy())

    hooks = [part.register_forward_pre_hook(before, with_kwargs=True) for part in parts]
    hooks += [part.register_forward_hook(after) for part in parts]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()

"""Filling a module with a checkpoint's tensors: a bijection, or one error that lists everything.

Every tensor of the checkpoint is named by a rule or is on a list of ignored ones with a reason,
every parameter is filled, shapes agree, and all numbers are finite.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pmt.checkpoints import Weights
from pmt.errors import RequestError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a parameter is laid out in the checkpoint.

    Attributes:
      stored: the shape in the checkpoint of a parameter of the given shape.
      arrange: the stored array in the shape of the parameter.
    """

    stored: Callable[[Shape], Shape]
    arrange: Callable[[np.ndarray, Shape], np.ndarray]


AS_IS = Layout(lambda shape: shape, lambda array, _: array)
TRANSPOSED = Layout(lambda shape: shape[::-1], lambda array, _: array.T)
# (h, k, d) from the (h k, d) of a torch Linear, and (h, k) from its bias.
INTO_HEADS = Layout(
    lambda shape: (shape[0] * shape[1], *shape[2:]), lambda array, shape: array.reshape(shape)
)
# (h, d, k) from the (d, h k) of a torch Linear.
OUT_OF_HEADS = Layout(
    lambda shape: (shape[1], shape[0] * shape[2]),
    lambda array, shape: np.moveaxis(array.reshape(shape[1], shape[0], shape[2]), 1, 0),
)


@dataclass(frozen=True)
class Rule:
    """One line of a family's weight table; ``{}`` stands for the number of a layer in both names.

    Attributes:
      stored: the tensor's name in the checkpoint, without the family's prefix.
      parameter: the path of the parameter in the module.
      layout: how the one becomes the other.
    """

    stored: str
    parameter: str
    layout: Layout = AS_IS


def expand(rules: Iterable[Rule], layers: int) -> list[Rule]:
    """The rules with ``{}`` replaced by every layer's number."""
    return [
        Rule(rule.stored.format(i), rule.parameter.format(i), rule.layout)
        for rule in rules
        for i in range(layers if "{}" in rule.stored else 1)
    ]


def plain_names(weights: Weights, prefix: str) -> dict[str, str]:
    """Names as the weight tables write them -> names in the checkpoint.

    The prefix of a model with a head on top goes, and the ``gamma`` and ``beta`` of old layer
    norms become ``weight`` and ``bias``.

    Raises:
      RequestError: two tensors that are the same one under both spellings.
    """
    names: dict[str, str] = {}
    for stored in weights.entries:
        plain = stored.removeprefix(prefix)
        plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", plain)
        plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
        if plain in names:
            raise RequestError(
                f"the checkpoint holds one tensor twice, as {names[plain]!r} and {stored!r}; "
                "fetch it again"
            )
        names[plain] = stored
    return names


def load(
    skeleton: nnx.Module,
    weights: Weights,
    names: Mapping[str, str],
    rules: Sequence[Rule],
    ignored: Mapping[str, str],
    dtype: Any,
) -> Any:
    """The module with all its parameters read from the checkpoint.

    Args:
      skeleton: the module from ``nnx.eval_shape``: shapes, no numbers.
      weights: the open checkpoint.
      names: see `plain_names`.
      rules: one for every parameter.
      ignored: pattern of tensor names that are not used -> why.
      dtype: of the parameters; each tensor is converted once.

    Raises:
      RequestError: listing all tensors that nothing uses, parameters that nothing fills, shapes
        that differ, dtypes that are not floating, and tensors with NaN or infinity.
    """
    graph, state = nnx.split(skeleton)
    slots = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    offenders = [
        f"{names[name]} is not used by the model"
        for name in sorted(names.keys() - {rule.stored for rule in rules})
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    offenders += [
        f"no rule fills {parameter}"
        for parameter in sorted(slots.keys() - {rule.parameter for rule in rules})
    ]
    filled = []
    for rule in rules:
        path, leaf = slots[rule.parameter]
        array, reason = _fetch(weights, names, rule, tuple(leaf.shape), dtype)
        if array is None:
            offenders.append(reason)
        else:
            filled.append((path, leaf.replace(array)))
    if offenders:
        raise RequestError(
            f"the checkpoint does not fit the model its config describes ({'; '.join(offenders)});"
            " check that config and weights belong together"
        )
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _fetch(
    weights: Weights, names: Mapping[str, str], rule: Rule, shape: Shape, dtype: Any
) -> tuple[jax.Array | None, str]:
    if rule.stored not in names:
        return None, f"{rule.stored} is missing"
    name = names[rule.stored]
    entry, wanted = weights.entries[name], rule.layout.stored(shape)
    if entry.shape != wanted:
        return None, f"{name} has shape {entry.shape} instead of {wanted}"
    if entry.dtype is None or not jnp.issubdtype(entry.dtype, jnp.floating):
        return None, f"{name} is stored as {entry.stored}, which is no floating dtype that is read"
    array = weights.read(name).astype(np.dtype(dtype))
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        return None, f"{name} holds {bad} numbers that are NaN or infinite"
    return jnp.asarray(rule.layout.arrange(array, shape)), ""

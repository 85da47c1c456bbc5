"""Where a parameter lies in a checkpoint's tensor: one definition for reading and for writing.

A layout shows a stored tensor as a NumPy view in the parameter's shape. Reading copies the view;
writing fills it. Several parameters may be parts of one tensor, such as fused queries, keys and
values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a parameter is laid out in the checkpoint.

    Attributes:
      stored: the shape of the checkpoint's tensor for a parameter of the given shape.
      view: such a tensor, as a view of it in the parameter's shape.
    """

    stored: Callable[[Shape], Shape]
    view: Callable[[np.ndarray, Shape], np.ndarray]


AS_IS = Layout(lambda shape: shape, lambda array, _: array)
# A torch Linear stores (out, in); the Conv1D of GPT-2 stores (in, out), as a kernel is here.
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
# (h, d, k) from the (h k, d) of a Conv1D.
CONV_OUT_OF_HEADS = Layout(
    lambda shape: (shape[0] * shape[2], shape[1]),
    lambda array, shape: np.swapaxes(array.reshape(shape[0], shape[2], shape[1]), 1, 2),
)


def conv_part(index: int, parts: int = 3) -> Layout:
    """Part ``index`` of a Conv1D whose outputs are queries, keys and values, one after another.

    ``(h, k, d)`` from ``(d, parts h k)``, ``(h, k)`` from the bias ``(parts h k,)``.
    """

    def stored(shape: Shape) -> Shape:
        return (*shape[2:], parts * shape[0] * shape[1])

    def view(array: np.ndarray, shape: Shape) -> np.ndarray:
        split = array.reshape(*shape[2:], parts, shape[0], shape[1])
        if len(shape) == 2:
            return split[index]
        return np.moveaxis(split[:, index], 0, -1)

    return Layout(stored, view)


def interleaved_part(index: int, parts: int = 3) -> Layout:
    """Part ``index`` of a Linear that has query, key and value of the first head, then the next.

    ``(h, k, d)`` from ``(h parts k, d)``, ``(h, k)`` from the bias ``(h parts k,)``.
    """

    def stored(shape: Shape) -> Shape:
        return (parts * shape[0] * shape[1], *shape[2:])

    def view(array: np.ndarray, shape: Shape) -> np.ndarray:
        return array.reshape(shape[0], parts, *shape[1:])[:, index]

    return Layout(stored, view)

"""What a layer does to the tokens around its attention: nothing but the step to the sphere in
stripped mode, the real model's norms and feed-forward block in full mode.

So one driver measures both, the layer's own update and that of a null model in its place.
"""

from collections.abc import Iterable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np

from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.experiments.analysis import AnalysisConfig
from pmt.numerics import require_finite
from pmt.spectral import layer_matrix, layer_operators


@runtime_checkable
class Stage(Protocol):
    """What the layers do to the tokens, and what of them is attention.

    Attributes:
      mode: ``"stripped"`` or ``"full"``.
      depth: how many layers there are.
      prompts: how many prompts, of how many tokens each; any pair if ``start`` will refuse them.
    """

    @property
    def mode(self) -> Literal["stripped", "full"]:
        """Which of them."""

    @property
    def depth(self) -> int:
        """How many layers there are."""

    @property
    def prompts(self) -> tuple[int, int]:
        """How many prompts, of how many tokens each."""

    def on(self, device: jax.Device) -> "Stage":
        """The same with its arrays on that device, for one thread to use beside others."""

    def start(self, layer: MultiHead) -> jax.Array:
        """The initial states ``(batch, n, d)``, from the first layer.

        Raises:
          RequestError: where there are none that can be used.
        """

    def block(self, index: int) -> int:
        """The same number for layers with the same weights."""

    def layer(self, index: int) -> MultiHead:
        """The attention of layer ``index``, from 0, with its logits' own biases and mask."""

    def read(self, index: int, x: jax.Array) -> jax.Array:
        """What that attention reads where the states are x ``(batch, n, d)``."""

    def advance(self, index: int, layer: MultiHead, x: jax.Array, first: int) -> jax.Array:
        """The states after the layer, of prompts of which x holds some, from number ``first`` on.

        Raises:
          RequestError: where a token has no next state.
        """

    def finish(self, index: int, layer: MultiHead, x: jax.Array, update: jax.Array) -> jax.Array:
        """The states after it, had its attention given ``update``."""


def own_matrix(layer: MultiHead, index: int, config: AnalysisConfig) -> Any:
    """The matrix F of layer ``index``, or what applies it where only leading pairs are asked for.

    Raises:
      RequestError: an F that is not finite.
    """
    if config.leading is None:
        matrix = layer_matrix(layer)
        require_finite(f"the layer matrix F of layer {index + 1}", matrix)
        return matrix
    require_finite(f"output of layer {index + 1}", layer.output)
    require_finite(f"value of layer {index + 1}", layer.value)
    (operator,) = layer_operators(layer)
    return operator


def require_matrices(stage: Stage, layers: Iterable[int], config: AnalysisConfig) -> None:
    """Refuse the first of these layers whose matrix F is not finite.

    Raises:
      RequestError: as ``own_matrix``.
    """
    for index in layers:
        own_matrix(stage.layer(index), index, config)


def require_states(x: jax.Array, present: np.ndarray, where: str, first: int = 0) -> None:
    """Refuse states of texts that have no direction.

    Args:
      x: the states ``(batch, n, d)``.
      present: False for padding.
      where: for the message.
      first: number of the first text among all.

    Raises:
      RequestError: NaN, infinity or a zero token, naming the text.
    """
    state = np.asarray(x)
    bad = ~np.isfinite(state).all(axis=-1) | ~state.any(axis=-1)
    wrong = np.argwhere(bad & present)
    if len(wrong):
        text, token = first + int(wrong[0, 0]), int(wrong[0, 1])
        raise RequestError(
            f"in {where}, token {token} of text {text} (counted from 0) is zero or not finite "
            f"({len(wrong)} tokens of texts {first} to {first + len(state) - 1}); "
            "choose other texts, or check the weights"
        )

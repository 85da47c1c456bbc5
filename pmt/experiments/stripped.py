"""Layers in stripped mode: attention alone, one step, and the stage that they are for the driver.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619).
"""

from copy import copy
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.dynamics import MultiHead, Outcome, simulate
from pmt.errors import RequestError
from pmt.experiments.analysis import Analysis, AnalysisConfig, ModelInfo, describe
from pmt.experiments.nulls import padded
from pmt.experiments.stage import require_states
from pmt.experiments.tokens import prepare_tokens, random_tokens


@runtime_checkable
class Layered(Protocol):
    """Layers that are given one by one: a ``LayerStack``, or the ``Layers`` of `pmt.models`.

    Where layers have the same weights, a method ``block(index)`` may say so by the same number.
    """

    @property
    def depth(self) -> int:
        """How many layers there are."""

    def layer(self, index: int) -> MultiHead:
        """Layer ``index``, from 0."""


def block_of(layers: Layered, index: int) -> int:
    """The same number for layers with the same weights; each its own where they do not say."""
    return int(getattr(layers, "block", int)(index))


def count_of_blocks(layers: Layered) -> int:
    """How many of the layers have weights of their own."""
    return len({block_of(layers, index) for index in range(layers.depth)})


def prepare_layer(layer: MultiHead, alpha: float) -> MultiHead:
    """The layer with another step size; its numbers have the dtype of its arrays.

    Raises:
      RequestError: a step size that overflows in that dtype.
    """
    dtype = layer.query.dtype
    with np.errstate(over="ignore"):
        fits = np.isfinite(np.asarray(alpha).astype(dtype))
    if not fits:
        raise RequestError(f"alpha is {alpha}, which {dtype} cannot hold; give a smaller one")
    return replace(layer, alpha=jnp.asarray(alpha, dtype), scale=jnp.asarray(layer.scale, dtype))


def advance(
    layer: MultiHead, x: jax.Array, where: str, first: int = 0, present: Any = None
) -> jax.Array:
    """One step for all prompts, the first of which has the number ``first``.

    Args:
      layer: with its step size.
      x: ``(prompts, n, d)``.
      where: for the message.
      first: see above.
      present: ``(prompts, n)``, False for padding, which no token attends to; None where there is
        none.

    Raises:
      RequestError: where a token that is there has no next state.
    """
    if present is not None:
        after = _padded_step(layer, x, jnp.asarray(present))
        require_states(after, np.asarray(present), where, first)
        return after
    run = simulate(layer, x, 1, keep="last", observables={})
    failed = np.flatnonzero(np.asarray(run.result) != Outcome.DONE)
    if len(failed):
        reason = Outcome(int(run.result[failed[0]])).message
        raise RequestError(
            f"in {where}, prompt {first + int(failed[0])} (counted from 0), {reason} "
            f"({len(failed)} of prompts {first} to {first + len(x) - 1}); "
            "choose another alpha or other tokens"
        )
    return run.x


class Stripped:
    """Layers of which nothing but attention is there."""

    mode: Literal["stripped", "full"] = "stripped"

    def __init__(
        self, layers: Layered, config: AnalysisConfig, tokens: Any, present: np.ndarray | None
    ) -> None:
        self._layers, self._config, self._tokens = layers, config, tokens
        self._present = None if present is None else jnp.asarray(present)
        self.depth = layers.depth
        self._device: jax.Device | None = None

    @property
    def prompts(self) -> tuple[int, int]:
        """How many prompts, of how many tokens each."""
        if self._tokens is None:
            return self._config.prompts, self._config.tokens
        shape = np.shape(self._tokens)
        return shape[:2] if len(shape) > 1 else (0, 0)

    def on(self, device: jax.Device) -> "Stripped":
        """The same; every layer that is read goes to the device."""
        there = copy(self)
        there._device = device
        there._present = None if self._present is None else jax.device_put(self._present, device)
        return there

    def start(self, layer: MultiHead) -> jax.Array:
        """The initial tokens."""
        config, d = self._config, layer.query.shape[-1]
        tokens = self._tokens
        if tokens is None:
            tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
        return prepare_tokens(tokens, d, layer.query.dtype)

    def block(self, index: int) -> int:
        """As the layers say; each its own where they do not."""
        return block_of(self._layers, index)

    def layer(self, index: int) -> MultiHead:
        """With the step size of the analysis."""
        layer = self._layers.layer(index)
        if self._device is not None:
            layer = jax.device_put(layer, self._device)
        return prepare_layer(layer, self._config.alpha)

    def read(self, index: int, x: jax.Array) -> jax.Array:
        """The states as they are."""
        del index
        return x

    def advance(self, index: int, layer: MultiHead, x: jax.Array, first: int) -> jax.Array:
        """One step on the sphere."""
        present = None if self._present is None else self._present[first : first + len(x)]
        return advance(layer, x, f"layer {index + 1}", first, present)

    def finish(self, index: int, layer: MultiHead, x: jax.Array, update: jax.Array) -> jax.Array:
        """The same step with another update."""
        del index
        return _finish(layer.alpha, x, update)

    def identify(self) -> None:
        """Ask of a checkpoint what takes long to say: the hash of its weights, which it keeps."""
        if hasattr(self._layers, "dimensions"):
            describe(self._layers)

    def describe(self, found: Analysis) -> ModelInfo:
        """What the layers say themselves."""
        if hasattr(self._layers, "dimensions"):
            return describe(self._layers)
        shared = count_of_blocks(self._layers) < self.depth
        h, d = found.model.h, found.shape[-1]
        return ModelInfo("unnamed", "attention", d, h, self.depth, shared, None, None)


@jax.jit
def _finish(alpha: jax.Array, x: jax.Array, update: jax.Array) -> jax.Array:
    return sphere.normalize(x + alpha * update)


@jax.jit
def _padded_step(layer: MultiHead, x: jax.Array, present: jax.Array) -> jax.Array:
    def one(tokens: jax.Array, there: jax.Array) -> jax.Array:
        return replace(layer, mask=padded(layer.mask, there))(tokens)

    return jax.vmap(one)(x, present)

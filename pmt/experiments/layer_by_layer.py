"""A checkpoint's layers in stripped mode: spectra, and how tokens align with them, layer by layer.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619). Full mode, the real model, goes the same way
with another stage: see `pmt.experiments.full_mode`.

One layer is held at a time. Its matrix F is formed and the tokens go through it, under the null
models too; then its tensors are let go, and its eigenproblems are solved on other threads while
the next layer is read. What stays of a layer is small.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.dynamics import MultiHead, Outcome, simulate
from pmt.errors import RequestError
from pmt.experiments.ahead import Ahead
from pmt.experiments.analysis import (
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    ModelInfo,
    describe,
)
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.nulls import (
    adding_up,
    attention_weights,
    gaussian_maps,
    gaussian_update,
    padded,
    random_rotation,
    rotated_update,
)
from pmt.experiments.passage import Block, Passage, mask_name, mean_distance, measure
from pmt.experiments.stage import Stage, require_states
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import one_thread_each
from pmt.numerics import einsum, require_finite
from pmt.spectral import Principal, all_directions, layer_matrix

Progress = Callable[[int], None]

_UNNAMED = ModelInfo("unnamed", "attention", 0, 0, 0, False, None, None)


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


def unseen(*_: Any) -> None:
    """Who listens where nobody does."""


def analyze(
    layers: Layered,
    config: AnalysisConfig | None = None,
    *,
    model: ModelInfo | None = None,
    tokens: Any = None,
    present: np.ndarray | None = None,
    progress: Progress = unseen,
    solver: Solver | None = None,
    seen: Callable[[LayerAnalysis], None] = unseen,
) -> Analysis:
    """Run tokens through the layers and measure their alignment with every layer's spectrum.

    Of the layers' tensors those of one are held at a time, and of the eigenproblems as many as
    there are cores. Layers that share their weights share their eigenproblem and null models.

    Args:
      layers: their dtype is that of the run, their step size is replaced.
      config: the paper's settings if None.
      model: what the layers belong to, for the record; what they say themselves if None.
      tokens: ``(prompts, n, d)``; they are normalised. Random ones if None.
      present: ``(prompts, n)``, False for padding, which no token attends to and which counts in
        no statistic; None where there is none.
      progress: called with how many eigenproblems and layers were finished since the last call;
        see ``count_of_steps``.
      solver: solves the eigenproblems, from several threads; one that keeps none if None.
      seen: called with every layer as soon as it is measured.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used (see
        ``prepare_tokens``), a step size that the dtype cannot hold, or a state that has no
        successor: a token that cancelled to zero, or an overflow.
    """
    config = config or AnalysisConfig()
    stage = _Stripped(layers, config, tokens, present)
    found = run_stage(stage, config, stage.start, present, progress, solver or Solver(), seen)
    return replace(found, model=model or stage.describe(found))


def run_stage(
    stage: Stage,
    config: AnalysisConfig,
    start: Callable[[MultiHead], jax.Array],
    present: np.ndarray | None,
    progress: Progress,
    solver: Solver,
    seen: Callable[[LayerAnalysis], None] = unseen,
) -> Analysis:
    """The same for any stage; what the layers belong to is left to say.

    Args:
      start: from the first layer to the initial states ``(batch, n, d)``.
      stage, config, present, progress, solver, seen: as in ``analyze``.

    Raises:
      RequestError: as ``analyze``.
    """
    with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
        run = _Run(stage, config, start, present, ahead, progress)
        run.solver, run.seen = solver, seen
        for index in range(stage.depth):
            run.take(index)
        ahead.finish()
    return run.result()


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


def advance(layer: MultiHead, x: jax.Array, where: str) -> jax.Array:
    """One step for all prompts.

    Raises:
      RequestError: where a token has no next state.
    """
    run = simulate(layer, x, 1, keep="last", observables={})
    failed = np.flatnonzero(np.asarray(run.result) != Outcome.DONE)
    if len(failed):
        reason = Outcome(int(run.result[failed[0]])).message
        raise RequestError(
            f"in {where}, prompt {int(failed[0])} (counted from 0), {reason} ({len(failed)} of "
            f"{len(x)} prompts); choose another alpha or other tokens"
        )
    return run.x


class _Stripped:
    """Layers of which nothing but attention is there."""

    mode: Literal["stripped", "full"] = "stripped"

    def __init__(
        self, layers: Layered, config: AnalysisConfig, tokens: Any, present: np.ndarray | None
    ) -> None:
        self._layers, self._config, self._tokens = layers, config, tokens
        self._present = None if present is None else jnp.asarray(present)
        self.depth, self._heads = layers.depth, 0

    def start(self, layer: MultiHead) -> jax.Array:
        """The initial tokens."""
        config, (self._heads, _, d) = self._config, layer.query.shape
        tokens = self._tokens
        if tokens is None:
            tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
        return prepare_tokens(tokens, d, layer.query.dtype)

    def block(self, index: int) -> int:
        block = getattr(self._layers, "block", int)(index)
        return int(block)

    def layer(self, index: int) -> MultiHead:
        return prepare_layer(self._layers.layer(index), self._config.alpha)

    def read(self, index: int, x: jax.Array) -> jax.Array:
        del index
        return x

    def advance(self, index: int, layer: MultiHead, x: jax.Array) -> jax.Array:
        if self._present is None:
            return advance(layer, x, f"layer {index + 1}")
        after = _padded_step(layer, x, self._present)
        require_states(after, np.asarray(self._present), f"layer {index + 1}")
        return after

    def finish(self, index: int, layer: MultiHead, x: jax.Array, update: jax.Array) -> jax.Array:
        del index
        return sphere.normalize(x + layer.alpha * update)

    def describe(self, found: Analysis) -> ModelInfo:
        """What the layers say themselves."""
        if hasattr(self._layers, "dimensions"):
            return describe(self._layers)
        blocks = {self.block(index) for index in range(self.depth)}
        shared, d = len(blocks) < self.depth, found.shape[-1]
        return ModelInfo("unnamed", "attention", d, self._heads, self.depth, shared, None, None)


@jax.jit
def _padded_step(layer: MultiHead, x: jax.Array, present: jax.Array) -> jax.Array:
    def one(tokens: jax.Array, there: jax.Array) -> jax.Array:
        return replace(layer, mask=padded(layer.mask, there))(tokens)

    return jax.vmap(one)(x, present)


class _Run:
    """The state of an analysis between two layers."""

    solver: Solver
    seen: Callable[[LayerAnalysis], None]

    def __init__(
        self,
        stage: Stage,
        config: AnalysisConfig,
        start: Callable[[MultiHead], jax.Array],
        present: np.ndarray | None,
        ahead: Ahead,
        progress: Progress,
    ) -> None:
        self._stage, self._config, self._start = stage, config, start
        self._present = present
        self._there = None if present is None else jnp.asarray(present)
        self._ahead, self._progress = ahead, progress
        self._schedule = [stage.block(index) for index in range(stage.depth)]
        self._last = {block: index for index, block in enumerate(self._schedule)}
        self._blocks: dict[int, Block] = {}
        self._found: list[LayerAnalysis] = []
        self._biases = self._rotary = False
        self._x: jax.Array

    def take(self, index: int) -> None:
        """Read a layer, and let it go when the tokens are through and its problems are begun."""
        layer = self._stage.layer(index)
        if index == 0:
            self._x = self._start(layer)
            self._initial_distance = mean_distance(self._x, self._present)
        self._biases |= layer.has_biases
        self._rotary |= layer.rotary is not None
        block = self._schedule[index]
        first = block not in self._schedule[:index]
        if first:
            matrix = layer_matrix(layer)
            require_finite(f"the layer matrix F of layer {index + 1}", matrix)
            # At once, so that it is at work while the tokens' step is compiled.
            self._ahead.add(
                partial(self.solver.principal, matrix, self._config.order, self._config.alpha),
                partial(self._keep, block),
            )
            del matrix
        passage = Passage(
            index=index,
            block=block,
            mask=mask_name(layer.mask),
            scale=float(layer.scale),
            before=self._x,
            after=self._stage.advance(index, layer, self._x),
            present=self._present,
        )
        if self._config.nulls:
            self._nulls(layer, passage, first)
        self._ahead.after(partial(self._measure, passage))
        if not first:
            self._progress(1 + _draws("gaussian", self._config))
        self._x = passage.after

    def result(self) -> Analysis:
        """Once all layers are taken and all problems solved."""
        x = self._x
        return Analysis(
            model=_UNNAMED,
            config=self._config,
            shape=(x.shape[0], x.shape[1], x.shape[2]),
            dtype=str(x.dtype),
            device=_device(x),
            biases=self._biases,
            rotary=self._rotary,
            initial_distance=self._initial_distance,
            layers=tuple(self._found),
            mode=self._stage.mode,
            counted=None if self._present is None else int(self._present.sum()),
        )

    def _nulls(self, layer: MultiHead, passage: Passage, first: bool) -> None:
        """The tokens under every draw of the null models, which keep the layer's attention."""
        read = self._stage.read(passage.index, self._x)
        weights = attention_weights(layer, read, self._there)
        for draw in range(_draws("gaussian", self._config)):
            self._gaussian(layer, passage, (read, weights), draw, first)
        for draw in range(_draws("rotated", self._config)):
            r = random_rotation(layer.query.shape[-1], self._config.seed, draw, passage.block)
            update = rotated_update(layer, r, read, weights)
            after = self._stage.finish(passage.index, layer, self._x, update)
            turned = jnp.asarray(r, self._x.dtype)
            passage.rotated.append((_turn(self._x, turned), _turn(after, turned)))
        # Else the layer's tensors would live on in what is still to be computed.
        jax.block_until_ready(passage.rotated)

    def _gaussian(
        self,
        layer: MultiHead,
        passage: Passage,
        attended: tuple[jax.Array, jax.Array],
        draw: int,
        first: bool,
    ) -> None:
        """The tokens under one draw; its matrix F is summed up on the way."""
        total = np.zeros((layer.query.shape[-1],) * 2)
        maps = adding_up(gaussian_maps(layer, self._config.seed, draw, passage.block), total)
        update = gaussian_update(layer, maps, *attended)
        moved = self._stage.finish(passage.index, layer, self._x, update)
        passage.gaussian.append(jax.block_until_ready(moved))
        if first:
            self._ahead.add(
                partial(self.solver.basis, total, self._config.order, self._config.alpha),
                partial(self._keep_gaussian, passage.block),
            )

    def _keep(self, block: int, own: Principal) -> None:
        directions = all_directions(own.pairs, self._x.dtype)
        self._blocks[block] = Block(self._last[block], own.spectrum, directions)
        self._progress(1)

    def _keep_gaussian(self, block: int, basis: np.ndarray) -> None:
        self._blocks[block].gaussian.append(basis)
        self._progress(1)

    def _measure(self, passage: Passage) -> None:
        block = self._blocks[passage.block]
        self._found.append(measure(passage, block))
        self.seen(self._found[-1])
        if block.last == passage.index:
            del self._blocks[passage.block]
        self._progress(1)


def _draws(null: str, config: AnalysisConfig) -> int:
    return config.draws if null in config.nulls else 0


@jax.jit
def _turn(x: jax.Array, rotation: jax.Array) -> jax.Array:
    return einsum("bnd,de->bne", x, rotation)


def _device(x: jax.Array) -> str:
    device = next(iter(x.devices()))
    return f"{device.platform} ({device.device_kind})"

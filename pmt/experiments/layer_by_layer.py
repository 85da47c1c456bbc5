"""A checkpoint's layers in stripped mode: spectra, and how tokens align with them, layer by layer.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619).

One layer is held at a time. Its matrix F is formed and the tokens go through it, under the null
models too; then its tensors are let go, and its eigenproblems are solved on other threads while
the next layer is read. What stays of a layer is small.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

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
from pmt.experiments.nulls import apply_gaussian, apply_rotated, gaussian_maps, random_rotation
from pmt.experiments.passage import Block, Passage, mask_name, mean_distance, measure
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import Principal, all_directions, layer_matrix

Progress = Callable[[int], None]


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


def _unseen(done: int) -> None:
    del done


def _unseen_layer(layer: LayerAnalysis) -> None:
    del layer


def analyze(
    layers: Layered,
    config: AnalysisConfig | None = None,
    *,
    model: ModelInfo | None = None,
    tokens: Any = None,
    progress: Progress = _unseen,
    solver: Solver | None = None,
    seen: Callable[[LayerAnalysis], None] = _unseen_layer,
) -> Analysis:
    """Run tokens through the layers and measure their alignment with every layer's spectrum.

    Of the layers' tensors those of one are held at a time, and of the eigenproblems as many as
    there are cores. Layers that share their weights share their eigenproblem and null models.

    Args:
      layers: their dtype is that of the run, their step size is replaced.
      config: the paper's settings if None.
      model: what the layers belong to, for the record; what they say themselves if None.
      tokens: ``(prompts, n, d)``; they are normalised. Random ones if None.
      progress: called with how many eigenproblems and layers were finished since the last call;
        see ``count_of_steps``.
      solver: solves the eigenproblems, from several threads; one that keeps none if None.
      seen: called with every layer as soon as it is measured.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used (see
        ``prepare_tokens``), a step size that the dtype cannot hold, or a state that has no
        successor: a token that cancelled to zero, or an overflow.
    """
    with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
        run = _Run(layers, config or AnalysisConfig(), tokens, ahead, progress)
        run.solver, run.seen = solver or Solver(), seen
        for index in range(layers.depth):
            run.take(index)
        ahead.finish()
    return run.result(model)


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


class _Run:
    """The state of an analysis between two layers."""

    solver: Solver
    seen: Callable[[LayerAnalysis], None]

    def __init__(
        self,
        layers: Layered,
        config: AnalysisConfig,
        tokens: Any,
        ahead: Ahead,
        progress: Progress,
    ) -> None:
        self._layers, self._config = layers, config
        self._ahead, self._progress = ahead, progress
        self._tokens = tokens
        block_of = getattr(layers, "block", int)
        self._schedule = [block_of(index) for index in range(layers.depth)]
        self._last = {block: index for index, block in enumerate(self._schedule)}
        self._blocks: dict[int, Block] = {}
        self._found: list[LayerAnalysis] = []
        self._biases = self._rotary = False
        self._x: jax.Array

    def take(self, index: int) -> None:
        """Read a layer, and let it go when the tokens are through and its problems are begun."""
        layer = prepare_layer(self._layers.layer(index), self._config.alpha)
        if index == 0:
            self._start(layer)
        self._biases |= layer.has_biases
        self._rotary |= layer.rotary is not None
        block = self._schedule[index]
        first = block not in self._schedule[:index]
        if first:
            matrix = layer_matrix(layer)
            require_finite(f"the layer matrix F of layer {index + 1}", matrix)
        passage = Passage(
            index=index,
            block=block,
            mask=mask_name(layer.mask),
            scale=float(layer.scale),
            before=self._x,
            after=advance(layer, self._x, f"layer {index + 1}"),
        )
        if first:
            self._ahead.add(
                partial(_solve, self.solver, matrix, self._config, block),
                partial(self._keep, block),
            )
            del matrix
        for draw in range(_draws("gaussian", self._config)):
            self._gaussian(layer, passage, draw, first)
        for draw in range(_draws("rotated", self._config)):
            rotation = random_rotation(layer.query.shape[-1], self._config.seed, draw, block)
            passage.rotated.append(apply_rotated(layer, rotation, self._x))
        # Else the layer's tensors would live on in what is still to be computed.
        jax.block_until_ready(passage.rotated)
        self._ahead.after(partial(self._measure, passage))
        if not first:
            self._progress(1 + _draws("gaussian", self._config))
        self._x = passage.after

    def result(self, model: ModelInfo | None) -> Analysis:
        """Once all layers are taken and all problems solved."""
        x = self._x
        return Analysis(
            model=model or self._describe(),
            config=self._config,
            shape=(x.shape[0], x.shape[1], x.shape[2]),
            dtype=str(x.dtype),
            device=_device(x),
            biases=self._biases,
            rotary=self._rotary,
            initial_distance=self._initial_distance,
            layers=tuple(self._found),
        )

    def _start(self, layer: MultiHead) -> None:
        config, (heads, _, d) = self._config, layer.query.shape
        tokens = self._tokens
        if tokens is None:
            tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
        self._x = prepare_tokens(tokens, d, layer.query.dtype)
        self._initial_distance = mean_distance(self._x)
        self._heads = heads

    def _describe(self) -> ModelInfo:
        if hasattr(self._layers, "dimensions"):
            return describe(self._layers)
        depth, shared = len(self._schedule), len(self._last) < len(self._schedule)
        d = self._x.shape[-1]
        return ModelInfo("unnamed", "attention", d, self._heads, depth, shared, None, None)

    def _gaussian(self, layer: MultiHead, passage: Passage, draw: int, first: bool) -> None:
        """The tokens under one draw; its matrix F is summed up on the way."""
        total = np.zeros((layer.query.shape[-1],) * 2)

        def summed(maps: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for matrix in maps:
                np.add(total, matrix, out=total)
                yield matrix

        maps = gaussian_maps(layer, self._config.seed, draw, passage.block)
        moved = apply_gaussian(layer, summed(maps), passage.before)
        passage.gaussian.append(jax.block_until_ready(moved))
        if first:
            self._ahead.add(
                partial(_solve_for_basis, self.solver, total, self._config),
                partial(self._keep_gaussian, passage.block),
            )

    def _keep(self, block: int, found: tuple[Principal, list[np.ndarray]]) -> None:
        own, rotated = found
        directions = all_directions(own.pairs, self._x.dtype)
        self._blocks[block] = Block(self._last[block], own.spectrum, directions, rotated)
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


def _solve(
    solver: Solver, matrix: np.ndarray, config: AnalysisConfig, block: int
) -> tuple[Principal, list[np.ndarray]]:
    """The layer's own eigenproblem, and its principal direction under each rotation."""
    own = solver.principal(matrix, config.order, config.alpha)
    # Drawn again and not kept, since they are as large as F.
    rotations = (
        random_rotation(len(matrix), config.seed, draw, block)
        for draw in range(_draws("rotated", config))
    )
    return own, [rotation @ own.basis for rotation in rotations]


def _solve_for_basis(solver: Solver, matrix: np.ndarray, config: AnalysisConfig) -> np.ndarray:
    return solver.basis(matrix, config.order, config.alpha)


def _device(x: jax.Array) -> str:
    device = next(iter(x.devices()))
    return f"{device.platform} ({device.device_kind})"

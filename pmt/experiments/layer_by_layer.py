"""A checkpoint's layers in stripped mode: spectra, and how tokens align with them, layer by layer.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619). Full mode, the real model, goes the same way
with another stage: see `pmt.experiments.full_mode`.

One layer is held at a time. Its matrix F is formed and the tokens go through it, under the null
models too; then its tensors are let go, and its eigenproblems are solved on other threads while
the next layer is read. What stays of a layer is small.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import MultiHead
from pmt.experiments.ahead import Ahead
from pmt.experiments.analysis import (
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    ModelInfo,
)
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.nulls import (
    adding_up,
    attention_weights,
    gaussian_maps,
    gaussian_update,
    random_rotation,
    rotated_update,
)
from pmt.experiments.passage import Block, Passage, mask_name, mean_distance, measure
from pmt.experiments.stage import Stage
from pmt.experiments.stripped import Layered as Layered
from pmt.experiments.stripped import Stripped
from pmt.experiments.stripped import advance as advance
from pmt.experiments.stripped import prepare_layer as prepare_layer
from pmt.linalg import one_thread_each
from pmt.memory import Parts
from pmt.numerics import einsum, require_finite
from pmt.spectral import (
    Principal,
    Spectrum,
    all_directions,
    layer_matrix,
    layer_operators,
)

Progress = Callable[[int], None]

_UNNAMED = ModelInfo("unnamed", "attention", 0, 0, 0, False, None, None)


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
    there are cores. Layers that share their weights share their eigenproblem and null models. Where
    the device has no memory for all prompts at once they pass in halves, quarters and so on.

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
    stage = Stripped(layers, config, tokens, present)
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
        self._parts = Parts()
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
            self._begin(layer, index, block)
        self._drawn = 0 if first else self._config.draws
        passage = Passage(
            index=index,
            block=block,
            mask=mask_name(layer.mask),
            scale=float(layer.scale),
            before=self._x,
            after=self._x,
            present=self._present,
        )
        parts = self._parts.run(len(self._x), partial(self._pass, layer, passage))
        passage.after = jnp.asarray(_joined([part.after for part in parts]))
        passage.gaussian = [
            _joined(draws) for draws in zip(*(p.gaussian for p in parts), strict=True)
        ]
        passage.rotated = [
            (_joined([before for before, _ in draws]), _joined([after for _, after in draws]))
            for draws in zip(*(p.rotated for p in parts), strict=True)
        ]
        self._ahead.after(partial(self._measure, passage))
        if not first:
            self._progress(1 + _draws("gaussian", self._config))
        self._x = passage.after

    def _begin(self, layer: MultiHead, index: int, block: int) -> None:
        """Begin the layer's own eigenproblem, at work while the tokens' step is compiled."""
        config = self._config
        where = f"the layer matrix F of layer {index + 1}"
        solve: Callable[[], Spectrum]
        if config.leading is None:
            matrix = layer_matrix(layer)
            require_finite(where, matrix)
            solve = partial(self.solver.principal, matrix, config.order, config.alpha)
        else:
            require_finite(f"output of layer {index + 1}", layer.output)
            require_finite(f"value of layer {index + 1}", layer.value)
            (operator,) = layer_operators(layer)
            solve = partial(
                self.solver.leading, operator, config.leading, config.order, config.alpha
            )
        self._ahead.add(solve, partial(self._keep, block))

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
            prompts_at_once=self._parts.size,
        )

    def _pass(self, layer: MultiHead, passage: Passage, rows: slice) -> "_Passed":
        """Some of the prompts through the layer and the null models, which keep its attention."""
        # All of them are not copied.
        x = self._x if rows == slice(0, len(self._x)) else self._x[rows]
        after = self._stage.advance(passage.index, layer, x, rows.start)
        passed = _Passed(after)
        if self._config.nulls:
            read = self._stage.read(passage.index, x)
            there = None if self._there is None else self._there[rows]
            attended = (read, attention_weights(layer, read, there))
            for draw in range(_draws("gaussian", self._config)):
                passed.gaussian.append(self._gaussian(layer, passage, x, attended, draw))
            for draw in range(_draws("rotated", self._config)):
                r = random_rotation(layer.query.shape[-1], self._config.seed, draw, passage.block)
                update = rotated_update(layer, r, *attended)
                moved = self._stage.finish(passage.index, layer, x, update)
                turned = jnp.asarray(r, x.dtype)
                passed.rotated.append((_turn(x, turned), _turn(moved, turned)))
        # Else the layer's tensors would live on in what is still to be computed, and that there is
        # no memory for it would be found out too late.
        jax.block_until_ready((passed.after, passed.gaussian, passed.rotated))
        return passed

    def _gaussian(
        self,
        layer: MultiHead,
        passage: Passage,
        x: jax.Array,
        attended: tuple[jax.Array, jax.Array],
        draw: int,
    ) -> jax.Array:
        """The tokens under one draw; its matrix F is summed up on the way, once."""
        maps: Iterator[np.ndarray] = gaussian_maps(layer, self._config.seed, draw, passage.block)
        new = draw >= self._drawn
        total = np.zeros((layer.query.shape[-1] if new else 0,) * 2)
        update = gaussian_update(layer, adding_up(maps, total) if new else maps, *attended)
        moved = jax.block_until_ready(self._stage.finish(passage.index, layer, x, update))
        if new:
            config = self._config
            solve = partial(self.solver.basis, krylov=config.leading is not None)
            self._ahead.add(
                partial(solve, total, config.order, config.alpha),
                partial(self._keep_gaussian, passage.block),
            )
            self._drawn += 1
        return moved

    def _keep(self, block: int, own: Spectrum) -> None:
        directions = None
        if isinstance(own, Principal):
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


@dataclass
class _Passed:
    """Some of the prompts after a layer; the rest as in a ``Passage``."""

    after: jax.Array
    gaussian: list[jax.Array] = field(default_factory=list)
    rotated: list[tuple[jax.Array, jax.Array]] = field(default_factory=list)


def _joined(parts: Sequence[jax.Array]) -> Any:
    """One array; on the host where there are several, since the device is short of memory."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.asarray(part) for part in parts])


def _draws(null: str, config: AnalysisConfig) -> int:
    return config.draws if null in config.nulls else 0


@jax.jit
def _turn(x: jax.Array, rotation: jax.Array) -> jax.Array:
    return einsum("bnd,de->bne", x, rotation)


def _device(x: jax.Array) -> str:
    device = next(iter(x.devices()))
    return f"{device.platform} ({device.device_kind})"

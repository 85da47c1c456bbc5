"""An analysis on one device, between two layers: what is at work, and what is known so far.

One layer is held at a time. Its matrix F is formed and the tokens go through it, under the null
models too; then its tensors are let go, and its eigenproblems are solved on other threads while
the next layer is read.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.experiments.ahead import Ahead
from pmt.experiments.analysis import NULLS, AnalysisConfig
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.first_order import GIVEN, WHOLE, Prospect, look
from pmt.experiments.known_nulls import KnownNulls
from pmt.experiments.layer_units import Facts, as_payload
from pmt.experiments.null_draws import DeviceDraws, HostDraws, null_draws, turn
from pmt.experiments.nulls import attention_weights
from pmt.experiments.passage import Block, Passage, mask_name, mean_distance, measure
from pmt.experiments.prompt_units import Way
from pmt.experiments.stage import Stage, own_matrix, require_matrices
from pmt.memory import Parts
from pmt.parallel.units import Payload, Report, Unit
from pmt.spectral import Principal, Spectrum, all_directions


class LayerRun:
    """The state of an analysis between two layers, on one device.

    Args:
      way: the tokens' own.
      several: whether other devices of this process have threads of their own.
      divided: whether other devices, of this process or of others, measure layers.
      uniform: whether the initial tokens are uniform on the sphere.
    """

    def __init__(
        self,
        stage: Stage,
        way: Way,
        config: AnalysisConfig,
        present: np.ndarray | None,
        ahead: Ahead,
        progress: Report,
        solver: Solver,
        *,
        several: bool,
        divided: bool,
        uniform: bool,
    ) -> None:
        self._stage, self._way, self._config = stage, way, config
        self._several, self._divided, self._uniform = several, divided, uniform
        self._present = present
        self._there = None if present is None else jnp.asarray(present)
        self._ahead, self._progress, self._solver = ahead, progress, solver
        self._known = partial(KnownNulls.of, stage, config, solver, present)
        self._schedule = [stage.block(index) for index in range(stage.depth)]
        self._last = {block: index for index, block in enumerate(self._schedule)}
        self._blocks: dict[int, Block] = {}
        self._begun: set[int] = set()
        # Blocks whose draws' eigenproblems are begun: none are where what they show is known.
        self._drawn_blocks: set[int] = set()
        self._measured: list[tuple[Unit, Payload]] = []
        self._parts = Parts()
        self._dtype: Any = None

    def take(self, index: int) -> None:
        """Read a layer, and let it go when the tokens are through and its problems are begun."""
        layer, x = self._way.layer(index)
        self._dtype = x.dtype
        block = self._schedule[index]
        first = block not in self._begun
        if first:
            self._begun.add(block)
            self._ahead.add(
                self._problem(layer, index), partial(self._keep, block), self._key(block, "own")
            )
        known = self._known(layer, x, index)
        new = known.nulls is None and block not in self._drawn_blocks
        if new:
            self._drawn_blocks.add(block)
        self._drawn = 0 if new else self._config.draws
        passage = Passage(
            index=index,
            block=block,
            mask=mask_name(layer.mask),
            scale=float(layer.scale),
            before=x,
            after=x,
            present=self._present,
            null=known.nulls,
        )
        # Once, also where the null models pass in parts.
        step = cache(partial(self._way.step, index, layer))
        parts = self._parts.run(len(x), partial(self._pass, layer, passage, step))
        passage.after = step()
        passage.gaussian = [
            _joined(draws) for draws in zip(*(p.gaussian for p in parts), strict=True)
        ]
        passage.rotated = [
            (_joined([before for before, _ in draws]), _joined([after for _, after in draws]))
            for draws in zip(*(p.rotated for p in parts), strict=True)
        ]
        has = {"biases": layer.has_biases, "rotary": layer.rotary is not None}
        prospect = self._prospect(layer, x) if index == 0 else None
        heads = layer.query.shape[0]
        self._ahead.after(partial(self._measure, passage, known, prospect, heads, **has))
        if done := (not first) + (not new) * self._config.draws_of("gaussian"):
            self._progress(done)

    def _prospect(self, layer: MultiHead, x: jax.Array) -> Prospect:
        """What the first layer says of the first-order law."""
        reason = None if self._uniform else GIVEN
        if self._stage.mode == "full":
            reason = WHOLE
        return look(layer, x, alpha=self._config.alpha, reason=reason)

    def measured(self) -> Iterator[tuple[Unit, Payload]]:
        """What has been measured since it was last asked for."""
        while self._measured:
            yield self._measured.pop(0)

    def _key(self, block: int, what: str) -> str | None:
        """Names an eigenproblem that other devices of this process, or other runs, have too."""
        shared = self._divided and self._schedule.count(block) > 1
        return f"{block} {what}" if shared else None

    def _problem(self, layer: MultiHead, index: int) -> Callable[[], Spectrum]:
        """The layer's own eigenproblem, to be solved while the tokens' step is compiled.

        Raises:
          RequestError: a matrix F that is not finite.
        """
        config = self._config
        try:
            matrix = own_matrix(layer, index, config)
        except RequestError:
            if self._divided:
                # One device alone would have met an earlier one first.
                require_matrices(self._stage, range(index), config)
            raise
        if config.leading is None:
            return partial(self._solver.principal, matrix, config.order, config.alpha)
        return partial(self._solver.leading, matrix, config.leading, config.order, config.alpha)

    def _pass(
        self, layer: MultiHead, passage: Passage, step: Callable[[], jax.Array], rows: slice
    ) -> "_Passed":
        """Some of the prompts through the null models, and all through the layer meanwhile."""
        passed, x = _Passed(), passage.before
        if self._config.nulls and passage.null is None:
            # All of them are not copied.
            x = x if rows == slice(0, len(x)) else x[rows]
            read = self._stage.read(passage.index, x)
            there = None if self._there is None else self._there[rows]
            weights = attention_weights(layer, read, there)
            draws = null_draws(layer, read, weights, self._config.seed, passage.block)
            with self._draws_begun(draws) as answers:
                step()
                self._follow(answers, layer, passage, x, passed)
        # Else the layer's tensors would live on in what is still to be computed, and that there is
        # no memory for it would be found out too late.
        jax.block_until_ready((passed.gaussian, passed.rotated))
        return passed

    def _draws_begun(self, draws: HostDraws | DeviceDraws) -> AbstractContextManager[Iterator[Any]]:
        """The Gaussian draws and then the rotated ones; F of the first is summed up once."""
        gaussian, rotated = (range(self._config.draws_of(null)) for null in NULLS)
        asked: list[Callable[[], Any]] = [
            partial(draws.gaussian, draw, summed=draw >= self._drawn) for draw in gaussian
        ]
        asked += [partial(draws.rotated, draw) for draw in rotated]
        # Other devices have threads of their own.
        return draws.each(asked, 1 if self._several else os.cpu_count() or 1)

    def _follow(
        self,
        answers: Iterator[Any],
        layer: MultiHead,
        passage: Passage,
        x: jax.Array,
        passed: "_Passed",
    ) -> None:
        """The tokens under every draw; its eigenproblem is begun."""
        finish = partial(self._stage.finish, passage.index, layer)
        for draw in range(self._config.draws_of("gaussian")):
            update, matrix = next(answers)
            passed.gaussian.append(finish(x, jnp.asarray(update)))
            if matrix.size:
                self._solve_draw(matrix, passage.block, draw)
        for r, turned, update in answers:
            before, update = jnp.asarray(turned), jnp.asarray(update)
            if self._stage.mode == "stripped":
                # Attention reads the states themselves, and the step is the same in any frame.
                moved = finish(before, update)
            else:
                r = jnp.asarray(r)
                before, moved = turn(x, r), turn(finish(x, turn(update, r.T)), r)
            passed.rotated.append((before, moved))

    def _solve_draw(self, matrix: np.ndarray, block: int, draw: int) -> None:
        config = self._config
        solve = partial(self._solver.basis, krylov=config.leading is not None)
        self._ahead.add(
            partial(solve, matrix, config.order, config.alpha),
            partial(self._keep_gaussian, block),
            self._key(block, f"draw {draw}"),
        )
        self._drawn += 1

    def _keep(self, block: int, own: Spectrum) -> None:
        directions = None
        if isinstance(own, Principal):
            directions = all_directions(own.pairs, self._dtype)
        self._blocks[block] = Block(self._last[block], own.spectrum, directions)
        self._progress(1)

    def _keep_gaussian(self, block: int, basis: np.ndarray) -> None:
        self._blocks[block].gaussian.append(basis)
        self._progress(1)

    def _measure(
        self,
        passage: Passage,
        known: KnownNulls,
        prospect: Prospect | None,
        heads: int,
        *,
        biases: bool,
        rotary: bool,
    ) -> None:
        block, x = self._blocks[passage.block], passage.after
        first = None if prospect is None else mean_distance(passage.before, self._present)
        law = None if prospect is None else prospect.law(block.spectrum)
        sizes = [size for size in (self._parts.size, self._way.at_once) if size is not None]
        facts = Facts.of(x, heads, biases, rotary, first, min(sizes, default=None), law)
        unit = Unit(passage.index, passage.index + 1)
        layer = measure(passage, block)
        known.keep(layer.null)
        self._measured.append((unit, as_payload(layer, facts)))
        if block.last == passage.index:
            del self._blocks[passage.block]
        self._progress(1)


@dataclass
class _Passed:
    """Some of the prompts under the null models, as in a ``Passage``."""

    gaussian: list[jax.Array] = field(default_factory=list)
    rotated: list[tuple[jax.Array, jax.Array]] = field(default_factory=list)


def _joined(parts: Sequence[jax.Array]) -> Any:
    """One array; on the host where there are several, since the device is short of memory."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.asarray(part) for part in parts])

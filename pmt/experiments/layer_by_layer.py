"""A checkpoint's layers in stripped mode: spectra, and how tokens align with them, layer by layer.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619). Full mode, the real model, goes the same way
with another stage: see `pmt.experiments.full_mode`.

One layer is held at a time. Its matrix F is formed and the tokens go through it, under the null
models too; then its tensors are let go, and its eigenproblems are solved on other threads while
the next layer is read. What stays of a layer is small.

Where there are several devices, of this process or of several, a layer with its eigenproblem, its
null models and its statistics belongs to the one that claims it. The tokens' own way through the
layers is divided too, by prompts, where there are enough of them: see
`pmt.experiments.prompt_units`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pmt.experiments.ahead import Ahead
from pmt.experiments.analysis import (
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    ModelInfo,
    count_of_steps,
)
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.layer_run import LayerRun
from pmt.experiments.layer_units import as_analysis, read_layers
from pmt.experiments.prompt_units import Way, blocks_of_layers
from pmt.experiments.stage import Stage
from pmt.experiments.stripped import Layered as Layered
from pmt.experiments.stripped import Stripped
from pmt.experiments.stripped import advance as advance
from pmt.experiments.stripped import prepare_layer as prepare_layer
from pmt.linalg import one_thread_each
from pmt.parallel.devices import default_device
from pmt.parallel.pool import Pool
from pmt.parallel.units import Claim, Payload, Report, Unit, split_units, union
from pmt.parallel.workers import Workers

Progress = Callable[[int], None]


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
    workers: Workers | None = None,
) -> Analysis:
    """Run tokens through the layers and measure their alignment with every layer's spectrum.

    Of the layers' tensors those of one are held at a time, and of the eigenproblems as many as
    there are cores. Layers that share their weights share their eigenproblem and null models. Where
    the device has no memory for all prompts at once they pass in halves, quarters and so on.

    Several devices, of one process or of several, divide prompts and layers among them, and each
    holds a layer at a time. On equal hosts with memory for all prompts the result is equal bit by
    bit for any number of them.

    Args:
      layers: their dtype is that of the run, their step size is replaced.
      config: the paper's settings if None.
      model: what the layers belong to, for the record; what they say themselves if None.
      tokens: ``(prompts, n, d)``; they are normalised. Random ones if None.
      present: ``(prompts, n)``, False for padding, which no token attends to and which counts in
        no statistic; the tokens are those of texts then, and the record says so. None where they
        are not.
      progress: called with how many eigenproblems and layers were finished since the last call;
        see ``count_of_steps``.
      solver: solves the eigenproblems, from several threads; one that keeps none if None.
      seen: called with every layer as soon as it is known that it is measured; of several
        processes, in process 0.
      workers: devices, processes, and where finished layers are kept; all local devices if None.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used (see
        ``prepare_tokens``), a step size that the dtype cannot hold, or a state that has no
        successor: a token that cancelled to zero, or an overflow.
    """
    config = config or AnalysisConfig()
    stage = Stripped(layers, config, tokens, present)
    found = run_stage(
        stage,
        config,
        present,
        progress,
        solver or Solver(),
        seen,
        workers or Workers(),
        stage.identify if model is None else unseen,
        uniform=tokens is None,
    )
    texts = None if present is None else "given"
    return replace(found, model=model or stage.describe(found), texts=texts)


def run_stage(
    stage: Stage,
    config: AnalysisConfig,
    present: np.ndarray | None,
    progress: Progress,
    solver: Solver,
    seen: Callable[[LayerAnalysis], None],
    workers: Workers,
    meanwhile: Callable[[], Any],
    *,
    uniform: bool = False,
) -> Analysis:
    """The same for any stage; what the layers belong to is left to say.

    Args:
      stage, config, present, progress, solver, seen, workers: as in ``analyze``.
      meanwhile: called by each device while the last eigenproblems are solved.
      uniform: whether the initial tokens are uniform on the sphere, as random ones are.

    Raises:
      RequestError: as ``analyze``.
      IncompleteError: another process stopped.
    """
    # Asked here, since in a thread of a device that one is the default.
    threads, devices, alone = os.cpu_count() or 1, len(workers.local), workers.alone
    flags = {"several": devices > 1, "divided": workers.count > 1, "uniform": uniform}

    def walk(
        way: Callable[[Stage, Report], Way], _: Any, claim: Claim, report: Report
    ) -> Iterator[tuple[Unit, Payload]]:
        if (unit := claim()) is None:
            return
        mine = stage if alone else stage.on(default_device())
        # With a problem at work another one is begun, and no more wait than there is memory for.
        pieces = threads if devices == 1 else max(2, threads // devices)
        with Ahead(pieces, pool) as ahead:
            run = LayerRun(mine, way(mine, report), config, present, ahead, report, solver, **flags)
            try:
                while unit is not None:
                    run.take(unit.first)
                    yield from run.measured()
                    unit = claim()
                meanwhile()
                ahead.finish()
            except (Exception, KeyboardInterrupt):
                # What is known by then is kept.
                yield from run.measured()
                raise
            yield from run.measured()

    steps = count_of_steps(1, config)
    total: Payload = {}
    with one_thread_each(), Pool(threads) as pool:
        for layers, way in blocks_of_layers(stage, config, workers, progress):
            total |= workers.walk(
                "layers",
                partial(walk, way),
                None,
                split_units(layers.start, layers.stop, 1),
                union,
                progress,
                lambda _payload: steps,
                lambda payload: seen(read_layers(payload)[0][0]),
            )
    return as_analysis(total, config, stage.mode, present)

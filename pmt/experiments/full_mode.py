"""Full mode, and Figures 10 and 11 of arXiv 2605.25619: the real model on real text.

Embedding, feed-forward blocks, affine norms and biases are there; correlations are measured, with
the layer matrices of stripped mode, on the states that leave each layer: after the second norm in
post-norm models, the un-normalised sum in pre-norm ones. Padding never counts. Under a null model
a layer keeps all but its value-output maps: what it reads, its attention, feed-forward block,
norms and biases.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from pmt.dynamics import MultiHead
from pmt.experiments.analysis import (
    NULLS,
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    count_of_steps,
    describe,
)
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.layer_by_layer import prepare_layer, run_stage, unseen
from pmt.experiments.plain_text import SOURCE, read_own, read_tokens
from pmt.experiments.plain_text import sentences as plain_sentences
from pmt.experiments.record import analysis_json
from pmt.experiments.stage import require_states
from pmt.models import Tokens
from pmt.models.partial import after_attention, attention_input, embed, run_layers
from pmt.parallel.workers import Workers


@dataclass(frozen=True)
class FullConfig:
    """How many of the packaged texts, the order of the eigenvalues, and the null models.

    A user's own texts are all read, and whole.
    """

    texts: int = 100
    order: str = "real"
    nulls: tuple[str, ...] = NULLS
    draws: int = 5


@dataclass(frozen=True)
class FullMode:
    """The result.

    Attributes:
      analysis: of all layers, in the same form as in stripped mode.
      texts, tokens: how many of them count.
      source: where the texts come from.
    """

    analysis: Analysis
    texts: int
    tokens: int
    source: str


def analyze_full(
    model: Any,
    text: Tokens,
    config: AnalysisConfig | None = None,
    *,
    texts: str = "given",
    progress: Callable[[int], None] = unseen,
    solver: Solver | None = None,
    seen: Callable[[LayerAnalysis], None] = unseen,
    workers: Workers | None = None,
) -> Analysis:
    """Read texts with the whole model, and measure the state after every layer.

    Args:
      model: of `pmt.models`.
      text: what its tokenizer makes of the texts.
      config: order, seed and null models; of the rest what the texts and the model say stands.
      texts: where they come from, for the record.
      progress, solver, seen, workers: as in `pmt.experiments.analyze`.

    Raises:
      RequestError: texts that the model cannot read, or weights or states that are not finite.
    """
    config = config or AnalysisConfig()
    batch, n = text.present.shape
    config = replace(config, alpha=1.0, prompts=batch, tokens=n)
    stage = _Full(model, text)
    found = run_stage(
        stage,
        config,
        text.present,
        progress,
        solver or Solver(),
        seen,
        workers or Workers(),
        partial(describe, model),
    )
    return replace(found, model=describe(model), texts=texts)


class _Full:
    """The layers of the real model."""

    mode: Literal["stripped", "full"] = "full"

    def __init__(self, model: Any, text: Tokens) -> None:
        self._model, self._text = model, text
        self.depth = len(model.schedule)

    @property
    def prompts(self) -> tuple[int, int]:
        batch, n = self._text.present.shape
        return batch, n

    def on(self, device: jax.Device) -> "_Full":
        """The same with a copy of the model; nothing is copied where it is there already."""
        graph, state = nnx.split(self._model)
        return _Full(nnx.merge(graph, jax.device_put(state, device)), self._text)

    def start(self, layer: MultiHead) -> jax.Array:
        """The embeddings."""
        del layer
        x = embed(self._model, self._text)
        require_states(x, self._text.present, "the embeddings")
        return x

    def block(self, index: int) -> int:
        return int(self._model.schedule[index])

    def layer(self, index: int) -> MultiHead:
        return prepare_layer(self._model.layer(index).attention.as_map(), 1.0)

    def read(self, index: int, x: jax.Array) -> jax.Array:
        read: jax.Array = attention_input(self._model, index, x)
        return read

    def advance(self, index: int, layer: MultiHead, x: jax.Array, first: int) -> jax.Array:
        del layer
        present = self._text.present[first : first + len(x)]
        (after,) = run_layers(self._model, x, present, index, index + 1)
        require_states(after, present, f"layer {index + 1}", first)
        return after

    def finish(self, index: int, layer: MultiHead, x: jax.Array, update: jax.Array) -> jax.Array:
        del layer
        return after_attention(self._model, index, x, update)


def pieces(config: FullConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    return count_of_steps(given.layers.depth, AnalysisConfig.like(config, seed=0))


def run(config: FullConfig, given: Any) -> FullMode:
    """Read the texts with the whole model, and measure the state after every layer.

    Raises:
      RequestError: a model without a tokenizer, texts that it cannot read whole, or weights that
        are not finite.
    """
    model = given.open_model()
    if given.texts:
        tokens, source = read_own(model, given.texts), "given"
    else:
        tokens, source = read_tokens(model, plain_sentences()[: config.texts]), SOURCE
    analysis = analyze_full(
        model,
        tokens,
        AnalysisConfig.like(config, seed=given.seed),
        texts=source,
        progress=given.progress,
        solver=given.solver,
        workers=given.workers("layers"),
    )
    return FullMode(analysis, len(tokens.present), int(np.sum(tokens.present)), source)


def record(result: FullMode) -> dict[str, Any]:
    """As ``pmt analyze --json`` has it, with the number of texts and tokens."""
    return analysis_json(result.analysis) | {"texts": result.texts, "counted_tokens": result.tokens}


def tables(result: FullMode) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer."""
    from pmt.experiments import layer_alignment

    return layer_alignment.tables(result.analysis)


def sentences(result: FullMode) -> list[str]:
    """What there is to say about it."""
    from pmt.experiments import layer_alignment

    layers = result.analysis.layers
    rising = sum(a.alignment.delta_rho > 0 for a in layers)
    texts = "1 text" if result.texts == 1 else f"{result.texts} texts"
    tokens = "1 token" if result.tokens == 1 else f"{result.tokens} tokens"
    return [
        f"{texts}, {tokens}: the increment of the principal direction "
        f"is positive in {rising} of {len(layers)} layers",
        *layer_alignment.sentences(result.analysis),
        f"intertoken distance {result.analysis.initial_distance:.3f} -> "
        f"{layers[-1].intertoken_distance:.3f}",
    ]

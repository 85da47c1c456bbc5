"""Figures 10 and 11 of arXiv 2605.25619: the real model on real text, against the same matrices.

Embedding, feed-forward blocks, affine norms and biases are there; correlations are measured on the
state that leaves each layer, with the layer matrices of stripped mode. Padding never counts. There
are no null models: these replace what is the model's own here.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.errors import RequestError
from pmt.experiments.analysis import Analysis, AnalysisConfig, LayerAnalysis, describe
from pmt.experiments.passage import mask_name
from pmt.experiments.plain_text import SOURCE, read_tokens
from pmt.experiments.plain_text import sentences as plain_sentences
from pmt.experiments.record import analysis_json
from pmt.experiments.steered_panels import present_alignment
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import (
    all_directions,
    average_over_directions,
    chance,
    layer_matrix,
)


@dataclass(frozen=True)
class FullConfig:
    """How many texts at most, and the order of the eigenvalues."""

    texts: int = 100
    order: str = "real"


@dataclass(frozen=True)
class FullMode:
    """The result.

    Attributes:
      analysis: of all layers, in the same form as in stripped mode, without null models.
      texts, tokens: how many of them count.
      source: where the texts come from.
    """

    analysis: Analysis
    texts: int
    tokens: int
    source: str


def pieces(config: FullConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    del config
    return given.layers.depth


def run(config: FullConfig, given: Any) -> FullMode:
    """Read the texts with the whole model, and measure the state after every layer.

    Raises:
      RequestError: a model without a tokenizer, or weights that are not finite.
    """
    texts = given.texts or plain_sentences()
    model = given.open_model()
    tokens = read_tokens(model, texts[: config.texts])
    present = np.asarray(tokens.present)
    states = [np.asarray(state) for state in model(tokens, logits=False).hidden_states]
    layers, found = given.layers, []
    for index in range(layers.depth):
        layer = layers.layer(index)
        matrix = layer_matrix(layer)
        require_finite(f"the layer matrix F of layer {index + 1}", matrix)
        with one_thread_each():
            own = given.solver.principal(matrix, config.order, 1.0)
        before, after = states[index], states[index + 1]
        # A token weighs as much as any other, so that padding can be left out first.
        low, high = (jnp.asarray(x[present][:, None]) for x in (before, after))
        plane = own.plane
        found.append(
            LayerAnalysis(
                index=index + 1,
                mask=mask_name(layer.mask),
                scale=float(layer.scale),
                principal=own.spectrum,
                alignment=present_alignment(own.basis, before, after, present),
                average=average_over_directions(low, high, all_directions(own.pairs, low.dtype)),
                chance=chance(len(matrix), own.dimension),
                plane=None if plane is None else present_alignment(plane, before, after, present),
                plane_chance=None if plane is None else chance(len(matrix), 2),
                null={},
                intertoken_distance=_distance(after, present),
            )
        )
        given.progress(1)
    config_ = AnalysisConfig(
        order=config.order, prompts=len(present), tokens=present.shape[1], nulls=()
    )
    analysis = Analysis(
        model=describe(model),
        config=config_,
        shape=states[0].shape,
        dtype=str(states[0].dtype),
        device=jax.devices()[0].platform,
        biases=True,
        rotary=True,
        initial_distance=_distance(states[0], present),
        layers=tuple(found),
    )
    source = "given" if given.texts else SOURCE
    return FullMode(analysis, len(present), int(present.sum()), source)


def _distance(x: np.ndarray, present: np.ndarray) -> float:
    """Mean chord between the tokens of a text, each taken to the sphere; mean over texts."""
    means = []
    for text, there in zip(x.astype(np.float64), present, strict=True):
        unit = text[there] / np.linalg.norm(text[there], axis=1, keepdims=True)
        if len(unit) > 1:
            chords = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
            means.append(chords.sum() / (len(unit) * (len(unit) - 1)))
    if not means:
        raise RequestError("every text has a single token; give longer ones")
    return float(np.mean(means))


def record(result: FullMode) -> dict[str, Any]:
    """As ``pmt analyze --json`` has it, with the mode and the texts."""
    found = analysis_json(result.analysis)
    found["settings"] |= {"mode": "full", "normalize": "the model's own", "texts": result.source}
    return found | {"texts": result.texts, "counted_tokens": result.tokens}


def tables(result: FullMode) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer."""
    from pmt.experiments import layer_alignment

    return layer_alignment.tables(result.analysis)


def sentences(result: FullMode) -> list[str]:
    """What there is to say about it."""
    layers = result.analysis.layers
    above = sum(a.alignment.delta_rho > a.average.delta_rho for a in layers)
    return [
        f"{result.texts} texts, {result.tokens} tokens: the increment of the principal direction "
        f"exceeds the mean over all directions in {above} of {len(layers)} layers, and is positive "
        f"in {sum(a.alignment.delta_rho > 0 for a in layers)}",
        f"intertoken distance {result.analysis.initial_distance:.3f} -> "
        f"{layers[-1].intertoken_distance:.3f}",
    ]

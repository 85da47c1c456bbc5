"""Figure 9 of arXiv 2605.25619, and the one like it in the main text: the last layer steered.

The three panels of Fig. 2(b) with and without a rank-one edit of the last layer to a direction that
is drawn at random, by `pmt.experiments.steer`. Both models are analysed as in Fig. 2(b), with
chance and null models: those of the edited layer keep its attention and have its value-output maps,
the edit included, rotated, or Gaussian ones of their norms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from pmt.dynamics import MultiHead
from pmt.experiments.analysis import Analysis, AnalysisConfig, LayerAnalysis, count_of_steps
from pmt.experiments.contrast import contrast_after, sentence
from pmt.experiments.layer_alignment import at_rest
from pmt.experiments.layer_alignment import tables as layer_tables
from pmt.experiments.layer_by_layer import advance, analyze, prepare_layer
from pmt.experiments.record import layer_json
from pmt.experiments.steer import SteerConfig, Steering, count_of_pieces, steer
from pmt.experiments.steer_record import steering_json
from pmt.experiments.stripped import Layered, block_of
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.models.editing import layers_with
from pmt.spectral import Alignment, chance
from pmt.steering import Edit, apply

# Stream of random numbers; tokens have the plain seed.
_TARGET = 5
STATES = ("unedited", "steered")


@dataclass(frozen=True)
class SteeredConfig:
    """The mean |correlation| with the target that is asked for; otherwise as ``AnalysisConfig``."""

    alignment: float = 0.99
    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    draws: int = 5

    def with_seed(self, seed: int) -> AnalysisConfig:
        """The config of both analyses."""
        return AnalysisConfig.like(self, seed=seed)

    def of_steering(self, seed: int, *, shared: bool) -> SteerConfig:
        """The config of the edit; spectra are those of the analyses."""
        return SteerConfig(
            alignment=self.alignment,
            all_layers=shared,
            order=self.order,
            prompts=self.prompts,
            tokens=self.tokens,
            seed=seed,
            doses=0,
            spectra=False,
        )


@dataclass(frozen=True)
class SteeredRun:
    """The result.

    Attributes:
      steering: the edit, and the alignment of all layers' states with the target.
      edited: all layers, from 1, whose weights it changes.
      unedited, steered: the analyses of both models.
    """

    steering: Steering
    edited: tuple[int, ...]
    unedited: Analysis
    steered: Analysis

    def layers(self, state: str) -> list[tuple[LayerAnalysis, Alignment]]:
        """Every layer of one of ``STATES``, and its states' alignment with the target."""
        analysis, panels = (
            (self.unedited, self.steering.base)
            if state == STATES[0]
            else (self.steered, self.steering.steered)
        )
        return [(a, panel.target) for a, panel in zip(analysis.layers, panels, strict=True)]


class _Edited:
    """The layers of a model from one on, some of them edited."""

    def __init__(self, layers: Layered, first: int, edited: Sequence[int], edit: Edit, dtype: Any):
        self._layers, self._first, self._edited = layers, first, edited
        self._edit, self._dtype = edit, dtype
        self.depth = layers.depth - first

    def layer(self, index: int) -> MultiHead:
        own = self._layers.layer(self._first + index)
        changed = self._first + index in self._edited
        return apply(own, self._edit, self._dtype) if changed else own

    def block(self, index: int) -> int:
        return block_of(self._layers, self._first + index)


def pieces(config: SteeredConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    steps = count_of_steps(1, config.with_seed(0))
    depth = given.layers.depth
    last = block_of(given.layers, depth - 1)
    first = next(index for index in range(depth) if block_of(given.layers, index) == last)
    return steps * (2 * depth - first) + count_of_pieces(
        None, config.of_steering(0, shared=given.model.shared)
    )


def run(config: SteeredConfig, given: Any) -> SteeredRun:
    """Steer the last layer, and every other one that has its weights.

    Raises:
      RequestError: an alignment that cannot be had, or weights that cannot be edited.
    """
    asked, layers = config.with_seed(given.seed), given.layers
    unedited = analyze(
        layers,
        asked,
        tokens=given.tokens,
        present=given.present,
        progress=given.progress,
        solver=given.solver,
        workers=given.workers("unedited"),
    )
    model = given.open_model()
    rng = np.random.default_rng([_TARGET, given.seed])
    found = steer(
        model,
        rng.standard_normal(model.dimensions.d),
        config.of_steering(given.seed, shared=given.model.shared),
        tokens=given.tokens,
        present=given.present,
        progress=given.progress,
        solver=given.solver,
    )
    edited = layers_with(model, found.layer - 1)
    del model
    # The layers before it are as they were.
    first = min(edited)
    rest = analyze(
        _Edited(layers, first, edited, found.edit, np.dtype(found.cast.dtype)),
        asked,
        model=unedited.model,
        tokens=_entering(layers, first, config, given),
        present=given.present,
        progress=given.progress,
        solver=given.solver,
        workers=given.workers("steered"),
    )
    after = (replace(layer, index=first + layer.index) for layer in rest.layers)
    steered = replace(
        unedited,
        layers=(*unedited.layers[:first], *after),
        first_order=unedited.first_order if first else rest.first_order,
    )
    return SteeredRun(found, tuple(index + 1 for index in edited), unedited, steered)


def _entering(layers: Layered, first: int, config: SteeredConfig, given: Any) -> jax.Array | None:
    """The states that enter layer ``first``, from 0; None for random initial tokens."""
    if first == 0:
        return given.tokens
    start = prepare_layer(layers.layer(0), 1.0)
    d, tokens = start.query.shape[-1], given.tokens
    if tokens is None:
        tokens = random_tokens(config.prompts, config.tokens, d, given.seed)
    x = prepare_tokens(tokens, d, start.query.dtype)
    for index in range(first):
        layer = prepare_layer(layers.layer(index), 1.0)
        x = advance(layer, x, f"layer {index + 1}", present=given.present)
    return x


def record(result: SteeredRun) -> dict[str, Any]:
    """As ``pmt steer --json`` has it, with both models' layers as ``pmt analyze --json`` has them,
    and all layers whose weights were changed.
    """
    both = zip(*(result.layers(state) for state in STATES), strict=True)
    return steering_json(result.steering, "a random direction", None) | {
        "edited_layers": result.edited,
        "layers": [
            {"index": pair[0][0].index}
            | {
                state: layer_json(layer)
                | {"target": vars(target).copy(), "target_cosine": _cosine(result, layer)}
                for state, (layer, target) in zip(STATES, pair, strict=True)
            }
            for pair in both
        ],
    }


def _cosine(result: SteeredRun, layer: LayerAnalysis) -> float:
    """|cos| between the target and the layer's principal direction, a line or a plane."""
    return float(np.linalg.norm(layer.principal.basis.T @ result.steering.target))


def tables(result: SteeredRun) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer and state of the edit, as of Fig. 2(b) and about the target.

    ``chance`` is that of the layer's principal direction, ``target_chance`` that of the target's
    line, ``target_cosine`` the |cos| between both.
    """
    rows, level = [], chance(len(result.steering.target))
    for state, analysis in zip(STATES, (result.unedited, result.steered), strict=True):
        for row, (layer, target) in zip(
            layer_tables(analysis)["layers"], result.layers(state), strict=True
        ):
            about = {
                f"target_{name}": "" if value is None else value
                for name, value in vars(target).items()
            }
            value = layer.principal.eigenvalue
            rows.append(
                {"layer": layer.index, "edit": state}
                | row
                | {"eigenvalue_re": value.real, "eigenvalue_im": value.imag}
                | about
                | {
                    "target_chance": level,
                    "target_cosine": _cosine(result, layer),
                    "changed": state == STATES[1] and layer.index in result.edited,
                }
            )
    return {"layers": rows}


def sentences(result: SteeredRun) -> list[str]:
    """What there is to say about it."""
    found = result.steering
    first, *others = result.edited
    what = f"layer {first} steered"
    if others:
        rest = ", ".join(str(layer) for layer in result.edited[:-1])
        what = (
            f"layers {rest} and {result.edited[-1]}, which have the same weights, steered together"
        )
    where = f" of the tokens that leave layer {found.layer}" if others else ""
    last = next(a for a in result.steered.layers if a.index == result.edited[-1])
    return [
        f"{what} with c = {found.edit.strength:.4g}: mean |correlation|{where} "
        f"with the target {found.before:.3f} -> {found.after:.3f}; {found.positive_after:.0%} "
        "of the tokens have its sign",
        *(
            f"after the edit, with the principal direction of layer {last.index}: "
            # An edit stands out because it was made to.
            + sentence(contrast_after(name, last.alignment, last.chance, null), "edited")
            for name, null in last.null.items()
        ),
        *(
            f"after the edit, {said}"
            for said in at_rest(result.steered.layers, result.steered.dtype)
        ),
    ]

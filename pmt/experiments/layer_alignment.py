"""Figures 2(b), 7 of arXiv 2605.25619: rho, its increment and share of increases over layers.

What the paper shows, by `pmt.experiments.analyze`, with what it lacks: chance, two null models, and
the first-order law where it applies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt.experiments.analysis import Analysis, AnalysisConfig, LayerAnalysis, count_of_steps
from pmt.experiments.contrast import (
    BEYOND,
    NULL_NAMES,
    Contrast,
    Judgement,
    alignment_columns,
    contrast_after,
    judge_increment,
)
from pmt.experiments.first_order import clause, reason_of
from pmt.experiments.layer_by_layer import analyze
from pmt.experiments.record import analysis_json, layer_json

# Increments that differ by no more than so many roundings of 1 are equal.
_ROUNDINGS = 4
# An eigenvalue below this part of the largest one is zero: far above roundings of one that is, far
# below what trained weights have.
_ZERO = 1e-11
# Of so many roundings an increment may have its sign from them.
_STILL = 16


@dataclass(frozen=True)
class AlignmentConfig:
    """As `AnalysisConfig`; the seed is that of the call."""

    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    alpha: float = 1.0
    draws: int = 5

    def with_seed(self, seed: int) -> AnalysisConfig:
        """The config of the analysis."""
        return AnalysisConfig.like(self, seed=seed)


def pieces(config: AlignmentConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    return count_of_steps(given.layers.depth, config.with_seed(0))


def run(config: AlignmentConfig, given: Any) -> Analysis:
    """The analysis of all layers; each is handed to ``given.keep`` when it is measured."""
    return analyze(
        given.layers,
        config.with_seed(given.seed),
        tokens=given.tokens,
        present=given.present,
        progress=given.progress,
        solver=given.solver,
        seen=lambda layer: given.keep(layer.index, layer_json(layer)),
        workers=given.workers("layers"),
    )


def record(result: Analysis) -> dict[str, Any]:
    """As ``pmt analyze --json`` has it."""
    return analysis_json(result)


def tables(result: Analysis) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer, with the first-order law or why there is none."""
    rows, law = [], result.first_order
    for layer in result.layers:
        own, average = layer.alignment, layer.average
        row = {
            "layer": layer.index,
            "case": layer.principal.case,
            "dimension": layer.principal.dimension,
            **{name: "" if value is None else value for name, value in vars(own).items()},
            "chance": layer.chance,
            "ratio_to_chance": own.rho_after / layer.chance,
            **({} if average is None else {f"mean_{n}": v for n, v in vars(average).items()}),
        }
        row |= alignment_columns(layer.null)
        row["intertoken_distance"] = layer.intertoken_distance
        if law is not None:
            predicted = law.delta_rho if layer.index == 1 else None
            row["first_order_delta_rho"] = "" if predicted is None else predicted
            row["first_order_reason"] = reason_of(law, layer.index) or ""
        rows.append(row)
    return {"layers": rows}


def sentences(result: Analysis) -> list[str]:
    """What is special about the trained weights, and what is not."""
    layers, law = result.layers, result.first_order
    own = layers[0].alignment
    predicted = None
    if law is not None:
        predicted = clause(
            law, own.delta_rho, own.delta_rho_se, alpha=result.config.alpha, depth=len(layers)
        )
    above = _above_average(result)
    first = "; ".join(part for part in (above, predicted) if part is not None)
    return [
        *([first] if first else []),
        *(said for name in layers[0].null for said in beside(layers, name)),
        *at_rest(layers, result.dtype),
        *_kernel(layers),
    ]


def at_rest(layers: Sequence[LayerAnalysis], dtype: Any) -> list[str]:
    """Of which layers P is none, since rho with the principal direction stays as it is."""
    least = _STILL * float(jnp.finfo(dtype).eps)
    sizes = [(a.index, np.hypot(a.alignment.delta_rho, a.alignment.delta_rho_std)) for a in layers]
    still = [str(index) for index, size in sizes if size <= least]
    if not still:
        return []
    where = f"layer {still[0]}" if len(still) == 1 else f"layers {', '.join(still)}"
    return [
        f"in {where} tokens keep their alignment with the principal direction to rounding, which "
        "decides P there: it says nothing"
    ]


def _kernel(layers: Sequence[LayerAnalysis]) -> list[str]:
    """Where F has a kernel, of which any basis would do; the solver's is in the means."""
    found = {}
    for layer in layers:
        sizes = np.abs(layer.principal.values)
        zeros = int(np.sum(sizes <= _ZERO * np.max(sizes)))
        if layer.average is not None and zeros > 1:
            found[layer.index] = zeros
    if not found:
        return []
    where = f"layer {min(found)}" if len(found) == 1 else f"{len(found)} of {len(layers)} layers"
    least, most = min(found.values()), max(found.values())
    count = f"{least}" if least == most else f"{least} to {most}"
    return [
        f"in {where} {count} of {len(layers[0].principal.values)} eigenvalues of F are zero to "
        "rounding: any basis of their kernel is as good as the solver's, which the mean over all "
        "eigendirections and its chance have in them"
    ]


def _above_average(result: Analysis) -> str | None:
    """In how many layers the principal direction gains more than the mean over all directions."""
    pairs = [(a.alignment, a.average) for a in result.layers if a.average is not None]
    if not pairs:
        return None
    margins = np.array([own.delta_rho - average.delta_rho for own, average in pairs])
    rounding = _ROUNDINGS * float(jnp.finfo(result.dtype).eps)
    equal = int(np.sum(np.abs(margins) <= rounding))
    return (
        "the increment of the principal direction exceeds the mean over all directions in "
        f"{int(np.sum(margins > rounding))} of {len(pairs)} layers"
        + (f" and equals it to rounding in {equal}" if equal else "")
    )


def beside(layers: Sequence[LayerAnalysis], name: str) -> list[str]:
    """What the increments and the alignments of these layers say beside those of a null model."""
    null_name = f"the {NULL_NAMES[name]} null"
    every = [judge_increment(layer.alignment, layer.null[name]) for layer in layers]
    found = [each for each in every if each.stands_out is not None]
    if not found:
        return [f"increment less that of {null_name}: {every[0].reason}"]
    margin = np.mean([each.margin for each in found])
    error = np.mean([each.error or 0.0 for each in found])
    draws = layers[0].null[name].draws
    # Prompts are common to all layers, and so are draws where weights are shared; whatever the
    # correlation, the error of a mean is at most the mean of the errors.
    increments = (
        f"increment less that of {null_name}, which keeps the layer's attention: "
        f"{margin:+.4f} on average over layers (standard error of one more draw at most "
        f"{error:.4f}, however those of the layers depend on each other); the trained weights are "
        f"above {BEYOND} (95 % in each layer, {draws} draws) in {_counts(found)}"
    )
    after = [
        contrast_after(name, layer.alignment, layer.chance, layer.null[name]) for layer in layers
    ]
    told = [each for each in after if each.stands_out is not None]
    if not told:
        return [increments]
    alignments = (
        f"alignment after the layer beside {null_name}: the trained weights are above {BEYOND} in "
        f"{_counts(told)}"
    )
    return [increments, alignments]


def _counts(found: Sequence[Judgement | Contrast]) -> str:
    verdicts = [each.stands_out for each in found]
    return (
        f"{verdicts.count(1)} of {len(found)} layers, below it in {verdicts.count(-1)} and within "
        f"it in {verdicts.count(0)}"
    )

"""Figures 2(b), 7 of arXiv 2605.25619: rho, its increment and share of increases over layers.

What the paper shows, by `pmt.experiments.analyze`, with what it lacks: chance, and two null models.
"""

from dataclasses import dataclass
from typing import Any

from pmt.experiments.analysis import Analysis, AnalysisConfig, count_of_steps
from pmt.experiments.layer_by_layer import analyze
from pmt.experiments.record import analysis_json, layer_json


@dataclass(frozen=True)
class AlignmentConfig:
    """As `AnalysisConfig`; the seed is that of the call."""

    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    alpha: float = 1.0
    draws: int = 4

    def with_seed(self, seed: int) -> AnalysisConfig:
        """The config of the analysis."""
        return AnalysisConfig(
            order=self.order,
            alpha=self.alpha,
            prompts=self.prompts,
            tokens=self.tokens,
            seed=seed,
            draws=self.draws,
        )


def pieces(config: AlignmentConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    return count_of_steps(given.layers.depth, config.with_seed(0))


def run(config: AlignmentConfig, given: Any) -> Analysis:
    """The analysis of all layers; each is handed to ``given.keep`` when it is measured."""
    return analyze(
        given.layers,
        config.with_seed(given.seed),
        tokens=given.tokens,
        progress=given.progress,
        solver=given.solver,
        seen=lambda layer: given.keep(layer.index, layer_json(layer)),
    )


def record(result: Analysis) -> dict[str, Any]:
    """As ``pmt analyze --json`` has it."""
    return analysis_json(result)


def tables(result: Analysis) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer."""
    rows = []
    for layer in result.layers:
        own, average = layer.alignment, layer.average
        row = {
            "layer": layer.index,
            "case": layer.principal.case,
            "dimension": layer.principal.dimension,
            **{name: "" if value is None else value for name, value in vars(own).items()},
            "chance": layer.chance,
            "ratio_to_chance": own.rho_after / layer.chance,
            **{f"mean_{name}": value for name, value in vars(average).items()},
        }
        for name, null in layer.null.items():
            row |= {
                f"{name}_delta_rho": null.delta_rho,
                f"{name}_p_increase": null.p_increase,
                f"{name}_se": "" if null.se is None else null.se,
            }
        rows.append(row | {"intertoken_distance": layer.intertoken_distance})
    return {"layers": rows}


def sentences(result: Analysis) -> list[str]:
    """What is special about the trained weights, and what is not."""
    layers = result.layers
    above = sum(a.alignment.delta_rho > a.average.delta_rho for a in layers)
    found = [
        f"the increment of the principal direction exceeds the mean over all directions in {above} "
        f"of {len(layers)} layers"
    ]
    for name in layers[0].null:
        more = less = 0
        for layer in layers:
            null, own = layer.null[name], layer.alignment
            if null.se is None or own.delta_rho_se is None:
                continue
            error = (null.se**2 + own.delta_rho_se**2) ** 0.5
            more += own.delta_rho > null.delta_rho + 2 * error
            less += own.delta_rho < null.delta_rho - 2 * error
        found.append(
            f"by more than two standard errors it is above the {name} null in {more} layers and "
            f"below it in {less}; in the other {len(layers) - more - less} the trained weights do "
            "not stand out"
        )
    return found

"""Fig. 2(b) of arXiv 2605.25619 with the principal direction chosen in each of the three orders.

The paper sorts eigenvalues by real part; the map with its skip connection selects by
|1 + alpha lam|. Where the orders agree on a layer, so do their lines.
"""

from dataclasses import dataclass
from typing import Any

from pmt.experiments.analysis import Analysis, AnalysisConfig, count_of_steps
from pmt.experiments.contrast import alignment_columns
from pmt.experiments.layer_by_layer import analyze
from pmt.experiments.record import analysis_json
from pmt.linalg import ORDERS


@dataclass(frozen=True)
class OrdersConfig:
    """As ``AnalysisConfig``, in every order; the seed is that of the call."""

    prompts: int = 100
    tokens: int = 10
    alpha: float = 1.0
    draws: int = 5

    def in_order(self, order: str, seed: int) -> AnalysisConfig:
        """The config of one of the analyses."""
        return AnalysisConfig.like(self, order=order, seed=seed)


@dataclass(frozen=True)
class Orders:
    """One analysis of the same tokens an order."""

    analyses: dict[str, Analysis]


def pieces(config: OrdersConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    depth = given.layers.depth
    return sum(count_of_steps(depth, config.in_order(order, 0)) for order in ORDERS)


def run(config: OrdersConfig, given: Any) -> Orders:
    """Analyse the layers in every order; null models have principal directions of that order."""
    return Orders(
        {
            order: analyze(
                given.layers,
                config.in_order(order, given.seed),
                tokens=given.tokens,
                present=given.present,
                progress=given.progress,
                solver=given.solver,
                workers=given.workers(order),
            )
            for order in ORDERS
        }
    )


def record(result: Orders) -> dict[str, Any]:
    """As ``pmt analyze --json`` has it, for every order."""
    return {order: analysis_json(analysis) for order, analysis in result.analyses.items()}


def tables(result: Orders) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer, the orders side by side."""
    rows: list[dict[str, Any]] = []
    for layers in zip(*(each.layers for each in result.analyses.values()), strict=True):
        row: dict[str, Any] = {"layer": layers[0].index}
        for order, layer in zip(result.analyses, layers, strict=True):
            own = layer.alignment
            row |= {
                f"{order}_re": layer.principal.eigenvalue.real,
                f"{order}_im": layer.principal.eigenvalue.imag,
                f"{order}_rho": own.rho_after,
                f"{order}_ratio_to_chance": own.rho_after / layer.chance,
                f"{order}_delta_rho": own.delta_rho,
                f"{order}_p_increase": own.p_increase,
            }
            row |= alignment_columns(layer.null, f"{order}_")
        rows.append(row | {"mean_delta_rho": layers[0].average.delta_rho})
    return {"orders": rows}


def sentences(result: Orders) -> list[str]:
    """What there is to say about it."""
    by_real, by_skip, by_modulus = (
        [layer.principal.eigenvalue for layer in result.analyses[order].layers] for order in ORDERS
    )
    layers = len(by_real)
    return [
        "the same eigenvalue as by real part leads by |1 + αλ| in "
        f"{sum(a == b for a, b in zip(by_real, by_skip, strict=True))} and by modulus in "
        f"{sum(a == b for a, b in zip(by_real, by_modulus, strict=True))} of {layers} layers"
    ]

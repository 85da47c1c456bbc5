"""Figure 9 of arXiv 2605.25619, and the one like it in the main text: the last layer steered.

The three panels of Fig. 2(b) with and without a rank-one edit of the last layer to a direction that
is drawn at random, by `pmt.experiments.steer`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.experiments.steer import SteerConfig, Steering, steer
from pmt.experiments.steer_record import steering_json

# Stream of random numbers; tokens have the plain seed.
_TARGET = 5


@dataclass(frozen=True)
class SteeredConfig:
    """The mean |correlation| with the target that is asked for; otherwise as ``SteerConfig``."""

    alignment: float = 0.99
    prompts: int = 100
    tokens: int = 10
    order: str = "real"


def pieces(config: SteeredConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to, where no layers share their weights."""
    del config
    return given.layers.depth + 4


def run(config: SteeredConfig, given: Any) -> Steering:
    """Steer the last layer, and every other one that has its weights.

    Raises:
      RequestError: an alignment that cannot be had, or weights that cannot be edited.
    """
    model = given.open_model()
    rng = np.random.default_rng([_TARGET, given.seed])
    settings = SteerConfig(
        alignment=config.alignment,
        all_layers=given.model.shared,
        order=config.order,
        prompts=config.prompts,
        tokens=config.tokens,
        seed=given.seed,
        doses=0,
    )
    target = rng.standard_normal(model.dimensions.d)
    return steer(
        model,
        target,
        settings,
        tokens=given.tokens,
        progress=given.progress,
        solver=given.solver,
    )


def record(result: Steering) -> dict[str, Any]:
    """As ``pmt steer --json`` has it."""
    return steering_json(result, "a random direction", None)


def tables(result: Steering) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer and state of the edit."""
    rows = []
    for name, panels in (("unedited", result.base), ("steered", result.steered)):
        for panel in panels:
            row: dict[str, Any] = {"layer": panel.index, "edit": name}
            for what in ("target", "principal", "average"):
                part = getattr(panel, what)
                for key, value in {} if part is None else vars(part).items():
                    row[f"{what}_{key}"] = "" if value is None else value
            rows.append(row)
    return {"layers": rows}


def sentences(result: Steering) -> list[str]:
    """What there is to say about it."""
    return [
        f"layer {result.layer} steered with c = {result.edit.strength:.4g}: mean |correlation| "
        f"with the target {result.before:.3f} -> {result.after:.3f}; {result.positive_after:.0%} "
        "of the tokens have its sign"
    ]

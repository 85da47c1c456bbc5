"""Figure 9 of arXiv 2605.25619, and the one like it in the main text: the last layer steered.

The three panels of Fig. 2(b) with and without a rank-one edit of the last layer to a direction that
is drawn at random, by `pmt.experiments.steer`.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pmt.experiments.steer import SteerConfig, Steering, steer
from pmt.experiments.steer_record import steering_json
from pmt.experiments.stripped import count_of_blocks
from pmt.models.editing import layers_with
from pmt.spectral import chance

# Stream of random numbers; tokens have the plain seed.
_TARGET = 5


@dataclass(frozen=True)
class SteeredConfig:
    """The mean |correlation| with the target that is asked for; otherwise as ``SteerConfig``."""

    alignment: float = 0.99
    prompts: int = 100
    tokens: int = 10
    order: str = "real"


@dataclass(frozen=True)
class SteeredRun(Steering):
    """A steering; ``edited`` are all layers, from 1, whose weights it changes."""

    edited: tuple[int, ...] = ()


def pieces(config: SteeredConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to: layers with the same weights are one."""
    del config
    return count_of_blocks(given.layers) + 4


def run(config: SteeredConfig, given: Any) -> SteeredRun:
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
    found = steer(
        model,
        target,
        settings,
        tokens=given.tokens,
        progress=given.progress,
        solver=given.solver,
    )
    edited = tuple(index + 1 for index in layers_with(model, found.layer - 1))
    return SteeredRun(**{f.name: getattr(found, f.name) for f in fields(found)}, edited=edited)


def record(result: SteeredRun) -> dict[str, Any]:
    """As ``pmt steer --json`` has it, with all layers whose weights were changed."""
    return steering_json(result, "a random direction", None) | {"edited_layers": result.edited}


def tables(result: SteeredRun) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer and state of the edit.

    ``chance`` and ``dimension`` are those of the layer's principal direction, ``target_chance``
    that of the target's line, ``cosine`` the |cos| between both.
    """
    rows, level = [], chance(len(result.target))
    for name, panels in (("unedited", result.base), ("steered", result.steered)):
        for panel in panels:
            row: dict[str, Any] = {"layer": panel.index, "edit": name}
            for what in ("target", "principal", "average"):
                part = getattr(panel, what)
                for key, value in {} if part is None else vars(part).items():
                    row[f"{what}_{key}"] = "" if value is None else value
            value = panel.eigenvalue
            row |= {
                "target_chance": level,
                "eigenvalue_re": "" if value is None else value.real,
                "eigenvalue_im": "" if value is None else value.imag,
                "dimension": panel.dimension,
                "chance": panel.chance,
                "cosine": panel.cosine,
                "changed": name == "steered" and panel.index in result.edited,
            }
            rows.append(row)
    return {"layers": rows}


def sentences(result: SteeredRun) -> list[str]:
    """What there is to say about it."""
    first, *others = result.edited
    what = f"layer {first} steered"
    if others:
        rest = ", ".join(str(layer) for layer in result.edited[:-1])
        what = (
            f"layers {rest} and {result.edited[-1]}, which have the same weights, steered together"
        )
    where = f" of the tokens that leave layer {result.layer}" if others else ""
    return [
        f"{what} with c = {result.edit.strength:.4g}: mean |correlation|{where} "
        f"with the target {result.before:.3f} -> {result.after:.3f}; {result.positive_after:.0%} "
        "of the tokens have its sign"
    ]

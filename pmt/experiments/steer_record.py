"""A steered model as a JSON object."""

from typing import Any

from pmt.experiments.plain_text import SOURCE
from pmt.experiments.record import versions
from pmt.experiments.steer import Steering
from pmt.experiments.steered_panels import Panel
from pmt.steering import Preimage, Response

SCHEMA = "pmt.steer/1"


def steering_json(
    result: Steering, source: str, text_source: str | None = SOURCE
) -> dict[str, Any]:
    """The object that ``pmt steer --json`` writes: schema ``pmt.steer/1``.

    Args:
      result: of `pmt.experiments.steer`.
      source: where the direction comes from, in words.
      text_source: what the cost was measured on; None where it was not.
    """
    config, edit, delta = result.config, result.edit, result.delta
    response = edit.response
    curve = result.curve
    return {
        "schema": SCHEMA,
        "model": vars(result.model).copy(),
        "settings": {
            "mode": config.mode,
            "layer": result.layer,
            "all_layers": config.all_layers,
            "order": config.order,
            "read": result.read,
            "asked": {
                name: getattr(config, name)
                for name in ("strength", "c", "alignment")
                if getattr(config, name) is not None
            },
            "precompensate": config.precompensate,
            "seed": config.seed,
            "tokens": list(result.shape),
            "dtype": result.dtype,
            "versions": versions(),
        },
        "direction": source,
        "edit": {
            "c": edit.strength,
            "multiple_of_lambda_1": edit.multiple,
            "method": edit.method,
            "rank": edit.rank,
            "condition": edit.condition,
            "residual": edit.residual,
            "achieved_share": float((edit.achieved**2).sum() ** 0.5),
            "tilt": edit.tilt,
            "cast": vars(result.cast).copy(),
            "tokens": None if response is None else _tokens(response, edit.strength),
        },
        "preimage": None if result.preimage is None else _preimage(result.preimage),
        "alignment": {
            "before": result.before,
            "after": result.after,
            "positive_before": result.positive_before,
            "positive_after": result.positive_after,
        },
        "layers": [
            {"index": base.index, "unedited": _panel(base), "steered": _panel(steered)}
            for base, steered in zip(result.base, result.steered, strict=True)
        ],
        "curve": None
        if curve is None
        else {name: array.tolist() for name, array in vars(curve).items()},
        "costs": [vars(cost).copy() for cost in result.costs],
        "text": text_source if result.costs else None,
        "delta": None
        if delta is None
        else {
            "tensor": delta.tensor,
            "axis": delta.axis,
            "dtype": delta.dtype,
            "base_sha256": delta.base_sha256,
            "edited_sha256": delta.edited_sha256,
        },
    }


def _tokens(response: Response, c: float) -> dict[str, Any]:
    kappa = response.kappa[response.present]
    size = abs(kappa)
    return {
        "share_positive": response.share_positive,
        "share_dominated": response.share_dominated(c),
        "kappa_min": float(kappa.min()),
        "kappa_mean": float(kappa.mean()),
        "kappa_max": float(kappa.max()),
        "kappa_size_min": float(size.min()),
        "kappa_size_median": float(sorted(size)[len(size) // 2]),
    }


def _preimage(found: Preimage) -> dict[str, Any]:
    shown = {name: value for name, value in vars(found).items() if name != "direction"}
    return shown | {
        "condition_holds": found.condition_holds,
        "excluded": found.excluded,
        "reach": None if found.reach is None else vars(found.reach).copy(),
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "target": vars(panel.target).copy(),
        "principal": None if panel.principal is None else vars(panel.principal).copy(),
        "average": None if panel.average is None else vars(panel.average).copy(),
        "eigenvalue": None
        if panel.eigenvalue is None
        else [panel.eigenvalue.real, panel.eigenvalue.imag],
        "dimension": panel.dimension,
        "chance": panel.chance,
        "cosine": panel.cosine,
    }

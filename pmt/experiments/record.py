"""Results as JSON objects, for the files that others read."""

import csv
import io
import platform
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import Any

from pmt import __version__
from pmt.experiments.analysis import Analysis, LayerAnalysis
from pmt.experiments.contrast import contrast_after, judge_increment
from pmt.experiments.first_order import as_record
from pmt.experiments.repeat import Rate, Repetition
from pmt.spectral import Alignment, Spectrum

SCHEMA = "pmt.analysis/1"

_RECORDED = ("jax", "jaxlib", "flax", "numpy", "scipy", "safetensors")
_SHOWN_EIGENVALUES = 5


def versions() -> dict[str, str]:
    """Of this package, Python and what the numbers depend on."""
    found = {"pmt": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def analysis_json(analysis: Analysis) -> dict[str, Any]:
    """The object that ``pmt analyze --json`` writes: schema ``pmt.analysis/1``.

    Complex numbers are ``[re, im]``. ``null`` stands for a number that there is not: a gap where
    there is no other eigenvalue, a standard error over one prompt, an infinite condition. Where the
    tokens are those of texts, ``"settings"`` say where these come from and how many tokens count;
    the rest is padding. Under ``"null"`` stand the mean over draws of a null model, its standard
    error and the spread between draws, and whether the layer's increment lies beyond what one more
    draw would show (95 %): see `pmt.experiments.contrast.judge`. Its ``"after"`` is the same of rho
    after the layer.

    ``"principal"`` says what solved it where that is not LAPACK for all pairs, and why where it is
    not what was asked for. Where only the leading eigenpairs were asked for, ``"leading"`` in the
    settings says how many, the averages over all directions are ``null``, and every layer has an
    object ``"leading"`` with all pairs that were found. ``"prompts_at_once"`` is there where the
    device had no memory for all. ``"first_order_law"`` says what that law gives for layer 1, beside
    what was measured, or why it does not apply: see `pmt.experiments.first_order`.
    """
    config, full = analysis.config, analysis.mode == "full"
    read = {"texts": analysis.texts, "counted_tokens": analysis.counted}
    law, own = analysis.first_order, analysis.layers[0].alignment
    told = None
    if law is not None:
        told = as_record(law, own.delta_rho, own.delta_rho_se, len(analysis.layers))
    less = {"leading": config.leading, "prompts_at_once": analysis.prompts_at_once}
    return {
        "schema": SCHEMA,
        "model": vars(analysis.model).copy(),
        "settings": {
            "mode": analysis.mode,
            "order": config.order,
            "alpha": config.alpha,
            "biases": analysis.biases,
            "rotary": analysis.rotary,
            "normalize": "the model's own" if full else "l2",
            "seed": config.seed,
            "tokens": list(analysis.shape),
            "dtype": analysis.dtype,
            "device": analysis.device,
            "versions": versions(),
            **(read if analysis.texts is not None else {}),
            **{name: value for name, value in less.items() if value is not None},
        },
        "layers": [layer_json(layer) for layer in analysis.layers],
        **({} if told is None else {"first_order_law": told}),
    }


def repeat_json(repetition: Repetition) -> dict[str, Any]:
    """The object under ``"repeat"`` that ``--repeat-layer`` adds; lists start before step 1."""
    config = repetition.config
    se = repetition.rho_se
    return {
        "layer": config.layer,
        "steps": config.steps,
        "principal": _principal(repetition.principal) | {"chance": repetition.chance},
        "attracting": repetition.attracting,
        "rho": repetition.rho.tolist(),
        "rho_se": None if se is None else se.tolist(),
        "misalignment": repetition.misalignment.tolist(),
        "intertoken_distance": repetition.intertoken_distance.tolist(),
        "rate": _rate(repetition.rate),
    }


def layer_json(layer: LayerAnalysis) -> dict[str, Any]:
    """One entry of ``"layers"``."""
    average, own = layer.average, layer.principal
    means = ("rho_before", "rho_after", "delta_rho", "p_increase")
    return {
        "index": layer.index,
        "mask": layer.mask,
        "scale": layer.scale,
        "eigenvalues": [
            _complex(complex(value)) for value in layer.principal.values[:_SHOWN_EIGENVALUES]
        ],
        "principal": _principal(own) | {"chance": layer.chance} | _solved(own),
        **vars(layer.alignment),
        **{f"mean_{name}": None if average is None else getattr(average, name) for name in means},
        "plane": _plane(layer.plane, layer.plane_chance),
        "null": {
            name: {
                "delta_rho": null.delta_rho,
                "p_increase": null.p_increase,
                "se": null.se,
                "sd": null.sd,
                "draws": null.draws,
                **vars(judge_increment(layer.alignment, null)),
                "after": vars(null.after)
                | {"contrast": vars(contrast_after(name, layer.alignment, layer.chance, null))},
            }
            for name, null in layer.null.items()
        },
        "intertoken_distance": layer.intertoken_distance,
        **({} if average is not None else {"leading": _leading(own)}),
    }


def _solved(own: Spectrum) -> dict[str, Any]:
    """What solved it, where that is not LAPACK for all pairs, and why it is not what was asked."""
    if own.complete and own.method == "lapack" and own.fallback is None:
        return {}
    return {"method": own.method, "fallback": own.fallback}


def _leading(own: Spectrum) -> dict[str, Any]:
    """All pairs that were found, in their order."""
    return {
        "eigenvalues": [_complex(complex(value)) for value in own.values],
        "residuals": own.residuals.tolist(),
        "conditions": [c if isfinite(c) else None for c in own.conditions.tolist()],
    }


def _principal(principal: Spectrum) -> dict[str, Any]:
    return {
        "eigenvalue": _complex(principal.eigenvalue),
        "dimension": principal.dimension,
        "case": principal.case,
        "gap": principal.gap,
        "residual": principal.residual,
        "condition": principal.condition if isfinite(principal.condition) else None,
        "collinearity": principal.collinearity,
    }


def _plane(alignment: Alignment | None, chance: float | None) -> dict[str, Any] | None:
    return None if alignment is None else {"chance": chance, **vars(alignment)}


def _rate(rate: Rate) -> dict[str, Any]:
    return {"theory": rate.theory, "measured": rate.measured, "ratio": rate.ratio}


def _complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, every number such that it reads back as it was."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

"""What the report says of each result; every number in a sentence comes out of the result."""

from collections.abc import Mapping, Sequence
from typing import Any

from pmt.report.page import Figure, Section, Table


def equilibrium(answer: Mapping[str, Any], setting: str, figures: Sequence[Figure]) -> Section:
    """One equilibrium in full: verdict, multipliers, the theorem's inequalities one by one.

    Args:
      answer: ``Analysis.as_dict()`` of ``pmt.stability``.
      setting: the system and the point in words.
      figures: multipliers and a run from nearby.
    """
    rows = tuple(
        (c["name"], c["text"], c["status"], _number(c["margin"])) for c in answer["conditions"]
    )
    disagreement = answer["disagreement"]
    compared = (
        "it was not compared with the dense Jacobian"
        if disagreement is None
        else f"it differs from the automatic Jacobian by {disagreement:.1e} of its largest entry"
    )
    paragraphs = (
        setting,
        f"Verdict: {answer['verdict']}. The spectral radius on the tangent space is "
        f"{answer['spectral_radius']:.4f}, so the margin is {answer['margin']:.4f} with tolerance "
        f"{answer['tolerance']:.0e}; method: {answer['method']}, and {compared}.",
    )
    table = Table(
        "The inequalities that speak about this point, with signed margins.",
        ("condition", "inequality", "status", "margin"),
        rows,
        frozenset({3}),
    )
    return Section("equilibrium", "One equilibrium, in full", paragraphs, tuple(figures), (table,))


def transformer(analysis: Mapping[str, Any], figures: Sequence[Figure]) -> Section:
    """A checkpoint's layers, from the object that ``pmt analyze --json`` writes.

    Args:
      analysis: schema ``pmt.analysis/1``.
      figures: spectra, alignment panels, intertoken distance.
    """
    model, layers = analysis["model"], analysis["layers"]
    prompts, n, _ = analysis["settings"]["tokens"]
    ahead = [x for x in layers if x["delta_rho"] > x["mean_delta_rho"]]
    paragraphs = [
        f"{model['name']} ({model['family']}, {model['layers']} layers, d = {model['d']}, "
        f"{model['h']} heads), sha256 {model['sha256']}, in stripped mode: attention, skip "
        "connection and normalisation to the unit sphere, as in eq. (1) of the paper, without "
        f"feed-forward part or biases. {prompts} prompts of {n} random tokens; bands are standard "
        "errors over prompts. ρ is the alignment of tokens with the principal eigendirection of "
        "the layer matrix F, Δρ its change through the layer, P the share of tokens that gain.",
        f"In {len(ahead)} of {len(layers)} layers the principal direction gains more than the "
        "average over all eigendirections, which is the paper's claim. What is special about the "
        "trained weights is the difference from the null models, which keep the layer's own "
        "attention but replace its value-output maps. " + _nulls(layers),
    ]
    rows = tuple(
        (
            str(x["index"]),
            _complex(x["principal"]["eigenvalue"]),
            str(x["principal"]["case"]),
            _number(x["principal"]["gap"]),
            f"{x['principal']['residual']:.0e}",
            f"{x['rho_after']:.4f}",
            f"{x['principal']['chance']:.4f}",
            f"{x['delta_rho']:+.4f}",
            f"{x['mean_delta_rho']:+.4f}",
            f"{x['p_increase']:.3f}",
            f"{x['mean_p_increase']:.3f}",
            f"{x['intertoken_distance']:.4f}",
        )
        for x in layers
    )
    table = Table(
        "Layers: principal eigenvalue, its case, gap and residual; alignment after the layer and "
        "its chance level; increments for the principal direction and averaged over all "
        "directions; mean intertoken distance after the layer.",
        ("layer", "λ1", "case", "gap", "residual", "ρ", "chance", "Δρ", "mean Δρ", "P", "mean P",
         "distance"),
        rows,
        frozenset(range(12)),
    )  # fmt: skip
    return Section("transformer", "A real transformer", tuple(paragraphs), tuple(figures), (table,))


def _nulls(layers: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for name in layers[0]["null"]:
        nulls = [x["null"][name] for x in layers]
        known = [null["stands_out"] for null in nulls if null["stands_out"] is not None]
        if not known:
            return f"No verdict: {nulls[0]['reason']}."
        parts.append(f"the {name} null in {known.count(1)} of {len(known)}")
    if not parts:
        return ""
    return (
        "Δρ lies above what one more draw of the null would show (95 %): for "
        + " and ".join(parts)
        + " layers."
    )


def repeated_layer(
    analysis: Mapping[str, Any], repeat: Mapping[str, Any], figures: Sequence[Figure]
) -> Section:
    """One layer applied again and again: the shared-weight experiment.

    Args:
      analysis: schema ``pmt.analysis/1``, for the model's name.
      repeat: the object under ``"repeat"``.
      figures: alignment over steps.
    """
    rate = repeat["rate"]
    compared = ""
    if rate["theory"] is not None and rate["measured"] is not None:
        compared = (
            f" Near consensus the distance to the direction shrinks by {rate['measured']:.4f} a "
            f"step where theory says |1 + α λ2| / |1 + α λ1| = {rate['theory']:.4f}."
        )
    attracting = (
        "It has the largest |1 + α λ|, so it is what the map selects."
        if repeat["attracting"]
        else "It does not have the largest |1 + α λ|, so the map need not select it."
    )
    paragraphs = (
        f"Layer {repeat['layer']} of {analysis['model']['name']} applied {repeat['steps']} times, "
        f"as in a transformer with shared weights. {attracting} The mean alignment goes from "
        f"{repeat['rho'][0]:.3f} to {repeat['rho'][-1]:.6f} (chance "
        f"{repeat['principal']['chance']:.3f}), the mean distance between tokens from "
        f"{repeat['intertoken_distance'][0]:.3f} to "
        f"{_number(repeat['intertoken_distance'][-1])}.{compared}",
    )
    return Section("repeated-layer", "One layer, repeated", paragraphs, tuple(figures))


def summary(
    verified: Mapping[str, Any], analysis: Mapping[str, Any], repeat: Mapping[str, Any]
) -> str:
    """The lead paragraph: the three findings in numbers."""
    forms = [form for s in verified["statements"] for form in s["forms"]]
    good = sum(form["status"] == form["expected"] for form in forms)
    layers = analysis["layers"]
    ahead = sum(x["delta_rho"] > x["mean_delta_rho"] for x in layers)
    return (
        "A transformer layer, attention with skip connection and normalisation, acts on its tokens "
        "like a step of the power method on its layer matrix. Here "
        f"{len(verified['statements'])} statements of the theory are checked numerically "
        f"({good} of {len(forms)} forms come out as expected), and {analysis['model']['name']} is "
        f"measured against them: the principal direction gains more than average in {ahead} of "
        f"{len(layers)} layers, and layer {repeat['layer']} applied {repeat['steps']} times brings "
        f"the tokens to alignment {repeat['rho'][-1]:.4f} with it."
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _complex(value: Sequence[float]) -> str:
    real, imaginary = value
    return f"{real:.4f}" if imaginary == 0 else f"{real:.4f} ± {abs(imaginary):.4f}i"

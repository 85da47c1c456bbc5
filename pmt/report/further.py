"""What the report says of trained weights against nulls, of steering, and of the second paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from pmt.report.page import Figure, Section, Table


def trained_weights(analysis: Mapping[str, Any]) -> Section:
    """What is special about the trained weights and what is not: layer by layer, against nulls.

    Args:
      analysis: schema ``pmt.analysis/1``, with at least one null model.
    """
    layers = analysis["layers"]
    names = list(layers[0]["null"])
    special: list[str] = []
    ordinary: list[str] = []
    reasons: list[str] = []
    rows: list[tuple[str, ...]] = []
    marks: dict[int, str] = {}
    for position, layer in enumerate(layers):
        nulls = [layer["null"][name] for name in names]
        unknown = [null["reason"] for null in nulls if null["stands_out"] is None]
        above = all(null["stands_out"] == 1 for null in nulls)
        if unknown:
            reasons.append(unknown[0])
        else:
            (special if above else ordinary).append(str(layer["index"]))
        if above:
            marks[position] = "special"
        chance = layer["principal"]["chance"]
        rows.append(
            (
                str(layer["index"]),
                f"{layer['rho_after'] / chance:.2f}",
                f"{layer['mean_rho_after'] / chance:.2f}",
                f"{layer['delta_rho']:+.4f}",
                f"{layer['mean_delta_rho']:+.4f}",
                *(f"{layer['null'][name]['delta_rho']:+.4f}" for name in names),
                *(_errors(null) for null in nulls),
            )
        )
    more = sum(layer["delta_rho"] > layer["mean_delta_rho"] for layer in layers)
    also = {
        name: sum(layer["null"][name]["delta_rho"] > layer["mean_delta_rho"] for layer in layers)
        for name in names
    }
    said = " and ".join(f"of the {name} null in {count}" for name, count in also.items())
    paragraphs = (
        f"Not special: that the principal direction gains more than the average direction. It does "
        f"in {more} of {len(layers)} layers, but the principal direction {said} of {len(layers)} "
        "layers gains more than that average too, although their value-output maps know nothing of "
        "the tokens: to first order, and for attention that ignores them, every matrix whose "
        "leading eigenvalue exceeds its mean eigenvalue draws tokens to its principal direction.",
        f"Special: what lies beyond every null. {_told(special, ordinary, reasons)} The nulls "
        "keep the layer's queries and keys, so what attention itself has learnt is not counted "
        "here; and the tokens are random, so nothing is said about text.",
    )
    headings = (
        *("layer", "ρ / chance", "mean ρ / chance", "Δρ", "mean Δρ"),
        *(f"Δρ {name}" for name in names),
        *(f"t {name}" for name in names),
    )
    table = Table(
        "Trained weights against nulls: alignment after the layer over its chance level, for the "
        "principal direction and on average; increments; and t, by how many standard errors of "
        "one more draw the trained layer's increment is above that of each null"
        f"{_quantiles(layers)}.",
        headings,
        tuple(rows),
        frozenset(range(len(headings))),
        marks,
    )
    return Section("trained-weights", "What training adds", paragraphs, (), (table,))


def steering(steered: Mapping[str, Any], figures: Sequence[Figure]) -> Section:
    """A rank-one edit of the last layer, from the object that ``pmt steer --json`` writes.

    Args:
      steered: schema ``pmt.steer/1``, with a curve.
      figures: panels, dose and response, cost.
    """
    model, edit, found = steered["model"], steered["edit"], steered["alignment"]
    curve, costs = steered["curve"], steered["costs"]
    furthest = max(abs(p - m) for p, m in zip(curve["predicted"], curve["measured"], strict=True))
    beyond = sum(
        abs(p - m) > e
        for p, m, e in zip(curve["predicted"], curve["measured"], curve["error"], strict=True)
    )
    multiple = edit["multiple_of_lambda_1"]
    times = "" if multiple is None else f", {multiple:.3g} times |λ1|"
    asked = ", ".join(f"{name} {value:g}" for name, value in steered["settings"]["asked"].items())
    paragraphs = [
        f"A rank-one matrix added to the output map of layer {steered['settings']['layer']} of "
        f"{model['name']} turns its tokens to {steered['direction']}. Asked for: {asked}. The mean "
        f"|cos| of the tokens that leave the layer in stripped mode goes from {found['before']:.3f}"
        f" to {found['after']:.3f}, with c = {edit['c']:.3g}{times}. "
        f"{found['positive_after']:.0%} of the tokens have a positive cosine: with the paper's "
        "choice of read vector the sign is left to chance.",
        f"Dose and response: over {len(curve['c'])} strengths the measured alignment differs from "
        f"the predicted by {furthest:.1e} at most, and in {beyond} of them by more than the "
        "stated error.",
    ]
    if costs:
        paragraphs.append(_cost(costs, steered["text"]))
    return Section("steering", "A steered model", tuple(paragraphs), tuple(figures))


def _cost(costs: Sequence[Mapping[str, Any]], text: str) -> str:
    chosen = costs[0]
    name, label = (
        ("kl", "a KL divergence of the next token of {:.3g} nats")
        if chosen["kl"] is not None
        else ("similarity_change", "a mean change of sentence similarities of {:.3g}")
    )
    said = (
        "The price, in the real model on plain text: at this strength the states there have "
        f"alignment {chosen['alignment']:.3f}, for {label.format(chosen[name])}."
    )
    ways = {way: [c for c in costs[1:] if c["method"] == way] for way in ("edit", "addition")}
    if all(ways.values()):
        # Where both align alike, as far as the doses of either go.
        common = min(max(c["alignment"] for c in found) for found in ways.values())
        most = {
            way: min(found, key=lambda c: abs(c["alignment"] - common))
            for way, found in ways.items()
        }
        said += (
            f" Activation addition at the same layer pays {most['addition'][name]:.3g} for "
            f"{most['addition']['alignment']:.3f}, the edit {most['edit'][name]:.3g} for "
            f"{most['edit']['alignment']:.3f}."
        )
    return f"{said} Text: {text}."


def _down(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    bend, gain = found["curvature"], found["gain"]
    return (
        f" The power method is not the best that the full matrices can do: along two other blocks "
        f"the loss bends down (curvature {bend['value']:.3f} ± {bend['se']:.3f}) and comes to "
        f"{gain['value']:.3f} ± {gain['se']:.3f} below that of the power method."
        if gain["value"] > 2 * gain["se"]
        else ""
    )


def looped(training: Mapping[str, Any], figures: Sequence[Figure]) -> Section:
    """The looped transformer of the second paper, from what ``pmt loop train --json`` writes.

    Args:
      training: schema ``pmt.loop-train/1``.
      figures: matrices, growth, loss.
    """
    config, history = training["config"], training["history"]
    loss = _mean(history["test_loss"][-1])
    power = _mean(training["power_method"]["loss"])
    exponents = [pair for pair in training["exponents"] if pair is not None]
    grown = (
        " v and w grow with fitted exponents "
        + ", ".join(f"{_exponent(pair['v'])} and {_exponent(pair['w'])}" for pair in exponents)
        + "; the theorem's 1/4 is for late times, which this short run does not reach."
        if exponents
        else ""
    )
    off = training["off_manifold"]["share_within_3"]
    angle, truth = (_mean(history[name][-1]) for name in ("algorithm_angle", "truth_angle"))
    paragraphs = (
        "The second paper (Wu, Zhang & Cao, arXiv 2606.00605) trains one linear-attention layer "
        f"with normalisation, applied {config['loops']} times, to find a leading eigenvector. "
        f"Here in small: d = {config['d']}, n = {config['n']}, {config['epochs']} epochs; "
        "`pmt loop train` runs the paper's settings. All entries of both matrices are trained; "
        "from the paper's start no sample has a gradient outside of two blocks.",
        f"The test loss ends at {loss:.4f}, where {config['loops']} steps of the power method have "
        f"{power:.4f} on the same samples. The output is {angle:.3f} radians from those "
        f"{config['loops']} steps and {truth:.3f} from the truth, mean over the test set.{grown} "
        f"{_mean(off):.1%} of the entries that move, and that the theorem holds at zero, stay "
        f"within three standard errors of sampling noise.{_down(training.get('way_down'))}",
    )
    return Section("looped", "A looped transformer", paragraphs, tuple(figures))


def _told(special: Sequence[str], ordinary: Sequence[str], reasons: Sequence[str]) -> str:
    if not (special or ordinary):
        return f"Here that cannot be told: {reasons[0]}."
    rest = (
        f"; in {_listed('layer', ordinary)} the trained value-output maps do no more than one more "
        "draw of a null would show under the same attention"
        if ordinary
        else ""
    )
    others = f" In the other layers that cannot be told: {reasons[0]}." if reasons else ""
    return (
        "Above what one more draw of any null would show (95 % in each comparison, over prompts "
        f"and draws) that is {_listed('layer', special)}{rest}.{others}"
    )


def _errors(null: Mapping[str, Any]) -> str:
    return f"{null['margin'] / null['error']:+.1f}" if null["error"] else "–"


def _quantiles(layers: Sequence[Mapping[str, Any]]) -> str:
    nulls = [null for layer in layers for null in layer["null"].values()]
    known = {null["draws"]: null["threshold"] for null in nulls if null["threshold"] is not None}
    if not known:
        return ""
    said = " and ".join(f"{known[k]:.2f} for {k} draws" for k in sorted(known))
    return f"; beyond what one more draw would show (95 %) is what exceeds {said}"


def _listed(what: str, members: Sequence[str]) -> str:
    if not members:
        return f"no {what}"
    plural = f"{what}s" if len(members) > 1 else what
    return f"{plural} {', '.join(members)}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _exponent(fitted: Mapping[str, Any]) -> str:
    return f"{fitted['value']:.3f} ± {fitted['half_width']:.3f}"

"""How `pmt analyze` puts an analysis into tables and sentences for the screen."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from pmt.experiments import Analysis, Repetition

_METHODS = {
    "lapack": "by LAPACK on the host",
    "krylov": "by a Krylov method on the host",
    "accelerator": "on the accelerator",
}


def screen_parts(analysis: "Analysis", repetition: "Repetition | None") -> list["str | Table"]:
    """What was run, three tables, and what follows from them."""
    from pmt.experiments import layer_alignment

    model = analysis.model
    parts: list[str | Table] = [
        f"{model.name} ({model.family}, {model.layers} layers, d = {model.d}, h = {model.h}), "
        f"{_mode(analysis)}, {_tokens(analysis)}, {analysis.dtype} on {analysis.device}",
        _spectra_table(analysis),
        _alignment_table(analysis),
        _increment_table(analysis),
        *_solver_lines(analysis),
        *layer_alignment.sentences(analysis),
    ]
    return parts if repetition is None else [*parts, *_repetition_lines(repetition)]


def _mode(analysis: "Analysis") -> str:
    if analysis.mode == "full":
        return "full mode: embedding, feed-forward blocks, norms and biases as they are"
    return (
        f"stripped mode{', with biases' if analysis.biases else ''}"
        f"{', with rotary positions' if analysis.rotary else ''}, alpha = "
        f"{analysis.config.alpha:g}"
    )


def _tokens(analysis: "Analysis") -> str:
    prompts, n, _ = analysis.shape
    if analysis.texts is None:
        return f"{prompts} prompts of {n} tokens"
    whose = "given" if analysis.texts == "given" else "packaged"
    return f"{prompts} {whose} texts of up to {n} tokens, {analysis.counted} in all"


def _solver_lines(analysis: "Analysis") -> list[str]:
    """What solved the eigenproblems where that is not LAPACK as ever, and what was left out."""
    layers, leading = analysis.layers, analysis.config.leading
    lines = []
    if leading is not None:
        worst = max(float(layer.principal.residuals.max()) for layer in layers)
        lines.append(
            f"only the {leading} leading eigenpairs of each layer were asked for, so there are no "
            f"means over all directions; largest residual {worst:.1e} of |F|"
        )
    methods = Counter(layer.principal.method for layer in layers)
    if leading is not None or set(methods) != {"lapack"}:
        counts = ", ".join(f"{_METHODS[name]} in {count}" for name, count in methods.items())
        lines.append(f"eigenproblems solved, of {len(layers)} layers, {counts}")
    lines += [
        f"layer {layer.index} went to LAPACK on the host, since {layer.principal.fallback}"
        for layer in layers
        if layer.principal.fallback is not None
    ]
    if analysis.prompts_at_once is not None:
        lines.append(f"the device had memory for {analysis.prompts_at_once} prompts at a time")
    return lines


def _spectra_table(analysis: "Analysis") -> "Table":
    table = _table(f"Layer matrices, eigenvalues in the order '{analysis.config.order}'")
    for name in ("layer", "λ1", "λ2", "case", "gap", "cond.", "|v1ᵀv2|", "residual"):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        principal = layer.principal
        values = [_complex(value) for value in principal.values[:2]]
        table.add_row(
            str(layer.index),
            *values,
            *[""] * (2 - len(values)),
            str(principal.case),
            _optional(principal.gap, ".4f"),
            f"{principal.condition:#.3g}",
            _optional(principal.collinearity, ".4f"),
            f"{principal.residual:.1e}",
        )
    return table


def _alignment_table(analysis: "Analysis") -> "Table":
    from pmt.experiments.contrast import NULL_NAMES

    whole, nulls = analysis.config.leading is None, list(analysis.layers[0].null)
    mean = ["mean"] if whole else []
    beside = [*(["null models"] if nulls else []), *(["mean over all directions"] if whole else [])]
    more = f"; after the layer also: {', '.join(beside)}" if beside else ""
    table = _table(f"Alignment ρ ± standard error{more}")
    names = ["layer", "dim", "before", "after", *(NULL_NAMES[null] for null in nulls)]
    for name in (*names, *mean, "chance", "distance"):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        own = layer.alignment
        table.add_row(
            str(layer.index),
            str(layer.principal.dimension),
            f"{own.rho_before:.4f}",
            _with_error(own.rho_after, own.rho_after_se),
            *(f"{layer.null[null].after.rho:.4f}" for null in nulls),
            *([] if layer.average is None else [f"{layer.average.rho_after:.4f}"]),
            f"{layer.chance:.4f}",
            f"{layer.intertoken_distance:.4f}",
        )
    return table


def _increment_table(analysis: "Analysis") -> "Table":
    from pmt.experiments.contrast import NULL_NAMES

    nulls = list(analysis.layers[0].null)
    table = _table("Increment Δρ over the layer, share P of increases")
    names = ["layer", "Δρ", *(f"{NULL_NAMES[null]} null" for null in nulls)]
    whole = analysis.config.leading is None
    for name in (*names, "mean Δρ", "P", "mean P") if whole else (*names, "P"):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        own, average = layer.alignment, layer.average
        table.add_row(
            str(layer.index),
            _with_error(own.delta_rho, own.delta_rho_se),
            *(_with_error(layer.null[n].delta_rho, layer.null[n].se) for n in nulls),
            *([] if average is None else [f"{average.delta_rho:.4f}"]),
            f"{own.p_increase:.3f}",
            *([] if average is None else [f"{average.p_increase:.3f}"]),
        )
    return table


def _repetition_lines(repetition: "Repetition") -> list[str]:
    config, rate = repetition.config, repetition.rate
    lines = [
        f"layer {config.layer} repeated {config.steps} times: ρ with its principal direction goes "
        f"from {repetition.rho[0]:.4f} to {repetition.rho[-1]:.4f} (chance "
        f"{repetition.chance:.4f}), the tokens' distance from "
        f"{repetition.intertoken_distance[0]:.4f} to {repetition.intertoken_distance[-1]:.2e}"
    ]
    if not repetition.attracting:
        lines.append("that direction is not the one that the map selects (see --order skip)")
    elif rate.theory is not None and rate.measured is not None:
        lines.append(
            f"the distance from it shrinks by {rate.measured:.5f} a step; theory says "
            f"|1 + αλ2| / |1 + αλ1| = {rate.theory:.5f}"
        )
    return lines


def _table(title: str) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _complex(value: complex) -> str:
    if value.imag == 0:
        return f"{value.real:.4f}"
    return f"{value.real:.4f}{'+' if value.imag > 0 else '-'}{abs(value.imag):.4f}i"


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f}±{error:.4f}"

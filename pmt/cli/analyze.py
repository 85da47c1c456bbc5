"""`pmt analyze`: spectra and alignment statistics of a checkpoint's layers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.options import (
    Device,
    Dtype,
    JsonFile,
    OutDirectory,
    Overwrite,
    Seed,
    number,
    start_backend,
)
from pmt.cli.screen import progress, show
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from pmt.experiments import Analysis, AnalysisConfig, Repetition

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A directory with a checkpoint, or minilm.")
]
TokensFile = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        metavar="FILE.npy",
        help="Own tokens, (prompts, n, d), normalised first; 100 x 10 random ones, if not given.",
    ),
]
Mode = Annotated[
    Literal["stripped", "full"],
    typer.Option("--mode", help="stripped: attention and l2 normalisation only, as in eq. (1)."),
]
OrderName = Annotated[
    Literal["real", "skip", "modulus"],
    typer.Option("--order", help="Eigenvalues by real part, by |1 + alpha lambda| or by modulus."),
]
Alpha = Annotated[
    float,
    typer.Option(
        "--alpha", parser=number(), metavar="X", help="Step size; 1 in a trained transformer."
    ),
]
Biases = Annotated[bool, typer.Option("--biases", help="Keep the biases; eq. (1) has none.")]
RepeatLayer = Annotated[
    int | None,
    typer.Option(
        "--repeat-layer", min=1, metavar="L", help="Also apply layer L (from 1) again and again."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, max=100_000, metavar="T", help="With --repeat-layer, how often. [200]"
    ),
]

_STEPS = 200
_WRITER = "pmt analyze"
_NULL_NAMES = {"gaussian": "Gaussian", "rotated": "rotated"}


def analyze(
    model: ModelName,
    tokens: TokensFile = None,
    mode: Mode = "stripped",
    order: OrderName = "real",
    alpha: Alpha = 1.0,
    biases: Biases = False,
    repeat_layer: RepeatLayer = None,
    steps: Steps = None,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
) -> None:
    """Spectra and alignment of a checkpoint's layers.

    Tokens go through the layers in stripped mode. For every layer: the eigenvalues of its layer
    matrix F, the tokens' alignment with its principal eigendirection before and after, the same
    averaged over all eigendirections, and under two null models with the layer's own attention.
    With --out it draws them.

    Example: pmt analyze minilm --repeat-layer 5 --steps 200 --out analysis
    """
    _check(mode, repeat_layer, steps)
    folder = None
    if out is not None:
        folder = prepare_output_directory(out, writer=_WRITER, overwrite=overwrite)
    # Before NumPy is loaded: the eigenproblems stand side by side, one thread each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start_backend(device, dtype)
    from pmt.experiments import AnalysisConfig, load_tokens
    from pmt.models import from_pretrained

    own = None if tokens is None else load_tokens(tokens)
    loaded = from_pretrained(model, dtype=dtype)
    config = AnalysisConfig(order=order, alpha=alpha, seed=seed)
    analysis, repetition = _run(
        loaded, config, own, biases, (repeat_layer, _STEPS if steps is None else steps)
    )
    found = _json(analysis, repetition)
    if json is not None:
        write_json(json, found)
    if folder is not None:
        _write(folder, analysis, repetition, found)
    show(*_screen(analysis, repetition))
    if folder is not None:
        show(f"figures and tables are in {folder}")


def _check(mode: str, repeat_layer: int | None, steps: int | None) -> None:
    if mode == "full":
        raise RequestError(
            "--mode full is not there yet; leave it out for stripped mode, or take the hidden "
            "states of pmt.models.from_pretrained(MODEL)"
        )
    if steps is not None and repeat_layer is None:
        raise RequestError("--steps goes with --repeat-layer; give the layer to be repeated too")


def _run(
    model: Any, config: "AnalysisConfig", tokens: Any, biases: bool, repeat: tuple[int | None, int]
) -> tuple["Analysis", "Repetition | None"]:
    from pmt.experiments import RepeatConfig, analyze, count_of_steps, describe, repeat_layer

    stack = model.layer_stack(biases=biases)
    layer, steps = repeat
    if layer is not None and layer > stack.depth:
        # Said before the work and not after it.
        raise RequestError(f"there is no layer {layer}; the model has layers 1 to {stack.depth}")
    total = count_of_steps(stack.depth, config) + (layer is not None)
    with progress("layers", total=total) as advance:
        analysis = analyze(stack, config, model=describe(model), tokens=tokens, progress=advance)
        if layer is None:
            return analysis, None
        chosen = RepeatConfig(
            layer=layer, steps=steps, order=config.order, alpha=config.alpha, seed=config.seed
        )
        repetition = repeat_layer(stack, chosen, tokens=tokens)
        advance(1)
    return analysis, repetition


def _json(analysis: "Analysis", repetition: "Repetition | None") -> dict[str, Any]:
    from pmt.experiments import analysis_json, repeat_json

    found = analysis_json(analysis)
    return found if repetition is None else found | {"repeat": repeat_json(repetition)}


def _write(
    folder: Path, analysis: "Analysis", repetition: "Repetition | None", found: dict[str, Any]
) -> None:
    from pmt import figures

    drawn = {
        "spectra": figures.spectra(analysis),
        "alignment": figures.alignment_panels(analysis),
        "distance": figures.token_distance(analysis),
    }
    if repetition is not None:
        drawn["repetition"] = figures.repetition(repetition)
    for name, figure in drawn.items():
        figures.save(figure, folder, name)
    write_atomically(folder / "layers.csv", _csv(found["layers"]))
    # Last, so that a folder with it is complete.
    write_json(folder / "analysis.json", found)


def _csv(layers: list[dict[str, Any]]) -> str:
    import csv
    import io

    rows = [dict(_flat("", layer)) for layer in layers]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    """Columns such as `principal.gap`, `eigenvalues.0.re`; nothing for what there is not."""
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            for pair in _flat(f"{name}.{key}" if name else key, item)
        ]
    if isinstance(value, list):
        labels = ("re", "im") if len(value) == 2 and not isinstance(value[0], list) else None
        return [
            pair
            for index, item in enumerate(value)
            for pair in _flat(f"{name}.{labels[index] if labels else index}", item)
        ]
    return [] if value is None and name == "plane" else [(name, "" if value is None else value)]


def _screen(analysis: "Analysis", repetition: "Repetition | None") -> list["str | Table"]:
    model, config = analysis.model, analysis.config
    prompts, n, _ = analysis.shape
    parts: list[str | Table] = [
        f"{model.name} ({model.family}, {model.layers} layers, d = {model.d}, h = {model.h}), "
        f"stripped mode{', with biases' if analysis.biases else ''}, alpha = {config.alpha:g}, "
        f"{prompts} prompts of {n} tokens, {analysis.dtype} on {analysis.device}",
        _spectra_table(analysis),
        _alignment_table(analysis),
        _increment_table(analysis),
        *_findings(analysis),
    ]
    return parts if repetition is None else [*parts, *_repetition_lines(repetition)]


def _spectra_table(analysis: "Analysis") -> "Table":
    table = _table(f"Layer matrices, eigenvalues in the order '{analysis.config.order}'")
    for name in ("layer", "λ1", "λ2", "λ3", "case", "gap", "condition", "|v1ᵀv2|", "residual"):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        principal = layer.principal
        values = [_complex(value) for value in principal.pairs.values[:3]]
        table.add_row(
            str(layer.index),
            *values,
            *[""] * (3 - len(values)),
            str(principal.case),
            _optional(principal.gap, ".4f"),
            f"{principal.condition:#.3g}",
            _optional(principal.collinearity, ".4f"),
            f"{principal.residual:.1e}",
        )
    return table


def _alignment_table(analysis: "Analysis") -> "Table":
    table = _table("Alignment ρ with the principal line or plane, ± one standard error")
    for name in ("layer", "dim", "before", "after", "chance", "all directions", "distance"):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        own = layer.alignment
        table.add_row(
            str(layer.index),
            str(layer.principal.dimension),
            f"{own.rho_before:.4f}",
            _with_error(own.rho_after, own.rho_after_se),
            f"{layer.chance:.4f}",
            f"{layer.average.rho_after:.4f}",
            f"{layer.intertoken_distance:.4f}",
        )
    return table


def _increment_table(analysis: "Analysis") -> "Table":
    nulls = list(analysis.layers[0].null)
    table = _table("Increment Δρ over the layer, and share P of tokens with an increase")
    for name in (
        "layer",
        "Δρ",
        *(f"{_NULL_NAMES[null]} null" for null in nulls),
        "all",
        "P",
        "all",
    ):
        table.add_column(name, justify="right")
    for layer in analysis.layers:
        own, average = layer.alignment, layer.average
        table.add_row(
            str(layer.index),
            _with_error(own.delta_rho, own.delta_rho_se),
            *(_with_error(layer.null[n].delta_rho, layer.null[n].se) for n in nulls),
            f"{average.delta_rho:.4f}",
            f"{own.p_increase:.3f}",
            f"{average.p_increase:.3f}",
        )
    return table


def _findings(analysis: "Analysis") -> list[str]:
    """What a reader may conclude, and against what."""
    layers = analysis.layers
    count = len(layers)
    above = sum(layer.alignment.delta_rho > layer.average.delta_rho for layer in layers)
    lines = [
        f"Δρ of the principal direction exceeds the mean over all directions in {above} of "
        f"{count} layers"
    ]
    for name in layers[0].null:
        beyond = 0
        for layer in layers:
            null, own = layer.null[name], layer.alignment
            if own.delta_rho_se is not None and null.se is not None:
                error = (own.delta_rho_se**2 + null.se**2) ** 0.5
                beyond += own.delta_rho - null.delta_rho > 2 * error
        lines.append(
            f"it exceeds the {_NULL_NAMES[name]} null, which keeps the layer's attention, by more "
            f"than two standard errors in {beyond} of {count}"
        )
    return lines


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

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _complex(value: complex) -> str:
    if value.imag == 0:
        return f"{value.real:.4f}"
    return f"{value.real:.4f}{'+' if value.imag > 0 else '-'}{abs(value.imag):.4f}i"


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"

"""`pmt analyze`: spectra and alignment statistics of a checkpoint's layers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.layer_tables import screen_parts
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
    from pmt.experiments import Analysis, AnalysisConfig, Repetition
    from pmt.models import Layers

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name on the Hugging Face Hub, a directory, or minilm (packaged)."
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision", metavar="NAME", help="Branch, tag or commit on the Hub. [main branch]"
    ),
]
CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", metavar="DIR", help="The Hub's cache; HF_HUB_CACHE or HF_HOME, if not given."
    ),
]
LocalFilesOnly = Annotated[
    bool, typer.Option("--local-files-only", help="Take what the cache holds and fetch nothing.")
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
KeepRotary = Annotated[
    bool, typer.Option("--rotary", help="Keep rotary positions; eq. (1) has no positions.")
]
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


def analyze(
    model: ModelName,
    revision: Revision = None,
    cache_dir: CacheDirectory = None,
    local_files_only: LocalFilesOnly = False,
    tokens: TokensFile = None,
    mode: Mode = "stripped",
    order: OrderName = "real",
    alpha: Alpha = 1.0,
    biases: Biases = False,
    rotary: KeepRotary = False,
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
    With --out it draws them. The layers are read one at a time.

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
    from pmt.models import open_layers

    own = None if tokens is None else load_tokens(tokens)
    config = AnalysisConfig(order=order, alpha=alpha, seed=seed)
    with open_layers(
        model,
        dtype=dtype,
        biases=biases,
        rotary=rotary,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        notify=tell,
    ) as layers:
        repeated = (repeat_layer, _STEPS if steps is None else steps)
        analysis, repetition = _run(layers, config, own, repeated)
    found = _json(analysis, repetition)
    if json is not None:
        write_json(json, found)
    if folder is not None:
        _write(folder, analysis, repetition, found)
    show(*screen_parts(analysis, repetition))
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


def tell(sentence: str) -> None:
    """Say on standard error what is being done, such as which files are fetched."""
    typer.echo(f"pmt: {sentence}", err=True)


def _run(
    layers: "Layers", config: "AnalysisConfig", tokens: Any, repeat: tuple[int | None, int]
) -> tuple["Analysis", "Repetition | None"]:
    from pmt.experiments import RepeatConfig, analyze, count_of_steps, repeat_layer

    layer, steps = repeat
    if layer is not None and layer > layers.depth:
        # Said before the work and not after it.
        raise RequestError(f"there is no layer {layer}; the model has layers 1 to {layers.depth}")
    total = count_of_steps(layers.depth, config) + (layer is not None)
    with progress("layers", total=total) as advance:
        analysis = analyze(layers, config, tokens=tokens, progress=advance)
        if layer is None:
            return analysis, None
        chosen = RepeatConfig(
            layer=layer, steps=steps, order=config.order, alpha=config.alpha, seed=config.seed
        )
        repetition = repeat_layer(layers, chosen, tokens=tokens)
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
    from pmt.experiments.record import csv_text

    drawn = {
        "spectra": figures.spectra(analysis),
        "alignment": figures.alignment_panels(analysis),
        "distance": figures.token_distance(analysis),
    }
    if repetition is not None:
        drawn["repetition"] = figures.repetition(repetition)
    for name, figure in drawn.items():
        figures.save(figure, folder, name)
    rows = [dict(_flat("", layer)) for layer in found["layers"]]
    write_atomically(folder / "layers.csv", csv_text(rows))
    # Last, so that a folder with it is complete.
    write_json(folder / "analysis.json", found)


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

"""`pmt analyze`: spectra and alignment statistics of a checkpoint's layers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.analysis_runs import Crew, on_real_model, on_texts, on_tokens, tell
from pmt.cli.exits import Status
from pmt.cli.hosts import (
    HOST_TIMEOUT,
    Coordinator,
    HostTimeout,
    Place,
    ProcessCount,
    ProcessId,
    finished,
    last_words,
    supervised,
)
from pmt.cli.interrupts import between_pieces
from pmt.cli.layer_tables import screen_parts
from pmt.cli.options import (
    Device,
    Dtype,
    JsonFile,
    OutDirectory,
    Overwrite,
    Seed,
    at_most_one,
    gpu,
    number,
    start_backend,
)
from pmt.cli.screen import show
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_atomically, write_json

if TYPE_CHECKING:
    from pmt.experiments import Analysis, Repetition
    from pmt.experiments.eigen_cache import Solver

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
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE.txt",
        help="Own texts, one a line, through the model's tokenizer and embedding.",
    ),
]
SpecialTokens = Annotated[
    bool,
    typer.Option(
        "--no-special-tokens", help="Leave out what the tokenizer adds to a text, such as [CLS]."
    ),
]
EigenFolder = Annotated[
    Path | None,
    typer.Option(
        "--eigen-cache",
        metavar="DIR",
        help="Where eigenproblems and what null models showed are kept, by content. "
        "[~/.cache/pmt/eigen, 10 GB]",
    ),
]
Mode = Annotated[
    Literal["stripped", "full"],
    typer.Option(
        "--mode",
        help="stripped: attention and l2 normalisation only, as in eq. (1). full: the real model.",
    ),
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
Leading = Annotated[
    int | None,
    typer.Option(
        "--leading",
        min=1,
        metavar="K",
        help="Find only the K leading eigenpairs of each layer, by a Krylov method; there are no "
        "means over all directions then. [all, by LAPACK]",
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

# Lists of numbers; another one of two numbers is a complex one.
_LISTS = ("residuals", "conditions")
_STEPS = 200
_WRITER = "pmt analyze"


def analyze(
    model: ModelName,
    revision: Revision = None,
    cache_dir: CacheDirectory = None,
    local_files_only: LocalFilesOnly = False,
    tokens: TokensFile = None,
    prompts: PromptsFile = None,
    no_special_tokens: SpecialTokens = False,
    mode: Mode = "stripped",
    order: OrderName = "real",
    alpha: Alpha = 1.0,
    leading: Leading = None,
    biases: Biases = False,
    rotary: KeepRotary = False,
    repeat_layer: RepeatLayer = None,
    steps: Steps = None,
    eigen_cache: EigenFolder = None,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
    coordinator: Coordinator = None,
    num_processes: ProcessCount = None,
    process_id: ProcessId = None,
    host_timeout: HostTimeout = HOST_TIMEOUT,
) -> int:
    """Spectra and alignment of a checkpoint's layers.

    Tokens go through the layers in stripped mode: random ones, or those of --tokens or --prompts.
    With --mode full texts go through the real model, those of --prompts or public-domain ones. For
    every layer: the eigenvalues of its layer matrix F, the tokens' alignment with its principal
    eigendirection before and after, the same averaged over all eigendirections, and under two null
    models with the layer's own attention. With --out it draws them. In stripped mode the layers are
    read one at a time. Eigenproblems are kept on disk, so that none is solved twice. They are
    solved on the host; with --device gpu, and without --leading, on the GPU in double precision,
    where the host's check of every residual passes.

    All devices, and with --coordinator those of several hosts, divide the layers, each with its
    eigenproblems and null models, and from some 4,000 tokens on the prompts, which each go through
    all layers. The numbers do not depend on how many devices there are. With --out a run that is
    stopped keeps its finished layers and prompts, and the same command goes on with it.

    Example: pmt analyze minilm --repeat-layer 5 --steps 200 --out analysis
    """
    own_options = (tokens, prompts, no_special_tokens)
    _check(mode, own_options, biases or rotary, alpha, (repeat_layer, steps))
    at_most_one({"--leading": leading, "--repeat-layer": repeat_layer})
    # Before NumPy is loaded: the eigenproblems stand side by side, one thread each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    place = Place(coordinator, num_processes, process_id, host_timeout)
    if place.several and (ended := supervised(host_timeout)) is not None:
        return ended
    with place.joined() as hosts:
        folder, writes = None, hosts is None or hosts.first
        if out is not None and writes:
            folder = prepare_output_directory(out, writer=_WRITER, overwrite=overwrite)
        platform = start_backend(device, dtype)
        from pmt.experiments import AnalysisConfig, load_tokens
        from pmt.experiments.plain_text import load_texts
        from pmt.models import open_layers

        own = None if tokens is None else load_tokens(tokens)
        texts = None if prompts is None else load_texts(prompts)
        config = AnalysisConfig(order=order, alpha=alpha, seed=seed, leading=leading)
        # Nobody is surprised by other digits: a GPU solves these only where it was named.
        solver = _solver(eigen_cache, gpu() if device == "gpu" else None)
        asked: dict[str, Any] = {
            "name_or_directory": model,
            "dtype": dtype,
            "revision": revision,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "notify": tell,
        }
        repetition, special = None, not no_special_tokens
        settings = {
            "mode": mode,
            "dtype": dtype,
            "biases": biases,
            "rotary": rotary,
            "eigenpairs": "gpu" if device == "gpu" else "host",
        }
        crew = Crew(platform, hosts, folder, overwrite, settings)
        with crew.at_work():
            if leading is not None:
                _require_pairs(leading, asked)
            if mode == "full":
                analysis = on_real_model(config, texts, special, asked, solver, crew)
            else:
                kept: dict[str, Any] = {"biases": biases, "rotary": rotary}
                with open_layers(**asked, **kept, identify=True) as layers:
                    if texts is None:
                        repeated = (repeat_layer, _STEPS if steps is None else steps)
                        analysis, repetition = on_tokens(
                            layers, config, own, repeated, solver, crew
                        )
                    else:
                        analysis = on_texts(layers, config, texts, special, asked, solver, crew)
        if hosts is not None and not writes:
            with between_pieces() as listen:
                last_words(hosts, listen)
            return finished(hosts, Status.DONE)
        found = _json(analysis, repetition)
        if json is not None:
            write_json(json, found)
        if folder is not None:
            _write(folder, analysis, repetition, found)
        crew.discard()
        show(*screen_parts(analysis, repetition))
        if folder is not None:
            show(f"figures and tables are in {folder}")
        return finished(hosts, Status.DONE)


def _solver(folder: Path | None, accelerator: Any) -> "Solver":
    from pmt.experiments.eigen_cache import EigenCache, user_cache

    if folder is None:
        return user_cache(accelerator=accelerator)
    return EigenCache(folder, accelerator=accelerator)


def _check(
    mode: str,
    own: tuple[Path | None, Path | None, bool],
    kept: bool,
    alpha: float,
    repeat: tuple[int | None, int | None],
) -> None:
    """Refuse options that contradict each other, before any work."""
    tokens, prompts, no_special_tokens = own
    layer, steps = repeat
    at_most_one({"--tokens": tokens, "--prompts": prompts})
    at_most_one({"--prompts": prompts, "--repeat-layer": layer})
    if no_special_tokens and prompts is None:
        raise RequestError("--no-special-tokens goes with --prompts; give a file of texts too")
    if steps is not None and layer is None:
        raise RequestError("--steps goes with --repeat-layer; give the layer to be repeated too")
    if mode == "stripped":
        return
    at_most_one({"--mode full": True, "--tokens": tokens})
    at_most_one({"--mode full": True, "--repeat-layer": layer})
    if alpha != 1.0:
        raise RequestError(
            f"--alpha is {alpha:g}, and the real model of --mode full has no step size but 1; "
            "leave one of them out"
        )
    if kept:
        raise RequestError(
            "--biases and --rotary are about stripped mode, since the real model has what it has; "
            "leave them out, or --mode full"
        )


def _require_pairs(leading: int, asked: dict[str, Any]) -> None:
    """Refuse more eigenpairs than a layer has, before any weight is read."""
    from pmt.models import open_layers

    with open_layers(**asked) as layers:
        d = layers.dimensions.d
    if leading > d:
        raise RequestError(
            f"--leading is {leading}, and a layer matrix of this model has d = {d} eigenpairs; "
            "give no more than these, or leave it out for all"
        )


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
        "alignment-column": figures.alignment_panels(analysis, column=True),
        "distance": figures.token_distance(analysis),
    }
    if repetition is not None:
        drawn["repetition"] = figures.repetition(repetition)
        drawn["repetition-column"] = figures.repetition(repetition, column=True)
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
        plain = name.rpartition(".")[2] in _LISTS
        two = len(value) == 2 and not isinstance(value[0], list)
        labels = ("re", "im") if two and not plain else None
        return [
            pair
            for index, item in enumerate(value)
            for pair in _flat(f"{name}.{labels[index] if labels else index}", item)
        ]
    return [] if value is None and name == "plane" else [(name, "" if value is None else value)]

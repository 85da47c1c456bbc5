"""`pmt steer`: turn a layer's tokens to a direction by a rank-one edit, and measure it."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.analyze import (
    CacheDirectory,
    LocalFilesOnly,
    Mode,
    ModelName,
    OrderName,
    Revision,
    tell,
)
from pmt.cli.exits import Status
from pmt.cli.options import (
    Device,
    Dtype,
    JsonFile,
    OutDirectory,
    Overwrite,
    Seed,
    at_most_one,
    number,
    start_backend,
)
from pmt.cli.screen import progress, show
from pmt.cli.steer_delta import refuse_others, write_changed
from pmt.cli.steer_lines import NEAR_ENOUGH, screen_parts
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_json

if TYPE_CHECKING:
    from pmt.experiments.directions import Direction
    from pmt.experiments.steer import SteerConfig, Steering

_Number = number()
Toward = Annotated[
    str | None,
    typer.Option("--toward", metavar="TEXT", help="One token, such as ' ocean': its embedding."),
]
DirectionFile = Annotated[
    Path | None, typer.Option("--direction", metavar="FILE.npy", help="A vector (d,).")
]
Difference = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--difference",
        metavar="TO.txt FROM.txt",
        help="Mean state of some texts minus that of others, one a line.",
    ),
]
Eigenvector = Annotated[
    int | None,
    typer.Option("--eigenvector", min=1, metavar="P", help="Of the layer's F, in --order, from 1."),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        parser=_Number,
        metavar="X",
        help="In multiples of the layer's leading eigenvalue |lambda_1|, as in the paper.",
    ),
]
Absolute = Annotated[
    float | None, typer.Option("--c", parser=_Number, metavar="X", help="The strength itself.")
]
Wanted = Annotated[
    float | None,
    typer.Option(
        "--alignment",
        parser=number(above=0.0, below=1.0),
        metavar="X",
        help="As strong as gives the tokens this mean |cos|.",
    ),
]
Layer = Annotated[
    int | None, typer.Option("--layer", min=1, metavar="L", help="Which one, from 1. [the last]")
]
Read = Annotated[
    Literal["target", "mean", "fit"],
    typer.Option(
        "--read",
        help="Read vector: the target (paper; signs differ), the tokens' mean, or one fitted so "
        "that as many tokens as can be get the same sign.",
    ),
]
ReadFile = Annotated[
    Path | None, typer.Option("--read-file", metavar="FILE.npy", help="An own read vector (d,).")
]
Precompensate = Annotated[
    bool,
    typer.Option(
        "--precompensate", help="With --mode full: aim so that the FFN maps to the target."
    ),
]
AllLayers = Annotated[
    bool, typer.Option("--all-layers", help="Edit weights that several layers share (ALBERT).")
]
UntieLast = Annotated[
    bool,
    typer.Option("--untie-last", help="Give shared layers (ALBERT) weights of their own first."),
]
TokensFile = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE.npy", help="Own tokens for stripped mode."),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE.txt", help="Texts to measure on, one a line; some come with pmt."
    ),
]
NoSpectra = Annotated[
    bool, typer.Option("--no-spectra", help="Leave out the layers' principal directions.")
]
DeltaOnly = Annotated[
    bool, typer.Option("--delta-only", help="Write the edit as a small file, and no model.")
]
Apply = Annotated[
    Path | None,
    typer.Option("--apply", metavar="DELTA", help="Write MODEL with this edit to --out."),
]
Revert = Annotated[
    Path | None,
    typer.Option("--revert", metavar="DELTA", help="Write MODEL without this edit to --out."),
]
Base = Annotated[
    str | None,
    typer.Option("--base", metavar="MODEL", help="With --revert, the checkpoint before the edit."),
]

_WRITER = "pmt steer"


def steer(
    model: ModelName,
    toward: Toward = None,
    direction: DirectionFile = None,
    difference: Difference = None,
    eigenvector: Eigenvector = None,
    strength: Strength = None,
    c: Absolute = None,
    alignment: Wanted = None,
    layer: Layer = None,
    read: Read = "target",
    read_file: ReadFile = None,
    mode: Mode = "stripped",
    precompensate: Precompensate = False,
    all_layers: AllLayers = False,
    untie_last: UntieLast = False,
    tokens: TokensFile = None,
    text: TextFile = None,
    order: OrderName = "real",
    no_spectra: NoSpectra = False,
    delta_only: DeltaOnly = False,
    apply: Apply = None,
    revert: Revert = None,
    base: Base = None,
    revision: Revision = None,
    cache_dir: CacheDirectory = None,
    local_files_only: LocalFilesOnly = False,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
) -> int:
    """Turn a layer's tokens to a direction.

    A rank-one edit of the output weights, O' = O + c w a', of the last layer or of --layer. It is
    measured: alignment before and after over all layers, against the strength beside what theory
    predicts, and what it costs on plain text, beside activation addition. With --out it writes the
    figure, the edit as a small file (delta.safetensors) and the edited model (model/).

    Example: pmt steer minilm --toward ocean --alignment 0.9 --read fit --out steered
    """
    sources = {
        "--toward": toward,
        "--direction": direction,
        "--difference": difference,
        "--eigenvector": eigenvector,
    }
    strengths = {"--strength": strength, "--c": c, "--alignment": alignment}
    found: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "notify": tell,
    }
    at_most_one({"--apply": apply, "--revert": revert, **sources})
    if apply is not None or revert is not None:
        plain = {"--read": read != "target", "--mode": mode != "stripped"}
        plain |= {"--order": order != "real", "--dtype": dtype != "float32"}
        flags = {"--precompensate": precompensate, "--all-layers": all_layers}
        flags |= {"--untie-last": untie_last, "--no-spectra": no_spectra}
        flags |= {"--delta-only": delta_only, "--seed": seed != 0}
        others: dict[str, Any] = {
            **strengths,
            "--layer": layer,
            "--read-file": read_file,
            "--tokens": tokens,
        }
        others |= {"--text": text, "--json": json, "--device": device}
        refuse_others(others | {name: given or None for name, given in (plain | flags).items()})
        return write_changed(model, apply, revert, base, out, overwrite, found)
    chosen = _exactly_one(sources)
    asked = _exactly_one(strengths)
    at_most_one({"--all-layers": all_layers, "--untie-last": untie_last})
    at_most_one({"--read": None if read == "target" else read, "--read-file": read_file})
    _check(base, mode, tokens, untie_last, delta_only, out)
    folder = None
    if out is not None:
        folder = prepare_output_directory(out, writer=_WRITER, overwrite=overwrite)
        if delta_only and (folder / "model").exists() and not overwrite:
            raise RequestError(
                f"{folder} holds an edited model, and --delta-only would leave it beside another "
                "edit; choose another folder, or give --overwrite"
            )
    start_backend(device, dtype)
    from pmt.experiments.steer import SteerConfig
    from pmt.models import from_pretrained

    loaded = from_pretrained(model, dtype=dtype, **found)
    if untie_last and folder is not None:
        from pmt.models.untie import untie

        directory = untie(loaded, folder / "untied", overwrite=True)
        loaded = from_pretrained(directory, dtype=dtype)
    dose: dict[str, Any] = {asked.removeprefix("--"): strengths[asked]}
    config = SteerConfig(
        **dose,
        layer=layer,
        read=read,
        mode=mode,
        all_layers=all_layers,
        precompensate=precompensate,
        order=order,
        seed=seed,
        spectra=not no_spectra,
    )
    own = {"read": read_file, "tokens": tokens, "text": text}
    result, aim, text_source = _run(loaded, chosen, sources[chosen], config, own)
    return _report(loaded, result, aim, text_source, (folder, json, delta_only))


def _exactly_one(given: dict[str, Any]) -> str:
    found = at_most_one(given)
    if found is None:
        raise RequestError(f"none of {', '.join(given)} was given; give one of them")
    return found


def _check(
    base: str | None,
    mode: str,
    tokens: Path | None,
    untie_last: bool,
    delta_only: bool,
    out: Path | None,
) -> None:
    if base is not None:
        raise RequestError("--base goes with --revert; leave it out")
    if tokens is not None and mode == "full":
        raise RequestError("--tokens are for stripped mode; give --text with --mode full")
    if untie_last and out is None:
        raise RequestError("--untie-last writes the model with weights of its own; give --out")
    if delta_only and out is None:
        raise RequestError("--delta-only writes a file; give --out")


def _run(
    model: Any, chosen: str, value: Any, config: "SteerConfig", own: dict[str, Path | None]
) -> tuple["Steering", "Direction", str | None]:
    from pmt.experiments import load_tokens, plain_text
    from pmt.experiments.steer import count_of_pieces, steer
    from pmt.models.editing import require_layer

    depth = len(model.schedule)
    index = require_layer(model, (config.layer or depth) - 1, all_layers=config.all_layers)
    aim = _direction(model, chosen, value, index, config.order)
    given: dict[str, Any] = {
        name: None if path is None else load_tokens(path)
        for name, path in own.items()
        if name != "text"
    }
    read, source = None, None
    if own["text"] is not None:
        source = str(own["text"])
        read = plain_text.read_own(model, plain_text.load_texts(own["text"]))
    elif plain_text.can_read(model):
        decoder = model.head is not None and model.layer(0).attention.causal
        text = plain_text.paragraphs() if decoder else plain_text.sentences()
        read, source = plain_text.read_tokens(model, text), plain_text.SOURCE
    with progress("steps", total=count_of_pieces(model, config)) as advance:
        result = steer(model, aim.vector, config, **given, text=read, progress=advance)
    return result, aim, source


def _direction(model: Any, chosen: str, value: Any, index: int, order: str) -> "Direction":
    from pmt.experiments import directions, plain_text

    if chosen == "--toward":
        return directions.from_token(model, value)
    if chosen == "--direction":
        return directions.from_file(value, model.dimensions.d)
    if chosen == "--difference":
        return directions.from_difference(
            model, index, *(plain_text.load_texts(path) for path in value)
        )
    return directions.from_eigenvector(model, index, value - 1, order)


def _report(
    model: Any,
    result: "Steering",
    aim: "Direction",
    text_source: str | None,
    outputs: tuple[Path | None, Path | None, bool],
) -> int:
    from pmt.experiments.steer_record import steering_json

    folder, json, delta_only = outputs
    found = steering_json(result, aim.source, text_source)
    if folder is not None:
        _write(folder, model, result, found, delta_only)
    if json is not None:
        write_json(json, found)
    show(*screen_parts(result, aim.source))
    if folder is not None:
        what = "the edit" if delta_only else "the edit and the edited model"
        show(f"{what}, the figure and all numbers are in {folder}")
    wanted = result.config.alignment
    missed = wanted is not None and abs(result.after - wanted) > NEAR_ENOUGH
    return Status.ANSWER_IS_NO if missed else Status.DONE


def _write(
    folder: Path, model: Any, result: "Steering", found: dict[str, Any], delta_only: bool
) -> None:
    from pmt import figures
    from pmt.checkpoints.delta import write_delta
    from pmt.figures.steering import steering
    from pmt.models import save_pretrained
    from pmt.models.editing import steered

    delta = result.delta
    # What is left of another run in this folder would stand beside this one's.
    for name in ("steer.json", "delta.safetensors", "steering.png", "steering.svg"):
        (folder / name).unlink(missing_ok=True)
    if delta is None or delta_only:
        shutil.rmtree(folder / "model", ignore_errors=True)
    if delta is not None:
        if not delta_only:
            with steered(model, result.layer - 1, result.edit, result.cast.dtype):
                save_pretrained(model, folder / "model", overwrite=True)
        write_delta(folder / "delta.safetensors", delta)
    figures.save(steering(result), folder, "steering")
    # Last, so that a folder with it is complete.
    write_json(folder / "steer.json", found)

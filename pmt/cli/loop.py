"""`pmt loop`: trains the looped transformer of the second paper, and compares normalisations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from pmt.cli.exits import Status
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
from pmt.files import prepare_output_directory, write_json

loop = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=False,
    help="The looped transformer (arXiv 2606.00605): training, and which normalisation matters.",
)


def _count(name: str, text: str) -> Any:
    return typer.Option(name, min=1, metavar="N", help=text)


Dimension = Annotated[int | None, _count("--d", "Dimension of the data. [16]")]
Columns = Annotated[int | None, _count("--n", "Columns of X. [32]")]
Loops = Annotated[int | None, _count("--loops", "L, loops of the trained model. [10]")]
Seeds = Annotated[int | None, _count("--seeds", "Independent runs, from --seed on.")]
Epochs = Annotated[int | None, _count("--epochs", "Passes over the training set. [2000]")]
Batch = Annotated[int | None, _count("--batch", "Samples a step. [128]")]
Train = Annotated[int | None, _count("--train", "Training samples. [10000]")]
Test = Annotated[int | None, _count("--test", "Test samples. [2000]")]
NormName = Annotated[
    Literal["l2", "rms", "layer", "output", "none"] | None,
    typer.Option("--norm", help="Normalisation: l2 is the paper's; output is of y_L only. [l2]"),
]
ObjectiveName = Annotated[
    Literal["subspace", "sine", "power", "unit-power"] | None,
    typer.Option(
        "--objective",
        help="Loss: |y - P_Z y|^2, its scale-free form, or one power step. [subspace]",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate", parser=number(above=0.0), metavar="X", help="Learning rate of SGD. [0.1]"
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="New samples at every step.")]
FullBatch = Annotated[
    bool, typer.Option("--full-batch", help="Gradient descent on the whole training set.")
]
Orbits = Annotated[
    bool,
    typer.Option(
        "--orbits",
        help="A batch is whole orbits: samples with all their images under d times 2^k signed "
        "permutations, so that its gradient is as invariant as the population's. --batch counts "
        "the images. [one orbit a step]",
    ),
]
StartName = Annotated[
    Literal["structured", "unstructured"] | None,
    typer.Option("--start", help="Initial V, W: on the manifold, or all entries random."),
]
Initial = Annotated[
    float | None,
    typer.Option(
        "--start-value",
        parser=number(above=0.0),
        metavar="X",
        help="v_0 = w_0 of a structured start, deviation of an unstructured one. [0.5; 0.1]",
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="A small problem instead of the paper's: seconds.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint in --out, bit for bit.")
]
Study = Annotated[
    Literal["repeat", "norms", "noise"],
    typer.Option(
        "--study",
        help="repeat: one trained layer applied L times (Fig. 2); norms: every normalisation and "
        "start at equal tuning; noise: how few samples keep it from the power method.",
    ),
]


@loop.command("train")
def train(
    d: Dimension = None,
    n: Columns = None,
    loops: Loops = None,
    norm: NormName = None,
    objective: ObjectiveName = None,
    rate: Rate = None,
    batch: Batch = None,
    train: Train = None,
    test: Test = None,
    epochs: Epochs = None,
    fresh: Fresh = False,
    full_batch: FullBatch = False,
    orbits: Orbits = False,
    start: StartName = None,
    start_value: Initial = None,
    quick: Quick = False,
    seed: Seed = 0,
    seeds: Seeds = None,
    resume: Resume = False,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
) -> int:
    """Train the full V and W, beside the two-scalar dynamics.

    Without options this is the paper's setting: d = 16, n = 32, L = 10, learning rate 0.1, batch
    128, 10,000 training and 2,000 test samples, 2,000 epochs. Shows the growth exponents of v and
    w, the distance from the manifold, and the gap from model to algorithm apart from that of
    algorithm to truth. With --out it draws them and keeps a checkpoint there.

    Ends with status 1 if a run did not stay finite, and with 3 if it was stopped: the same
    command with --resume goes on.

    For instance: pmt loop train --quick --out loop
    """
    if batch is not None and full_batch:
        message = "--batch and --full-batch contradict each other; give one of them"
        raise RequestError(message)
    if fresh and full_batch:
        message = "--fresh and --full-batch contradict each other; give one of them"
        raise RequestError(message)
    if orbits and full_batch:
        message = "--orbits and --full-batch contradict each other; give one of them"
        raise RequestError(message)
    folder = _folder(out, "pmt loop train", overwrite, resume)
    platform = start_backend(device, dtype)
    from pmt.cli.loop_lines import training_lines
    from pmt.experiments.loop_figure_1 import (
        FIGURE_1,
        FIGURE_1_QUICK,
        loop_figure_1,
        shorter,
        training_json,
    )
    from pmt.looped import orbit_size

    config = FIGURE_1_QUICK if quick else FIGURE_1
    given = {
        "d": d,
        "n": n,
        "loops": loops,
        "norm": norm,
        "objective": objective,
        "rate": rate,
        "batch": train or config.train if full_batch else batch,
        "train": train,
        "test": test,
        "draw": "fresh" if fresh else "fixed" if full_batch else None,
        "orbits": orbits,
        "start": start,
        "seeds": seeds,
    }
    if orbits and batch is None:
        given["batch"] = orbit_size(d or config.d)
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if start_value is not None:
        random = start == "unstructured"
        chosen |= {"scale": start_value} if random else {"v": start_value, "w": start_value}
    config = replace(config, seed=seed, dtype=dtype, **chosen)
    if epochs is not None:
        config = shorter(config, epochs)
    with progress("epochs", total=config.epochs) as advance:
        result = loop_figure_1(
            config,
            checkpoint=None if folder is None else folder / "checkpoint.npz",
            resume=resume,
            advance=advance,
        )

    def draw() -> Any:
        from pmt.figures.looped import loop_training

        return loop_training(result)

    done = _Done(
        lines=training_lines(result, platform),
        name="loop-figure-1",
        draw=draw,
        document=training_json(result) | {"device": platform},
        finite=bool(result.training.finite.all()),
    )
    return _hand_over(done, folder, json)


@loop.command("compare")
def compare(
    study: Study = "repeat",
    epochs: Epochs = None,
    quick: Quick = False,
    seed: Seed = 0,
    seeds: Seeds = None,
    resume: Resume = False,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
) -> int:
    """Compare normalisations: one layer applied L times, or all of them at equal tuning.

    repeat: one layer is trained against a power step, with Norm and without, and applied L = 1..25
    times; its gaps from the algorithm and from the truth, and its contraction beside R* and
    lam_(r+1)/lam_1. norms: every normalisation from both kinds of start, each at the best of the
    same learning rates, for the scale-free loss. noise: how the gap from the algorithm falls with
    the samples of a batch, and of a fixed training set.

    For instance: pmt loop compare --quick --study norms --out norms
    """
    if resume and study != "repeat":
        message = f"--study {study} keeps no checkpoint; give --resume with --study repeat only"
        raise RequestError(message)
    folder = _folder(out, "pmt loop compare", overwrite, resume)
    start_backend(device, dtype)
    changed: dict[str, Any] = {"seed": seed, "dtype": dtype}
    if seeds is not None:
        changed["seeds"] = seeds
    if study == "repeat":
        done = _compare_repeated(changed, epochs, quick, resume, folder)
    else:
        runs = {"norms": _compare_norms, "noise": _compare_noise}
        done = runs[study](changed, epochs, quick)
    return _hand_over(done, folder, json)


class _Done(NamedTuple):
    """What a command shows, draws and writes."""

    lines: Any
    name: str
    draw: Callable[[], Any]
    document: dict[str, Any]
    finite: bool


def _hand_over(done: _Done, folder: Path | None, json: Path | None) -> int:
    show(*done.lines)
    if folder is not None:
        from pmt.figures.style import save

        save(done.draw(), folder, done.name)
    if json is not None:
        write_json(json, done.document)
    return Status.DONE if done.finite else Status.ANSWER_IS_NO


def _compare_repeated(
    changed: dict[str, Any],
    epochs: int | None,
    quick: bool,
    resume: bool,
    folder: Path | None,
) -> _Done:
    from pmt.cli.loop_lines import repeated_lines
    from pmt.experiments.loop_figure_1 import shorter
    from pmt.experiments.loop_figure_2 import (
        FIGURE_2,
        FIGURE_2_QUICK,
        comparison_json,
        loop_figure_2,
    )

    config = FIGURE_2_QUICK if quick else FIGURE_2
    training = replace(config.training, **changed)
    if epochs is not None:
        training = shorter(training, epochs)
    config = replace(config, training=training)
    with progress("epochs", total=training.epochs * len(config.norms)) as advance:
        result = loop_figure_2(config, folder=folder, resume=resume, advance=advance)

    def draw() -> Any:
        from pmt.figures.looped import loop_comparison

        return loop_comparison(result)

    return _Done(
        lines=repeated_lines(result),
        name="loop-figure-2",
        draw=draw,
        document=comparison_json(result),
        finite=all(done.finite.all() for done in result.trainings.values()),
    )


def _compare_norms(
    changed: dict[str, Any],
    epochs: int | None,
    quick: bool,
) -> _Done:
    from pmt.cli.loop_lines import norms_table
    from pmt.experiments.loop_norms import NORMS_QUICK, NORMS_STUDY, loop_norms, norms_json

    config = NORMS_QUICK if quick else NORMS_STUDY
    training = replace(config.training, **changed)
    if epochs is not None:
        training = replace(training, epochs=epochs, every=epochs)
    config = replace(config, training=training)
    with progress("epochs", total=config.epochs) as advance:
        result = loop_norms(config, advance=advance)

    def draw() -> Any:
        from pmt.figures.looped import loop_norms as figure

        return figure(result)

    return _Done(
        lines=[norms_table(result)],
        name="loop-norms",
        draw=draw,
        document=norms_json(result),
        finite=True,
    )


def _compare_noise(
    changed: dict[str, Any],
    epochs: int | None,
    quick: bool,
) -> _Done:
    from pmt.cli.loop_lines import noise_lines
    from pmt.experiments.loop_noise import NOISE_QUICK, NOISE_STUDY, loop_noise, noise_json

    if epochs is not None:
        message = "--epochs is not an option of --study noise, whose runs have equally many steps"
        raise RequestError(message)
    config = NOISE_QUICK if quick else NOISE_STUDY
    config = replace(config, training=replace(config.training, **changed))
    with progress("epochs", total=config.epochs) as advance:
        result = loop_noise(config, advance=advance)

    def draw() -> Any:
        from pmt.figures.loop_noise import loop_noise as figure

        return figure(result)

    return _Done(
        lines=noise_lines(result),
        name="loop-noise",
        draw=draw,
        document=noise_json(result),
        finite=all(one.finite for one in result.series),
    )


def _folder(out: Path | None, writer: str, overwrite: bool, resume: bool) -> Path | None:
    if resume and out is None:
        message = "--resume needs the folder of the stopped run; give it with --out"
        raise RequestError(message)
    return out and prepare_output_directory(out, writer=writer, overwrite=overwrite)

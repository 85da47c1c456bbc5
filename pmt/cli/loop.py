"""`pmt loop`: trains the looped transformer of the second paper, and compares normalisations."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.answers import line
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

if TYPE_CHECKING:
    from pmt.experiments.loop_figure_1 import LoopFigure1
    from pmt.experiments.loop_figure_2 import LoopFigure2
    from pmt.experiments.loop_norms import LoopNorms

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
    Literal["repeat", "norms"],
    typer.Option(
        "--study",
        help="repeat: one trained layer applied L times (Fig. 2); norms: every normalisation and "
        "start at equal tuning.",
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
    folder = _folder(out, "pmt loop train", overwrite, resume)
    platform = start_backend(device, dtype)
    from pmt.experiments.loop_figure_1 import (
        FIGURE_1,
        FIGURE_1_QUICK,
        loop_figure_1,
        shorter,
        training_json,
    )

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
        "start": start,
        "seeds": seeds,
    }
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
    show(*_training_lines(result, platform))
    if folder is not None:
        from pmt.figures.looped import loop_training
        from pmt.figures.style import save

        save(loop_training(result), folder, "loop-figure-1")
    if json is not None:
        write_json(json, training_json(result) | {"device": platform})
    return Status.DONE if result.training.finite.all() else Status.ANSWER_IS_NO


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
    same learning rates, for the scale-free loss.

    For instance: pmt loop compare --quick --study norms --out norms
    """
    if resume and study == "norms":
        message = "--study norms keeps no checkpoint; give --resume with --study repeat only"
        raise RequestError(message)
    folder = _folder(out, "pmt loop compare", overwrite, resume)
    start_backend(device, dtype)
    changed: dict[str, Any] = {"seed": seed, "dtype": dtype}
    if seeds is not None:
        changed["seeds"] = seeds
    run = _compare_norms if study == "norms" else _compare_repeated
    return run(changed, epochs, quick, resume, folder, json)


def _compare_repeated(
    changed: dict[str, Any],
    epochs: int | None,
    quick: bool,
    resume: bool,
    folder: Path | None,
    json: Path | None,
) -> int:
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
    show(*_repeated_lines(result))
    if folder is not None:
        from pmt.figures.looped import loop_comparison
        from pmt.figures.style import save

        save(loop_comparison(result), folder, "loop-figure-2")
    if json is not None:
        write_json(json, comparison_json(result))
    finite = all(done.finite.all() for done in result.trainings.values())
    return Status.DONE if finite else Status.ANSWER_IS_NO


def _compare_norms(
    changed: dict[str, Any],
    epochs: int | None,
    quick: bool,
    resume: bool,
    folder: Path | None,
    json: Path | None,
) -> int:
    del resume
    from pmt.experiments.loop_norms import NORMS_QUICK, NORMS_STUDY, loop_norms, norms_json

    config = NORMS_QUICK if quick else NORMS_STUDY
    training = replace(config.training, **changed)
    if epochs is not None:
        training = replace(training, epochs=epochs, every=epochs)
    config = replace(config, training=training)
    with progress("epochs", total=config.epochs) as advance:
        result = loop_norms(config, advance=advance)
    show(_norms_table(result))
    if folder is not None:
        from pmt.figures.looped import loop_norms as drawn
        from pmt.figures.style import save

        save(drawn(result), folder, "loop-norms")
    if json is not None:
        write_json(json, norms_json(result))
    return Status.DONE


def _folder(out: Path | None, writer: str, overwrite: bool, resume: bool) -> Path | None:
    if resume and out is None:
        message = "--resume needs the folder of the stopped run; give it with --out"
        raise RequestError(message)
    return out and prepare_output_directory(out, writer=writer, overwrite=overwrite)


def _training_lines(result: "LoopFigure1", platform: str) -> list[str]:
    import numpy as np

    training = result.training
    config, last = training.config, {n: v[-1] for n, v in training.history.items()}
    scores = np.abs(training.walk_scores)
    batch = "all samples" if config.full_batch else f"batch {config.batch}"
    lines = [
        line(
            "model",
            f"d = {config.d}, n = {config.n}, L = {config.loops}, norm {config.norm}, "
            f"{config.start} start, {config.dtype} on {platform}",
        ),
        line(
            "training",
            f"{config.steps} steps of rate {config.rate:g}, {batch}, {config.draw} samples, "
            f"{_counted(config.seeds, 'seed')}; {training.seconds:.1f} s in this process",
        ),
        line("v, w", f"{_over_seeds(last['v'])}, {_over_seeds(last['w'])}"),
    ]
    if result.scalars is not None:
        path = result.scalars
        lines.append(
            line("two scalars", f"v, w = {path.v[-1]:.4g}, {path.w[-1]:.4g} at the same step")
        )
    for seed, pair in enumerate(result.exponents):
        if pair is not None:
            fitted = [f"{one.value:.3f} +- {one.half_width:.3f}" for one in pair]
            text = f"v {fitted[0]}, w {fitted[1]} (theory 1/4), seed {config.seed + seed}"
            lines.append(line("exponents", text))
    share = np.mean(scores <= 3.0)
    return [
        *lines,
        line(
            "manifold",
            f"V off by {_over_seeds(last['off_value'])}, W by {_over_seeds(last['off_key'])}; "
            f"{share:.2%} of the entries within 3 deviations of the noise's walk",
        ),
        line(
            "loss",
            f"train {_over_seeds(last['train_loss'])}, test {_over_seeds(last['test_loss'])}, "
            f"power method {_over_seeds(training.power_loss)}",
        ),
        line(
            "angles",
            f"model to algorithm {_over_seeds(last['algorithm_angle'])}, model to truth "
            f"{_over_seeds(last['truth_angle'])}, algorithm to truth "
            f"{_over_seeds(training.power_angle)} (radians, test means)",
        ),
    ]


def _repeated_lines(result: "LoopFigure2") -> list[str]:
    value, error = result.gamma
    lines = [line("gamma*", f"{value:.5f} +- {error:.5f} (one standard error), without Norm")]
    for norm, one in result.repeated.items():
        done = result.trainings[norm]
        last = {name: values[-1] for name, values in done.history.items()}
        lines += [
            line(norm, f"loss of one layer: test {_over_seeds(last['test_loss'])}"),
            line(
                "",
                f"rho = {_over_seeds(last['v'] * last['w'])}; contraction a loop measured "
                f"{_over_seeds(one.factor)}, at this rho {_over_seeds(one.predicted)}",
            ),
            line(
                "",
                f"after {result.config.most_loops} loops: to the algorithm "
                f"{_over_seeds(one.algorithm_angle[-1])}, to the truth "
                f"{_over_seeds(one.truth_angle[-1])} (radians)",
            ),
        ]
    ratio = next(iter(result.repeated.values())).power
    return [
        *lines,
        line("predicted", f"R* = {_over_seeds(result.bound)}, lam_2/lam_1 = {_over_seeds(ratio)}"),
    ]


def _norms_table(result: "LoopNorms") -> Any:
    from rich.table import Table

    table = Table("start", "norm")
    for name in ("rate", "sin^2, test", "power method", "to algorithm", "off manifold", "rho"):
        table.add_column(name, justify="right")
    for row in result.rows:
        values = (row.test_loss, row.power_loss, row.algorithm_angle, row.off_share, row.rho)
        rate = f"{row.rate:g}{' (edge)' if row.edge else ''}"
        table.add_row(row.start, row.norm, rate, *(_over_seeds(each) for each in values))
    return table


def _over_seeds(values: Any) -> str:
    """One number, or the range of the seeds."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if len(values) == 1 else f"{low:.4g}..{high:.4g}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"

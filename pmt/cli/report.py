"""`pmt report`: the theorems and a real transformer, small, on one page. What `make run` does."""

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmt.cli.exits import Status
from pmt.cli.options import Device, Overwrite, Seed, start_backend

if TYPE_CHECKING:
    from pmt.report import Figure, Section, Witness
    from theory.results import Evaluated, StatementResult

SCHEMA = "pmt.report/1"

_WRITER = "pmt report"
_TITLE = "Transformer layers as power methods"


def report(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="A name on the Hugging Face Hub, a directory, or minilm."
        ),
    ] = "minilm",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where index.html and the files go.")
    ] = Path("out/report"),
    instances: Annotated[
        int, typer.Option(min=1, metavar="N", help="Random instances for each form of a statement.")
    ] = 200,
    repeat_layer: Annotated[
        int, typer.Option(min=1, metavar="L", help="The layer, from 1, that is repeated.")
    ] = 5,
    steps: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="T", help="How often it is repeated.")
    ] = 200,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    device: Device = None,
) -> int:
    """Theorems checked and a real transformer measured, on one page.

    Writes DIR/index.html, which needs no other file, DIR/statements/ with a page for each refuted
    statement, the results as report.json and the figures as PNG. Everything is computed in
    float64. Ends with status 1 if a statement comes out otherwise than expected.
    """
    from pmt.files import prepare_output_directory, write_atomically, write_json
    from pmt.report.statements import FOLDER

    folder = prepare_output_directory(out, writer=_WRITER, overwrite=overwrite)
    below = prepare_output_directory(folder / FOLDER, writer=_WRITER, overwrite=overwrite)
    # Before NumPy is loaded: the eigenproblems stand side by side, one thread each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    platform_name = start_backend(device, "float64")
    started = time.perf_counter()
    results, sections, pages = _build(model, instances, repeat_layer, steps, seed)
    seconds = time.perf_counter() - started

    from pmt.report import render, summary

    made = _provenance(model, instances, seed, platform_name, seconds)
    lead = summary(results["verify"], results["analysis"], results["analysis"]["repeat"])
    for section in sections:
        for figure in section.figures:
            write_atomically(folder / f"{figure.name}.png", figure.png)
    write_json(folder / "report.json", {"schema": SCHEMA, "provenance": made, **results})
    for name, page in pages.items():
        write_atomically(below / f"{name}.html", page)
    # Last, so that a page that is there is a page that is whole.
    write_atomically(folder / "index.html", render(_TITLE, lead, sections, made))

    from pmt.cli.screen import show

    show(lead, f"the page is {folder / 'index.html'} ({seconds:.0f} s)")
    forms = [form for s in results["verify"]["statements"] for form in s["forms"]]
    expected = all(form["status"] == form["expected"] for form in forms)
    return Status.DONE if expected else Status.ANSWER_IS_NO


def _build(
    model: str, instances: int, layer: int, steps: int, seed: int
) -> tuple[dict[str, Any], list["Section"], dict[str, str]]:
    from pmt.cli.analysis_runs import tell
    from pmt.cli.report_further import looped_transformer, steered_model
    from pmt.cli.screen import progress
    from pmt.cli.verify import SCHEMA as VERIFY
    from pmt.cli.verify import as_json
    from pmt.errors import RequestError
    from pmt.experiments import (
        AnalysisConfig,
        RepeatConfig,
        analysis_json,
        analyze,
        count_of_steps,
        repeat_json,
    )
    from pmt.experiments import repeat_layer as run_repeated
    from pmt.experiments.eigen_cache import user_cache
    from pmt.models import open_layers
    from pmt.report import (
        equilibrium,
        refuted_pages,
        repeated_layer,
        statements,
        trained_weights,
        transformer,
    )
    from theory import registry
    from theory.verify import verify

    # The request is checked before the long work.
    with open_layers(model, dtype="float64", notify=tell) as layers:
        if layer > layers.depth:
            raise RequestError(
                f"there is no layer {layer}; the model has layers 1 to {layers.depth}"
            )
        chosen = list(registry.statements().values())
        with progress("statements", total=len(chosen)) as advance:
            checked = verify(chosen, count=instances, seed=seed, done=advance)
        verified = {"schema": VERIFY, "statements": [as_json(result) for result in checked]}

        config, solver = AnalysisConfig(seed=seed), user_cache()
        with progress("layers", total=count_of_steps(layers.depth, config) + 1) as advance:
            analysis = analyze(layers, config, progress=advance, solver=solver)
            repeated = RepeatConfig(layer=layer, steps=steps, seed=seed)
            repetition = run_repeated(layers, repeated, solver=solver)
            advance(1)
    witnesses, pictures = _refutations(checked)
    measured = analysis_json(analysis) | {"repeat": repeat_json(repetition)}

    with progress("steering, looped", total=2) as advance:
        steered, steered_section = steered_model(model, seed, solver)
        advance(1)
        trained, looped_section = looped_transformer(seed)
        advance(1)
    answer, setting, near = _example(seed)
    sections = [
        statements(verified, pictures=pictures),
        equilibrium(answer, setting, near),
        transformer(measured, _layer_figures(analysis)),
        trained_weights(measured),
        repeated_layer(measured, measured["repeat"], [_repeat_figure(repetition)]),
        steered_section,
        looped_section,
    ]
    results = {
        "verify": verified,
        "analysis": measured,
        "equilibrium": answer,
        "steering": steered,
        "looped": trained,
    }
    return results, sections, refuted_pages(verified, witnesses, "index.html")


def _refutations(
    checked: "list[StatementResult]",
) -> tuple[dict[str, list["Witness"]], dict[str, dict[str, Any]]]:
    """Of every statement with a refuted form its witnesses, drawn, and the first one's picture.

    Of each clause that fell the explicit counterexample, or the worst random one, is shown.
    """
    from pmt.cli.verify import witness_json
    from pmt.cli.witness_drawings import drawings
    from pmt.cli.witness_map import thumbnail
    from pmt.report import Witness

    witnesses: dict[str, list[Witness]] = {}
    pictures: dict[str, dict[str, Any]] = {}
    for result in checked:
        fallen = [
            (form.form, clause.violations[0])
            for form in result.forms
            for clause in form.clauses
            if clause.violations
        ]
        seen: list[Evaluated] = []
        for number, (form, at) in enumerate(fallen, start=1):
            figures: list[Figure]
            if any(_same_inputs(at, earlier) for earlier in seen):
                figures, note = [], "Drawn above: the same inputs."
            else:
                figures, note = drawings(result.statement, at, f"{result.statement.id}-{number}")
            seen.append(at)
            shown = Witness(form, witness_json(at), tuple(figures), note)
            witnesses.setdefault(result.statement.id, []).append(shown)
        for _, at in fallen:
            picture = thumbnail(result.statement, at)
            if picture is not None:
                pictures[result.statement.id] = picture
                break
    return witnesses, pictures


def _same_inputs(one: "Evaluated", other: "Evaluated") -> bool:
    import numpy as np

    return (
        one.shape == other.shape
        and one.case.keys() == other.case.keys()
        and all(np.array_equal(value, other.case[name]) for name, value in one.case.items())
    )


def _example(seed: int) -> tuple[dict[str, Any], str, list["Figure"]]:
    """A stable bipartite point next to random tokens that reach consensus (as Fig. 13)."""
    import jax
    import jax.numpy as jnp

    from pmt import equilibria, sphere, stability
    from pmt.dynamics import SingleHead

    value = jnp.diag(jnp.array([1.0, 0.5, -0.3]))
    system = SingleHead(value, 1.5 * jnp.eye(3), alpha=0.2)
    point = equilibria.bipartite(system, 0, (3, 2))
    analysis = stability.analyze(system, point)
    keys = jax.random.split(jax.random.key(seed))
    moved = sphere.retract(point.x, 0.1 * jax.random.normal(keys[0], point.x.shape))
    scattered = sphere.uniform(keys[1], (10, 3))
    plain = SingleHead(value, 0.5 * jnp.eye(3), alpha=0.2)
    setting = (
        "Single head, full attention, V = diag(1, 0.5, −0.3), QᵀK = 1.5 I, α = 0.2: the bipartite "
        "point with three tokens at v1 and two at −v1. The paper expects such points to be rare; "
        "the exact criterion says when they are stable: λ2/λ1 below Ψ(θ1)."
    )
    return (
        analysis.as_dict(),
        setting,
        [
            _multipliers(analysis),
            _run(
                system,
                moved,
                60,
                "bipartite-run",
                "The same point after a perturbation of size 0.1: the tokens return to v1 and −v1.",
            ),
            _run(
                plain,
                scattered,
                60,
                "consensus-run",
                "Ten random tokens of the same system with weaker logits (QᵀK = 0.5 I): they reach "
                "consensus at the principal eigenvector. Open circles are the start, full ones the "
                "end; parts behind the sphere are faded.",
            ),
        ],
    )


def _multipliers(analysis: Any) -> "Figure":
    from pmt.figures import figure_bytes
    from pmt.figures.multipliers import multiplier_figure
    from pmt.report import Figure

    drawn = multiplier_figure(analysis.eigenvalues)
    return Figure(
        "multipliers",
        "Multipliers of the linearised map on the tangent space: all inside the unit circle, so "
        "small perturbations die out.",
        "Multipliers in the complex plane inside the unit circle",
        figure_bytes(drawn),
    )


def _run(system: Any, x: Any, steps: int, name: str, caption: str) -> "Figure":
    import jax.numpy as jnp

    from pmt.cli.observed import observables
    from pmt.cli.running import run_steps
    from pmt.equilibria import classify
    from pmt.figures import figure_bytes
    from pmt.figures.trajectory import trajectory_figure
    from pmt.report import Figure

    run = run_steps(system, x, steps, lambda _: None)
    seen = observables(system, run, classify(system, jnp.asarray(run.path[-1])))
    drawn = trajectory_figure(seen.trajectory(run, seen.principal.pairs))
    alt = "Paths of tokens on the sphere, their alignment and distance over steps"
    return Figure(name, caption, alt, figure_bytes(drawn))


def _layer_figures(analysis: Any) -> list["Figure"]:
    from pmt import figures
    from pmt.report import Figure

    return [
        Figure(
            "spectra",
            "Eigenvalues of every layer matrix F in the complex plane; the principal one is the "
            "one with the largest real part.",
            "Eigenvalues of the layer matrices in the complex plane, one panel a layer",
            figures.figure_bytes(figures.spectra(analysis)),
        ),
        Figure(
            "alignment",
            "Alignment ρ, its increment Δρ and the share P of tokens that gain, over layers: "
            "principal direction, average over all eigendirections, chance, and null models with "
            "the layer's own attention.",
            "Three panels over layers: alignment, increment and share of increases",
            figures.figure_bytes(figures.alignment_panels(analysis)),
        ),
        Figure(
            "intertoken-distance",
            "Mean distance between the tokens of a prompt after every layer; zero is consensus.",
            "Mean intertoken distance over layers",
            figures.figure_bytes(figures.token_distance(analysis)),
        ),
    ]


def _repeat_figure(repetition: Any) -> "Figure":
    from pmt import figures
    from pmt.report import Figure

    return Figure(
        "repeated-layer",
        "Alignment with the layer's principal direction and mean intertoken distance over steps.",
        "Alignment and intertoken distance over repeated applications of one layer",
        figures.figure_bytes(figures.repetition(repetition)),
    )


def _provenance(
    model: str, instances: int, seed: int, device: str, seconds: float
) -> dict[str, str]:
    import jax

    from pmt.experiments.record import versions

    return {
        "command": f"pmt report --model {model} --instances {instances} --seed {seed}",
        "precision": "float64, matrix products at highest precision",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "device": f"{device}: {jax.devices()[0].device_kind}",
        "time": f"{seconds:.0f} s",
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }

"""`pmt simulate`: runs a system from a start, says how it ended and where, and draws the tokens."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmt.cli import answers, screen
from pmt.cli.assessment import Assessment, assess
from pmt.cli.exits import Status
from pmt.cli.interrupts import between_pieces
from pmt.cli.observed import observables
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
from pmt.cli.point_options import (
    Index,
    Placement,
    Signs,
    Split,
    Tokens,
    read_tokens,
    require_affordable,
)
from pmt.cli.running import Run, run_steps, run_to_rest
from pmt.cli.system_options import (
    Alpha,
    Kind,
    MaskName,
    QueryKeys,
    Random,
    Scale,
    SystemFile,
    Values,
    requested_system,
)
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_atomically, write_json

if TYPE_CHECKING:
    from pmt.cli.system_file import SystemDescription

Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="START",
        help="random, consensus, bipartite, polygonal, or a .npy file with one token a row.",
    ),
]
Perturb = Annotated[
    float,
    typer.Option(
        "--perturb",
        parser=number(at_least=0.0),
        metavar="X",
        help="Move every token of the start by X in a random direction first.",
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", min=0, max=2**31 - 1, metavar="T", help="Number of steps.")
]
UntilEquilibrium = Annotated[
    bool,
    typer.Option(
        "--until-equilibrium", help="Stop at an equilibrium or a 2-cycle; --steps is the budget."
    ),
]

_TOKENS = 10


def simulate(
    system: SystemFile = None,
    start: Start = "random",
    tokens: Tokens = None,
    index: Index = None,
    split: Split = None,
    signs: Signs = None,
    perturb: Perturb = 0.0,
    steps: Steps = 200,
    until_equilibrium: UntilEquilibrium = False,
    value: Values = None,
    query_key: QueryKeys = None,
    random: Random = None,
    kind: Kind = None,
    alpha: Alpha = None,
    scale: Scale = None,
    mask: MaskName = None,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float64",
    device: Device = None,
) -> int:
    """Run a system and draw its tokens and alignment.

    Says how the run ended, what the last state is and whether it is stable. With --out it draws
    the tokens on the sphere (d = 3) or their angles (d = 2), their alignment with the principal
    eigenvector and their distance, and writes start.npy, end.npy and system.json, which this
    command and 'pmt stability' read.

    Ends with status 0 if all steps were made or, with --until-equilibrium, if an equilibrium was
    reached; with 1 if the run broke off or, with --until-equilibrium, reached none (a 2-cycle, or
    the end of the budget).

    For instance: pmt simulate --random 3 --tokens 10 --alpha 0.2 --seed 1 --out run
    """
    place = Placement(start, index, tokens, split, signs)
    place.check()
    described = requested_system(
        system,
        value=value,
        query_key=query_key,
        random=random,
        kind=kind,
        alpha=alpha,
        scale=scale,
        mask=mask,
        seed=seed,
    )
    with between_pieces() as listen:
        platform = start_backend(device, dtype)
        from pmt import spectral
        from pmt.dynamics import Outcome

        map_ = described.build(dtype)
        pairs = spectral.eigenpairs(spectral.layer_matrix(map_))
        listen()
        x0, source = _start(place, described, map_, dtype, seed, perturb)
        folder = out and prepare_output_directory(out, writer="pmt simulate", overwrite=overwrite)
        before = _at_rest(map_, x0)
        screen.show(*answers.system_lines(described, pairs.values))
        screen.show(answers.line("start", source))
        if before is not None:
            screen.show(answers.line("note", _warning(before, pairs)))
        listen()

        with screen.progress("steps", total=steps) as advance:

            def heed(done: int) -> None:
                advance(done)
                listen()

            run = (run_to_rest if until_equilibrium else run_steps)(map_, x0, steps, heed)
        end = assess(map_, run.path[-1])
        seen = observables(map_, run, end.known)
        listen()
        screen.show(answers.line("run", _run_words(run, steps)))
        screen.show(answers.line("end", _end_words(run, end, pairs)))
        if end.analysis is not None:
            screen.show(*answers.stability_lines(end.analysis))
        screen.show(*seen.lines())

        report = {
            "schema": "pmt.simulation/1",
            "system": described.document(),
            "settings": answers.settings(dtype, platform, seed),
            "eigenvalues": pairs.values,
            "start": {
                "source": source,
                "tokens": run.path[0],
                "at_rest": None if before is None else before.document(),
            },
            "run": {
                "outcome": run.outcome.name.lower(),
                "message": run.outcome.message,
                "steps": run.steps,
                "asked": steps,
                "until_equilibrium": until_equilibrium,
            },
            "end": {"tokens": run.path[-1], **end.document()},
            "observables": seen.document(),
        }
        if folder is not None:
            _write_folder(
                folder, described, run, seen, pairs, f"{described.kind}: {end.words(pairs)}"
            )
        if json is not None:
            write_json(json, report)
        good = Outcome.CONVERGED if until_equilibrium else Outcome.DONE
        return Status.DONE if run.outcome == good else Status.ANSWER_IS_NO


def _start(
    place: Placement,
    described: "SystemDescription",
    map_: Any,
    dtype: str,
    seed: int,
    perturb: float,
) -> tuple[Any, str]:
    """The first state, NumPy (n, d), and where it comes from in words."""
    import numpy as np

    d = described.dimension
    if place.is_named:
        point = place.equilibrium(map_, described.mask_size, _TOKENS)
        x, source = np.asarray(point.x), f"{place.name} point, {_tokens(point.x.shape[0])}"
    elif place.name == "random":
        n = place.tokens or described.mask_size or _TOKENS
        require_affordable(map_, n)
        x = np.random.default_rng([seed, 1]).standard_normal((n, d))
        x, source = _unit(x, dtype), f"{_tokens(n)}, random (seed {seed})"
    else:
        x, remark = read_tokens(Path(place.name), d, dtype)
        require_affordable(map_, len(x))
        source = f"{_tokens(len(x))} from {place.name}" + (f"; {remark}" if remark else "")
    if perturb > 0 and d == 1:
        message = "--perturb moves tokens along the sphere, and for d = 1 that is two points"
        raise RequestError(message)
    if perturb > 0:
        push = np.random.default_rng([seed, 2]).standard_normal(x.shape)
        wide = x.astype(np.float64)
        push = push - wide * np.sum(wide * push, axis=1, keepdims=True)
        x = _unit(wide + perturb * push / np.linalg.norm(push, axis=1, keepdims=True), dtype)
        source += f", each moved by {perturb:g} (seed {seed})"
    return x, source


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def _unit(x: Any, dtype: str) -> Any:
    import numpy as np

    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


def _at_rest(map_: Any, x: Any) -> Assessment | None:
    """The start if it is fixed already, or half of a 2-cycle, to rounding; else None."""
    import jax.numpy as jnp

    from pmt.equilibria import describe

    if describe(map_, jnp.asarray(x), "clustering").status not in ("equilibrium", "2-cycle"):
        return None
    found = assess(map_, x)
    return found if found.at_rest else None


def _warning(before: Assessment, pairs: Any) -> str:
    verdict = "of unknown stability" if before.analysis is None else before.analysis.verdict
    what = before.words(pairs).split(",", 1)[1].strip()
    state = "an equilibrium" if before.known.status == "equilibrium" else "on a 2-cycle"
    stay = "" if verdict == "stable" else "; only --perturb or rounding makes it leave"
    return f"the start already is {state} ({what}), which is {verdict}{stay}"


def _run_words(run: Run, steps: int) -> str:
    made = f"{run.steps} of {steps}" if run.steps < steps else str(run.steps)
    return f"{run.outcome.message}; {made} step{'' if steps == 1 else 's'}"


def _end_words(run: Run, end: Assessment, pairs: Any) -> str:
    from pmt.dynamics import Outcome

    if run.outcome == Outcome.TWO_CYCLE and not end.at_rest:
        return f"2-cycle between x and f(x), which moves a token by {end.residual:.3g}"
    return end.words(pairs)


def _write_folder(
    folder: Path,
    described: "SystemDescription",
    run: Run,
    seen: Any,
    pairs: Any,
    title: str,
) -> None:
    write_atomically(folder / "start.npy", _array_bytes(run.path[0]))
    write_atomically(folder / "end.npy", _array_bytes(run.path[-1]))
    write_json(folder / "system.json", described.document())
    from pmt.figures.style import save
    from pmt.figures.trajectory import trajectory_figure

    save(trajectory_figure(seen.trajectory(run, pairs), title), folder, "trajectory")


def _array_bytes(array: Any) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()

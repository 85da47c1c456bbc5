"""`pmt phase`: over which logit scales and spectral gaps a bipartite point is stable."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from pmt.cli import answers, screen
from pmt.cli.division import Division, heeding, request_of
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
from pmt.cli.point_options import split_sizes
from pmt.errors import RequestError
from pmt.files import write_atomically, write_json

Theta = Annotated[
    str,
    typer.Option(
        "--theta",
        metavar="LOW:HIGH:COUNT",
        help="Logit scales θ along v1, positive; their logarithms are evenly spaced.",
    ),
]
Ratio = Annotated[
    str,
    typer.Option(
        "--ratio",
        metavar="LOW:HIGH:COUNT",
        help="λ2/λ1 below 1, which is one minus the relative spectral gap; evenly spaced.",
    ),
]
Split = Annotated[
    str,
    typer.Option("--split", metavar="N1,N2", help="Tokens at v1 and at -v1 of the point."),
]
Others = Annotated[
    str,
    typer.Option("--others", metavar="X,X,...", help="The remaining eigenvalues over λ1, or none."),
]
Alpha = Annotated[
    float,
    typer.Option(
        "--alpha", parser=number(above=0.0, below=1.0), metavar="X", help="Step size, λ1 being 1."
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        min=0,
        metavar="N",
        help="Also run so many random initial conditions in every cell, and count which share "
        "ends bipartite; 0 for the spectra alone.",
    ),
]
MaxSteps = Annotated[
    int, typer.Option("--max-steps", min=1, metavar="N", help="Budget of each of these runs.")
]

_MOST_CELLS = 10**6
_MOST_TOKENS = 10**7


def phase(
    theta: Theta = "0.1:20:60",
    ratio: Ratio = "0:0.98:50",
    split: Split = "3,3",
    others: Others = "-0.3",
    alpha: Alpha = 0.2,
    samples: Samples = 0,
    max_steps: MaxSteps = 10_000,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float64",
    device: Device = None,
    coordinator: Coordinator = None,
    num_processes: ProcessCount = None,
    process_id: ProcessId = None,
    host_timeout: HostTimeout = HOST_TIMEOUT,
) -> int:
    """Phase diagram of a bipartite point over logit scale and spectral gap.

    One head, full attention, V = diag(1, λ2, others), QᵀK = θ v1 v1ᵀ. In every cell the largest
    multiplier at the bipartite point along v1 says whether it is stable; the theory's boundary is
    λ2/λ1 = Ψ(θ), and its exact criterion is evaluated beside the multipliers. With --out it draws
    both and writes cells.csv.

    All devices divide the cells whose initial conditions are run, and with --coordinator those of
    several hosts; the numbers do not depend on how many there are. With --out a run that is stopped
    keeps its finished cells, and the same command goes on with it.

    Ends with status 0 if the two agree in every cell in which they differ by more than rounding
    from the boundary, and with 1 otherwise.

    For instance: pmt phase --split 4,2 --samples 64 --theta 0.1:20:16 --ratio 0:0.95:16 --out phase
    """
    spot = Place(coordinator, num_processes, process_id, host_timeout)
    if spot.several and (ended := supervised(host_timeout)) is not None:
        return ended
    columns, rows = _grid(theta, "--theta", True), _grid(ratio, "--ratio", False)
    cells = len(columns) * len(rows)
    if cells > _MOST_CELLS:
        message = f"--theta and --ratio make {cells:,} cells; at most {_MOST_CELLS:,} are possible"
        raise RequestError(message)
    sizes, rest = split_sizes(split), _others(others)
    if sum(sizes) > _MOST_TOKENS:
        message = f"--split has {sum(sizes):,} tokens; at most {_MOST_TOKENS:,} are possible"
        raise RequestError(message)
    with between_pieces() as listen:
        with spot.joined() as hosts:
            platform = start_backend(device, dtype)
            import jax.numpy as jnp

            from pmt.stability.phase import phase_diagram

            grid = {"theta": columns, "ratio": rows}
            asked: dict[str, Any] = {
                "split": sizes,
                "alpha": alpha,
                "others": rest,
                "samples": samples,
                "seed": seed,
                "max_steps": max_steps,
            }
            request = request_of("pmt.phase-units/1", grid, asked, dtype, platform)
            division = Division.of(hosts, request, out, "pmt phase", overwrite)
            folder = division.folder
            listen()
            with (
                division.at_work(),
                heeding("cells", cells if samples else 1, listen) as heed,
            ):
                found = phase_diagram(
                    jnp.array(columns),
                    jnp.array(rows),
                    workers=division.workers(platform),
                    progress=heed,
                    **asked,
                )
            status = Status.ANSWER_IS_NO if found.disagreements else Status.DONE
            if hosts is not None and not division.writes:
                last_words(hosts, listen)
                return finished(hosts, status)
            screen.show(*_lines(found))
            listen()
            if folder is not None:
                from pmt.experiments.record import csv_text
                from pmt.figures.basins import phase_figure
                from pmt.figures.style import save

                save(phase_figure(found), folder, "phase")
                write_atomically(folder / "cells.csv", csv_text(_cells(found)))
            if json is not None:
                settings = answers.settings(dtype, platform, seed) | {"max_steps": max_steps}
                write_json(json, {"schema": "pmt.phase/1", "settings": settings, **vars(found)})
            division.discard()
            if folder is not None:
                screen.show(f"the diagram is in {Path(folder)}")
            return finished(hosts, status)


def _grid(text: str, name: str, geometric: bool) -> list[float]:
    """Evenly spaced numbers from ``LOW:HIGH:COUNT``, or numbers with evenly spaced logarithms."""
    parts = text.split(":")
    try:
        low, high = (float(part) for part in parts[:2])
        count = int(parts[2]) if len(parts) == 3 else 0
    except (ValueError, IndexError):
        low = high = math.nan
        count = 0
    if not (math.isfinite(low) and math.isfinite(high)) or not 1 <= count <= _MOST_CELLS:
        message = (
            f"{name} is {text!r}; it must be LOW:HIGH:COUNT, two finite numbers and how many, "
            "such as 0.1:20:60"
        )
        raise RequestError(message)
    if count > 1 and not low < high or geometric and low <= 0:
        kind = "positive, and the second" if geometric else "two numbers, and the second"
        message = f"{name} is {text!r}; its bounds must be {kind} the larger one"
        raise RequestError(message)
    if count == 1:
        return [low]
    if geometric:
        low, high = math.log(low), math.log(high)
    steps = [low + (high - low) * k / (count - 1) for k in range(count)]
    return [math.exp(step) for step in steps] if geometric else steps


def _others(text: str) -> tuple[float, ...]:
    if text in ("", "none"):
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        message = f"--others is {text!r}; it must be numbers such as -0.3,-0.5, or none"
        raise RequestError(message) from None


def _lines(found: Any) -> list[str]:
    n1, n2 = found.split
    stable, cells = int(found.stable.sum()), found.stable.size
    lines = [
        answers.line("point", f"bipartite {n1}+{n2} along v1, alpha = {found.alpha:g}"),
        answers.line(
            "grid",
            f"{len(found.theta)} logit scales θ in [{found.theta[0]:g}, {found.theta[-1]:g}], "
            f"{len(found.ratio)} ratios λ2/λ1 in [{found.ratio[0]:g}, {found.ratio[-1]:g}]",
        ),
        answers.line("stable", f"in {stable:,} of {cells:,} cells, by the largest multiplier"),
        answers.line(
            "theory",
            "the exact criterion says the same in every cell"
            if not found.disagreements
            else f"the exact criterion says something else in {found.disagreements} cells",
        ),
    ]
    if found.fraction is not None:
        for what, where in (("stable", found.stable), ("unstable", ~found.stable)):
            if where.any():
                share = found.fraction[where].mean()
                words = f"{share:.4f} of {found.samples * int(where.sum()):,} runs end bipartite"
                lines.append(answers.line("runs", f"where it is {what}, {words} along v1"))
        lines.append(answers.line("unresolved", f"{found.unresolved.mean():.4f} of all runs"))
    return lines


def _cells(found: Any) -> list[dict[str, Any]]:
    """One row a cell, for the table."""
    names = ("radius", "stable", "margin", "fraction", "low", "high", "unresolved")
    grids = {name: getattr(found, name) for name in names}
    return [
        {
            "theta": theta,
            "ratio": ratio,
            "boundary": boundary,
            **{name: grid[i, j] for name, grid in grids.items() if grid is not None},
        }
        for i, ratio in enumerate(found.ratio)
        for j, (theta, boundary) in enumerate(zip(found.theta, found.boundary, strict=True))
    ]

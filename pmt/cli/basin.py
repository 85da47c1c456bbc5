"""`pmt basin`: which fraction of the initial conditions of a system ends where."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from pmt.cli import answers, screen
from pmt.cli.basin_lines import escape_words, shares, summary, table
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
from pmt.cli.point_options import (
    Index,
    Placement,
    Signs,
    Split,
    Tokens,
    Tolerance,
    require_affordable,
)
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
from pmt.files import write_json

Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        min=1,
        max=2**32 - 1,
        metavar="N",
        help="Initial conditions; with --width at most so many.",
    ),
]
Width = Annotated[
    float | None,
    typer.Option(
        "--width",
        parser=number(above=0.0, below=1.0),
        metavar="X",
        help="Add initial conditions until every interval is at most so wide.",
        show_default=False,
    ),
]
Confidence = Annotated[
    float,
    typer.Option(
        "--confidence", parser=number(above=0.0, below=1.0), metavar="X", help="Of each interval."
    ),
]
Interval = Annotated[
    Literal["wilson", "clopper-pearson"],
    typer.Option("--interval", help="Wilson's score interval, or the exact one, which is wider."),
]
Map = Annotated[
    int | None,
    typer.Option(
        "--map",
        min=2,
        max=2001,
        metavar="PIXELS",
        help="d = 3: also move the first token over the sphere, the others staying where sample 0 "
        "has them; that many pixels across.",
        show_default=False,
    ),
]
Lost = Annotated[
    Literal["consensus", "bipartite"] | None,
    typer.Option(
        "--lost",
        help="Also find how far this point can be pushed before it is lost; --index, --split and "
        "--signs say which.",
        show_default=False,
    ),
]

MaxSteps = Annotated[
    int, typer.Option("--max-steps", min=1, metavar="N", help="Budget of each initial condition.")
]
Directions = Annotated[
    int,
    typer.Option("--directions", min=1, metavar="N", help="--lost: random tangent directions."),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        "--chunk",
        min=1,
        metavar="N",
        help="Initial conditions side by side on a device; by the size of the system, 16 to 4096, "
        "if not given.",
        show_default=False,
    ),
]

_TOKENS = 6


def basin(
    system: SystemFile = None,
    tokens: Tokens = None,
    samples: Samples = 10_000,
    width: Width = None,
    confidence: Confidence = 0.95,
    interval: Interval = "wilson",
    max_steps: MaxSteps = 10_000,
    tolerance: Tolerance = None,
    map_: Map = None,
    lost: Lost = None,
    directions: Directions = 256,
    index: Index = None,
    split: Split = None,
    signs: Signs = None,
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
    chunk: Chunk = None,
    coordinator: Coordinator = None,
    num_processes: ProcessCount = None,
    process_id: ProcessId = None,
    host_timeout: HostTimeout = HOST_TIMEOUT,
) -> int:
    """Which fraction of the initial conditions ends where.

    Runs uniformly random tokens to their ends and counts consensus, bipartite points by their
    split, polygonal and clustered states, cycles, and what the budget of steps leaves unresolved,
    each with a confidence interval. With --out it draws them and writes result.json, which is the
    document of --json.

    All devices share the work, that of --map and --lost too, and with --coordinator those of
    several hosts; the numbers do not depend on how many there are. A device is given twice --chunk
    initial conditions at a time, so devices stay idle where --samples is less than that for each.
    With --out a run that is stopped keeps what it has finished, and the same command goes on with
    it.

    Ends with status 0, or with 1 if --width was asked for and --samples did not suffice.

    For instance: pmt basin --value diag:1,0.5,-0.3 --query-key diag:2,0,0 --alpha 0.2 --tokens 6
    """
    spot = Place(coordinator, num_processes, process_id, host_timeout)
    if spot.several and (ended := supervised(host_timeout)) is not None:
        return ended
    place = Placement(lost or "random", index, tokens if lost is None else None, split, signs)
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
    n = tokens or described.mask_size or _TOKENS
    if map_ is not None and described.dimension != 3:
        message = f"--map is for d = 3, and this system has d = {described.dimension}"
        raise RequestError(message)
    with between_pieces() as listen:
        with spot.joined() as hosts:
            platform = start_backend(device, dtype)
            from pmt import spectral
            from pmt.stability.basin import basin_fractions
            from pmt.stability.escape import escape_radius

            built = described.build(dtype)
            point = None
            if lost is not None:
                point = _point(place, built, tokens, n)
                n = len(point)
            require_affordable(built, n)
            asked: dict[str, Any] = {
                "tokens": n,
                "samples": samples,
                "width": width,
                "confidence": confidence,
                "method": interval,
                "seed": seed,
                "max_steps": max_steps,
                "tolerance": tolerance,
                "chunk": chunk,
            }
            more: dict[str, Any] = {"map": map_, "lost": None}
            if lost is not None:
                more["lost"] = [lost, index, split, signs, directions]
            request = request_of(
                "pmt.basin-units/1", described.document(), {**asked, **more}, dtype, platform
            )
            division = Division.of(hosts, request, out, "pmt basin", overwrite)
            folder, writes = division.folder, division.writes
            pairs = spectral.eigenpairs(spectral.layer_matrix(built))
            if writes:
                screen.show(*answers.system_lines(described, pairs.values))
            listen()
            workers = division.workers(platform)
            runs: dict[str, Any] = {
                "max_steps": max_steps,
                "tolerance": tolerance,
                "workers": workers,
            }
            mapped = escape = None
            with division.at_work():
                with heeding("initial conditions", samples, listen) as heed:
                    found = basin_fractions(
                        built, workers=workers, progress=heed, verdicts=writes, **asked
                    )
                if writes:
                    screen.show(*summary(found), table(found))
                listen()
                if map_ is not None:
                    mapped = _map(built, n, seed, map_, runs, listen)
                    if writes:
                        screen.show(answers.line("map", shares(mapped.attractors)))
                if point is not None:
                    with heeding("directions", directions, listen) as heed:
                        escape = escape_radius(
                            built, point, directions=directions, seed=seed, progress=heed, **runs
                        )
                    if writes:
                        screen.show(answers.line("lost", escape_words(escape)))
            status = Status.DONE if found.reached else Status.ANSWER_IS_NO
            if hosts is not None and not writes:
                last_words(hosts, listen)
                return finished(hosts, status)
            report = {
                "schema": "pmt.basin/1",
                "system": described.document(),
                "settings": answers.settings(dtype, platform, seed),
                "eigenvalues": pairs.values,
                "basins": found.as_dict(),
                "map": mapped and _map_document(mapped),
                "lost": escape and escape.as_dict(),
            }
            listen()
            drawn = {}
            if folder is not None:
                from pmt.figures import basins as figures

                drawn["fractions"] = figures.fraction_bars(found, f"{described.kind}, {n} tokens")
                if mapped is not None:
                    drawn["map"] = figures.sphere_basins(mapped, "start of the first token")
                if escape is not None:
                    drawn["lost"] = figures.escape_figure(escape, f"{lost} point")
                from pmt.figures.style import save

                for name, figure in drawn.items():
                    save(figure, folder, name)
                write_json(folder / "result.json", report)
            if json is not None:
                write_json(json, report)
            division.discard()
            return finished(hosts, status)


def _map(
    system: Any, n: int, seed: int, pixels: int, runs: dict[str, Any], listen: Callable[[], None]
) -> Any:
    import jax.numpy as jnp

    from pmt.stability.basin import sample_starts
    from pmt.stability.basin_map import pixel_points, sphere_map

    dtype = system.layer_matrix.dtype
    others = jnp.asarray(sample_starts(seed, [0], n, 3, dtype)[0, 1:])
    total = 2 * int(pixel_points(pixels)[0].sum())
    with heeding("starts of the first token", total, listen) as heed:
        return sphere_map(system, others, resolution=pixels, progress=heed, **runs)


def _map_document(mapped: Any) -> dict[str, Any]:
    return {
        "attractors": [each.name for each in mapped.attractors],
        "area": [each.share.fraction for each in mapped.attractors],
        "label": mapped.label,
        "frame": mapped.frame,
        "token": mapped.token,
        "others": mapped.others,
    }


def _point(place: Placement, system: Any, tokens: int | None, default: int) -> Any:
    """The tokens of the point that --lost asks about, as many as in the runs."""
    point = place.equilibrium(system, None, default)
    count = len(point.x)
    if tokens is not None and count != tokens:
        option = "--split" if place.split is not None else "--signs"
        message = f"--tokens is {tokens} and {option} has {count} tokens; give one of them"
        raise RequestError(message)
    if point.status != "equilibrium":
        message = f"--lost {place.name}: the point is no equilibrium (status: {point.status})"
        raise RequestError(message)
    return point.x

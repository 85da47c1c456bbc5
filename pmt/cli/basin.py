"""`pmt basin`: which fraction of the initial conditions of a system ends where."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from pmt.cli import answers, screen
from pmt.cli.basin_lines import escape_words, shares, summary, table
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
from pmt.cli.unfinished import resumable, unfinished
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_json

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

    All devices share the work, and with --coordinator those of several hosts; the numbers do not
    depend on how many there are. A device is given twice --chunk initial conditions at a time, so
    devices stay idle where --samples is less than that for each. With --out a run that is stopped
    keeps what it has finished, and the same command goes on with it.

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
            import jax

            from pmt import spectral
            from pmt.parallel.workers import Workers
            from pmt.stability.basin import basin_fractions

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
            request = _request(described, asked, dtype, platform)
            if hosts is not None:
                hosts.require_same(request)
            writes = hosts is None or hosts.first
            folder = store = None
            if out is not None and writes:
                folder = prepare_output_directory(out, writer="pmt basin", overwrite=overwrite)
                store = unfinished(folder, request, overwrite)
            pairs = spectral.eigenpairs(spectral.layer_matrix(built))
            if writes:
                screen.show(*answers.system_lines(described, pairs.values))
            listen()
            devices = tuple(jax.local_devices(backend=platform))
            with (
                resumable(store),
                screen.progress("initial conditions", total=samples) as advance,
            ):

                def heed(done: int) -> None:
                    advance(done)
                    listen()

                workers = Workers(devices, store, hosts)
                found = basin_fractions(
                    built, workers=workers, progress=heed, verdicts=writes, **asked
                )
            status = Status.DONE if found.reached else Status.ANSWER_IS_NO
            if hosts is not None and not writes:
                last_words(hosts, listen)
                return finished(hosts, status)
            screen.show(*summary(found), table(found))
            report = {
                "schema": "pmt.basin/1",
                "system": described.document(),
                "settings": answers.settings(dtype, platform, seed),
                "eigenvalues": pairs.values,
                "basins": found.as_dict(),
                "map": None,
                "lost": None,
            }
            listen()
            drawn = {}
            if folder is not None:
                from pmt.figures import basins as figures

                drawn["fractions"] = figures.fraction_bars(found, f"{described.kind}, {n} tokens")
            if map_ is not None:
                mapped = _map(built, n, seed, map_, max_steps, tolerance, listen)
                screen.show(answers.line("map", shares(mapped.attractors)))
                report["map"] = _map_document(mapped)
                if folder is not None:
                    drawn["map"] = figures.sphere_basins(mapped, "start of the first token")
                listen()
            if point is not None:
                escape = _escape(built, point, directions, seed, max_steps, tolerance, listen)
                screen.show(answers.line("lost", escape_words(escape)))
                report["lost"] = escape.as_dict()
                if folder is not None:
                    drawn["lost"] = figures.escape_figure(escape, f"{lost} point")
            if folder is not None:
                from pmt.figures.style import save

                for name, figure in drawn.items():
                    save(figure, folder, name)
                write_json(folder / "result.json", report)
            if json is not None:
                write_json(json, report)
            if store is not None:
                store.discard()
            return finished(hosts, status)


def _map(
    system: Any,
    n: int,
    seed: int,
    pixels: int,
    max_steps: int,
    tolerance: Any,
    listen: Callable[[], None],
) -> Any:
    import jax.numpy as jnp

    from pmt.stability.basin import sample_starts
    from pmt.stability.basin_map import sphere_map

    dtype = system.layer_matrix.dtype
    others = jnp.asarray(sample_starts(seed, [0], n, 3, dtype)[0, 1:])
    return sphere_map(
        system,
        others,
        resolution=pixels,
        max_steps=max_steps,
        tolerance=tolerance,
        progress=lambda _done: listen(),
    )


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


def _escape(
    system: Any,
    point: Any,
    directions: int,
    seed: int,
    max_steps: int,
    tolerance: Any,
    listen: Callable[[], None],
) -> Any:
    from pmt.stability.escape import escape_radius

    return escape_radius(
        system,
        point,
        directions=directions,
        seed=seed,
        max_steps=max_steps,
        tolerance=tolerance,
        progress=lambda _done: listen(),
    )


def _request(described: Any, asked: dict[str, Any], dtype: str, platform: str) -> dict[str, Any]:
    """All that the runs depend on."""
    from importlib.metadata import version

    import jax

    from pmt import __version__

    versions = {"pmt": __version__, **{name: version(name) for name in ("jax", "jaxlib", "numpy")}}
    return {
        "schema": "pmt.basin-units/1",
        "system": described.document(),
        **asked,
        "dtype": dtype,
        "platform": platform,
        # Decides which random numbers are drawn.
        "threefry_partitionable": bool(jax.threefry_partitionable.value),
        "versions": versions,
    }

"""`pmt basin-map`: which start ends where, drawn over the sphere or over a slice."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from pmt.cli.point_options import (
    Index,
    Placement,
    Signs,
    Split,
    Tokens,
    Tolerance,
    read_tokens,
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
from pmt.files import write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table

Over = Annotated[
    Literal["sphere", "slice"] | None,
    typer.Option(
        "--over",
        help="sphere: one token is moved over all of it (d = 3). slice: all tokens are moved in "
        "two directions. The sphere where d = 3, if not given.",
        show_default=False,
    ),
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="START",
        help="State that is moved from: random (sample 0 of 'pmt basin' with the same seed), "
        "consensus, bipartite, polygonal, or a .npy file with one token a row.",
    ),
]
Moved = Annotated[
    int,
    typer.Option("--token", min=1, metavar="K", help="Sphere: the token that is moved, from 1."),
]
First = Annotated[
    Path | None,
    typer.Option(
        "--first",
        metavar="FILE.npy",
        help="Slice: direction of its first axis, as large as the state; random if not given.",
        show_default=False,
    ),
]
Second = Annotated[
    Path | None,
    typer.Option(
        "--second", metavar="FILE.npy", help="Slice: likewise of the second.", show_default=False
    ),
]
Extent = Annotated[
    float | None,
    typer.Option(
        "--extent",
        parser=number(above=0.0),
        metavar="X",
        help="Slice: half its width, as geodesic distance in the product of spheres. [3]",
        show_default=False,
    ),
]
Resolution = Annotated[
    int, typer.Option("--resolution", min=2, max=2001, metavar="PIXELS", help="Pixels across.")
]
MaxSteps = Annotated[
    int, typer.Option("--max-steps", min=1, metavar="N", help="Budget of each start.")
]

_TOKENS, _EXTENT = 6, 3.0


def basin_map(
    system: SystemFile = None,
    over: Over = None,
    start: Start = "random",
    tokens: Tokens = None,
    index: Index = None,
    split: Split = None,
    signs: Signs = None,
    token: Moved = 1,
    first: First = None,
    second: Second = None,
    extent: Extent = None,
    resolution: Resolution = 101,
    max_steps: MaxSteps = 10_000,
    tolerance: Tolerance = None,
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
    coordinator: Coordinator = None,
    num_processes: ProcessCount = None,
    process_id: ProcessId = None,
    host_timeout: HostTimeout = HOST_TIMEOUT,
) -> int:
    """Draw which start ends where.

    Over the sphere (d = 3) one token starts at every pixel of two equal-area discs, and the others
    where they are. Over a slice all tokens start at the ends of geodesics from one state, along two
    directions. Where each start ends is said as by 'pmt basin'. With --out it draws the map and
    writes the number of the attractor of every pixel, label.npy, and attractors.csv.

    All devices divide the starts, and with --coordinator those of several hosts; the map does not
    depend on how many there are. With --out a run that is stopped keeps what it has finished, and
    the same command goes on with it.

    For instance: pmt basin-map --value diag:1,0.5,-0.3 --query-key diag:4,0,0 --alpha 0.2 --out map
    """
    spot = Place(coordinator, num_processes, process_id, host_timeout)
    if spot.several and (ended := supervised(host_timeout)) is not None:
        return ended
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
    d = described.dimension
    chosen = over or ("sphere" if d == 3 else "slice")
    _check(chosen, d, token, {"--first": first, "--second": second, "--extent": extent})
    with between_pieces() as listen:
        with spot.joined() as hosts:
            platform = start_backend(device, dtype)
            from pmt import spectral

            built = described.build(dtype)
            state, source = _state(place, described, built, dtype, seed)
            if token > len(state):
                message = f"--token is {token}, and the state has {len(state)} tokens"
                raise RequestError(message)
            starts = (
                _sphere(state, token - 1)
                if chosen == "sphere"
                else _slice(state, (first, second), extent or _EXTENT, seed)
            )
            limits = {"max_steps": max_steps, "tolerance": tolerance}
            asked = {"over": chosen, "resolution": resolution, **starts, **limits}
            request = request_of(
                "pmt.basin-map-units/1", described.document(), asked, dtype, platform
            )
            division = Division.of(hosts, request, out, "pmt basin-map", overwrite)
            pairs = spectral.eigenpairs(spectral.layer_matrix(built))
            if division.writes:
                screen.show(*answers.system_lines(described, pairs.values))
                screen.show(answers.line("start", source))
            listen()
            with (
                division.at_work(),
                heeding("starts", _count_of_starts(chosen, resolution), listen) as heed,
            ):
                found = _mapped(chosen)(
                    built,
                    **starts,
                    **limits,
                    resolution=resolution,
                    workers=division.workers(platform),
                    progress=heed,
                )
            if hosts is not None and not division.writes:
                last_words(hosts, listen)
                return finished(hosts, Status.DONE)
            screen.show(_table(found, chosen))
            report = {
                "schema": "pmt.basin-map/1",
                "system": described.document(),
                "settings": answers.settings(dtype, platform, seed) | limits,
                "eigenvalues": pairs.values,
                "over": chosen,
                "start": {"source": source, "tokens": state},
                "attractors": [each.as_dict() for each in found.attractors],
                **{name: each for name, each in vars(found).items() if name != "attractors"},
            }
            listen()
            folder = division.folder
            if folder is not None:
                _write(folder, found, chosen, f"around {source}" if chosen == "slice" else token)
            if json is not None:
                write_json(json, report)
            division.discard()
            if folder is not None:
                screen.show(f"the map is in {folder}")
            return finished(hosts, Status.DONE)


def _check(chosen: str, d: int, token: int, of_slice: dict[str, Any]) -> None:
    if chosen == "sphere" and d != 3:
        message = f"--over sphere is for d = 3, and this system has d = {d}; give --over slice"
        raise RequestError(message)
    given = [name for name, value in of_slice.items() if value is not None]
    if chosen == "sphere" and given:
        message = f"{given[0]} is about a slice; give --over slice too, or leave it out"
        raise RequestError(message)
    if chosen == "slice" and token != 1:
        message = "--token is about the sphere; a slice moves all tokens"
        raise RequestError(message)


def _state(place: Placement, described: Any, built: Any, dtype: str, seed: int) -> tuple[Any, str]:
    """The tokens ``(n, d)``, NumPy, and where they come from in words."""
    import numpy as np

    if place.is_named:
        point = place.equilibrium(built, described.mask_size, _TOKENS)
        return np.asarray(point.x), f"{place.name} point, {_count(len(point.x))}"
    if place.name == "random":
        from pmt.stability.basin import sample_starts

        n = place.tokens or described.mask_size or _TOKENS
        require_affordable(built, n)
        x = sample_starts(seed, [0], n, described.dimension, np.dtype(dtype))[0]
        return x, f"{_count(n)}, random (seed {seed})"
    x, remark = read_tokens(Path(place.name), described.dimension, dtype)
    require_affordable(built, len(x))
    return x, f"{_count(len(x))} from {place.name}" + (f"; {remark}" if remark else "")


def _count(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def _count_of_starts(chosen: str, resolution: int) -> int:
    from pmt.stability.basin_map import pixel_points

    return 2 * int(pixel_points(resolution)[0].sum()) if chosen == "sphere" else resolution**2


def _mapped(chosen: str) -> Callable[..., Any]:
    from pmt.stability.basin_map import slice_map, sphere_map

    return sphere_map if chosen == "sphere" else slice_map


def _sphere(state: Any, token: int) -> dict[str, Any]:
    """What ``sphere_map`` is given beside its options."""
    import numpy as np

    return {"others": np.delete(state, token, axis=0), "token": token}


def _slice(
    state: Any, files: tuple[Path | None, Path | None], extent: float, seed: int
) -> dict[str, Any]:
    """What ``slice_map`` is given beside its options."""
    import numpy as np

    from pmt.cli.reading import read_npy

    rng = np.random.default_rng([seed, 3])
    # Both are drawn, so that giving one of them does not change the other.
    drawn = rng.standard_normal((2, *state.shape))
    first, second = (
        random if file is None else read_npy(file)
        for file, random in zip(files, drawn, strict=True)
    )
    return {"center": state, "first": first, "second": second, "extent": extent}


def _table(found: Any, chosen: str) -> "Table":
    from rich.table import Table

    what = "the sphere" if chosen == "sphere" else "the slice"
    table = Table("attractor", title=f"where they end, share of {what}", title_justify="left")
    table.title_style = ""
    for name in ("starts", "share"):
        table.add_column(name, justify="right")
    for each in found.attractors:
        table.add_row(each.name, str(each.share.count), f"{each.share.fraction:.4f}")
    return table


def _write(folder: Path, found: Any, chosen: str, where: Any) -> None:
    import numpy as np

    from pmt.experiments.record import csv_text
    from pmt.figures import basins as figures
    from pmt.figures.style import save

    if chosen == "sphere":
        figure = figures.sphere_basins(found, f"start of token {where}")
    else:
        figure = figures.slice_basins(found, str(where), ("first direction", "second direction"))
    save(figure, folder, "map")
    rows = [
        {
            "number": number,
            "attractor": each.name,
            "kind": each.kind,
            "starts": each.share.count,
            "share": each.share.fraction,
        }
        for number, each in enumerate(found.attractors)
    ]
    write_atomically(folder / "attractors.csv", csv_text(rows))
    write_atomically(folder / "label.npy", lambda stream: np.save(stream, found.label))

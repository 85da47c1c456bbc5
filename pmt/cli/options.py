"""The options that subcommands share, and what several of them do first.

A subcommand annotates its parameters with the types below and gives the defaults itself::

    def simulate(steps: Count = 1000, json: JsonFile = None, dtype: Dtype = "float64") -> None:
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pmt.errors import RequestError
from pmt.files import require_writable_file

DeviceName = Literal["cpu", "gpu", "tpu"]
DtypeName = Literal["float32", "float64"]


def number(
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> Callable[[str | float], float]:
    """A parser for `typer.Option(parser=...)`: a finite number within the given bounds."""

    # Typer hands over the default value too, which is a number already.
    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            message = f"{text!r} is not a finite number"
            raise typer.BadParameter(message)
        for holds, bound in (
            (value > above, f"above {above}"),
            (value >= at_least, f"at least {at_least}"),
            (value < below, f"below {below}"),
            (value <= at_most, f"at most {at_most}"),
        ):
            if not holds:
                message = f"{text} is not {bound}"
                raise typer.BadParameter(message)
        return value

    return parse


def _writable(path: Path | None) -> Path | None:
    # Found out now and not after the work.
    return None if path is None else require_writable_file(path)


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", callback=_writable, help="Write what the screen shows, complete."
    ),
]


def _where_to(context: Any, path: Path | None) -> Path | None:
    # Options that were not given come after those that were.
    if path is None and context.params.get("overwrite"):
        raise RequestError("--overwrite goes with --out; give the folder that is written into")
    return path


OutDirectory = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", callback=_where_to, help="Folder for figures and tables."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write into a folder that holds other files.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="Seed of all randomness.")
]
Device = Annotated[
    DeviceName | None,
    typer.Option("--device", help="Where to compute; the best there is, if not given."),
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision of the computation.")]
Count = Annotated[int, typer.Option(min=1, metavar="N")]
Finite = Annotated[float, typer.Option(parser=number(), metavar="X")]
Positive = Annotated[float, typer.Option(parser=number(above=0.0), metavar="X")]


def at_most_one(given: Mapping[str, Any]) -> str | None:
    """The name of the one option that was given, if any; two are a contradiction.

    `given` maps an option's name, as the user writes it, to its value, which is `None` or `False`
    where it was not given.
    """
    present = [name for name, value in given.items() if value is not None and value is not False]
    if len(present) > 1:
        message = f"{' and '.join(present)} contradict each other; give one of them"
        raise RequestError(message)
    return present[0] if present else None


def gpu() -> Any:
    """The GPU that ``start_backend`` was asked for, as a `jax.Device`."""
    import jax

    return jax.local_devices(backend="gpu")[0]


def start_backend(device: DeviceName | None, dtype: DtypeName) -> str:
    """Set the platform and precision for this process, start JAX, and return the platform's name.

    Only a subcommand calls this, and first: the library itself never changes JAX's configuration.

    Raises:
      RequestError: where the device is not there.
    """
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        if device is None:
            return jax.local_devices()[0].platform
        # The host computes eigenpairs, so it stays in reach.
        wanted = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}[device]
        jax.config.update("jax_platforms", wanted)
        # With several processes the others' devices are listed too.
        first = jax.local_devices(backend=device)[0]
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 1)[0].split()).rstrip(".")
        message = (
            f"there is no {device or 'usable'} device here ({reason}); "
            "install the accelerator's extra, or give --device cpu"
        )
        raise RequestError(message) from error
    # A default says that the other devices are to be left alone, so not where it is one already.
    if first != jax.local_devices()[0]:
        jax.config.update("jax_default_device", first)
    return first.platform

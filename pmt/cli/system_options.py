"""The options by which a command is told its system: a file, matrices, or a random one."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pmt.cli.options import at_most_one, number
from pmt.cli.plain_data import as_mask, parse_diagonal
from pmt.cli.reading import parse_json
from pmt.cli.system_file import SystemDescription, as_description, read_system
from pmt.errors import RequestError

SystemFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="SYSTEM",
        help="JSON or .npz file of the system: kind, value, query_key, alpha, scale, mask.",
        show_default=False,
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="MATRIX",
        help="Value matrix, as [[1,0],[0,0.5]] or diag:1,0.5; once for every head.",
        show_default=False,
    ),
]
QueryKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--query-key",
        metavar="MATRIX",
        help="Query-key matrix QᵀK, likewise; without it the tokens do not steer attention (Oja).",
        show_default=False,
    ),
]
Random = Annotated[
    str | None,
    typer.Option(
        "--random",
        metavar="D[,H]",
        help="Random Gaussian matrices of dimension D with H heads, value matrices symmetric.",
        show_default=False,
    ),
]
Kind = Annotated[
    Literal["oja", "single-head", "multi-head"] | None,
    typer.Option("--kind", help="Kind of system, where the matrices leave it open."),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha", parser=number(), metavar="X", help="Step size; 1, or what the file says."
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale", parser=number(), metavar="X", help="Logit scale; 1, or what the file says."
    ),
]
MaskName = Annotated[
    str | None,
    typer.Option(
        "--mask", metavar="MASK", help="full, causal or window:K; full, or what the file says."
    ),
]

# Entries of random matrices that still fit into memory beside everything else.
_MOST_ENTRIES = 2**26


def requested_system(
    file: Path | None,
    *,
    value: list[str] | None,
    query_key: list[str] | None,
    random: str | None,
    kind: str | None,
    alpha: float | None,
    scale: float | None,
    mask: str | None,
    seed: int,
) -> SystemDescription:
    """The one system that the options name; alpha, scale and mask replace those of a file.

    Raises:
      RequestError: no system, two of them, or one that is not sound.
    """
    matrices = value or query_key
    source = at_most_one({"a SYSTEM file": file, "--value": matrices or None, "--random": random})
    if source is None:
        message = "no system is given; name a file, or give --value or --random"
        raise RequestError(message)
    if file is not None:
        described = read_system(file)
        if kind not in (None, described.kind):
            message = f"--kind {kind} contradicts {file}, whose kind is {described.kind}"
            raise RequestError(message)
    elif random is not None:
        described = _random_system(random, kind, seed)
    else:
        described = _from_matrices(value or [], query_key or [], kind)
    if scale is not None and described.kind == "oja":
        message = "--scale contradicts the kind oja, which has no logits to scale"
        raise RequestError(message)
    given: dict[str, Any] = {"alpha": alpha, "scale": scale}
    given["mask"] = None if mask is None else as_mask(mask)
    return replace(described, **{name: each for name, each in given.items() if each is not None})


def _from_matrices(value: list[str], query_key: list[str], kind: str | None) -> SystemDescription:
    meant = "oja" if not query_key else "single-head" if len(query_key) == 1 else "multi-head"
    if kind == "multi-head" and query_key:
        meant = kind
    if kind not in (None, meant):
        message = (
            f"--kind {kind} contradicts {len(query_key)} --query-key; oja has none, single-head "
            "one, multi-head one for every --value"
        )
        raise RequestError(message)
    if len(value) != max(len(query_key), 1):
        message = (
            f"there are {len(value)} --value and {len(query_key)} --query-key; "
            "give one of each for every head, or one --value alone for an Oja system"
        )
        raise RequestError(message)
    values = [_matrix(text, "--value") for text in value]
    keys = [_matrix(text, "--query-key") for text in query_key]
    if meant == "multi-head":
        return as_description({"kind": meant, "value_output": values, "query_key": keys})
    both = {"value": values[0], **({"query_key": keys[0]} if keys else {})}
    return as_description({"kind": meant, **both})


def _matrix(text: str, name: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return parse_json(text)
        except ValueError as error:
            message = (
                f"{name} is no JSON ({error}); write a list of rows such as [[1, 0], [0, 0.5]]"
            )
            raise RequestError(message) from error
    parse_diagonal(text, name)
    return text


def _random_system(size: str, kind: str | None, seed: int) -> SystemDescription:
    """Gaussian matrices: F_h symmetric with |Σ F_h| near 1, B_h with entries of variance 1/d."""
    import numpy as np

    d, heads = _dimensions(size)
    meant = kind or ("single-head" if heads is None else "multi-head")
    if heads is not None and meant != "multi-head":
        message = f"--kind {meant} contradicts --random {size}: only multi-head has heads"
        raise RequestError(message)
    draw = np.random.default_rng([seed, 0]).standard_normal
    shape = (heads or 1, d, d)
    gaussian = draw(shape)
    value = (gaussian + np.swapaxes(gaussian, -1, -2)) / np.sqrt(8 * d * (heads or 1))
    query_key = draw(shape) / np.sqrt(d)
    if meant == "multi-head":
        return SystemDescription(meant, {"value_output": value, "query_key": query_key})
    if meant == "oja":
        return SystemDescription(meant, {"value": value[0]})
    return SystemDescription(meant, {"value": value[0], "query_key": query_key[0]})


def _dimensions(text: str) -> tuple[int, int | None]:
    parts = text.split(",")
    plain = len(parts) <= 2 and all(p.isascii() and p.isdigit() and len(p) < 9 for p in parts)
    numbers = [int(part) for part in parts] if plain else [0]
    if not 1 <= numbers[0] ** 2 * numbers[-1] <= _MOST_ENTRIES:
        message = (
            f"--random is {text!r}; it must be D or D,H, the dimension and the number of heads, "
            f"with D*D*H from 1 to {_MOST_ENTRIES}"
        )
        raise RequestError(message)
    return numbers[0], numbers[1] if len(numbers) == 2 else None

"""The table of subcommands, and the options that stand before them."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from pmt import __version__
from pmt.cli.exits import Call, Status


class Entry(NamedTuple):
    """A subcommand: `module` holds a function (or a `typer.Typer`) called `name`, `-` as `_`.

    `smaller` says what to reduce where the device runs out of memory.
    """

    name: str
    module: str
    help: str
    smaller: str = "what was asked for"


COMMANDS = (
    Entry(
        "verify",
        "pmt.cli.verify",
        "Check the papers' statements on random instances.",
        "--instances",
    ),
    Entry("stability", "pmt.cli.stability", "Spectrum and verdict of one system at one point."),
    Entry(
        "simulate",
        "pmt.cli.simulate",
        "Run a system and draw its tokens and alignment.",
        "--tokens, or the dimension of the system",
    ),
    Entry(
        "basin",
        "pmt.cli.basin",
        "Which fraction of the initial conditions ends where.",
        "--chunk (a run with --out then needs another --out, or --overwrite)",
    ),
    Entry(
        "basin-map",
        "pmt.cli.basin_maps",
        "Draw which start ends where, over the sphere or a slice.",
        "--tokens, or the dimension of the system",
    ),
    Entry(
        "phase",
        "pmt.cli.phase",
        "Where a bipartite point is stable, over two parameters.",
        "--theta, --ratio or --split",
    ),
    Entry(
        "analyze",
        "pmt.cli.analyze",
        "Spectra and alignment of a checkpoint's layers.",
        "the length of the texts, or the number of prompts in --tokens",
    ),
    Entry("steer", "pmt.cli.steer", "Turn a layer's tokens to a direction, and measure it."),
    Entry("reproduce", "pmt.cli.reproduce", "Every figure and table of the paper, by number."),
    Entry(
        "loop",
        "pmt.cli.loop",
        "The looped transformer: training, and what Norm does.",
        "--batch, --d or --n",
    ),
    Entry("report", "pmt.cli.report", "Everything above, small, as one page."),
)


# Typer keeps the line breaks of a paragraph that starts with a backspace.
_HELP = """
Transformer layers as power methods: dynamics, stability, real checkpoints.

\b
Exit status:
   0  done
   1  done, and the answer is no
   2  the request was wrong
   3  interrupted or incomplete, and resumable
  70  a fault in pmt itself
"""


class LazyGroup(TyperGroup):
    """Lists every subcommand from the table, and imports the one that was named."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # These stand for the commands in the list and in suggestions; none of them is ever run.
        self.commands = {
            entry.name: TyperCommand(name=entry.name, help=entry.help) for entry in COMMANDS
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Replace the stand-in for the named command by the command itself."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in COMMANDS if entry.name == name), None)
        return (name, stand_in if entry is None else _load(entry), rest)


def run(arguments: Sequence[str] | None, call: Call) -> int:
    """Parse `arguments`, run what they name, and return its exit status."""
    group = get_command(_frame())
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        with suppress(typer.Exit):
            group.make_context("pmt", ["--help"])
        return Status.WRONG_REQUEST
    with group.make_context("pmt", given) as context:
        call.debug = context.params["debug"]
        try:
            result = group.invoke(context)
        finally:
            name = context.invoked_subcommand
            call.smaller = next((e.smaller for e in COMMANDS if e.name == name), call.smaller)
    return Status.DONE if result is None else int(result)


def _load(entry: Entry) -> Any:
    command = getattr(import_module(entry.module), entry.name.replace("-", "_"))
    if isinstance(command, typer.Typer):
        return get_command(command)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(entry.name)(command)
    return get_command(single)


def _frame() -> typer.Typer:
    frame = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    frame.callback(help=_HELP)(_options)
    return frame


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"pmt {__version__}")
        raise typer.Exit
    return wanted


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="PMT_DEBUG", help="Show the traceback of a failure."),
    ] = False,
) -> None:
    """Do nothing: both are answered elsewhere, and only their help is needed here."""
    del version, debug

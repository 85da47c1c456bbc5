"""What a subcommand shows: results on standard output, progress on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pmt.cli.interrupts import between_pieces

if TYPE_CHECKING:
    from rich.table import Table


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for `total` pieces of work while standard error is a terminal, else nothing.

    With it stand the time that went by and an estimate of what is left.

    A request to end the run is heard between the pieces (see `pmt.cli.interrupts`). Yields a
    function to be called with the number of pieces just finished::

        with progress("instances", total=10_000) as advance:
            for chunk in chunks:
                ...
                advance(len(chunk))
    """
    with between_pieces() as listen, _bar(what, total) as shown:

        def advance(done: int) -> None:
            shown(done)
            listen()

        yield advance


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # The estimate from the pace of the last minutes, since pieces are seldom equal. Transient, so
    # that what stays on the screen is the result.
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=180,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def _unseen(done: int) -> None:
    del done


def show(*parts: "str | Table") -> None:
    """Print tables and lines; a pipe or file gets tables at full width, not cut to a screen's."""
    from rich.console import Console

    # Numbers in square brackets are intervals here and not markup.
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
    if not console.is_terminal:
        console.width = 10_000
    for part in parts:
        console.print(part)

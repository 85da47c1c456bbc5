"""Small subcommands for the tests of the frame, run for real by `python -m tests.cli.probes`."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pmt.cli import app, main, options, screen
from pmt.files import write_atomically

NAMES = ("chatter", "table", "echo", "slow")


def chatter(lines: int = 100_000) -> None:
    """Print more than a pipe holds."""
    for line in range(lines):
        typer.echo(f"line {line}")


def table() -> None:
    """Print more than a pipe holds, by rich."""
    for line in range(20_000):
        screen.show(f"line {line}")


def echo(text: str, out: Annotated[Path, typer.Option()]) -> None:
    """Open a file, print, and write the file."""
    with open(out, "w", encoding="utf-8") as file:
        print(f"on the screen: {text}")
        screen.show("also on the screen")
        file.write(text)


def slow(
    path: Annotated[Path, typer.Argument()], seconds: options.Positive = 60.0, ready: bool = True
) -> None:
    """Take long over a file: half of it, a wait, the other half."""

    def content(file):
        file.write(b"first half")
        file.flush()
        if ready:
            print("ready", flush=True)
        time.sleep(seconds)
        file.write(b", second half")

    write_atomically(path, content)


if __name__ == "__main__":
    app.COMMANDS += tuple(app.Entry(name, "tests.cli.probes", f"{name}.") for name in NAMES)
    sys.exit(main())

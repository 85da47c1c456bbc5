"""The command line: one file per subcommand, imported when it is asked for.

Nothing at the top of a file in this folder may load jax, numpy, scipy or matplotlib: `pmt --help`
and a refused request must not wait for them. A subcommand imports what it computes with inside its
function.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pmt` on `arguments` (those of the process, if none are given) and return its status."""
    from pmt.cli.app import run
    from pmt.cli.exits import guarded

    return guarded(run, arguments)

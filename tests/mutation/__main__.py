"""``python -m tests.mutation``: changes formulas one at a time and says what is noticed."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from tests.mutation.campaign import ROOT, Answer, campaign
from tests.mutation.mutation import Mutation
from tests.mutation.table import MUTATIONS

RESULTS = Path(__file__).with_name("RESULTS.md")


def versions() -> str:
    """Date and versions, in one line."""
    import platform

    import jax
    import numpy

    import pmt

    return (
        f"{date.today().isoformat()}, pmt {pmt.__version__}, jax {jax.__version__}, "
        f"numpy {numpy.__version__}, Python {platform.python_version()}"
    )


def as_table(mutations: list[Mutation], answers: list[Answer]) -> str:
    """RESULTS.md, of the changes that were run."""
    caught = sum(answer.failed for answer in answers)
    lines = [
        "# Changed formulas, and what notices",
        "",
        f"Written by `python -m tests.mutation --results`: {versions()}.",
        f"{caught} of {len(answers)} changes were caught; on the unchanged tree every check passed."
        f" The table has {len(MUTATIONS)} changes; those that are not below were not run.",
        "",
        "| change | file | before | after | caught by | caught |",
        "|---|---|---|---|---|---|",
    ]
    for mutation, answer in zip(mutations, answers, strict=True):
        cells = [
            mutation.name,
            mutation.file,
            f"`{mutation.before}`",
            f"`{mutation.after}`" if mutation.after else "(nothing)",
            mutation.caught_by.split("/")[-1],
            "yes" if answer.failed else f"NO: {answer.detail}",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs, reports, and answers 1 if a change was missed or a check fails without any."""
    names = [mutation.name for mutation in MUTATIONS]
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", choices=names, action="append", metavar="NAME", help="this one")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--json", type=Path, help="write the answers here")
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.only or m.name in arguments.only]
    if arguments.list:
        print("\n".join(f"{m.name}: {m.file}, caught by {m.caught_by}" for m in chosen))
        return 0
    plain, answers = campaign(
        chosen,
        workers=arguments.workers,
        done=lambda a: print(
            f"{a.name}: {'fails' if a.failed else 'passes'} ({a.seconds:.0f} s) {a.detail}",
            flush=True,
        ),
    )
    broken = [answer for answer in plain if answer.failed]
    missed = [answer for answer in answers if not answer.failed]
    print(f"{len(answers) - len(missed)} of {len(answers)} changes were caught")
    for answer in broken:
        print(f"fails without any change: {answer.name}: {answer.detail}")
    for answer in missed:
        print(f"missed: {answer.name}: {answer.detail}")
    if arguments.json:
        data = {
            "environment": versions(),
            "unchanged": [asdict(answer) for answer in plain],
            "changed": [asdict(answer) for answer in answers],
        }
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")
    if arguments.results and not broken:
        RESULTS.write_text(as_table(chosen, answers))
    return 1 if broken or missed else 0


if __name__ == "__main__":
    sys.exit(main())

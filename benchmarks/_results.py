"""The file that holds the results of one machine: one entry a benchmark, the latest run of each."""

import json
from pathlib import Path
from typing import Any

from pmt.errors import RequestError
from pmt.files import write_json

SCHEMA = "pmt.benchmarks/1"

Entries = dict[str, dict[str, Any]]


def read(path: Path) -> Entries:
    """What the file holds, by the name of the benchmark; nothing if there is no file.

    Raises:
      RequestError: a file of another kind.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    known = isinstance(content, dict) and content.get("schema") == SCHEMA
    if not known or not isinstance(content.get("benchmarks"), dict):
        message = f"{path} does not hold benchmark results ({SCHEMA}); name another file"
        raise RequestError(message)
    entries: Entries = content["benchmarks"]
    return entries


def merge(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Put the run of one benchmark in the place of its last one; the others stay as they are."""
    write(path, read(path) | {name: entry})


def write(path: Path, entries: Entries) -> None:
    """The whole file.

    Raises:
      OSError: it cannot be written.
    """
    ordered = {known: entries[known] for known in sorted(entries)}
    write_json(path, {"schema": SCHEMA, "benchmarks": ordered})

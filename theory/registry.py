"""Finds the statements: every function of this package that is marked ``numbered``."""

import pkgutil
import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

import theory
from pmt.errors import RequestError
from theory.statement import Statement


def statements(modules: Sequence[ModuleType] | None = None) -> dict[str, Statement]:
    """All statements by id, in the order of their numbers.

    Modules of this package import without any extra, so none is skipped: what cannot be imported
    is an error and not a missing statement.

    Parameters
    ----------
    modules
        Where to look; all of this package if None.
    """
    found: dict[str, Statement] = {}
    for module in _modules() if modules is None else modules:
        for value in vars(module).values():
            if getattr(value, "makes_statement", False) and value.__module__ == module.__name__:
                statement = value()
                if statement.id in found:
                    message = f"two statements have the id {statement.id}"
                    raise ValueError(message)
                found[statement.id] = statement
    return dict(sorted(found.items(), key=lambda item: _number(item[0])))


def _number(name: str) -> tuple[str, list[int], str]:
    """``lemma-10`` after ``lemma-4``, ``ii.10`` after ``ii.9``."""
    kind = re.split(r"[-.]", name, maxsplit=1)[0]
    return kind, [int(digits) for digits in re.findall(r"\d+", name)], name


def choose(ids: Sequence[str], among: dict[str, Statement]) -> list[Statement]:
    """The statements with these ids, or that cover these numbers, in the order asked for.

    All if none is named.

    Raises:
    ------
    RequestError
        For an id that does not exist, naming the closest ones.
    """
    covering = {number: one for one in among.values() for number in (*one.covers, one.id)}
    for wanted in ids:
        if wanted not in covering:
            close = get_close_matches(wanted.lower().replace(" ", "-"), covering, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else "see pmt verify --list"
            message = f"there is no statement {wanted!r}; {hint}"
            raise RequestError(message)
    chosen = {covering[name].id: covering[name] for name in ids}
    return list(chosen.values()) if ids else list(among.values())


def _modules() -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(theory.__path__))
    return [import_module(f"theory.{name}") for name in names]

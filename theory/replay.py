"""Violated instances as files: the exact inputs, so that anyone gets the same margin again."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pmt.errors import RequestError
from pmt.files import write_json
from theory.conjecture import NO_MARGIN, Conjecture
from theory.results import Evaluated, FormResult
from theory.statement import Clause, Explicit, FormName, Shape, Statement
from theory.verify import Runner

SCHEMA = "pmt.violation/1"

_RELATIVE = 1e-6
_MASKS = get_args(Shape.__annotations__["mask"])
_LARGEST = 64


@dataclass(frozen=True)
class Replay:
    """A recorded instance, evaluated again.

    Attributes:
    ----------
    statement, form
        What it is about.
    recorded, observed
        The instance with the margin in the file and the one computed now.
    hypotheses
        The margin of every hypothesis at the instance, >= 0 where it holds.
    changed
        Whether the file of the conjecture is not the one that it was recorded with.
    """

    statement: str
    form: FormName
    recorded: Evaluated
    observed: Evaluated
    hypotheses: dict[str, float]
    changed: bool = False

    @property
    def allowed(self) -> float:
        """By how much the margins may differ: the tolerance in the file, and 1e-6 of the margin."""
        return self.recorded.tolerance + _RELATIVE * abs(self.recorded.value)

    @property
    def agrees(self) -> bool:
        """Whether the status is the same, and the margin within what is allowed."""
        difference = abs(self.recorded.value - self.observed.value)
        return self.recorded.outcome == self.observed.outcome and difference <= self.allowed


def save_violations(
    folder: Path,
    statement: str,
    result: FormResult,
    *,
    keep: int,
    conjecture: Conjecture | None = None,
) -> list[Path]:
    """Writes the first ``keep`` violations of a form, one file each, and returns the paths."""
    width = len(str(keep))
    paths = []
    for number, instance in enumerate(result.violations[:keep], start=1):
        path = folder / f"{statement}.{result.form}.{number:0{width}d}.json"
        paths.append(save(path, statement, result.form, instance, conjecture))
    return paths


def save(
    path: Path,
    statement: str,
    form: FormName,
    instance: Evaluated,
    conjecture: Conjecture | None = None,
) -> Path:
    """Writes one instance with its margin; of a conjecture, with its file's path and hash."""
    file = {}
    if conjecture is not None:
        file = {"file": {"path": str(conjecture.path.resolve()), "sha256": conjecture.sha256}}
    return write_json(
        path,
        file
        | {
            "schema": SCHEMA,
            "statement": statement,
            "form": form,
            "clause": instance.clause,
            "name": instance.name,
            "status": instance.outcome,
            "margin": instance.value,
            "tolerance": instance.tolerance,
            "shape": asdict(instance.shape),
            "inputs": as_inputs(instance.case),
        },
    )


def as_inputs(case: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of an instance as nested lists: shortest decimals that read back exactly."""
    return {name: np.asarray(value).tolist() for name, value in case.items()}


def replay(
    path: str | os.PathLike[str],
    statements: Mapping[str, Statement],
    conjecture: Conjecture | None = None,
) -> Replay:
    """Evaluates a recorded instance again.

    Parameters
    ----------
    path
        The record.
    statements
        Those of the papers, by id.
    conjecture
        For a violation of a conjecture, which a record names but never runs by itself.

    Raises:
    ------
    RequestError
        Where the file cannot be read, is no such file, or its statement or clause is gone; where
        it belongs to a conjecture and none is given, or the other way round.
    """
    data = _read(Path(path))
    try:
        changed = _compared(path, data.get("file"), conjecture)
        clause = _clause(data, statements, conjecture)
        shape = _shape(data["shape"])
        recorded = Evaluated(
            clause=clause.name,
            name=data["name"],
            shape=shape,
            case={name: _array(name, value) for name, value in data["inputs"].items()},
            value=float(data["margin"]),
            tolerance=float(data["tolerance"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RequestError):
            raise
        message = f"{path} is not a complete record of an instance ({error}); save it again"
        raise RequestError(message) from error
    instance = Explicit(recorded.name or "replay", "", shape, recorded.case)
    try:
        observed = Runner(1).explicit(clause, instance)
        with jax.enable_x64(True):
            case = {name: jnp.asarray(value) for name, value in recorded.case.items()}
            margins = clause.hypotheses.margins(shape, case)
            hypotheses = {name: float(value) for name, value in margins.items()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, RequestError):
            raise
        message = f"the inputs in {path} do not fit {data['statement']} ({error}); save it again"
        raise RequestError(message) from error
    if observed.value < NO_MARGIN:
        observed = replace(observed, value=math.nan)
    return Replay(data["statement"], data["form"], recorded, observed, hypotheses, changed)


def _compared(
    path: str | os.PathLike[str], origin: Mapping[str, str] | None, given: Conjecture | None
) -> bool:
    """Whether the conjecture's file changed since; refuses where one of the two is missing."""
    if origin is None:
        if given is not None:
            message = f"{path} records no conjecture, but a statement of its own; omit --file"
            raise RequestError(message)
        return False
    if given is None:
        message = (
            f"{path} records a violation of the conjecture in {origin['path']}; "
            "give that file with --file, which runs it"
        )
        raise RequestError(message)
    return bool(origin["sha256"] != given.sha256)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise RequestError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON ({error}); give a file that pmt verify --out wrote"
        raise RequestError(message) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        message = f"{path} does not say schema {SCHEMA}; give a file that pmt verify --out wrote"
        raise RequestError(message)
    return data


def _clause(
    data: Mapping[str, Any], statements: Mapping[str, Statement], conjecture: Conjecture | None
) -> Clause:
    statement = statements.get(data["statement"]) if conjecture is None else conjecture.statement
    forms = {} if statement is None else statement.forms
    if data["form"] in forms:
        for clause in forms[data["form"]].clauses:
            if clause.name == data["clause"]:
                return clause
    message = (
        f"there is no clause {data['clause']!r} in the {data['form']} form of "
        f"{data['statement']!r} any more; see pmt verify --list"
    )
    raise RequestError(message)


def _shape(given: Mapping[str, Any]) -> Shape:
    sizes = {name: given[name] for name in ("n", "d", "h")}
    if any(type(size) is not int or not 1 <= size <= _LARGEST for size in sizes.values()):
        message = f"the sizes {sizes} must be integers from 1 to {_LARGEST}"
        raise ValueError(message)
    if given["mask"] not in _MASKS:
        message = f"the mask {given['mask']!r} is not one of {', '.join(_MASKS)}"
        raise ValueError(message)
    return Shape(**given)


def _array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fi" or not np.all(np.isfinite(array)):
        message = f"{name} must hold finite numbers"
        raise ValueError(message)
    return array if array.dtype.kind == "i" else array.astype(np.float64)

"""`pmt verify`: check the papers' statements, list them, or evaluate a saved instance again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.exits import Status
from pmt.cli.options import Device, JsonFile, OutDirectory, Overwrite, Seed, at_most_one, number
from pmt.errors import RequestError

if TYPE_CHECKING:
    from theory.conjecture import Conjecture
    from theory.replay import Replay
    from theory.results import Evaluated, FormResult, StatementResult
    from theory.statement import Statement

SCHEMA = "pmt.verify/1"

_INSTANCES = 10_000
_SECONDS = 60.0


def verify(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID ...]", help="Statements; all if none.")
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Random instances for each form, 10000 if not given; with --hunt those of each "
            "clause and shape before the search, 512 if not given.",
        ),
    ] = None,
    seed: Seed = 0,
    list_: Annotated[bool, typer.Option("--list", help="Show what can be checked.")] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Evaluate a saved instance again.")
    ] = None,
    hunt: Annotated[
        bool,
        typer.Option(
            "--hunt",
            help="Search the instances that the hypotheses allow for a violation, and shrink it.",
        ),
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            parser=number(above=0.0),
            metavar="SECONDS",
            help="For each hunt; 60 if not given. What compiles when they end is finished.",
        ),
    ] = None,
    form: Annotated[
        Literal["paper", "corrected"] | None,
        typer.Option(help="The form to hunt; the paper's, if not given and where there is one."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="A conjecture of your own in place of the statements. The file is RUN, with all "
            "that it can do: give none that you have not read. theory.conjecture says how to write "
            "one.",
        ),
    ] = None,
    json: JsonFile = None,
    out: OutDirectory = None,
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="Violations of each form that --out saves.")
    ] = 20,
    overwrite: Overwrite = False,
    device: Device = "cpu",
) -> int:
    """Check statements on random and explicit instances, in float64, or hunt for violations.

    Every statement has the paper's form and a corrected one, each with the status that is expected
    of it. Ends with status 1 if one comes out otherwise; a hunt does if it refutes a form that
    should hold, or does not refute one that should fall.
    """
    given = at_most_one({"--list": list_, "--replay": replay, "--hunt": hunt})
    at_most_one({"--file": file, "ID": ids or None})
    at_most_one({"--file": file, "--form": form})
    if given == "--replay":
        at_most_one({"--replay": replay, "ID": ids or None, "--out": out})
    for name, value in (("--budget", budget), ("--form", form)):
        if value is not None and not hunt:
            message = f"{name} belongs to --hunt; give both or neither"
            raise RequestError(message)
    from pmt.cli.options import start_backend
    from theory import registry

    if file is None:
        conjecture, known = None, registry.statements()
    else:
        from theory.conjecture import load

        # Before the file is run, since it may compute with JAX.
        start_backend(device, "float64")
        conjecture = load(file)
        known = {conjecture.statement.id: conjecture.statement}
    chosen = registry.choose(ids or [], known)
    if given == "--list":
        return _list(chosen, json)
    if conjecture is None:
        start_backend(device, "float64")
    else:
        conjecture.check()
    if replay is not None:
        return _replay(replay, known, conjecture, json)
    if hunt:
        from pmt.cli.hunting import Hunt

        request = Hunt(budget or _SECONDS, seed, instances or 512, form, conjecture)
        return request.run(chosen, json, out, overwrite)
    return _check(chosen, conjecture, instances or _INSTANCES, seed, json, out, keep, overwrite)


def _check(
    chosen: "list[Statement]",
    conjecture: "Conjecture | None",
    instances: int,
    seed: int,
    json: Path | None,
    out: Path | None,
    keep: int,
    overwrite: bool,
) -> int:
    from pmt.cli.screen import progress, show
    from pmt.files import prepare_output_directory, write_json
    from theory.replay import save_violations
    from theory.verify import verify as run

    folder = None
    if out is not None:
        folder = prepare_output_directory(out, writer="pmt verify", overwrite=overwrite)
    with progress("statements", total=len(chosen)) as advance:
        results = run(chosen, count=instances, seed=seed, done=advance)
    forms = [(result, form) for result in results for form in result.forms]
    if conjecture is not None:
        for violation in (v for _, form in forms for v in form.violations):
            conjecture.inspect_violation(violation)
    show(_table(forms))
    for result, form in forms:
        for line in _remarks(result, form):
            show(line)
        if folder is not None:
            saved = save_violations(
                folder, result.statement.id, form, keep=keep, conjecture=conjecture
            )
            left = len(form.violations) - len(saved)
            if left:
                show(
                    f"{result.statement.id} {form.form}: {left} more violations not saved; "
                    "raise --keep for them"
                )
    if json is not None:
        write_json(json, {"schema": SCHEMA, "statements": [as_json(r) for r in results]})
    differing = [form for _, form in forms if not form.as_expected]
    show(
        f"{len(results)} statements, {len(forms)} forms, {len(forms) - len(differing)} as expected"
    )
    return Status.ANSWER_IS_NO if differing else Status.DONE


def _table(forms: "list[tuple[StatementResult, FormResult]]") -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("statement", "form", "status", "expected"):
        table.add_column(heading)
    for heading in ("instances", "undecided", "violations", "worst margin", "seconds"):
        table.add_column(heading, justify="right")
    for result, form in forms:
        table.add_row(
            result.statement.id,
            form.form,
            form.status,
            form.expected if form.as_expected else f"{form.expected} (!)",
            f"{form.instances:,}",
            f"{form.undecided:,}",
            f"{len(form.violations):,}",
            f"{form.worst_margin:.2e}",
            f"{form.seconds:.1f}",
        )
    return table


def _remarks(result: "StatementResult", form: "FormResult") -> list[str]:
    """What the table does not say: what refuted a form, and twins that do not fail."""
    name = f"{result.statement.id} {form.form}"
    lines = []
    if form.witness is not None:
        witness = form.witness
        if witness.name is None:
            what = f"a random instance of '{witness.clause}' (see --out)"
        else:
            what = f"{witness.name}: {witness.text}"
        lines.append(f"{name}: refuted by {what}; margin {witness.value:.3g}")
    lines += [
        f"{name}: without '{twin.drops}' the conclusion should fail but does not "
        f"(margin {twin.at.value:.3g})"
        for twin in form.twins
        if not twin.fails
    ]
    return lines


def as_json(result: "StatementResult") -> dict[str, Any]:
    """One statement in the form of schema ``pmt.verify/1``."""
    statement = result.statement
    return {
        "id": statement.id,
        "source": statement.source,
        "text": statement.text,
        "forms": [
            {
                "form": form.form,
                "text": form.text,
                "status": form.status,
                "expected": form.expected,
                "instances": form.instances,
                "violations": len(form.violations),
                "worst_margin": form.worst_margin,
                "witness": None if form.witness is None else witness_json(form.witness),
                "seconds": form.seconds,
            }
            for form in result.forms
        ],
    }


def witness_json(instance: "Evaluated") -> dict[str, Any]:
    """An instance with its margin, exact inputs and numbers."""
    from dataclasses import asdict

    from theory.replay import as_inputs

    return {
        "clause": instance.clause,
        "name": instance.name,
        "text": instance.text,
        "margin": instance.value,
        "tolerance": instance.tolerance,
        "shape": asdict(instance.shape),
        "inputs": as_inputs(instance.case),
        "numbers": instance.numbers,
    }


def _list(chosen: "list[Statement]", json: Path | None) -> int:
    from rich.table import Table

    from pmt.cli.screen import show
    from pmt.files import write_json

    table = Table(show_lines=True)
    for heading in ("statement", "source", "form", "expected", "text"):
        table.add_column(heading)
    for statement in chosen:
        for name, form in statement.forms.items():
            table.add_row(statement.id, statement.source, name, form.expected, form.text)
    show(table)
    if json is not None:
        listed = [
            {
                "id": statement.id,
                "source": statement.source,
                "text": statement.text,
                "forms": [
                    {"form": name, "text": form.text, "expected": form.expected}
                    for name, form in statement.forms.items()
                ],
            }
            for statement in chosen
        ]
        write_json(json, {"schema": SCHEMA, "statements": listed})
    return Status.DONE


def _replay(
    path: Path,
    known: "dict[str, Statement]",
    conjecture: "Conjecture | None",
    json: Path | None,
) -> int:
    from pmt.cli.answers import finite
    from pmt.cli.screen import show
    from pmt.files import write_json
    from theory.replay import replay

    found = replay(path, known, conjecture)
    show(
        f"{found.statement} {found.form}, '{found.recorded.clause}': "
        f"{found.observed.outcome}, margin {found.observed.value!r}",
        f"recorded: {found.recorded.outcome}, margin {found.recorded.value!r}; allowed to differ "
        f"by {found.allowed:.2g}: {'the same' if found.agrees else 'NOT the same'}",
    )
    if found.changed and conjecture is not None:
        show(f"the file {conjecture.path} is not the one that this was recorded with")
    broken = [name for name, value in found.hypotheses.items() if not value >= 0]
    show("all hypotheses hold" if not broken else f"hypotheses that fail: {', '.join(broken)}")
    if json is not None:
        write_json(json, finite(_replay_json(found)))
    return Status.DONE if found.agrees else Status.ANSWER_IS_NO


def _replay_json(found: "Replay") -> dict[str, Any]:
    return {
        "schema": "pmt.replay/1",
        "statement": found.statement,
        "form": found.form,
        "clause": found.recorded.clause,
        "recorded": {"status": found.recorded.outcome, "margin": found.recorded.value},
        "observed": {"status": found.observed.outcome, "margin": found.observed.value},
        "allowed": found.allowed,
        "agrees": found.agrees,
        "hypotheses": found.hypotheses,
        "file_changed": found.changed,
    }

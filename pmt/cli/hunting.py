"""`pmt verify --hunt`: the search for violations, what it shows and what it saves."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmt.cli.exits import Status
from pmt.errors import Interrupted, RequestError

if TYPE_CHECKING:
    from theory.conjecture import Conjecture
    from theory.hunt import Hunted
    from theory.results import Evaluated
    from theory.shrink import Shrunk
    from theory.statement import FormName, Statement

SCHEMA = "pmt.hunt/1"

# Numbers of an array on the screen; the files hold all.
_SHOWN = 24


@dataclass(frozen=True)
class Outcome:
    """A hunt, its witness shrunk, and the files that hold it."""

    hunted: "Hunted"
    shrunk: "Shrunk | None" = None
    paths: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Statement and form."""
        return f"{self.hunted.statement} {self.hunted.form}"


@dataclass
class Hunt:
    """What a hunt was asked for.

    Attributes:
      budget: seconds for each form.
      seed: of all randomness.
      random: random instances of each clause and shape before the search.
      form: the one to hunt; None for the paper's where there is one.
      conjecture: where the statement is one of the user's own.
    """

    budget: float
    seed: int
    random: int
    form: "FormName | None"
    conjecture: "Conjecture | None"

    def run(
        self, chosen: "list[Statement]", json: Path | None, out: Path | None, overwrite: bool
    ) -> int:
        """Hunt them one after another, show and save what was found, and return the status."""
        from pmt.cli.screen import progress, show
        from pmt.files import prepare_output_directory

        targets = [(statement, self._form_of(statement)) for statement in chosen]
        folder = None
        if out is not None:
            folder = prepare_output_directory(out, writer="pmt verify", overwrite=overwrite)
        outcomes: list[Outcome] = []
        try:
            with progress("hunts", total=len(targets)) as advance:
                for statement, form in targets:
                    self._hunt(statement, form, folder, outcomes, advance)
                    advance(1)
        except KeyboardInterrupt as stop:
            self._write(json, outcomes, interrupted=True)
            raise Interrupted(self._stopped(stop, outcomes)) from stop
        show(_table(outcomes))
        for outcome in outcomes:
            show(*_lines(outcome))
        self._write(json, outcomes, interrupted=False)
        differing = [one for one in outcomes if not one.hunted.as_expected]
        show(f"{len(outcomes)} hunts, {len(outcomes) - len(differing)} as expected")
        return Status.ANSWER_IS_NO if differing else Status.DONE

    def _form_of(self, statement: "Statement") -> "FormName":
        if self.form is None:
            return "corrected" if statement.paper is None else "paper"
        if self.form not in statement.forms:
            message = f"{statement.id} has no {self.form} form; leave --form out"
            raise RequestError(message)
        return self.form

    def _hunt(
        self,
        statement: "Statement",
        form: "FormName",
        folder: Path | None,
        outcomes: list[Outcome],
        advance: Any,
    ) -> None:
        """One hunt; what is known of it when an interrupt ends it is kept in ``outcomes``."""
        from theory.hunt import Hunter
        from theory.shrink import shrink

        more = {} if self.conjecture is None else {"inspect": self.conjecture.inspect}
        hunter = Hunter(
            statement.id,
            form,
            statement.forms[form],
            seed=self.seed,
            random=self.random,
            done=advance,
            **more,
        )
        shrunk = None
        try:
            hunted = hunter.run(self.budget)
            if hunted.found is not None:
                clauses = {clause.name: clause for clause in statement.forms[form].clauses}
                shrunk = shrink(
                    hunter.engine,
                    clauses[hunted.found.instance.clause],
                    hunted.found,
                    plain=self.conjecture is not None,
                    done=advance,
                )
        finally:
            outcome = Outcome(hunter.report(), shrunk)
            outcomes.append(replace(outcome, paths=self._save(folder, outcome)))

    def _save(self, folder: Path | None, outcome: Outcome) -> tuple[Path, ...]:
        """The witness, and as it was found; without one, the instance nearest to a violation."""
        from theory.replay import save

        best = outcome.hunted.best
        if folder is None or best is None:
            return ()
        stem = f"{outcome.hunted.statement}.{outcome.hunted.form}.hunt"
        kept: dict[str, Evaluated] = {}
        if outcome.hunted.found is None:
            kept["nearest"] = best.instance
        else:
            kept["found"] = best.instance
            if outcome.shrunk is not None:
                kept = {"witness": outcome.shrunk.after, **kept}
        return tuple(
            save(
                folder / f"{stem}.{what}.json",
                outcome.hunted.statement,
                outcome.hunted.form,
                instance,
                self.conjecture,
            )
            for what, instance in kept.items()
        )

    def _write(self, json: Path | None, outcomes: list[Outcome], *, interrupted: bool) -> None:
        from pmt.files import write_json

        if json is not None:
            hunts = [as_json(outcome) for outcome in outcomes]
            write_json(json, {"schema": SCHEMA, "interrupted": interrupted, "hunts": hunts})

    def _stopped(self, stop: KeyboardInterrupt, outcomes: list[Outcome]) -> str:
        """What an interrupted hunt says: the best so far, and where it is."""
        why = str(stop).partition(";")[0] or "interrupted"
        if not outcomes:
            return f"{why} before the first hunt"
        last = outcomes[-1]
        best = last.hunted.best
        said = f"{why} {last.hunted.seconds:.0f} s into the hunt of {last.name}"
        if best is None:
            return f"{said}, before anything was evaluated"
        what = "refuted" if last.hunted.found is not None else "not refuted"
        where = f", saved in {last.paths[0]}" if last.paths else "; --out saves it"
        return f"{said}: {what} so far, smallest margin {best.instance.value:.3g}{where}"


def _table(outcomes: list[Outcome]) -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("statement", "form", "status", "expected"):
        table.add_column(heading)
    for heading in ("random", "starts", "steps", "mutations", "smallest margin", "seconds"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        hunted, best = outcome.hunted, outcome.hunted.best
        table.add_row(
            hunted.statement,
            hunted.form,
            "refuted" if hunted.found is not None else "not refuted",
            hunted.expected if hunted.as_expected else f"{hunted.expected} (!)",
            *(f"{count:,}" for count in _counts(hunted).values()),
            "" if best is None else f"{best.instance.value:.2e}",
            f"{hunted.seconds:.1f}",
        )
    return table


def _counts(hunted: "Hunted") -> dict[str, int]:
    names = {"random": "random", "starts": "starts", "steps": "steps", "mutations": "offspring"}
    return {
        name: sum(getattr(ground, attribute) for ground in hunted.grounds)
        for name, attribute in names.items()
    }


def _lines(outcome: Outcome) -> list[str]:
    """What became of the hunt in words, and the witness."""
    hunted, shrunk = outcome.hunted, outcome.shrunk
    if hunted.found is None or shrunk is None:
        unreached = sum(ground.evaluations == 0 for ground in hunted.grounds)
        more = f"; {unreached} of {len(hunted.grounds)} clauses and shapes not reached"
        surprise = "" if hunted.as_expected else f", expected {hunted.expected}"
        return [
            f"{outcome.name}: no violation found within {hunted.budget:g} s"
            f"{more if unreached else ''}{surprise}"
        ]
    surprise = "as expected" if hunted.as_expected else f"though expected {hunted.expected}"
    before, after = shrunk.before, shrunk.after
    lines = [
        f"{outcome.name}: refuted in {hunted.seconds:.1f} s, {surprise}: '{after.clause}' has the "
        f"margin {after.value:.6g} (tolerance {after.tolerance:.1g}) at the instance below",
        f"  found with margin {before.value:.3g} at {_shape(before)}, {shrunk.digits[0]} digits; "
        f"shrunk to {shrunk.digits[1]} in {shrunk.seconds:.1f} s",
        f"  {_shape(after)}",
        *(f"  {name} = {_numbers(value)}" for name, value in after.case.items()),
    ]
    return [*lines, *(f"  saved in {path}" for path in outcome.paths)]


def _shape(instance: "Evaluated") -> str:
    shape = instance.shape
    heads = f", h = {shape.h}" if shape.h > 1 else ""
    mask = "" if shape.mask == "full" else f", {shape.mask} attention"
    return f"n = {shape.n}, d = {shape.d}{heads}{mask}"


def _numbers(value: Any) -> str:
    if value.size > _SHOWN:
        return f"{value.size} numbers, see --json or --out"
    return str([_plain(each) for each in value.tolist()] if value.ndim else _plain(value.item()))


def _plain(value: Any) -> Any:
    """Nested lists with whole numbers written as such."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One hunt in the form of schema ``pmt.hunt/1``."""
    from pmt.cli.verify import witness_json

    hunted, shrunk, best = outcome.hunted, outcome.shrunk, outcome.hunted.best
    return {
        "id": hunted.statement,
        "form": hunted.form,
        "status": hunted.status,
        "expected": hunted.expected,
        "as_expected": hunted.as_expected,
        "budget": hunted.budget,
        "seconds": hunted.seconds,
        "tried": [
            {
                "clause": ground.clause.name,
                "shape": vars(ground.shape),
                "random": ground.random,
                "starts": ground.starts,
                "steps": ground.steps,
                "mutations": ground.offspring,
                "gradient": ground.differentiable,
                "smallest_margin": None if ground.best is None else ground.best.instance.value,
            }
            for ground in hunted.grounds
        ],
        "nearest": None if best is None else witness_json(best.instance),
        "witness": None if shrunk is None else witness_json(shrunk.after),
        "hypotheses": None if shrunk is None else shrunk.hypotheses,
        "files": [str(path) for path in outcome.paths],
    }

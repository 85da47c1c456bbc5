"""The table of statements, and a page for each that has a refuted form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pmt.report.page import Figure, FormRow, Section, StatementRow, StatementTable, environment

FOLDER = "statements"
"""Where the pages of refuted statements lie, beside the index."""

# A word and a sign, so that no status is told by its colour alone.
_SIGNS = {"supported": "✓", "proved": "✓✓", "refuted": "✗", "undecided": "?"}

# What the fields of an instance are called in the paper.
_NAMES = {
    "value": "V",
    "query_key": "QᵀK",
    "alpha": "α",
    "x": "tokens (rows)",
    "eigenvalues": "eigenvalues λ",
    "frame": "eigenvectors (columns)",
    "basis": "eigenvectors (columns)",
    "index": "index k, from 0",
    "direction": "direction v",
    "signs": "signs of the tokens",
    "heads": "F of head",
    "query_keys": "QᵀK of head",
    "head_eigenvalues": "eigenvalues of the heads (rows)",
    "layers": "F of layer",
    "spectra": "eigenvalues of the layers (rows)",
    "w": "perturbation (rows)",
    "target": "target w",
}


@dataclass(frozen=True)
class Witness:
    """A refuting instance as it is shown.

    Attributes:
      form: ``paper`` or ``corrected``.
      instance: as under ``witness`` in schema ``pmt.verify/1``.
      figures: what makes the failure visible; may be empty, then ``note`` says why.
      note: a sentence below the figures.
    """

    form: str
    instance: Mapping[str, Any]
    figures: tuple[Figure, ...] = ()
    note: str = ""


def refuted(verified: Mapping[str, Any]) -> list[str]:
    """The ids of the statements that have a refuted form, in order: those with a page."""
    return [
        s["id"]
        for s in verified["statements"]
        if any(form["status"] == "refuted" for form in s["forms"])
    ]


def page_of(statement: str) -> str:
    """Where the page of a statement lies, relative to the index."""
    return f"{FOLDER}/{statement}.html"


def statements(
    verified: Mapping[str, Any],
    figures: Sequence[Figure] = (),
    pictures: Mapping[str, Mapping[str, Any]] | None = None,
) -> Section:
    """The table of statements, from the object that ``pmt verify --json`` writes.

    Args:
      verified: schema ``pmt.verify/1``.
      figures: shown above the table.
      pictures: id -> the witness's tokens on the circle or sphere: ``sphere`` (bool), ``axes``
        ([x, y] each) and ``tokens`` (``x``, ``y``, ``near`` each).
    """
    pictures = {} if pictures is None else pictures
    forms = [form for s in verified["statements"] for form in s["forms"]]
    fallen = sum(f["form"] == "paper" and f["status"] == "refuted" for f in forms)
    paragraphs = (
        "Each statement of Li & Altafini (arXiv 2605.25619) is checked in the form of the paper, "
        "as read (its formulas are reconstructions), and in a corrected form, on random instances "
        "that satisfy its hypotheses by construction and on explicit ones. A margin is the signed "
        "distance to violation: one negative margin beyond its tolerance refutes a form; "
        "“supported” means that no instance did.",
        f"{fallen} of the paper's forms are refuted by a counterexample, named in the table; the "
        "corrected forms say what holds instead. The page behind each name shows the "
        "counterexample, its exact inputs and what happens next to it.",
    )
    with_page = set(refuted(verified))
    table = StatementTable(
        caption="Statements, forms and what the instances say. Instances are random ones; explicit "
        "witnesses come on top. The small pictures show the tokens of the witness on the circle "
        "or sphere, where d is at most 3, with the eigenvectors as lines.",
        rows=tuple(
            StatementRow(
                id=s["id"],
                number=_number_of(s),
                text=s["text"],
                forms=tuple(map(_form_row, s["forms"])),
                page=page_of(s["id"]) if s["id"] in with_page else None,
                picture=pictures.get(s["id"]),
            )
            for s in verified["statements"]
        ),
    )
    return Section("theory", "The theorems, checked", paragraphs, tuple(figures), statements=table)


def refuted_pages(
    verified: Mapping[str, Any], witnesses: Mapping[str, Sequence[Witness]], index: str
) -> dict[str, str]:
    """The page of every statement with a refuted form, as HTML text; every value is escaped.

    Args:
      verified: schema ``pmt.verify/1``.
      witnesses: id -> refuting instances, at least one for each such statement.
      index: the name of the file with the table, in the folder above.

    Returns:
      id -> page; the links from page to page follow the table.
    """
    ids = refuted(verified)
    by_id = {s["id"]: s for s in verified["statements"]}
    template = environment().get_template("refuted.html.j2")

    def beside(position: int) -> tuple[str, str] | None:
        if not 0 <= position < len(ids):
            return None
        return f"{ids[position]}.html", _number_of(by_id[ids[position]])

    return {
        name: template.render(
            page={
                "id": name,
                "number": _number_of(by_id[name]),
                "text": by_id[name]["text"],
                "forms": [_titled(form) for form in by_id[name]["forms"]],
                "witnesses": [_shown(witness) for witness in witnesses[name]],
            },
            back=f"../{index}#statement-{name}",
            previous=beside(place - 1),
            following=beside(place + 1),
        )
        for place, name in enumerate(ids)
    }


def _number_of(statement: Mapping[str, Any]) -> str:
    # The number on the page is the paper's own; what follows the comma names the paper.
    number = str(statement["source"]).split(", arXiv")[0]
    return number[:1].upper() + number[1:]


def _form_row(form: Mapping[str, Any]) -> FormRow:
    witness = form["witness"]
    by = "" if not witness else witness.get("name") or "a random instance"
    return FormRow(
        name=form["form"],
        text=form["text"],
        status=form["status"],
        sign=_SIGNS.get(form["status"], ""),
        expected=form["expected"],
        instances=f"{form['instances']:,}",
        worst="–"
        if form["worst_margin"] is None
        else f"{form['worst_margin']:.3g}".replace("-", "−"),
        seconds=f"{form['seconds']:.1f} s",
        witness=by,
    )


def _titled(form: Mapping[str, Any]) -> dict[str, Any]:
    row = _form_row(form)
    title = {"paper": "The paper, as read", "corrected": "Corrected"}.get(row.name, row.name)
    return {
        "title": title,
        "text": row.text,
        "status": row.status,
        "sign": row.sign,
        "expected": row.expected,
        "as_expected": row.as_expected,
        "instances": row.instances,
        "worst": row.worst,
    }


def _shown(witness: Witness) -> dict[str, Any]:
    found = witness.instance
    shape = found["shape"]
    sizes = [f"n = {shape['n']} tokens", f"d = {shape['d']}"]
    sizes += [f"{shape['h']} heads"] if shape["h"] > 1 else []
    sizes += [f"mask {shape['mask']}"] if shape["mask"] != "full" else []
    return {
        "form": witness.form,
        "title": found["name"] or "a random instance",
        "text": found["text"],
        "clause": found["clause"],
        "margin": f"{found['margin']:.4g}".replace("-", "−"),
        "tolerance": f"{found['tolerance']:.1e}",
        "sizes": ", ".join(sizes),
        "figures": witness.figures,
        "note": witness.note,
        "inputs": [
            (_NAMES.get(name, name.replace("_", " ")), _tables(value))
            for name, value in found["inputs"].items()
        ],
        "numbers": [(name, _told(name, value)) for name, value in found["numbers"].items()],
    }


def _tables(value: Any) -> list[list[list[str]]]:
    """Tables of rows of cells: one for a number, a vector or a matrix, one a matrix for stacks."""
    if not isinstance(value, list):
        return [[[_exact(value)]]]
    if not value or not isinstance(value[0], list):
        return [[[_exact(v) for v in value]]]
    if not value[0] or not isinstance(value[0][0], list):
        return [[[_exact(v) for v in row] for row in value]]
    return [table for part in value for table in _tables(part)]


def _exact(value: int | float) -> str:
    """The shortest decimal that reads back as the same number."""
    return repr(value).removesuffix(".0").replace("-", "−")


def _told(name: str, value: Any) -> str:
    """A number that is claimed, in six digits; multipliers given as [re, im] as complex."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_told(str(key), item)}" for key, item in value.items())
    if isinstance(value, list):
        if name == "multipliers" and value and isinstance(value[0], list):
            pairs = [f"{re:.6g} {'−' if im < 0 else '+'} {abs(im):.6g}i" for re, im in value]
            return ", ".join(pairs)
        separator = "; " if value and isinstance(value[0], list | Mapping) else ", "
        return separator.join(_told(name, item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−")
    return str(value)

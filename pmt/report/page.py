"""The page: sections with paragraphs, figures and tables, written as one HTML file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Figure:
    """A picture with what a reader without eyes or context needs.

    Attributes:
      name: file name without ending, also the anchor.
      caption: what is drawn and what to see in it.
      alt: a short description in place of the picture.
      png: the picture.
    """

    name: str
    caption: str
    alt: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as a data URI, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Table:
    """Rows under headings; ``numeric`` names the columns that are set flush right.

    Attributes:
      caption: one sentence.
      headings: column titles.
      rows: cells as text, one per heading.
      numeric: indices of numeric columns.
      marks: index of a row -> a word that the page sets off (``"no"`` for an unexpected answer).
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    marks: Mapping[int, str] | None = None


@dataclass(frozen=True)
class FormRow:
    """One form of a statement in the table; numbers as text.

    Attributes:
      name: ``paper`` or ``corrected``.
      text: the form in full.
      status, expected: words of ``theory``; ``sign`` goes before the status.
      sign: a mark that tells the status without colour.
      instances, worst, seconds: how many, the worst margin, and how long it took.
      witness: what refuted it, or empty.
    """

    name: str
    text: str
    status: str
    sign: str
    expected: str
    instances: str
    worst: str
    seconds: str
    witness: str

    @property
    def as_expected(self) -> bool:
        """Whether the status is the expected one."""
        return self.status == self.expected


@dataclass(frozen=True)
class StatementRow:
    """One statement in the table.

    Attributes:
      id: the anchor is ``statement-`` and this.
      number: the paper's own.
      text: what it is about.
      forms: one or two.
      page: where its own page lies, or None.
      picture: the witness's tokens, as ``pmt.report.statements`` describes them, or None.
    """

    id: str
    number: str
    text: str
    forms: tuple[FormRow, ...]
    page: str | None = None
    picture: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class StatementTable:
    """All statements under one caption."""

    caption: str
    rows: tuple[StatementRow, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
      anchor: the section's identifier in links.
      title: its heading.
      paragraphs: text before the figures.
      figures, tables: in order.
      statements: the table of statements, between figures and tables.
    """

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    statements: StatementTable | None = None


def render(
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Mapping[str, str],
) -> str:
    """The whole page as HTML text; every value is escaped.

    Args:
      title: of the page.
      lead: the first paragraph: what the page shows.
      sections: in order.
      provenance: what was run, where and with which versions; label -> value.
    """
    template = environment().get_template("page.html.j2")
    return template.render(title=title, lead=lead, sections=sections, provenance=provenance)


def environment() -> Environment:
    """The templates: they escape every value and refuse a missing one."""
    return Environment(
        loader=PackageLoader("pmt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

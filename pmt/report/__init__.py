"""Results into one self-contained HTML page, and one for each refuted statement.

It is handed everything and runs nothing.
"""

from pmt.report.further import looped, steering, trained_weights
from pmt.report.page import Figure, Section, Table, render
from pmt.report.sections import equilibrium, repeated_layer, summary, transformer
from pmt.report.statements import Witness, page_of, refuted, refuted_pages, statements

__all__ = [
    "Figure",
    "Section",
    "Table",
    "Witness",
    "equilibrium",
    "looped",
    "page_of",
    "refuted",
    "refuted_pages",
    "render",
    "repeated_layer",
    "statements",
    "steering",
    "summary",
    "trained_weights",
    "transformer",
]

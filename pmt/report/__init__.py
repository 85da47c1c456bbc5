"""Results into one self-contained HTML page: it is handed everything and runs nothing."""

from pmt.report.page import Figure, Section, Table, render
from pmt.report.sections import equilibrium, repeated_layer, statements, summary, transformer

__all__ = [
    "Figure",
    "Section",
    "Table",
    "equilibrium",
    "render",
    "repeated_layer",
    "statements",
    "summary",
    "transformer",
]

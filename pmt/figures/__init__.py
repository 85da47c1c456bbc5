"""Figures from results; the only room that imports matplotlib.

Every function takes a result and returns a `matplotlib.figure.Figure`, without pyplot and without
a display; `save` writes one, whole or not at all.
"""

from pmt.figures.alignment import alignment_panels, token_distance
from pmt.figures.cascade import cascade
from pmt.figures.repetition import repetition
from pmt.figures.spectra import spectra
from pmt.figures.style import FORMATS, figure_bytes, save

__all__ = [
    "FORMATS",
    "alignment_panels",
    "cascade",
    "figure_bytes",
    "repetition",
    "save",
    "spectra",
    "token_distance",
]

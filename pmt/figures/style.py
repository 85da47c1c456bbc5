"""One look for all figures: colours that colour-blind readers tell apart, sizes for a column."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmt.errors import RequestError
from pmt.files import write_atomically

# Okabe and Ito's palette.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#7F7F7F"

# What is compared looks the same in all figures: the principal direction, the mean over all
# eigendirections, chance, and the null models with their labels.
PRINCIPAL, AVERAGE, CHANCE = VERMILION, BLACK, GREY
NULLS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"gaussian": ("Gaussian null", ORANGE), "rotated": ("rotated null", PURPLE)}
)
DASHED = (0, (4, 2))
DOTTED = (0, (1, 1.5))

# Inches: one column of a two-column page, and the whole page.
COLUMN = 3.4
PAGE = 7.0

FORMATS = ("png", "svg", "pdf")

_STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E5E5E5",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
        # Text stays text, and the same figure gives the same bytes.
        "svg.fonttype": "none",
        "svg.hashsalt": "pmt",
        "pdf.fonttype": 42,
    }
)


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's defaults with this style on top, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches; call it within `styled`."""
    return Figure(figsize=(width, height), layout="constrained")


def panel_figure(
    count: int, height: float, *, column: bool, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Panels side by side on a page of that height; or in a column, one above the other.

    Args:
      count, height: of the panels, and of the whole page in inches.
      column: whether the figure has the width of a column.
      options: of ``Figure.subplots``.
    """
    if not column:
        figure = new_figure(PAGE, height)
        return figure, list(figure.subplots(1, count, squeeze=False, **options).flat)
    # A panel in a column is wider than high; what is above or below all has its own room.
    figure = new_figure(COLUMN, 1.75 * count + 1.1)
    return figure, list(figure.subplots(count, 1, squeeze=False, **options).flat)


def figure_bytes(figure: Figure, form: str = "png") -> bytes:
    """The figure as the content of a file of that form: ``"png"``, ``"svg"`` or ``"pdf"``."""
    if form not in FORMATS:
        raise RequestError(f"the figure format is {form!r}; it must be one of {', '.join(FORMATS)}")
    # No date and no version, so that the same figure gives the same bytes.
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[form]
    stream = io.BytesIO()
    with styled():
        figure.savefig(stream, format=form, metadata=metadata)
    return stream.getvalue()


def save(
    figure: Figure,
    folder: str | os.PathLike[str],
    name: str,
    formats: tuple[str, ...] = ("png", "svg"),
) -> list[Path]:
    """Write ``folder/name.png`` and so on, each wholly or not at all, and return the paths."""
    return [
        write_atomically(Path(folder) / f"{name}.{form}", figure_bytes(figure, form))
        for form in formats
    ]

"""Results as plots: sweeps with their fitted exponents, token-steps per second, cold starts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._results import Entries
from pmt.figures import style

_MASKS = {"full": style.BLUE, "causal": style.GREEN, "general": style.ORANGE}
_POINTS: dict[str, tuple[Any, str]] = {"consensus": ("-", "o"), "bipartite": (style.DASHED, "s")}
_SIDES = {
    "ours": (style.VERMILION, "o"),
    "C loop": (style.BLACK, "s"),
    "NumPy": (style.BLUE, "^"),
    "PyTorch, compiled": (style.GREEN, "D"),
    "PyTorch, eager": (style.SKY, "v"),
    "matrix-product rate": (style.GREY, "_"),
}
# What the time of a cold start goes into, in the order of events.
PARTS = {
    "import": (style.GREY, ""),
    "trace": (style.SKY, "//"),
    "compile": (style.ORANGE, ""),
    "rest": (style.BLUE, "xx"),
}

Rows = list[dict[str, Any]]


def draw(entries: Entries, folder: Path, stem: str) -> list[Path]:
    """All plots for which there are results, as PNG and SVG; their paths."""
    paths = []
    for name, figure in _figures(entries):
        paths += style.save(figure, folder, f"{stem}-{name}")
    return paths


def _figures(entries: Entries) -> Iterator[tuple[str, Figure]]:
    known: dict[str, Callable[[Rows], Iterator[tuple[str, Figure]]]] = {
        "scaling": _scaling,
        "simulation": _simulation,
        "cold_start": _cold_start,
    }
    for name, figures in known.items():
        if name in entries:
            with style.styled():
                yield from figures(entries[name]["rows"])


def _scaling(rows: Rows) -> Iterator[tuple[str, Figure]]:
    spectra = [row for row in rows if row["group"] == "spectra"]
    crowded = [row for row in rows if row["group"] == "spectra, d small"]
    if spectra:
        yield "spectra", _spectra(spectra, crowded)
    others = [row for row in rows if not row["group"].startswith("spectra")]
    if others:
        yield "scaling", _others(others)


def _spectra(rows: Rows, crowded: Rows) -> Figure:
    figure = style.new_figure(style.PAGE, 7.2)
    panels = figure.subplots(2, 2)
    for line, radii in zip(panels, (False, True), strict=True):
        for panel, axis in zip(line, ("d", "n"), strict=True):
            chosen = [r for r in rows if r["axis"] == axis and _shown(r, radii)]
            chosen += [r for r in crowded if r["axis"] == axis and _shown(r, radii)]
            for row in chosen:
                _one_spectrum(panel, row)
            other = {"d": "n = 8", "n": "d = 8"}[axis]
            kind = "with error radii (analyze)" if radii else "closed form, compiled"
            panel.set_title(f"{kind}; {other} where not said")
            _axes(panel, {"d": "dimension d", "n": "tokens n"}[axis], chosen)
            if chosen:
                panel.legend(loc="upper center", bbox_to_anchor=(0.45, -0.15), **_TIGHT)
    return figure


# A legend of eight lines with their exponents, below a panel of half the page.
_TIGHT: dict[str, Any] = {"ncols": 2, "fontsize": 6, "columnspacing": 0.8, "handlelength": 2.2}


def _shown(row: dict[str, Any], radii: bool) -> bool:
    dense = "dense" in row["what"]
    return dense or ("radii" in row["what"]) == radii


def _one_spectrum(panel: Axes, row: dict[str, Any]) -> None:
    if "dense" in row["what"]:
        _line(panel, row, "dense Jacobian", color=style.BLACK, linestyle="-", marker="x")
        return
    line, marker = _POINTS[row["point"]]
    color, label = _MASKS[row["mask"]], f"{row['point']}, {row['mask']}"
    if row["group"] != "spectra":
        color, label = style.PURPLE, f"{label}, n = 64"
    _line(panel, row, label, color=color, linestyle=line, marker=marker)


def _line(panel: Axes, row: dict[str, Any], label: str, **look: Any) -> None:
    """Measured points, and the fitted line through them with its exponent in the legend."""
    x = np.array([point[row["axis"]] for point in row["points"]], float)
    y = [point["seconds"] for point in row["points"]]
    if row["exponent"] is not None:
        error = row["standard_error"]
        spread = "" if error is None else f" ± {error:.2f}"
        label = f"{label}: {row['exponent']:.2f}{spread}"
        fitted = x[: row.get("fitted", len(x))]
        panel.plot(fitted, row["constant"] * fitted ** row["exponent"], color=look["color"], lw=0.6)
    panel.plot(x, y, label=label, markerfacecolor="white", **look)


def _axes(panel: Axes, label: str, rows: Rows) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_xlabel(label)
    panel.set_ylabel("seconds")
    times = [point["seconds"] for row in rows for point in row["points"]]
    if times:
        # Whole decades, so that there are labels.
        low, high = np.floor(np.log10(0.8 * min(times))), np.ceil(np.log10(1.2 * max(times)))
        panel.set_ylim(10.0**low, 10.0 ** max(high, low + 1))


_LABELS = {
    "batch": "initial conditions",
    "steps": "steps",
    "n": "tokens n",
    "d": "dimension d",
    "layers": "layers",
    "devices": "simulated devices",
}


def _others(rows: Rows) -> Figure:
    axes = [axis for axis in _LABELS if any(row["axis"] == axis for row in rows)]
    height = (len(axes) + 2) // 3
    figure = style.new_figure(style.PAGE, 2.5 * height)
    panels = np.atleast_1d(figure.subplots(height, 3)).reshape(-1)
    colors = {"simulate": style.BLUE, "eigenpairs": style.ORANGE, "basin fractions": style.GREEN}
    markers = {"simulate": "o", "eigenpairs": "s", "basin fractions": "^"}
    for panel, axis in zip(panels, axes, strict=False):
        chosen = [row for row in rows if row["axis"] == axis]
        for row in chosen:
            look = {"color": colors[row["what"]], "marker": markers[row["what"]]}
            _line(panel, row, row["what"], linestyle="none", **look)
        _axes(panel, _LABELS[axis], chosen)
        panel.legend(loc="lower left" if axis == "devices" else "lower right", fontsize=6)
    for panel in panels[len(axes) :]:
        panel.set_visible(False)
    return figure


def _simulation(rows: Rows) -> Iterator[tuple[str, Figure]]:
    dtypes = list(dict.fromkeys(row["size"]["dtype"] for row in rows))
    figure = style.new_figure(style.PAGE, 3.2)
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for panel, dtype in zip(panels, dtypes, strict=True):
        here = [row for row in rows if row["size"]["dtype"] == dtype]
        sizes = list(dict.fromkeys((row["size"]["n"], row["size"]["d"]) for row in here))
        for side, (color, marker) in _SIDES.items():
            found = [(sizes.index((r["size"]["n"], r["size"]["d"])), _rate(r, side)) for r in here]
            points = dict((at, rate) for at, rate in found if rate is not None)
            if points:
                panel.plot(list(points), list(points.values()), marker, color=color, label=side)
        panel.set_yscale("log")
        panel.set_xticks(range(len(sizes)), [f"{n} × {d}" for n, d in sizes])
        panel.set_xlabel("tokens n × dimension d")
        panel.set_title(dtype)
    panels[0].set_ylabel("token-steps per second")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    yield "simulation", figure


def _rate(row: dict[str, Any], side: str) -> float | None:
    if side == "ours":
        return float(row["token_steps_per_second"])
    if side == "matrix-product rate":
        of_limit = row["peer"].endswith(side)
        return row["token_steps_per_second"] / row["ratio"] if of_limit else None
    return row.get("peer_token_steps_per_second") if row["peer"] == side else None


def _cold_start(rows: Rows) -> Iterator[tuple[str, Figure]]:
    figure = style.new_figure(style.PAGE, 0.8 + 0.42 * len(rows))
    panel = figure.subplots()
    names = [row["name"] for row in rows]
    left = np.zeros(len(rows))
    for part, (color, hatch) in PARTS.items():
        width = np.array([row["parts"][part] for row in rows])
        panel.barh(names, width, left=left, color=color, hatch=hatch, edgecolor="white", label=part)
        left += width
    for at, total in enumerate(left):
        panel.text(total, at, f" {total:.1f} s", va="center", fontsize=7)
    panel.invert_yaxis()
    panel.set_xlabel("seconds from the start of the process, median")
    panel.set_xlim(0, left.max() * 1.12)
    panel.grid(axis="y", visible=False)
    panel.legend(loc="upper center", bbox_to_anchor=(0.4, -0.22), ncols=len(PARTS))
    yield "cold-start", figure

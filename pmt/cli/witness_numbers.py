"""Figures of refuting instances that are not runs: curves, directions in the plane, bars."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pmt.cli.witness_map import real_axes

if TYPE_CHECKING:
    import numpy as np

    from pmt.report import Figure
    from theory.results import Evaluated

# Numbers that differ by more have no scale in common.
_COMPARABLE = 1e4
# What the runs of a map show already.
_OF_RUNS = "multipliers"


def of_logits(at: "Evaluated", name: str) -> "Figure | None":
    """A bipartite point whose logit is free: the spectral radius against it."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import curve_figure
    from pmt.report import Figure
    from theory.oracles import bipartite_multipliers

    case = at.case
    if not {"eigenvalues", "signs", "index", "alpha"} <= case.keys() or "query_key" in case:
        return None
    positive = int(np.sum(np.asarray(case["signs"]) > 0))
    negative = len(case["signs"]) - positive
    thetas = np.linspace(-8.0, 8.0, 401)
    radii = np.array(
        [
            max(
                map(
                    abs,
                    bipartite_multipliers(
                        np.asarray(case["eigenvalues"]), int(case["index"]), float(case["alpha"]),
                        float(theta), positive, negative,
                    ),
                )
            )
            for theta in thetas
        ]
    )  # fmt: skip
    drawn = curve_figure(
        thetas,
        {"spectral radius": radii},
        xlabel="logit theta at the point",
        ylabel="spectral radius",
        level=1.0,
        level_label="1: stable only below",
    )
    return Figure(
        name,
        f"The spectral radius of the bipartite point with ({positive}, {negative}) tokens against "
        f"the logit θ of its eigenvector. Its least value here is {radii.min():.4g}; a stable "
        "point would have to come below the dashed line.",
        "Spectral radius against the logit, with the level 1",
        figure_bytes(drawn),
    )


def of_edit(at: "Evaluated", name: str) -> "Figure | None":
    """A rank-one edit in the plane: where the eigenvectors of the edited matrix point."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import plane_figure
    from pmt.report import Figure

    case = at.case
    if not {"value", "target", "probe", "strength"} <= case.keys() or at.shape.d != 2:
        return None
    from theory.rank_one import edited

    axes, _ = real_axes(np.asarray(edited({k: np.asarray(v) for k, v in case.items()})))
    target = np.asarray(case["target"])
    directions = {"target w": target}
    for k, column in enumerate(axes.T, start=1):
        directions[f"eigenvector {k} after"] = column * (1 if column @ target >= 0 else -1)
    return Figure(
        name,
        "The target direction of the edit and the unit eigenvectors of the edited matrix, "
        "eigenvalues decreasing: the edit was meant to turn the first one to the target.",
        "Arrows in the unit circle: target and eigenvectors",
        figure_bytes(plane_figure(directions)),
    )


def of_block(at: "Evaluated", name: str) -> "Figure | None":
    """A feed-forward block in the plane: its image of the circle, and the target."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import plane_figure
    from pmt.report import Figure

    case = at.case
    if not {"first", "second", "target"} <= case.keys() or np.shape(case["target"]) != (2,):
        return None
    turn = np.linspace(0, 2 * np.pi, 361)[:-1]
    x = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    image = x + np.maximum(x @ np.asarray(case["first"]).T, 0.0) @ np.asarray(case["second"]).T
    length = np.linalg.norm(image, axis=1, keepdims=True)
    image = (image / np.where(length > 0, length, np.nan))[length[:, 0] > 0]
    drawn = plane_figure({"target": np.asarray(case["target"])}, {"image of the circle": image})
    return Figure(
        name,
        "The unit circle (line), its image under the block with skip connection and normalisation "
        "(dots), and the target, which no point is mapped to.",
        "The image of the circle under the block, and the target outside it",
        figure_bytes(drawn),
    )


def of_rows(at: "Evaluated", name: str) -> "Figure | None":
    """A claim that is a list of rows: every column against the first."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import curve_figure
    from pmt.report import Figure

    for key, rows in at.numbers.items():
        if not _is_rows(rows):
            continue
        first, *others = rows[0]
        x = np.array([row[first] for row in rows], np.float64)
        curves = {other: np.array([row[other] for row in rows], np.float64) for other in others}
        band = (curves.pop("low"), curves.pop("high")) if {"low", "high"} < curves.keys() else None
        drawn = curve_figure(
            x,
            curves,
            xlabel=first,
            ylabel=", ".join(curves),
            band=band,
            logarithmic=bool(x.min() > 0),
        )
        return Figure(
            name,
            f"What this instance claims under “{key}”: {', '.join(curves)} against {first}"
            + (", with its interval." if band else "."),
            f"{', '.join(others)} against {first}",
            figure_bytes(drawn),
        )
    return None


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(row, Mapping) and len(row) > 1 for row in value)
        and all(
            isinstance(v, int | float) and list(row) == list(value[0])
            for row in value
            for v in row.values()
        )
    )


def of_numbers(at: "Evaluated", name: str) -> "Figure | None":
    """Lists of numbers as bars, each to its scale; single numbers where they have one scale."""
    import numpy as np

    groups = []
    single = {k: float(v) for k, v in at.numbers.items() if isinstance(v, int | float)}
    sizes = [abs(v) for v in single.values() if v]
    if len(single) > 1 and sizes and max(sizes) < _COMPARABLE * min(sizes):
        groups.append(("numbers", list(single), np.array(list(single.values()))))
    return _bars(groups + _lists(at.numbers), name)


def of_lists(at: "Evaluated", name: str) -> "Figure | None":
    """Beside runs: the lists of numbers that they do not show."""
    return _bars(_lists({k: v for k, v in at.numbers.items() if k != _OF_RUNS}), name)


def _lists(numbers: Mapping[str, Any]) -> "list[tuple[str, list[str], np.ndarray]]":
    """(title, names, numbers) of each list; of a list of lists, one for each row."""
    import numpy as np

    groups = []
    for key, value in numbers.items():
        if _is_list(value):
            rows = {key: value}
        elif isinstance(value, list) and 0 < len(value) <= 4 and all(map(_is_list, value)):
            rows = {f"{key}: token {i}": row for i, row in enumerate(value, start=1)}
        else:
            continue
        for title, row in rows.items():
            names = [str(k) for k in range(1, len(row) + 1)]
            groups.append((title, names, np.asarray(row, np.float64)))
    return groups


def _is_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= 12
        and all(isinstance(v, int | float) for v in value)
    )


def _bars(groups: "list[tuple[str, list[str], np.ndarray]]", name: str) -> "Figure | None":
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import bars_figure
    from pmt.report import Figure

    groups = [g for g in groups if np.all(np.isfinite(g[2]))]
    if not groups:
        return None
    return Figure(
        name,
        "Numbers that this instance claims, as bars; each panel has its own scale.",
        "Bars of the numbers in the table",
        figure_bytes(bars_figure(groups)),
    )

"""From a refuting instance of a statement to arrays that the figures can draw.

What is drawn follows from the fields that the instance has: a map and a point give runs from next
to the point; a map alone gives runs from anywhere; otherwise the numbers that it claims are drawn,
and where not even that makes sense the caption says so and the page shows the numbers only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from pmt.report import Figure
    from theory.statement import Shape, Statement
    from theory.verify import Evaluated

STARTS, STEPS, SIZE = 50, 200, 0.15
# Where nothing settles, that many steps show it, and more only blacken the panel.
_SHOWN = 40

# A point that moves by less than this in a step is at rest.
_AT_REST = 1e-9
# A distance that shrank by this factor is a return.
_RETURNED = 0.1
# A modulus this close to 1 could be on either side.
_UNDECIDED = 1e-7
# Numbers that differ by more have no scale in common.
_COMPARABLE = 1e4


@dataclass(frozen=True)
class Map:
    """The map of an instance, for JAX and as a NumPy transcription, and the point it is about.

    Attributes:
      system: one of ``pmt.dynamics``.
      step: ``(n, d) -> (n, d)``, plain NumPy.
      layer_matrix: F, (d, d).
      point: (n, d), or None where the instance names none.
      n: tokens.
    """

    system: Any
    step: Any
    layer_matrix: "np.ndarray"
    point: "np.ndarray | None"
    n: int


def drawings(statement: "Statement", at: "Evaluated", name: str) -> "tuple[list[Figure], str]":
    """The figures of a refuting instance, and a sentence where there are none.

    Args:
      statement: whose form it refutes.
      at: the instance.
      name: of the first figure; a second one has ``-numbers`` behind it.
    """
    found = read_map(statement, at.shape, at.case)
    if found is not None:
        runs = _of_runs(found, name)
        rows = _of_rows(at, f"{name}-numbers") if found.point is None else None
        return [runs] if rows is None else [rows, runs], ""
    for special in (_of_logits, _of_edit, _of_block, _of_rows, _of_numbers):
        figure = special(at, name)
        if figure is not None:
            return [figure], ""
    return [], (
        "This instance has no map with a point whose runs could be drawn, and its numbers have no "
        "scale in common; they are in the table."
    )


def read_map(statement: "Statement", shape: "Shape", case: Mapping[str, Any]) -> Map | None:
    """The map that an instance describes by its fields; None where they describe none.

    Softmax attention where there are logits (``query_key``, ``query_keys``); uniform attention
    where there are none and either the statement is about the Oja system or nothing depends on
    logits, as with equal tokens.
    """
    import jax.numpy as jnp
    import numpy as np

    from pmt.dynamics import MultiHead, SingleHead
    from theory import instances, oracles

    point = _point(shape, case)
    alpha = case.get("alpha")
    if alpha is None or np.ndim(alpha) != 0:
        return None
    mask = instances.mask_of(shape)
    if "heads" in case and "query_keys" in case:
        heads, logits = np.asarray(case["heads"]), np.asarray(case["query_keys"])
        system: Any = MultiHead.from_maps(
            value_output=jnp.asarray(heads),
            query_key=jnp.asarray(logits),
            alpha=jnp.asarray(alpha),
            mask=mask,
        )
        step = oracles.multi_head(heads, logits, float(alpha), shape.mask)
        return Map(system, step, heads.sum(axis=0), point, shape.n)
    if "value" not in case and not {"frame", "eigenvalues"} <= case.keys():
        return None
    value = np.asarray(instances.value_matrix({k: jnp.asarray(v) for k, v in case.items()}))
    # Equal tokens see uniform attention whatever the logits; other points need to be told them.
    if "query_key" not in case and (
        point is None or ("Oja" not in statement.text and np.ptp(point, axis=0).any())
    ):
        return None
    logits = np.asarray(case.get("query_key", np.zeros_like(value)))
    # Without logits this is the Oja system, and all instances of a size share what is compiled.
    system = SingleHead(
        value=jnp.asarray(value),
        query_key=jnp.asarray(logits),
        alpha=jnp.asarray(alpha),
        mask=mask,
    )
    return Map(
        system, oracles.single_head(value, logits, float(alpha), shape.mask), value, point, shape.n
    )


def thumbnail(statement: "Statement", at: "Evaluated") -> dict[str, Any] | None:
    """The tokens of an instance on the circle or the sphere, projected; None for other d.

    Returns:
      ``sphere`` (bool), ``axes``: [x, y] of the tips of real eigenvectors, and ``tokens``: x, y
      and whether it is on the near side; y points up.
    """
    import numpy as np

    from pmt.figures.sphere import choose_view

    point = _point(at.shape, at.case)
    if point is None or point.shape[1] not in (2, 3):
        return None
    found = read_map(statement, at.shape, at.case)
    axes = np.zeros((point.shape[1], 0)) if found is None else _real_axes(found.layer_matrix)[0]
    if point.shape[1] == 2:
        flat, near, tips = point, np.ones(len(point), bool), axes.T
    else:
        view = choose_view(point, axes)
        flat, depth = view.project(point)
        near, tips = depth >= -1e-9, view.project(axes.T)[0]
    return {
        "sphere": point.shape[1] == 3,
        "axes": [[float(a), float(b)] for a, b in tips],
        "tokens": [
            {"x": float(a), "y": float(b), "near": bool(c)}
            for (a, b), c in zip(flat, near, strict=True)
        ],
    }


def _point(shape: "Shape", case: Mapping[str, Any]) -> "np.ndarray | None":
    import numpy as np

    if "layers" in case:
        return None
    if "x" in case and np.ndim(case["x"]) == 2:
        return np.asarray(case["x"], np.float64)
    if "signs" in case and "direction" in case:
        return np.outer(np.asarray(case["signs"]), np.asarray(case["direction"]))
    if "direction" in case and "value" in case:
        return np.tile(np.asarray(case["direction"], np.float64), (shape.n, 1))
    return None


def _real_axes(matrix: "np.ndarray") -> "tuple[np.ndarray, list[str]]":
    """Unit eigenvectors of real eigenvalues, decreasing, and their names."""
    import numpy as np

    symmetric = np.array_equal(matrix, matrix.T)
    values, vectors = np.linalg.eigh(matrix) if symmetric else np.linalg.eig(matrix)
    order = np.argsort(-values.real, kind="stable")
    kept = [k for k in order if abs(values[k].imag) < 1e-12]
    names = [f"$v_{list(order).index(k) + 1}$" for k in kept]
    return np.asarray(vectors[:, kept].real), names


def _of_runs(found: Map, name: str) -> "Figure":
    """Perturbed starts next to the point, or starts anywhere, and what became of them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from pmt.dynamics import simulate
    from pmt.figures.witness import Runs
    from theory.oracles import intrinsic_spectrum

    source = np.random.default_rng(0)
    d = found.layer_matrix.shape[0]
    if found.point is None:
        moved = source.normal(size=(STARTS, found.n, d))
    else:
        kick = source.normal(size=(STARTS, *found.point.shape))
        kick -= np.sum(kick * found.point, axis=-1, keepdims=True) * found.point
        kick *= SIZE / np.sqrt(np.sum(kick**2, axis=(1, 2), keepdims=True))
        # The last start is the point itself.
        moved = np.concatenate([found.point + kick, found.point[None]])
    moved = moved / np.linalg.norm(moved, axis=-1, keepdims=True)
    with jax.enable_x64(True):
        result = simulate(found.system, jnp.asarray(moved), STEPS, observables={})
        path = np.asarray(result.x)
    axes, labels = _real_axes(found.layer_matrix)
    spread = np.max(np.linalg.norm(path[:, :, :, None] - path[:, :, None], axis=-1), axis=(2, 3))
    if found.point is None:
        mean = np.linalg.norm(path.mean(axis=2), axis=-1)
        agreed = float(np.mean(mean[:, -1] > 1 - _AT_REST))
        told = (
            f"Runs of {found.n} tokens from {STARTS} uniformly random starts. Right: one minus the "
            "length of the tokens' mean, which is 0 at consensus, and the largest distance between "
            f"two tokens, which is 2 where some are opposite: {agreed:.0%} of the starts reach "
            f"consensus in {STEPS} steps."
        )
        early = slice(None, _SHOWN + 1)
        runs = Runs(
            path=path,
            point=None,
            distance=1.0 - mean[:, early],
            distance_label="1 - |mean token|",
            axes=axes,
            labels=labels,
            spread=spread[:, early],
        )
        return _figure(name, runs, told)
    distance = np.sqrt(np.sum((path - found.point) ** 2, axis=(2, 3)))
    moves = float(np.max(np.linalg.norm(found.step(found.point) - found.point, axis=1)))
    label = "distance to the point"
    if moves > _AT_REST:
        early = slice(None, _SHOWN + 1)
        told = (
            f"The tokens of this instance are not at rest: they move by up to {moves:.3g} in the "
            "first step. Right: the distance to where they were (dashed: the run that starts "
            "exactly there), and the largest distance between two tokens, 0 at consensus."
        )
        runs = Runs(
            path=path[:-1],
            point=found.point,
            distance=distance[:-1, early],
            distance_label=label,
            axes=axes,
            labels=labels,
            at_point=distance[-1, early],
            spread=spread[:-1, early],
        )
        return _figure(name, runs, told)
    multipliers = intrinsic_spectrum(found.step, found.point)
    moduli = np.abs(multipliers)
    radius = float(np.max(moduli))
    # Rounding does not decide on which side of the circle a multiplier is drawn.
    on = np.abs(moduli - 1) < _UNDECIDED
    multipliers = np.where(on, multipliers * (1 - 1e-12) / np.where(on, moduli, 1.0), multipliers)
    where = "1 to rounding" if abs(radius - 1) < _UNDECIDED else f"{radius:.6g}"
    back = int(np.sum(distance[:-1, -1] < _RETURNED * distance[:-1, 0]))
    told = (
        f"The point is at rest and its spectral radius is {where}: after {STEPS} steps {back} of "
        f"{STARTS} starts at distance {SIZE:g} are less than a tenth as far from it, and none is "
        f"farther than {float(np.max(distance[:-1, -1])):.2g}."
    )
    if abs(radius - 1) < _UNDECIDED:
        told += (
            " Along the directions with multiplier 1 nothing pulls them back or drives them away."
        )
    runs = Runs(
        path=path[:-1],
        point=found.point,
        distance=distance[:-1],
        distance_label=label,
        axes=axes,
        labels=labels,
        multipliers=multipliers,
    )
    return _figure(name, runs, told)


def _figure(name: str, runs: Any, told: str) -> "Figure":
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import runs_figure
    from pmt.report import Figure

    d = runs.path.shape[-1]
    if d == 2:
        told += " Left: the tokens' angles; time runs outward, logarithmically (steps at rings)."
    elif d == 3:
        told += " Left: tokens on the sphere from the first starts; what is behind it is faded."
    else:
        told += f" Tokens have dimension {d}, so that their paths are not drawn."
    if d == 2 and runs.point is not None:
        told += " White diamonds mark the point."
    if d <= 3:
        told += " Eigenvectors of the layer matrix are dashed on their negative side."
        gaps = [] if runs.point is None else np.linalg.norm(np.diff(runs.point, axis=0), axis=1)
        if np.any(np.asarray(gaps) < SIZE):
            told += " Tokens at one place cover each other."
    if runs.multipliers is not None:
        told += " Lower right: multipliers of the linearised map against the unit circle."
    alt = "Paths of tokens from perturbed starts, and their distance from the point over steps"
    return Figure(name, told, alt, figure_bytes(runs_figure(runs)))


def _of_logits(at: "Evaluated", name: str) -> "Figure | None":
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


def _of_edit(at: "Evaluated", name: str) -> "Figure | None":
    """A rank-one edit in the plane: where the eigenvectors of the edited matrix point."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import plane_figure
    from pmt.report import Figure

    case = at.case
    if not {"value", "target", "probe", "strength"} <= case.keys() or at.shape.d != 2:
        return None
    from theory.rank_one import edited

    axes, _ = _real_axes(np.asarray(edited({k: np.asarray(v) for k, v in case.items()})))
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


def _of_block(at: "Evaluated", name: str) -> "Figure | None":
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


def _of_rows(at: "Evaluated", name: str) -> "Figure | None":
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


def _of_numbers(at: "Evaluated", name: str) -> "Figure | None":
    """Lists of numbers as bars, each to its scale; single numbers where they have one scale."""
    import numpy as np

    from pmt.figures import figure_bytes
    from pmt.figures.witness import bars_figure
    from pmt.report import Figure

    groups = []
    single = {k: float(v) for k, v in at.numbers.items() if isinstance(v, int | float)}
    sizes = [abs(v) for v in single.values() if v]
    if len(single) > 1 and sizes and max(sizes) < _COMPARABLE * min(sizes):
        groups.append(("numbers", list(single), np.array(list(single.values()))))
    for key, value in at.numbers.items():
        if (
            isinstance(value, list)
            and 0 < len(value) <= 12
            and all(isinstance(v, int | float) for v in value)
        ):
            names = [str(k) for k in range(1, len(value) + 1)]
            groups.append((key, names, np.asarray(value, np.float64)))
    groups = [g for g in groups if np.all(np.isfinite(g[2]))]
    if not groups:
        return None
    return Figure(
        name,
        "The numbers that this instance claims, as bars; each panel has its own scale.",
        "Bars of the numbers in the table",
        figure_bytes(bars_figure(groups)),
    )

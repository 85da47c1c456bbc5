"""The map of an instance, run from next to its point or from anywhere, as a figure."""

from typing import TYPE_CHECKING, Any

from pmt.cli.witness_map import Map, real_axes

if TYPE_CHECKING:
    from pmt.report import Figure

STARTS, STEPS, SIZE = 50, 200, 0.15
# Where nothing settles, that many steps show it, and more only blacken the panel.
_SHOWN = 40

# A point that moves by less than this in a step is at rest.
_AT_REST = 1e-9
# A distance that shrank by this factor is a return.
_RETURNED = 0.1
# A modulus this close to 1 could be on either side.
_UNDECIDED = 1e-7


def of_runs(found: Map, name: str) -> "Figure":
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
    axes, labels = real_axes(found.layer_matrix)
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

"""The figures of the items of `pmt.experiments.items`, by their keys."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from pmt.figures.alignment import alignment_panels, token_distance
from pmt.figures.leading_eigenvalues import leading_eigenvalues
from pmt.figures.looped import loop_comparison, loop_training
from pmt.figures.orders import orders
from pmt.figures.products import cumulative_products
from pmt.figures.shared_layer import consensus, correlations, final_alignment
from pmt.figures.spectra import spectra
from pmt.figures.sphere_animation import sphere_animation
from pmt.figures.sphere_runs import sphere_runs
from pmt.figures.steered_layers import steered_layers


def _full_alignment(result: Any, *, column: bool = False) -> Figure:
    return alignment_panels(result.analysis, column=column)


def _full_distance(result: Any) -> Figure:
    return token_distance(result.analysis)


def _both(draw: Callable[..., Figure]) -> dict[str, Callable[[Any], Figure]]:
    """The same for a page and for a text column, its panels one above the other."""
    return {"figure": draw, "figure-column": partial(draw, column=True)}


# Key of an item -> name of a file -> its figure.
_DRAWN: Mapping[str, Mapping[str, Callable[[Any], Figure]]] = MappingProxyType(
    {
        "final_alignment": _both(final_alignment),
        "consensus": {"figure": consensus},
        "correlations": _both(correlations),
        "layer_alignment": {
            **_both(alignment_panels),
            "spectra": spectra,
            "distance": token_distance,
        },
        "full_mode": {**_both(_full_alignment), "distance": _full_distance},
        "leading_eigenvalues": _both(leading_eigenvalues),
        "cumulative_products": _both(cumulative_products),
        "steered_layers": _both(steered_layers),
        "orders": {"figure": orders},
        "loop_training": {"figure": loop_training},
        "loop_comparison": {"figure": loop_comparison},
        "sphere_runs": {"figure": sphere_runs},
    }
)


def draw_item(key: str | None, result: Any) -> dict[str, Figure]:
    """The figures of an item's result by the names of their files; none for a table."""
    if key is None:
        return {}
    return {name: draw(result) for name, draw in _DRAWN[key].items()}


def animate_item(key: str | None, result: Any) -> dict[str, bytes]:
    """The animations of an item's result by the names of their files; most items have none."""
    return {"animation.gif": sphere_animation(result)} if key == "sphere_runs" else {}

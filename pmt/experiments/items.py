"""The items: every figure and table of arXiv 2605.25619, and figures of 2606.00605, by name.

An item is a frozen config, a function from it to a result, and the forms that the result takes:
JSON, CSV tables, sentences, and the name of its figure in `pmt.figures`. What an item runs on is
in `Given`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pmt.errors import RequestError
from pmt.experiments import (
    cumulative_products,
    full_mode,
    layer_alignment,
    leading_eigenvalues,
    looped_items,
    orders,
    shared_layer,
    sphere_runs,
    steered_layers,
    table_1,
)
from pmt.experiments.analysis import ModelInfo
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.layer_by_layer import unseen
from pmt.experiments.loop_figure_1 import FIGURE_1, FIGURE_1_QUICK
from pmt.experiments.loop_figure_2 import FIGURE_2, FIGURE_2_QUICK
from pmt.parallel.store import UnitStore
from pmt.parallel.workers import Workers

Needs = Literal["nothing", "layers", "one layer", "text"]


def _unknown(layer: int) -> Any:
    del layer


def _nowhere(name: str) -> None:
    del name


def _no_model() -> Any:
    raise RequestError("this item runs the whole model; there is none")


@dataclass(frozen=True)
class Given:
    """What an item runs on.

    Attributes:
      layers: those of the model, read one at a time; None without a model.
      model: what it says of itself; None likewise.
      layer: which one is repeated, from 1, by the items about shared weights.
      seed: of all randomness.
      tokens: ``(prompts, n, d)`` in place of random ones; None for these.
      present: ``(prompts, n)``, False where ``tokens`` are padding; None where none are.
      texts: in place of the plain text that comes with the package, or of random tokens, which are
        those of the texts then; None for these.
      open_model: reads the whole model.
      solver: of the eigenproblems.
      progress: called with how many pieces of work were finished since the last call.
      folder: for checkpoints of what trains; None for none.
      keep: called with a layer (from 1) and what is known of it.
      recall: what ``keep`` was given for a layer by a run before this one, or None.
      units: where finished units of work of that name are kept, such as the layers of one of an
        item's analyses; None for nowhere.
      memo: results that several items share, by what they depend on.
    """

    layers: Any = None
    model: ModelInfo | None = None
    layer: int = 0
    seed: int = 0
    tokens: Any = None
    present: Any = None
    texts: tuple[str, ...] | None = None
    open_model: Callable[[], Any] = _no_model
    solver: Solver = field(default_factory=Solver)
    progress: Callable[[int], None] = unseen
    folder: Path | None = None
    keep: Callable[[int, Any], None] = unseen
    recall: Callable[[int], Any] = _unknown
    units: Callable[[str], UnitStore | None] = _nowhere
    memo: dict[Any, Any] = field(default_factory=dict)

    def workers(self, name: str) -> Workers:
        """All devices, for an analysis whose finished layers are kept under that name."""
        return Workers(store=self.units(name))


@dataclass(frozen=True)
class Item:
    """One figure or table.

    Attributes:
      name: by its number in the paper; alias: by what it shows.
      title, number: what it shows, and where the paper has it.
      needs: ``"nothing"``, the ``"layers"`` of a model, ``"one layer"`` of one, or a whole one that
        can read ``"text"``.
      config, quick: the frozen settings, as in the paper and small.
      run: from config and `Given` to the result.
      pieces: from the same to what the calls of ``progress`` add up to.
      record, tables, sentences: the forms of the result.
      figure: the key of its drawing in `pmt.figures.items`; None for a table.
    """

    name: str
    alias: str
    title: str
    number: str
    needs: Needs
    config: Any
    quick: Any
    run: Callable[[Any, Given], Any]
    pieces: Callable[[Any, Given], int]
    record: Callable[[Any], dict[str, Any]]
    tables: Callable[[Any], dict[str, list[dict[str, Any]]]]
    sentences: Callable[[Any], list[str]]
    figure: str | None


def _constant(number: int, config: Any, given: Given) -> int:
    del config, given
    return number


def _item(
    module: Any, name: str, alias: str, title: str, number: str, needs: Needs, **rest: Any
) -> Item:
    forms = ("run", "pieces", "record", "tables", "sentences")
    made: dict[str, Any] = {form: getattr(module, form, None) for form in forms}
    return Item(name=name, alias=alias, title=title, number=number, needs=needs, **(made | rest))


_FEW: dict[str, Any] = {"prompts": 6, "tokens": 5, "draws": 2}
_shared = partial(_item, shared_layer, needs="one layer")

ITEMS: tuple[Item, ...] = (
    _item(
        table_1,
        "table-1",
        "models",
        "The transformers of the paper, and the model at hand",
        "Table 1",
        "nothing",
        config=table_1.Table1Config(),
        quick=table_1.Table1Config(),
        pieces=partial(_constant, 0),
        figure=None,
    ),
    _shared(
        name="figure-2a",
        alias="final-alignment",
        title="Spectrum of the layer, and alignment of the last states with v₁ and with the plane",
        number="Fig. 2(a)",
        config=shared_layer.SharedConfig(),
        quick=shared_layer.SharedConfig(**_FEW),
        figure="final_alignment",
    ),
    _item(
        layer_alignment,
        "figure-2b",
        "alignment",
        "ρ, Δρ and P over layers, with chance and null models",
        "Figs. 2(b) and 7",
        "layers",
        config=layer_alignment.AlignmentConfig(),
        quick=layer_alignment.AlignmentConfig(**_FEW),
        figure="layer_alignment",
    ),
    _item(
        orders,
        "figure-2b-orders",
        "orders",
        "The same with eigenvalues sorted by Re λ, |1 + αλ| and |λ|, side by side",
        "beside Fig. 2(b)",
        "layers",
        config=orders.OrdersConfig(),
        quick=orders.OrdersConfig(**_FEW),
        figure="orders",
    ),
    _shared(
        name="figure-6a",
        alias="consensus",
        title="Distance between tokens while one layer is repeated",
        number="Fig. 6(a)",
        config=shared_layer.SharedConfig(),
        quick=shared_layer.SharedConfig(**_FEW),
        figure="consensus",
    ),
    _shared(
        name="figure-6b",
        alias="correlations",
        title="Correlation with v₁, v₂ and their plane over layers, every token",
        number="Fig. 6(b)",
        config=shared_layer.SharedConfig(),
        quick=shared_layer.SharedConfig(**_FEW),
        figure="correlations",
    ),
    _shared(
        name="figure-6c",
        alias="prolonged",
        title="The same with ten times as many layers",
        number="Fig. 6(c)",
        config=shared_layer.SharedConfig(times=10),
        quick=shared_layer.SharedConfig(times=4, **_FEW),
        figure="correlations",
    ),
    _item(
        leading_eigenvalues,
        "figure-6-eigenvalues",
        "leading-eigenvalues",
        "Real parts of the first five eigenvalues of every layer matrix, and all spectra",
        "Fig. 6 (the second of that number)",
        "layers",
        config=leading_eigenvalues.EigenvalueConfig(),
        quick=leading_eigenvalues.EigenvalueConfig(),
        figure="leading_eigenvalues",
    ),
    _item(
        cumulative_products,
        "figure-8",
        "cumulative-products",
        "Tokens against the cumulative products of F, and of I + αF",
        "Fig. 8",
        "layers",
        config=cumulative_products.ProductConfig(),
        quick=cumulative_products.ProductConfig(**_FEW),
        figure="cumulative_products",
    ),
    _item(
        steered_layers,
        "figure-9",
        "steered",
        "ρ, Δρ and P over layers with and without steering to a random direction",
        "Fig. 9, and its like in Sec. 3.3",
        "layers",
        config=steered_layers.SteeredConfig(),
        quick=steered_layers.SteeredConfig(**_FEW),
        figure="steered_layers",
    ),
    _item(
        full_mode,
        "figure-11",
        "full-mode",
        "ρ, Δρ and P over layers of the whole model on real text",
        "Figs. 10 and 11",
        "text",
        config=full_mode.FullConfig(),
        quick=full_mode.FullConfig(texts=6, draws=4),
        figure="full_mode",
    ),
    _item(
        sphere_runs,
        "figure-13a",
        "sphere",
        "Trajectories on the sphere, n = 10, d = 3: a single head and five heads",
        "Fig. 13(a)",
        "nothing",
        config=sphere_runs.SphereConfig(),
        quick=sphere_runs.SphereConfig(frames=8),
        run=sphere_runs.run_heads,
        pieces=partial(_constant, 2),
        figure="sphere_runs",
    ),
    _item(
        sphere_runs,
        "figure-13b",
        "bipartite",
        "A stable bipartite point after a small and after a larger disturbance",
        "Fig. 13(b)",
        "nothing",
        config=sphere_runs.BipartiteConfig(),
        quick=sphere_runs.BipartiteConfig(frames=8),
        run=sphere_runs.run_bipartite,
        pieces=partial(_constant, 2),
        figure="sphere_runs",
    ),
)

# Of the second paper. They train, which takes minutes, and concern no checkpoint: by name only.
LOOPED: tuple[Item, ...] = (
    _item(
        looped_items,
        "loop-figure-1",
        "loop-training",
        "What training makes of the looped transformer, beside the two-scalar dynamics",
        "Fig. 1 of arXiv 2606.00605",
        "nothing",
        config=FIGURE_1,
        quick=FIGURE_1_QUICK,
        run=looped_items.run_figure_1,
        figure="loop_training",
    ),
    _item(
        looped_items,
        "loop-figure-2",
        "loop-comparison",
        "One trained layer applied again and again, with and without normalisation",
        "Fig. 2 of arXiv 2606.00605",
        "nothing",
        config=FIGURE_2,
        quick=FIGURE_2_QUICK,
        run=looped_items.run_figure_2,
        figure="loop_comparison",
    ),
)

_BY_NAME = {name: item for item in (*ITEMS, *LOOPED) for name in (item.name, item.alias)} | {
    # Figures of the paper that differ in the models only.
    other: next(item for item in ITEMS if item.name == name)
    for other, name in (("figure-7", "figure-2b"), ("figure-10", "figure-11"))
}


def find_items(names: Sequence[str]) -> tuple[Item, ...]:
    """The items of these names or aliases, each once, in the order of the paper.

    Raises:
      RequestError: a name that none has.
    """
    every = (*ITEMS, *LOOPED)
    for name in names:
        if name not in _BY_NAME:
            raise RequestError(
                f"there is no item {name!r}; there are {', '.join(item.name for item in every)} "
                "(see pmt reproduce --list)"
            )
    wanted = {_BY_NAME[name].name for name in names}
    return tuple(item for item in every if item.name in wanted)

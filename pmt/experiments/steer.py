"""Steering a model and measuring it: alignment before and after, dose and response, and the cost.

Stripped mode: the edit is designed on tokens that went through the layers as
x <- normalize(x + Attention(x)), where its effect is known exactly. Full mode: the real model on
real text. The cost is always that of the real model on real text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt.checkpoints.delta import Delta
from pmt.errors import RequestError
from pmt.experiments.analysis import ModelInfo, describe
from pmt.experiments.collateral import Cost, Readout
from pmt.experiments.compensation import compensate
from pmt.experiments.dose_response import Curve
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.layer_by_layer import unseen
from pmt.experiments.steered_panels import Panel, Spectra, panels
from pmt.experiments.steered_runs import FullRun, StrippedRun
from pmt.models import Tokens
from pmt.models.editing import make_delta, require_layer, steered
from pmt.steering import Cast, Edit, Preimage, Response, unit

MODES = ("stripped", "full")
# Alignments at which the cost of the edit and of activation addition are compared.
_COMPARED = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95)


@dataclass(frozen=True)
class SteerConfig:
    """What to do; exactly one of ``strength``, ``c`` and ``alignment``.

    Attributes:
      strength: c in multiples of |lam_1|; c: the strength itself; alignment: the mean |cos| that
        the tokens shall have when they leave the layer. See `pmt.steering.design`.
      layer: from 1; the last one if None.
      read: the read vector: ``"target"``, ``"mean"`` or ``"fit"``.
      mode: ``"stripped"`` or ``"full"``.
      all_layers: edit weights that several layers share.
      precompensate: in full mode, steer to the direction that the rest of the layer maps to the
        target.
      order: of the eigenvalues.
      prompts, tokens, seed: of the random tokens in stripped mode.
      doses: points of the dose-response curve; 0 leaves it out.
      spectra: whether to solve for principal directions.
    """

    strength: float | None = None
    c: float | None = None
    alignment: float | None = None
    layer: int | None = None
    read: str = "target"
    mode: str = "stripped"
    all_layers: bool = False
    precompensate: bool = False
    order: str = "real"
    prompts: int = 100
    tokens: int = 10
    seed: int = 0
    doses: int = 13
    spectra: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise RequestError(f"the mode is {self.mode!r}; it must be 'stripped' or 'full'")
        if self.precompensate and self.mode != "full":
            raise RequestError(
                "pre-compensation is for the feed-forward block, which stripped mode drops; choose "
                "full mode too"
            )
        if self.doses < 0 or self.doses == 1:
            raise RequestError(f"doses is {self.doses}; it must be 0, or at least 2")


@dataclass(frozen=True)
class Steering:
    """The result.

    Attributes:
      model, config: what was steered, and how.
      layer: from 1.
      shape: of the tokens, (prompts, n, d), padding included.
      dtype: of the run.
      read: what the read vector is: ``config.read``, or ``"given"``.
      target: ``(d,)``. w, of unit length.
      edit: what was designed; its direction is not the target where that was pre-compensated.
      cast: what rounding to the stored dtype does.
      preimage: of the target, where asked for.
      before, after: alignment of the states that leave the layer with the target: rho statistics,
        "before" being without the edit and "after" with it; and the shares of positive cosines.
      base, steered: the panels of every layer without and with the edit.
      curve: dose and response in stripped mode, or None.
      costs: of the edit at its own strength (first), of nothing, and of the edit and activation
        addition side by side; empty without text.
      delta: the edit as a file would hold it; None for a model without a checkpoint.
    """

    model: ModelInfo
    config: SteerConfig
    layer: int
    shape: tuple[int, int, int]
    dtype: str
    read: str
    target: np.ndarray
    edit: Edit
    cast: Cast
    preimage: Preimage | None
    before: float
    after: float
    positive_before: float
    positive_after: float
    base: tuple[Panel, ...]
    steered: tuple[Panel, ...]
    curve: Curve | None
    costs: tuple[Cost, ...]
    delta: Delta | None


def steer(
    model: Any,
    direction: Any,
    config: SteerConfig,
    *,
    read: Any = None,
    tokens: Any = None,
    present: Any = None,
    text: Tokens | None = None,
    progress: Callable[[int], None] = unseen,
    solver: Solver | None = None,
) -> Steering:
    """Design the edit of one layer, and measure the model with and without it.

    The model itself is as before at the end, bit for bit.

    Args:
      model: a ``Transformer``.
      direction: ``(d,)``. Where to steer to, of any length but zero.
      config: how.
      read: a read vector ``(d,)`` in place of ``config.read``.
      tokens: ``(prompts, n, d)`` for stripped mode; random ones if None.
      present: ``(prompts, n)``, False where these are padding; None where none are.
      text: for full mode and for the cost; without it the cost is left out.
      progress: called with 1 for every piece of work; see `count_of_pieces`.
      solver: of the eigenproblems; None solves each of them anew.

    Raises:
      RequestError: as `pmt.steering.design` and `pmt.models.editing.require_layer`; full mode
        without text; an alignment that the state leaving the layer does not reach in full mode.
    """
    wanted = len(model.schedule) if config.layer is None else config.layer
    index = require_layer(model, wanted - 1, all_layers=config.all_layers)
    run = (
        FullRun(model, index, text)
        if config.mode == "full"
        else StrippedRun(model, index, config, tokens, present)
    )
    target = unit("the direction", direction, model.dimensions.d)
    choice = config.read if read is None else read
    preimage, toward = None, target
    if config.precompensate:
        preimage = compensate(model, index, target, run.attended, config, choice)
        toward = preimage.direction
    edit = run.design(toward, target, config, choice)
    progress(1)
    delta = None if model.checkpoint is None else make_delta(model, index, edit)
    stored = np.dtype(model.token_table.dtype) if delta is None else _dtype_of(delta)
    spectra = Spectra(config.order, model.token_table.dtype, progress, solver or Solver())
    base = panels(
        run.states(None, stored), run.present, target, run.matrices(None, stored, config), spectra
    )
    changed = panels(
        run.states(edit, stored), run.present, target, run.matrices(edit, stored, config), spectra
    )
    cosines = [run.cosines(each, stored, target)[run.present] for each in (None, edit)]
    curve = run.curve(edit, stored, config.doses)
    progress(1)
    costs: tuple[Cost, ...] = ()
    if text is not None:
        full = run if isinstance(run, FullRun) else FullRun(model, index, text)
        costs = _costs(full, edit, target, stored, text)
    progress(1)
    return Steering(
        model=describe(model),
        config=config,
        layer=index + 1,
        shape=run.shape,
        dtype=str(np.dtype(model.token_table.dtype)),
        read=config.read if read is None else "given",
        target=target,
        edit=edit,
        cast=edit.cast(run.layer, stored),
        preimage=preimage,
        before=float(np.abs(cosines[0]).mean()),
        after=float(np.abs(cosines[1]).mean()),
        positive_before=float((cosines[0] > 0).mean()),
        positive_after=float((cosines[1] > 0).mean()),
        base=base,
        steered=changed,
        curve=curve,
        costs=costs,
        delta=delta,
    )


def count_of_pieces(model: Any, config: SteerConfig) -> int:
    """What the calls that ``steer`` makes of its ``progress`` add up to, at most."""
    return 3 + (len(set(model.schedule)) + 1 if config.spectra else 0)


def _costs(
    full: FullRun, edit: Edit, target: np.ndarray, stored: np.dtype, text: Tokens
) -> tuple[Cost, ...]:
    """The edit at its own strength, nothing, and both methods where they align the most alike."""
    plain = full.leaving(None, stored)
    readout = Readout(full.model, text, full.index, plain)

    def edited(now: Edit) -> Cost:
        # All of the model, since later layers may have the same weights.
        with steered(full.model, full.index, now, stored):
            return readout.cost("edit", now.strength, full.leaving(None, stored), target)

    costs = [edited(edit), readout.cost("none", 0.0, plain, target)]
    sign = -1.0 if edit.strength < 0 else 1.0
    doses = _doses(full.attended.response(edit.direction, edit.flat))
    costs += [edited(edit.at(sign * c)) for c in doses]
    wide = np.asarray(plain, np.float64)
    along = wide @ target
    across = np.linalg.norm(wide - along[..., None] * target, axis=-1)
    response = Response(along, across, np.ones_like(along), full.present)
    for s in _doses(response):
        moved = plain + jnp.asarray(s * target, plain.dtype)[None, None, :]
        costs.append(readout.cost("addition", s, moved, target))
    return tuple(costs)


def _doses(response: Response) -> list[float]:
    start, limit = response.alignment(0.0), response.limit
    return [response.strength(a) for a in _COMPARED if start < a < limit]


def _dtype_of(delta: Delta) -> np.dtype:
    from pmt.checkpoints.header import DTYPES

    return DTYPES[delta.dtype]

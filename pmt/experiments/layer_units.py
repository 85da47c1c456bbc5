"""What the analysis of one layer gives, as a unit of work that any device of any host may run.

A layer is the unit: its eigenproblem, its null models with theirs, and its statistics are the work
of whoever claims it. What it gives is small, its spectrum and no eigenvectors, and reads back to
the last bit.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax
import numpy as np

from pmt.experiments.analysis import (
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    ModelInfo,
    NullAlignment,
)
from pmt.experiments.first_order import FirstOrder
from pmt.parallel.units import Payload
from pmt.spectral import Alignment, Average, Spectrum

_ARRAYS = ("values", "residuals", "conditions", "basis", "plane")
# The arrays apart, what a layer says is text: JSON, in which Python reads back every number.
_TEXT = "text"


@dataclass(frozen=True)
class Facts:
    """What is known of the run where a layer is measured.

    Attributes:
      shape, dtype, device: as of an ``Analysis``.
      heads: of a layer.
      biases, rotary: whether the layer has any; of several, whether one has.
      initial_distance: before the first layer; None but with that layer.
      first_order: what the first-order law says of it; None likewise.
      prompts_at_once: as many as this device had memory for; None where it had it for all.
    """

    shape: tuple[int, int, int]
    dtype: str
    device: str
    heads: int
    biases: bool
    rotary: bool
    initial_distance: float | None
    prompts_at_once: int | None
    first_order: FirstOrder | None = None

    @classmethod
    def of(
        cls,
        x: jax.Array,
        heads: int,
        biases: bool,
        rotary: bool,
        initial_distance: float | None,
        prompts_at_once: int | None,
        first_order: FirstOrder | None = None,
    ) -> "Facts":
        """With what the states ``(batch, n, d)`` say."""
        (device,) = x.devices()
        return cls(
            shape=(x.shape[0], x.shape[1], x.shape[2]),
            dtype=str(x.dtype),
            device=f"{device.platform} ({device.device_kind})",
            heads=heads,
            biases=biases,
            rotary=rotary,
            initial_distance=initial_distance,
            prompts_at_once=prompts_at_once,
            first_order=first_order,
        )


def as_payload(layer: LayerAnalysis, facts: Facts) -> Payload:
    """One layer, under names that those of other layers do not have."""
    own = vars(layer.principal)
    said = vars(layer) | {
        "principal": {name: value for name, value in own.items() if name not in _ARRAYS},
        "alignment": asdict(layer.alignment),
        "average": None if layer.average is None else asdict(layer.average),
        "plane": None if layer.plane is None else asdict(layer.plane),
        "null": {name: asdict(null) for name, null in layer.null.items()},
        "facts": asdict(facts),
    }
    arrays = {name: own[name] for name in _ARRAYS if own[name] is not None}
    given = arrays | {_TEXT: np.array(json.dumps(said))}
    return {f"{layer.index}/{name}": value for name, value in given.items()}


def as_analysis(
    total: Payload,
    config: AnalysisConfig,
    mode: Literal["stripped", "full"],
    present: np.ndarray | None,
) -> Analysis:
    """The result, from what all layers gave; what they belong to is left to say."""
    layers, facts = read_layers(total)
    return Analysis(
        model=ModelInfo("unnamed", "attention", 0, facts.heads, 0, False, None, None),
        config=config,
        shape=facts.shape,
        dtype=facts.dtype,
        device=facts.device,
        biases=facts.biases,
        rotary=facts.rotary,
        initial_distance=facts.initial_distance or 0.0,
        layers=tuple(layers),
        mode=mode,
        counted=None if present is None else int(present.sum()),
        prompts_at_once=facts.prompts_at_once,
        first_order=facts.first_order,
    )


def read_layers(payload: Payload) -> tuple[list[LayerAnalysis], Facts]:
    """The layers in their order, and the facts of the run as far as these know them."""
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name, value in payload.items():
        index, _, what = name.partition("/")
        parts.setdefault(int(index), {})[what] = value
    read = [_read(parts[index]) for index in sorted(parts)]
    every = [facts for _, facts in read]
    sizes = [each.prompts_at_once for each in every if each.prompts_at_once is not None]
    first = every[0]
    return [layer for layer, _ in read], Facts(
        shape=first.shape,
        dtype=first.dtype,
        device=first.device,
        heads=first.heads,
        biases=any(each.biases for each in every),
        rotary=any(each.rotary for each in every),
        initial_distance=first.initial_distance,
        prompts_at_once=min(sizes, default=None),
        first_order=first.first_order,
    )


def _read(part: Mapping[str, np.ndarray]) -> tuple[LayerAnalysis, Facts]:
    said: dict[str, Any] = json.loads(str(part[_TEXT]))
    facts = said.pop("facts")
    facts["shape"] = tuple(facts["shape"])
    if facts["first_order"] is not None:
        facts["first_order"] = FirstOrder(**facts["first_order"])
    arrays: dict[str, Any] = {name: part.get(name) for name in _ARRAYS}
    said["principal"] = Spectrum(**said["principal"], **arrays)
    said["alignment"] = Alignment(**said["alignment"])
    for name, kind in (("average", Average), ("plane", Alignment)):
        said[name] = None if said[name] is None else kind(**said[name])
    said["null"] = {name: NullAlignment.of_record(null) for name, null in said["null"].items()}
    return LayerAnalysis(**said), Facts(**facts)

"""What is measured of the tokens before and after a layer, once its eigenproblems are solved."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from pmt import sphere
from pmt.attention import Boolean, Causal, Full
from pmt.experiments.analysis import LayerAnalysis, NullAlignment
from pmt.spectral import (
    Alignment,
    Directions,
    Spectrum,
    as_directions,
    average_over_directions,
    chance,
    rho,
    standard_error,
    summarize,
)


@dataclass
class Block:
    """What is known of a layer's weights once its eigenproblems are solved.

    Attributes:
      last: the last layer that has these weights.
      spectrum, directions: its own, and all its eigendirections.
      rotated, gaussian: bases of the principal direction under each draw of the null models.
    """

    last: int
    spectrum: Spectrum
    directions: Directions
    rotated: list[np.ndarray]
    gaussian: list[np.ndarray] = field(default_factory=list)


@dataclass
class Passage:
    """The tokens before and after a layer whose tensors are gone.

    Attributes:
      index: of the layer, from 0; block: which weights it has.
      mask, scale: of its attention.
      before, after: the states.
      gaussian, rotated: the states after it under each draw of the null models.
    """

    index: int
    block: int
    mask: str
    scale: float
    before: jax.Array
    after: jax.Array
    gaussian: list[jax.Array] = field(default_factory=list)
    rotated: list[jax.Array] = field(default_factory=list)


def measure(passage: Passage, block: Block) -> LayerAnalysis:
    """The statistics of one layer."""
    own, (before, after) = block.spectrum, (passage.before, passage.after)
    d = before.shape[-1]
    null = {}
    if passage.gaussian:
        null["gaussian"] = _null(before, block.gaussian, passage.gaussian)
    if passage.rotated:
        null["rotated"] = _null(before, block.rotated, passage.rotated)
    return LayerAnalysis(
        index=passage.index + 1,
        mask=passage.mask,
        scale=passage.scale,
        principal=own,
        alignment=_alignment(own.basis, before, after),
        average=average_over_directions(before, after, block.directions),
        chance=chance(d, own.dimension),
        plane=None if own.plane is None else _alignment(own.plane, before, after),
        plane_chance=None if own.plane is None else chance(d, 2),
        null=null,
        intertoken_distance=mean_distance(after),
    )


def _alignment(basis: np.ndarray, before: jax.Array, after: jax.Array) -> Alignment:
    directions = as_directions(basis, before.dtype)
    return summarize(*(_rho(x, directions)[..., 0] for x in (before, after)))


_rho = jax.jit(rho)


def _null(before: jax.Array, bases: list[np.ndarray], moved: list[jax.Array]) -> NullAlignment:
    """From the basis of the principal direction and the next state of every draw."""
    increments, dimensions = [], set()
    for basis, after in zip(bases, moved, strict=True):
        directions = as_directions(basis, before.dtype)
        low, high = (np.asarray(_rho(x, directions)[..., 0], np.float64) for x in (before, after))
        increments.append(high - low)
        dimensions.add(basis.shape[1])
    delta = np.stack(increments)
    over_prompts = standard_error(delta.mean(axis=0))
    over_draws = standard_error(delta.reshape(len(delta), -1)) or 0.0
    return NullAlignment(
        delta_rho=float(delta.mean()),
        p_increase=float(np.mean(delta > 0)),
        se=None if over_prompts is None else float(np.hypot(over_prompts, over_draws)),
        dimension=dimensions.pop() if len(dimensions) == 1 else None,
    )


def mean_distance(x: jax.Array) -> float:
    """Mean intertoken distance, mean over prompts."""
    return float(np.asarray(_intertoken_distance(x), np.float64).mean())


_intertoken_distance = jax.jit(sphere.intertoken_distance)


def mask_name(mask: Any) -> str:
    """A mask in words."""
    if isinstance(mask, Full):
        return "full"
    if isinstance(mask, Causal):
        return "causal"
    if isinstance(mask, Boolean):
        return "boolean"
    return f"{'causal' if bool(mask.causal) else 'two-sided'} window {int(mask.size)}"

"""What is measured of the tokens before and after a layer, once its eigenproblems are solved."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.attention import Boolean, Causal, Full
from pmt.experiments.analysis import LayerAnalysis, NullAlignment
from pmt.experiments.contrast import error_of_draws, null_rho, spread_of_draws
from pmt.experiments.states import distances, rho_of, summarize_present, without_padding
from pmt.numerics import on_host
from pmt.spectral import (
    Alignment,
    Directions,
    Spectrum,
    as_directions,
    average_over_directions,
    chance,
    rho_on_host,
    summarize,
)


@dataclass
class Block:
    """What is known of a layer's weights once its eigenproblems are solved.

    Attributes:
      last: the last layer that has these weights.
      spectrum, directions: its own, and all its eigendirections; None where these are not known.
      gaussian: bases of the principal direction under each draw of that null model.
    """

    last: int
    spectrum: Spectrum
    directions: Directions | None
    gaussian: list[np.ndarray] = field(default_factory=list)


@dataclass
class Passage:
    """The tokens before and after a layer whose tensors are gone.

    Attributes:
      index: of the layer, from 0; block: which weights it has.
      mask, scale: of its attention.
      before, after: the states.
      present: False for padding; None where there is none. What follows may be on the host.
      gaussian: the states after it under each draw of that null model.
      rotated: under each draw of the other with the rotation R, the states before and after it as
        Rᵀ x. Their alignment with a direction v of the layer is that of the states with R v.
      null: what the null models show, where it is known without those states.
    """

    index: int
    block: int
    mask: str
    scale: float
    before: jax.Array
    after: jax.Array
    present: np.ndarray | None = None
    gaussian: list[Any] = field(default_factory=list)
    rotated: list[tuple[Any, Any]] = field(default_factory=list)
    null: dict[str, NullAlignment] | None = None


def measure(passage: Passage, block: Block) -> LayerAnalysis:
    """The statistics of one layer."""
    own, (before, after) = block.spectrum, (passage.before, passage.after)
    d, present = before.shape[-1], passage.present
    null = dict(passage.null or {})
    if passage.gaussian:
        moved = zip(block.gaussian, passage.gaussian, strict=True)
        null["gaussian"] = _null([(basis, before, x) for basis, x in moved], present)
    if passage.rotated:
        null["rotated"] = _null([(own.basis, *both) for both in passage.rotated], present)
    average = None
    if block.directions is not None:
        low, high = (x if present is None else _only(x, present) for x in (before, after))
        average = average_over_directions(low, high, block.directions)
    return LayerAnalysis(
        index=passage.index + 1,
        mask=passage.mask,
        scale=passage.scale,
        principal=own,
        alignment=_alignment(own.basis, before, after, present),
        average=average,
        chance=chance(d, own.dimension),
        plane=None if own.plane is None else _alignment(own.plane, before, after, present),
        plane_chance=None if own.plane is None else chance(d, 2),
        null=null,
        intertoken_distance=mean_distance(after, present),
    )


def _alignment(
    basis: np.ndarray, before: jax.Array, after: jax.Array, present: np.ndarray | None
) -> Alignment:
    low, high = (_rho(x, basis) for x in (before, after))
    return summarize(low, high) if present is None else summarize_present(low, high, present)


def _rho(x: Any, basis: np.ndarray) -> np.ndarray:
    """Of the states ``(prompts, n, d)``, where they are."""
    if on_host(x):
        return rho_on_host(np.asarray(x), basis)
    return rho_of(x, as_directions(basis, x.dtype))


def _only(x: jax.Array, present: np.ndarray) -> jax.Array:
    # A token weighs as much as any other, so that padding can be left out first.
    return jnp.asarray(np.asarray(x)[present][:, None])


def _null(draws: list[tuple[np.ndarray, Any, Any]], present: np.ndarray | None) -> NullAlignment:
    """From the basis of the principal direction and the states before and after of every draw."""
    dimensions = [basis.shape[1] for basis, _, _ in draws]
    low, high = (
        without_padding(np.stack([_rho(states[when], basis) for basis, *states in draws]), present)
        for when in (0, 1)
    )
    after = null_rho(high, draws[0][1].shape[-1], dimensions)
    return NullAlignment(
        delta_rho=float((high - low).mean()),
        p_increase=float((high > low).mean()),
        se=error_of_draws(high - low),
        sd=spread_of_draws(high - low),
        draws=after.draws,
        dimension=after.dimension,
        after=after,
    )


def mean_distance(x: jax.Array, present: np.ndarray | None = None) -> float:
    """Mean intertoken distance, mean over prompts; of texts, over those of at least two tokens.

    Tokens of texts, which need not be of unit length, are taken to the sphere first. 0 where no
    text has two tokens.
    """
    if present is None:
        return float((distances_on_host(np.asarray(x)) if on_host(x) else distances(x)).mean())
    means = []
    for text, there in zip(np.asarray(x, np.float64), present, strict=True):
        unit = text[there] / np.linalg.norm(text[there], axis=1, keepdims=True)
        pairs = len(unit) * (len(unit) - 1) / 2
        if pairs:
            # A row at a time: all differences of 1024 tokens would take gigabytes.
            rows = (np.linalg.norm(unit[i + 1 :] - unit[i], axis=1) for i in range(len(unit)))
            means.append(sum(float(chords.sum()) for chords in rows) / pairs)
    return float(np.mean(means)) if means else 0.0


def distances_present(x: jax.Array, present: np.ndarray | None) -> np.ndarray:
    """Of every prompt, ``(prompts,)``; padding is left out as in ``mean_distance``."""
    if present is None:
        return distances(x)
    texts = zip(x[:, None], present[:, None], strict=True)
    return np.array([mean_distance(*text) for text in texts])


def distances_on_host(x: np.ndarray) -> np.ndarray:
    """As ``distances``, by NumPy and compiled nowhere."""
    n = x.shape[1]
    total = np.zeros(len(x))
    for i in range(n - 1):
        apart = x[:, i + 1 :] - x[:, i : i + 1]
        chords = np.sqrt(np.einsum("bjd,bjd->bj", apart, apart))
        total += chords.sum(axis=1, dtype=np.float64)
    return total / max(n * (n - 1) / 2, 1)


def mask_name(mask: Any) -> str:
    """A mask in words."""
    if isinstance(mask, Full):
        return "full"
    if isinstance(mask, Causal):
        return "causal"
    if isinstance(mask, Boolean):
        return "boolean"
    return f"{'causal' if bool(mask.causal) else 'two-sided'} window {int(mask.size)}"

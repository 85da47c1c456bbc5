"""States of many prompts against a line or plane, and against each other; padding left out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pmt import sphere
from pmt.numerics import AnyArray
from pmt.spectral import Alignment, Directions, as_directions, rho, standard_error

_rho = jax.jit(rho)
_distance = jax.jit(sphere.intertoken_distance)


def rho_of(
    x: Float[AnyArray, "prompts n d"], directions: Directions
) -> Float[np.ndarray, "prompts n"]:
    """rho of states with one line or plane, float64."""
    return np.asarray(_rho(jnp.asarray(x), directions)[..., 0], np.float64)


def distances(x: Float[Array, "prompts n d"]) -> Float[np.ndarray, " prompts"]:
    """Mean intertoken distance of every prompt, float64."""
    return np.asarray(_distance(x), np.float64)


def without_padding(
    values: Float[np.ndarray, "*more prompts n"], present: Bool[np.ndarray, "prompts n"] | None
) -> np.ndarray:
    """The same, masked where there is padding, so that no mean counts it; None where none is."""
    if present is None:
        return values
    return np.ma.MaskedArray(values, np.broadcast_to(~np.asarray(present), values.shape))


def tokens_present(x: Any, present: Bool[np.ndarray, "prompts n"] | None) -> Any:
    """States ``(prompts, n, d)`` for a mean over tokens: those that are there, ``(all, 1, d)``."""
    # A token weighs as much as any other, so that padding can be left out first.
    return x if present is None else jnp.asarray(np.asarray(x)[present][:, None])


def summarize_present(
    before: Float[np.ndarray, "prompts n"],
    after: Float[np.ndarray, "prompts n"],
    present: Bool[np.ndarray, "prompts n"],
) -> Alignment:
    """As `pmt.spectral.summarize`, without the padding: tokens weigh equally, texts are units."""
    low, high = before[present], after[present]
    delta = high - low
    return Alignment(
        rho_before=float(low.mean()),
        rho_after=float(high.mean()),
        rho_after_std=float(high.std()),
        rho_after_se=standard_error(without_padding(after, present)),
        delta_rho=float(delta.mean()),
        delta_rho_std=float(delta.std()),
        delta_rho_se=standard_error(without_padding(after - before, present)),
        p_increase=float(np.mean(high > low)),
    )


def present_alignment(
    basis: Float[np.ndarray, "d dim"], before: Any, after: Any, present: Any
) -> Alignment:
    """Alignment of states ``(prompts, n, d)`` with a line or plane; no padding."""
    directions = as_directions(basis, np.asarray(before).dtype)
    return summarize_present(rho_of(before, directions), rho_of(after, directions), present)

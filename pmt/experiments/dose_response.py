"""Dose and response: the tokens' alignment against the strength c, predicted and measured."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.dynamics import MultiHead
from pmt.experiments.layer_by_layer import advance
from pmt.steering import Attended, Edit, Response, apply, predicted_error


@dataclass(frozen=True)
class Curve:
    """Mean |cos(x_i', w)| right after the layer, in stripped mode, over the tokens present.

    Attributes:
      c: ``(m,)``, increasing in modulus, 0 first.
      predicted: from the tokens' response to the unedited layer.
      error: how far ``measured`` may be from it: `pmt.steering.predicted_error`.
      measured: with the edited layer, its weights rounded to the stored dtype.
      positive: share of tokens with a positive cosine, as measured.
      s: ``(m,)``, the doses of the baseline, activation addition: normalize(y_i + s w).
      addition: its mean |cos|.
    """

    c: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    measured: np.ndarray
    positive: np.ndarray
    s: np.ndarray
    addition: np.ndarray


def dose_response(
    layer: MultiHead, x: jax.Array, attended: Attended, edit: Edit, stored: Any, doses: int
) -> Curve:
    """Sweep c from where the edit begins to show to where it is all there is.

    Args:
      layer: not edited, in the run's dtype.
      x: ``(prompts, n, d)``. Its input.
      attended: ``attend(layer, x)``, which says what is padding.
      edit: at its own strength, which is one of the doses.
      stored: the dtype that the edited weights are rounded to.
      doses: how many besides 0 and the edit's own.
    """
    response, present = edit.response, attended.present
    padding = None if present.all() else present
    if response is None:
        response = attended.response(edit.direction, edit.flat)
    sign = -1.0 if edit.strength < 0 else 1.0
    strengths = sign * spread(response, doses)
    c = np.array(sorted({0.0, edit.strength, *strengths.tolist()}, key=abs))
    measured: list[float] = []
    positive: list[float] = []
    error: list[float] = []
    for each in c:
        now = edit.at(float(each))
        try:
            after = advance(apply(layer, now, stored), x, "the steered layer", present=padding)
        except ValueError:
            # Beyond what the stored dtype holds there is no curve.
            c = c[: len(measured)]
            break
        cosines = (np.asarray(after, np.float64) @ edit.direction)[present]
        measured.append(float(np.abs(cosines).mean()))
        positive.append(float((cosines > 0).mean()))
        lost = now.lost(layer, stored)
        error.append(predicted_error(attended, response, now.strength, edit.flat, lost))
    baseline = addition_response(attended, edit.direction)
    s = np.array([0.0, *spread(baseline, doses)])
    plain = jnp.asarray(attended.plain[present], x.dtype)
    w = jnp.asarray(edit.direction, x.dtype)
    return Curve(
        c=c,
        predicted=np.array([response.alignment(float(each)) for each in c]),
        error=np.array(error),
        measured=np.array(measured),
        positive=np.array(positive),
        s=s,
        addition=np.array([float(_added(plain, w, jnp.asarray(each, x.dtype))) for each in s]),
    )


def addition_response(attended: Attended, direction: np.ndarray) -> Response:
    """How tokens answer to s w added to each of them: every kappa is one."""
    plain = attended.response(direction, np.zeros(attended.mixed.shape[-1]))
    return Response(plain.along, plain.across, np.ones_like(plain.along), plain.present)


def spread(response: Response, doses: int) -> np.ndarray:
    """Strengths from 2% to 99% of the way from no edit to the limit, evenly on a log scale."""
    start, end = response.alignment(0.0), response.limit
    low, high = (response.strength(start + part * (end - start)) for part in (0.02, 0.99))
    return np.geomspace(low, max(high, 2 * low), doses)


@jax.jit
def _added(plain: jax.Array, w: jax.Array, s: jax.Array) -> jax.Array:
    moved = sphere.normalize(plain + s * w[None, :])
    return jnp.mean(jnp.abs(jnp.sum(moved * w[None, :], axis=-1)))

"""Figures 2(a) and 6(a)-(c) of arXiv 2605.25619: one layer applied again and again.

Written for models whose layers have the same weights, eq. (2); here any single layer of any model
is repeated. Beside the paper's quantities stand the level of chance, the mean over all
eigendirections, and both null models (see `pmt.experiments.nulls`), repeated in the same way from
the same tokens. The rotated one is the stricter: it has the layer's own spectrum, so that the pace
of the power method is the same, and differs in how its directions lie to Q, K and the tokens.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pmt.errors import RequestError
from pmt.experiments.ahead import Ahead
from pmt.experiments.analysis import NULLS, NullRho
from pmt.experiments.contrast import (
    Contrast,
    columns,
    contrast,
    mean_chance,
    null_rho,
    sentence,
)
from pmt.experiments.layer_by_layer import advance, prepare_layer
from pmt.experiments.null_runs import NullDraw, NullRun, gather, gaussian_step
from pmt.experiments.nulls import apply_rotated, gaussian_maps, random_rotation
from pmt.experiments.shared_steps import Kept, Watch
from pmt.experiments.states import without_padding
from pmt.experiments.stripped import count_of_blocks
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import (
    Principal,
    Spectrum,
    all_directions,
    as_directions,
    chance,
    layer_matrix,
    standard_error,
)


@dataclass(frozen=True)
class SharedConfig:
    """How often, from which tokens.

    Attributes:
      times: the layer is applied ``times`` as often as the model has layers; above 1 the model is
        prolonged, as in Fig. 6(c).
      prompts, tokens, order, alpha: as in ``AnalysisConfig``.
      draws: how often each null model is drawn; null_prompts: how many of the prompts go through
        each, the first ones. A Gaussian null costs h times what the layer does.
    """

    times: int = 1
    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    alpha: float = 1.0
    draws: int = 5
    null_prompts: int = 25


@dataclass(frozen=True)
class SharedRun:
    """The result; of every state x(0), ..., x(steps), for every prompt and token.

    What stands for padding is masked, so that no mean counts it; so is the distance within a text
    of one token.

    Attributes:
      layer: which one, from 1; shared: whether the model is this one layer repeated, all of its
        layers having the same weights.
      depth, steps: layers of the model, and how often the layer was applied.
      spectrum: of its layer matrix.
      first, second: rho (steps + 1, prompts, n) with the lines of v_1 and of v_2. v_2 belongs to
        the next real eigenvalue; in Case 2 they are the orthonormal basis of the plane, the first
        along Re v_1, so that a rotation in it is seen.
      plane: rho with the plane of both; None where F has a single real eigendirection.
      signed: (prompts, n), the correlation with v_1 of the last states, with its sign.
      average: (steps + 1,), mean of rho over all eigendirections.
      null: the null models by name.
      distance: (steps + 1, prompts), mean intertoken distance.
      chances: of rho with a line, a plane, the principal direction, and of ``average``.
    """

    layer: int
    shared: bool
    depth: int
    steps: int
    spectrum: Spectrum
    first: np.ndarray
    second: np.ndarray | None
    plane: np.ndarray | None
    signed: np.ndarray
    average: np.ndarray
    null: dict[str, NullRun]
    distance: np.ndarray
    chances: tuple[float, float | None, float, float]

    @property
    def principal(self) -> np.ndarray:
        """rho with the principal direction: the plane in Case 2, else the line."""
        return self.plane if self.spectrum.dimension == 2 and self.plane is not None else self.first

    def under(self, name: str, step: int) -> NullRho:
        """rho under a null model after a step."""
        null = self.null[name]
        return null_rho(null.rho[:, step], len(self.spectrum.values), null.dimensions)


def pieces(config: SharedConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    return config.times * given.layers.depth + 1 + config.draws


def run(config: SharedConfig, given: Any) -> SharedRun:
    """Apply ``given.layer`` to random tokens, or to ``given.tokens``; once for equal configs.

    Raises:
      RequestError: no such layer, tokens that cannot be used, weights that are not finite.
    """
    known = given.memo.get((config, given.layer, given.seed))
    if known is None:
        known = given.memo[config, given.layer, given.seed] = _run(config, given)
    else:
        given.progress(pieces(config, given))
    return known


def _run(config: SharedConfig, given: Any) -> SharedRun:
    layers, number = given.layers, given.layer
    if not 1 <= number <= layers.depth:
        raise RequestError(f"there is no layer {number}; the model has layers 1 to {layers.depth}")
    layer = prepare_layer(layers.layer(number - 1), config.alpha)
    dtype, d = layer.query.dtype, layer.query.shape[-1]
    tokens = given.tokens
    if tokens is None:
        tokens = random_tokens(config.prompts, config.tokens, d, given.seed)
    x, present = prepare_tokens(tokens, d, dtype), given.present
    matrix = layer_matrix(layer)
    require_finite(f"the layer matrix F of layer {number}", matrix)
    # As in an analysis of all layers, so that its solved eigenproblems are these.
    keys = [
        (given.seed, draw, getattr(layers, "block", int)(number - 1))
        for draw in range(config.draws)
    ]
    own, bases = _solve(config, given, layer, matrix, keys)
    pair = _pair(own)
    lines = [as_directions(pair[:, [column]], dtype) for column in range(pair.shape[1])]
    both = _plane(own, pair)
    plane = as_directions(both, dtype) if pair.shape[1] == 2 else None
    everything = all_directions(own.pairs, dtype)
    rotations, few = [random_rotation(d, *key) for key in keys], x[: config.null_prompts]
    there = None if present is None else present[: config.null_prompts]
    gaussian = [
        NullDraw(partial(gaussian_step, layer, key), basis, few, there)
        for key, basis in zip(keys, bases, strict=True)
    ]
    rotated = [
        NullDraw(partial(apply_rotated, layer, r), r @ own.basis, few, there) for r in rotations
    ]

    steps, kept = config.times * layers.depth, Kept(given.units("steps"))
    watch = Watch(x, present, lines, plane, everything, (*gaussian, *rotated))
    kept.go_on(watch)
    given.progress(watch.step)
    for step in range(watch.step + 1, steps + 1):
        where = f"step {step} of layer {number}"
        watch.go_on(advance(layer, watch.x, where, present=present))
        kept.keep(watch)
        given.progress(1)
    first, *others = (without_padding(np.stack(each), present) for each in watch.lines)
    return SharedRun(
        layer=number,
        shared=layers.depth > 1 and count_of_blocks(layers) == 1,
        depth=layers.depth,
        steps=steps,
        spectrum=own.spectrum,
        first=first,
        second=others[0] if others else None,
        plane=None if plane is None else without_padding(np.stack(watch.planes), present),
        signed=without_padding(np.asarray(watch.x, np.float64) @ pair[:, 0], present),
        average=np.array(watch.average),
        null={
            "gaussian": gather(gaussian, [basis[:, 0] for basis in bases]),
            "rotated": gather(
                rotated, [r @ pair[:, 0] for r in rotations], [r @ both for r in rotations]
            ),
        },
        distance=_of_pairs(np.stack(watch.distance), present),
        chances=(
            chance(d),
            None if plane is None else chance(d, 2),
            chance(d, own.dimension),
            mean_chance(own.values),
        ),
    )


def _of_pairs(distance: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """The same of every step, masked where a text has no two tokens, unless none has."""
    if present is None or not (pairs := present.sum(axis=1) > 1).any():
        return distance
    return np.ma.MaskedArray(distance, np.broadcast_to(~pairs, distance.shape))


def _solve(
    config: SharedConfig,
    given: Any,
    layer: Any,
    matrix: np.ndarray,
    keys: Sequence[tuple[int, ...]],
) -> tuple[Principal, list[np.ndarray]]:
    """The layer's eigenproblem, and the principal direction of every Gaussian draw."""
    own: list[Principal] = []
    bases: list[np.ndarray] = []

    def keep(known: list[Any], found: Any) -> None:
        known.append(found)
        given.progress(1)

    solver, asked = given.solver, (config.order, config.alpha)
    with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
        ahead.add(partial(solver.principal, matrix, *asked), partial(keep, own))
        for key in keys:
            total = sum(gaussian_maps(layer, *key), np.zeros_like(matrix))
            ahead.add(partial(solver.basis, total, *asked), partial(keep, bases))
        ahead.finish()
    return own[0], bases


def _pair(own: Principal) -> np.ndarray:
    """Unit columns v_1 and v_2, (d, 1 or 2)."""
    if own.dimension == 2:
        return own.basis
    others = np.flatnonzero(own.pairs.is_real[1:]) + 1
    if len(others) == 0:
        return own.basis
    return np.stack([own.basis[:, 0], own.pairs.vectors[:, others[0]].real], axis=1)


def _plane(own: Principal, pair: np.ndarray) -> np.ndarray:
    """An orthonormal basis of both; in Case 3 also where they coincide."""
    if own.dimension == 2:
        return pair
    return np.linalg.qr(pair)[0] if own.plane is None else own.plane


def contrasts(result: SharedRun) -> list[Contrast]:
    """The last states against every null model."""
    rho = result.principal[-1]
    return [
        contrast(
            name,
            float(rho.mean()),
            standard_error(rho),
            result.chances[2],
            result.under(name, result.steps),
        )
        for name in NULLS
    ]


def record(result: SharedRun) -> dict[str, Any]:
    """As JSON has it: means and standard errors; single tokens are in the CSV files."""
    own, steps = result.spectrum, range(result.steps + 1)

    def summary(values: np.ndarray | None) -> Any:
        if values is None:
            return None
        return {"mean": values.mean(axis=(1, 2)), "se": [standard_error(each) for each in values]}

    return {
        "layer": result.layer,
        "shared_weights": result.shared,
        "depth": result.depth,
        "steps": result.steps,
        "order": own.order,
        "case": own.case,
        "eigenvalues": [complex(value) for value in own.values],
        "gap": own.gap,
        "collinearity": own.collinearity,
        "rho_v1": summary(result.first),
        "rho_v2": summary(result.second),
        "rho_plane": summary(result.plane),
        "mean_rho_all_directions": result.average,
        "null": {
            name: {
                "dimensions": null.dimensions,
                "rho": [result.under(name, step).rho for step in steps],
                "se": [result.under(name, step).se for step in steps],
                "sd": [result.under(name, step).sd for step in steps],
                "ratio": [result.under(name, step).ratio for step in steps],
                "ratio_se": [result.under(name, step).ratio_se for step in steps],
                "ratio_sd": [result.under(name, step).ratio_sd for step in steps],
                "draws": len(null.rho),
                "intertoken_distance": null.distance,
            }
            for name, null in result.null.items()
        },
        "contrasts": contrasts(result),
        "chance": {
            "line": result.chances[0],
            "plane": result.chances[1],
            "principal": result.chances[2],
            "mean_all_directions": result.chances[3],
        },
        "intertoken_distance": result.distance.mean(axis=1),
    }


def tables(result: SharedRun) -> dict[str, list[dict[str, Any]]]:
    """The CSV files: every step, every eigenvalue, and every token at the end."""
    steps = []
    for step in range(result.steps + 1):
        row: dict[str, Any] = {
            "step": step,
            "rho_v1": result.first[step].mean(),
            "rho_v2": "" if result.second is None else result.second[step].mean(),
            "rho_plane": "" if result.plane is None else result.plane[step].mean(),
            "mean_rho_all_directions": result.average[step],
            "intertoken_distance": result.distance[step].mean(),
        }
        row |= columns({name: result.under(name, step) for name in result.null})
        for name, null in result.null.items():
            row[f"{name}_intertoken_distance"] = null.distance[step]
        steps.append(row)
    final = [
        {
            "prompt": prompt + 1,
            "token": token + 1,
            "correlation_v1": result.signed[prompt, token],
            "rho_plane": "" if result.plane is None else result.plane[-1, prompt, token],
        }
        for prompt in range(result.signed.shape[0])
        for token in range(result.signed.shape[1])
        if result.signed[prompt, token] is not np.ma.masked
    ]
    values = [
        {"index": index + 1, "re": value.real, "im": value.imag}
        for index, value in enumerate(result.spectrum.values)
    ]
    return {"steps": steps, "final-tokens": final, "eigenvalues": values}


def sentences(result: SharedRun) -> list[str]:
    """What there is to say about it, and what of it is special to the trained weights."""
    own, last = result.spectrum, float(result.principal[-1].mean())
    what = "plane" if own.dimension == 2 else "line"
    found = [
        f"layer {result.layer} applied {result.steps} times: Case {own.case}, rho with its "
        f"principal {what} {result.principal[0].mean():.3f} -> {last:.3f} (chance "
        f"{result.chances[2]:.3f}; mean over all directions {result.average[-1]:.3f}, its chance "
        f"{result.chances[3]:.3f})",
        *(sentence(each) for each in contrasts(result)),
        f"intertoken distance {result.distance[0].mean():.3f} -> {result.distance[-1].mean():.3g} "
        f"(Gaussian null {result.null['gaussian'].distance[-1]:.3g}, rotated null "
        f"{result.null['rotated'].distance[-1]:.3g})",
    ]
    if result.plane is not None and own.dimension == 1:
        found.append(
            f"with the plane of v₁ and v₂ {result.plane[-1].mean():.3f} "
            f"(chance {result.chances[1]:.3f})"
        )
    return found

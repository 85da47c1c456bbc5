"""The figure of the leading eigenvalues of every layer matrix, and the whole spectra.

The paper's text calls both this figure and the one of the ALBERT runs Fig. 6; this is the one with
the caption "the real part of the first 5 eigenvalues", drawn for BERT, GPT-2 and GPT-Neo.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pmt.experiments.ahead import Ahead
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import Principal, Spectrum, layer_matrix


@dataclass(frozen=True)
class EigenvalueConfig:
    """How many of them are drawn, and their order."""

    shown: int = 5
    order: str = "real"
    alpha: float = 1.0


@dataclass(frozen=True)
class LeadingEigenvalues:
    """The result.

    Attributes:
      config: as asked for.
      layers: one spectrum a layer, sorted in that order.
      radii: |F| / √d of every layer with the Frobenius norm: the radius of the disc that the
        spectrum of a Gaussian matrix of that norm fills when d is large (the circular law).
      shared: whether the model says that its layers have the same weights.
    """

    config: EigenvalueConfig
    layers: tuple[Spectrum, ...]
    radii: tuple[float, ...]
    shared: bool


def pieces(config: EigenvalueConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    del config
    return given.layers.depth


def run(config: EigenvalueConfig, given: Any) -> LeadingEigenvalues:
    """Solve every layer's eigenproblem, side by side; shared weights once.

    Raises:
      RequestError: weights that are not finite.
    """
    layers = given.layers
    block_of = getattr(layers, "block", int)
    found: dict[int, Spectrum] = {}
    radii: dict[int, float] = {}

    def keep(index: int, own: Principal) -> None:
        found[block_of(index)] = own.spectrum
        radius = radii[block_of(index)]
        given.keep(index + 1, _layer(index + 1, own.spectrum, radius, config.shown))
        given.progress(1)

    with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
        begun: set[int] = set()
        for index in range(layers.depth):
            if block_of(index) in begun:
                ahead.after(partial(given.progress, 1))
                continue
            begun.add(block_of(index))
            matrix = layer_matrix(layers.layer(index))
            require_finite(f"the layer matrix F of layer {index + 1}", matrix)
            radii[block_of(index)] = float(np.linalg.norm(matrix) / np.sqrt(len(matrix)))
            work = partial(given.solver.principal, matrix, config.order, config.alpha)
            ahead.add(work, partial(keep, index))
        ahead.finish()
    blocks = [block_of(index) for index in range(layers.depth)]
    return LeadingEigenvalues(
        config=config,
        layers=tuple(found[block] for block in blocks),
        radii=tuple(radii[block] for block in blocks),
        shared=len(found) < layers.depth,
    )


def _layer(index: int, own: Spectrum, radius: float, shown: int) -> dict[str, Any]:
    return {
        "index": index,
        "gaussian_radius": radius,
        "case": own.case,
        "dimension": own.dimension,
        "gap": own.gap,
        "relative_gap": relative_gap(own),
        "collinearity": own.collinearity,
        "residual": own.residual,
        "eigenvalues": [complex(value) for value in own.values[:shown]],
    }


def relative_gap(own: Spectrum) -> float | None:
    """(Re lam_1 - Re lam_next) / |lam_1|, lam_3 being next to a conjugate pair."""
    if len(own.values) <= own.dimension or own.values[0] == 0:
        return None
    step = own.values[0].real - own.values[own.dimension].real
    return float(step / abs(own.values[0]))


def record(result: LeadingEigenvalues) -> dict[str, Any]:
    """As JSON has it; all other eigenvalues are in the CSV file."""
    return {
        "order": result.config.order,
        "layers": [
            _layer(index, own, radius, result.config.shown)
            for index, (own, radius) in enumerate(zip(result.layers, result.radii, strict=True), 1)
        ],
    }


def tables(result: LeadingEigenvalues) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: every eigenvalue of every layer."""
    rows = [
        {
            "layer": layer,
            "index": index + 1,
            "re": float(value.real),
            "im": float(value.imag),
            "condition": float(own.conditions[index]),
        }
        for layer, own in enumerate(result.layers, 1)
        for index, value in enumerate(own.values)
    ]
    return {"eigenvalues": rows}


def sentences(result: LeadingEigenvalues) -> list[str]:
    """What there is to say about it."""
    cases = [own.case for own in result.layers]
    gaps = [gap for own in result.layers if (gap := relative_gap(own)) is not None]
    median = f"; median relative gap {np.median(gaps):.3f}" if gaps else ""
    ratios = [
        own.values[0].real / radius
        for own, radius in zip(result.layers, result.radii, strict=True)
        if radius > 0
    ]
    beside = []
    if ratios:
        beside.append(
            f"Re λ₁ is {min(ratios):.2f} to {max(ratios):.2f} times |F| / √d, where the spectrum "
            "of a Gaussian matrix of the same norm ends"
        )
    return [
        f"{cases.count(1)} layers in Case 1, {cases.count(2)} in Case 2 and {cases.count(3)} in "
        f"Case 3{median}",
        *beside,
    ]

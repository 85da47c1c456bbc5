"""Figure 8 of arXiv 2605.25619: tokens against the cumulative products of the layer matrices.

The paper takes P = F^(l) ... F^(1) and finds no trend. What a token at consensus goes through is
(I + alpha F^(l)) ... (I + alpha F^(1)), and the direction that such a product drives its output to
is its leading left singular vector; both directions of both products stand here.

Each has two null models. The tokens start where the others do and go through the same layers with
value-output maps that are Gaussian, or rotated, under every layer's own Q and K; they are measured
against the products of those maps. The rotated null is the one to read: layer by layer it has the
spectrum and singular values of the trained F and of I + alpha F. Every layer has its own rotation
R, so that lost is how one layer's directions lie to those of the next, which is what a direction
that emerges over layers would consist in, and also how they lie to Q, K and the tokens: a
difference may come from either. Layers with the same weights have the same R. Where all do, as in
ALBERT, the product is R P R^T, the relation between layers is kept, and only that to Q, K and the
tokens is lost. The Gaussian null loses the spectra too, so that a difference from it may come from
a single layer already.
"""

import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
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
from pmt.experiments.nulls import (
    adding_up,
    apply_gaussian,
    apply_rotated,
    gaussian_maps,
    random_rotation,
)
from pmt.experiments.states import rho_of, tokens_present, without_padding
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import (
    Principal,
    all_directions,
    as_directions,
    average_over_directions,
    chance,
    layer_matrix,
    standard_error,
)

# What is measured: the product, and which of its directions.
DIRECTIONS = ("plain", "plain_singular", "skip", "skip_singular")
_PRODUCTS = {"plain": "F", "skip": "I + αF"}
# Step sizes beyond this would overflow in |1 + alpha lam|; the order is that of the modulus long
# before.
_LARGEST = 1e290


@dataclass(frozen=True)
class ProductConfig:
    """As ``AnalysisConfig``; the order is that of the products' eigenvalues.

    Of the product of F's the orders are those of a layer matrix, with its true size. The product
    of I + alpha F has the skip connection in it: its eigenvalues are q = 1 + alpha lam after one
    layer, so that ``"skip"`` sorts by abs(q), as ``"modulus"`` does, and ``"real"`` by Re q.
    """

    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    alpha: float = 1.0
    draws: int = 3


@dataclass(frozen=True)
class Against:
    """The states after a layer against one direction.

    Attributes:
      rho, se: mean, and standard error over prompts (None for one).
      dimension: 1 or 2; chance: rho of a uniform token.
      average: mean of rho over all eigendirections of the product; average_chance: that of a
        uniform token; both None for a singular vector.
      null: the null models by name, each with its own products and states.
    """

    rho: float
    se: float | None
    dimension: int
    chance: float
    average: float | None
    average_chance: float | None
    null: dict[str, NullRho] = field(default_factory=dict)


@dataclass(frozen=True)
class ProductLayer:
    """One layer: of the product of F's up to it, and of that of I + alpha F, the principal
    eigendirection and the leading left singular vector.
    """

    index: int
    plain: Against
    plain_singular: Against
    skip: Against
    skip_singular: Against


@dataclass(frozen=True)
class CumulativeProducts:
    """The result, one entry a layer; ``shared`` where all layers have the same weights."""

    config: ProductConfig
    layers: tuple[ProductLayer, ...]
    shared: bool = False


class _Stream:
    """Tokens, and the products of what they went through: the layers' own maps, or a draw's.

    Products are kept over a power of two, which changes neither direction nor digits.
    """

    def __init__(self, name: str, x: jax.Array) -> None:
        self.name, self.before, self.x = name, x, x
        self.products: dict[str, np.ndarray] = {}
        self.exponents = dict.fromkeys(_PRODUCTS, 0)

    def take(self, x: jax.Array, matrix: np.ndarray, alpha: float, index: int) -> None:
        """The states after a layer of matrix F."""
        self.before, self.x = self.x, x
        factors = {"plain": matrix, "skip": np.eye(len(matrix)) + alpha * matrix}
        for name, factor in factors.items():
            product = (
                factor @ self.products[name] if self.products.get(name) is not None else factor
            )
            largest = np.max(np.abs(product))
            if largest == 0:
                raise RequestError(
                    f"the product of the layers' {_PRODUCTS[name]} up to layer {index + 1} is "
                    "zero, so it has no principal direction; leave this item out"
                )
            exponent = int(np.frexp(largest)[1])
            self.products[name] = np.ldexp(product, -exponent)
            self.exponents[name] += exponent

    def asked(self, name: str, config: ProductConfig) -> tuple[np.ndarray, str, float]:
        """The product, the order of its eigenvalues, and the step size to sort with."""
        product = self.products[name]
        if name == "skip":
            return product, "modulus" if config.order == "skip" else config.order, 1.0
        with np.errstate(over="ignore", under="ignore"):
            step = float(np.ldexp(config.alpha, self.exponents[name]))
        return product, config.order, float(np.clip(step, -_LARGEST, _LARGEST))


def pieces(config: ProductConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to: problems that are solved."""
    return given.layers.depth * len(DIRECTIONS) * (1 + len(NULLS) * config.draws)


def run(config: ProductConfig, given: Any) -> CumulativeProducts:
    """Run tokens through the layers, and measure them against the products.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used, or a product that is
        zero.
    """
    layers, found = given.layers, []
    block_of = getattr(layers, "block", int)
    streams: list[_Stream] = []
    for index in range(layers.depth):
        layer = prepare_layer(layers.layer(index), config.alpha)
        if index == 0:
            streams = _start(config, given, layer)
        matrix = layer_matrix(layer)
        require_finite(f"the layer matrix F of layer {index + 1}", matrix)
        own, *draws = streams
        after = advance(layer, own.x, f"layer {index + 1}", present=given.present)
        with one_thread_each():
            own.take(after, matrix, config.alpha, index)
            for number, stream in enumerate(draws):
                key = (given.seed, number % config.draws, block_of(index))
                x, drawn = _drawn(stream, layer, matrix, key, given.present)
                stream.take(x, drawn, config.alpha, index)
        known = given.recall(index + 1)
        if known is None:
            measured = _measure(streams, config, given)
            given.keep(index + 1, {name: asdict(each) for name, each in measured.items()})
        else:
            measured = {name: _recalled(each) for name, each in known.items()}
            given.progress(pieces(config, given) // layers.depth)
        found.append(ProductLayer(index + 1, **measured))
    blocks = {block_of(index) for index in range(layers.depth)}
    return CumulativeProducts(config, tuple(found), layers.depth > len(blocks) == 1)


def _start(config: ProductConfig, given: Any, layer: Any) -> list[_Stream]:
    """The tokens under the layers' own maps first, then under every draw of every null model."""
    d, tokens = layer.query.shape[-1], given.tokens
    if tokens is None:
        tokens = random_tokens(config.prompts, config.tokens, d, given.seed)
    x = prepare_tokens(tokens, d, layer.query.dtype)
    return [_Stream("own", x), *(_Stream(name, x) for name in NULLS for _ in range(config.draws))]


def _drawn(
    stream: _Stream, layer: Any, matrix: np.ndarray, key: tuple[int, ...], present: Any
) -> tuple[jax.Array, np.ndarray]:
    """The next states under a draw of a null model, and the draw's layer matrix."""
    there = None if present is None else jnp.asarray(present)
    if stream.name == "rotated":
        rotation = random_rotation(len(matrix), *key)
        return apply_rotated(layer, rotation, stream.x, there), rotation @ matrix @ rotation.T
    total = np.zeros_like(matrix)
    maps = adding_up(gaussian_maps(layer, *key), total)
    return apply_gaussian(layer, maps, stream.x, there), total


def _measure(streams: list[_Stream], config: ProductConfig, given: Any) -> dict[str, Against]:
    (own, *draws), solver, present = streams, given.solver, given.present
    found: dict[str, Against] = {}
    seen: dict[tuple[str, str], list[tuple[np.ndarray, int]]] = {}

    def keep(stream: _Stream, name: str, basis: np.ndarray) -> None:
        values = rho_of(stream.x, as_directions(basis, stream.x.dtype))
        seen.setdefault((name, stream.name), []).append((values, basis.shape[1]))
        given.progress(1)

    def keep_own(name: str, solved: Principal) -> None:
        directions = all_directions(solved.pairs, own.x.dtype)
        low, high = (tokens_present(x, present) for x in (own.before, own.x))
        average = average_over_directions(low, high, directions).rho_after
        found[name] = _against(own.x, solved.basis, present, average, mean_chance(solved.values))
        given.progress(1)

    def keep_singular(name: str, basis: np.ndarray) -> None:
        found[name] = _against(own.x, basis, present, None, None)
        given.progress(1)

    with one_thread_each(), Ahead(os.cpu_count() or 1) as ahead:
        for name in _PRODUCTS:
            singular = f"{name}_singular"
            ahead.add(partial(solver.principal, *own.asked(name, config)), partial(keep_own, name))
            ahead.add(
                partial(solver.left_singular, own.products[name]), partial(keep_singular, singular)
            )
            for stream in draws:
                ahead.add(
                    partial(solver.basis, *stream.asked(name, config)), partial(keep, stream, name)
                )
                ahead.add(
                    partial(solver.left_singular, stream.products[name]),
                    partial(keep, stream, singular),
                )
        ahead.finish()
    d = own.x.shape[-1]
    for name in DIRECTIONS:
        for null in NULLS:
            values, dimensions = zip(*seen[name, null], strict=True)
            every = without_padding(np.stack(values), present)
            found[name].null[null] = null_rho(every, d, dimensions)
    return found


def _recalled(known: dict[str, Any]) -> Against:
    null = {name: NullRho(**each) for name, each in known["null"].items()}
    return Against(**(known | {"null": null}))


def _against(
    x: jax.Array,
    basis: np.ndarray,
    present: np.ndarray | None,
    average: float | None,
    average_chance: float | None,
) -> Against:
    values = without_padding(rho_of(x, as_directions(basis, x.dtype)), present)
    dimension = basis.shape[1]
    return Against(
        rho=float(values.mean()),
        se=standard_error(values),
        dimension=dimension,
        chance=chance(x.shape[-1], dimension),
        average=average,
        average_chance=average_chance,
    )


def contrasts(layer: ProductLayer) -> dict[str, list[Contrast]]:
    """Every direction of a layer against every null model."""
    found = {}
    for name in DIRECTIONS:
        own: Against = getattr(layer, name)
        found[name] = [
            contrast(null, own.rho, own.se, own.chance, own.null[null]) for null in own.null
        ]
    return found


def record(result: CumulativeProducts) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "order": result.config.order,
        "alpha": result.config.alpha,
        "layers": result.layers,
        "contrasts": contrasts(result.layers[-1]),
    }


def tables(result: CumulativeProducts) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer."""
    rows = []
    for layer in result.layers:
        row: dict[str, Any] = {"layer": layer.index}
        for name in DIRECTIONS:
            own: Against = getattr(layer, name)
            values = {key: value for key, value in vars(own).items() if key != "null"}
            for key, value in (values | columns(own.null)).items():
                row[f"{name}_{key}"] = "" if value is None else value
        rows.append(row)
    return {"layers": rows}


_SAID = {
    "plain": "principal eigenvector of the product of F",
    "plain_singular": "left singular vector of the product of F",
    "skip": "principal eigenvector of the product of I + αF",
    "skip_singular": "left singular vector of the product of I + αF",
}


def sentences(result: CumulativeProducts) -> list[str]:
    """What is special to the trained weights, of every direction after the last layer."""
    last = result.layers[-1]
    shared = (
        "all layers have the same weights and so the same rotation R: the product of the rotated "
        "null is R P Rᵀ, and a difference from it is in how P lies to Q, K and the tokens"
    )
    found = [
        f"after layer {last.index}, {_SAID[name]}: {sentence(each)}"
        for name, several in contrasts(last).items()
        for each in several
    ]
    return [*found, shared] if result.shared else found

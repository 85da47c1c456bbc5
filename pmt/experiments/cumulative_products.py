"""Figure 8 of arXiv 2605.25619: tokens against the cumulative products of the layer matrices.

The paper takes P = F^(l) ... F^(1) and finds no trend. What a token at consensus goes through is
(I + alpha F^(l)) ... (I + alpha F^(1)), and the direction that such a product drives its output to
is its leading left singular vector; both stand beside the paper's here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pmt.errors import RequestError
from pmt.experiments.layer_by_layer import advance, prepare_layer
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import one_thread_each
from pmt.numerics import require_finite
from pmt.spectral import (
    all_directions,
    as_directions,
    average_over_directions,
    chance,
    layer_matrix,
    rho,
    standard_error,
)

PRODUCTS = ("F", "I + αF")


@dataclass(frozen=True)
class ProductConfig:
    """As ``AnalysisConfig``."""

    prompts: int = 100
    tokens: int = 10
    order: str = "real"
    alpha: float = 1.0


@dataclass(frozen=True)
class Against:
    """The states after a layer against one direction.

    Attributes:
      rho, se: mean, and standard error over prompts (None for one).
      dimension: 1 or 2; chance: rho of a uniform token.
      average: mean of rho over all eigendirections of the product; None for a singular vector.
    """

    rho: float
    se: float | None
    dimension: int
    chance: float
    average: float | None


@dataclass(frozen=True)
class ProductLayer:
    """One layer: the principal eigendirection of the product of F's up to it, the same for I + αF,
    and the leading left singular vector of the latter.
    """

    index: int
    plain: Against
    skip: Against
    singular: Against


@dataclass(frozen=True)
class CumulativeProducts:
    """The result, one entry a layer."""

    config: ProductConfig
    layers: tuple[ProductLayer, ...]


def pieces(config: ProductConfig, given: Any) -> int:
    """What the calls of ``given.progress`` add up to."""
    del config
    return given.layers.depth


def run(config: ProductConfig, given: Any) -> CumulativeProducts:
    """Run tokens through the layers, and measure them against the products.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used, or a product that is
        zero.
    """
    layers, found = given.layers, []
    products: dict[str, np.ndarray] = {}
    x: Any = None
    for index in range(layers.depth):
        layer = prepare_layer(layers.layer(index), config.alpha)
        dtype, d = layer.query.dtype, layer.query.shape[-1]
        if x is None:
            tokens = given.tokens
            if tokens is None:
                tokens = random_tokens(config.prompts, config.tokens, d, given.seed)
            x = prepare_tokens(tokens, d, dtype)
        matrix = layer_matrix(layer)
        require_finite(f"the layer matrix F of layer {index + 1}", matrix)
        before, x = x, advance(layer, x, f"layer {index + 1}")
        with one_thread_each():
            for name, factor in zip(
                PRODUCTS, (matrix, np.eye(d) + config.alpha * matrix), strict=True
            ):
                product = factor @ products[name] if name in products else factor
                products[name] = _scaled(product, name, index)
            known = given.recall(index + 1)
            if known is None:
                measured = _measure(products, config, given.solver, before, x)
                given.keep(index + 1, {name: vars(each) for name, each in measured.items()})
            else:
                measured = {name: Against(**each) for name, each in known.items()}
        found.append(ProductLayer(index + 1, **measured))
        given.progress(1)
    return CumulativeProducts(config, tuple(found))


def _scaled(product: np.ndarray, name: str, index: int) -> np.ndarray:
    """The product over a power of two, which changes neither direction nor digits."""
    largest = np.max(np.abs(product))
    if largest == 0:
        raise RequestError(
            f"the product of the layers' {name} up to layer {index + 1} is zero, so it has no "
            "principal direction; leave this item out"
        )
    return np.ldexp(product, -int(np.frexp(largest)[1]))


def _measure(
    products: dict[str, np.ndarray], config: ProductConfig, solver: Any, before: Any, x: Any
) -> dict[str, Against]:
    found = {}
    for key, name in zip(("plain", "skip"), PRODUCTS, strict=True):
        # The powers of two that were divided out play no part in the order of real parts.
        own = solver.principal(products[name], _order(config), 1.0)
        average = average_over_directions(before, x, all_directions(own.pairs, x.dtype))
        found[key] = _against(x, own.basis, average.rho_after)
    found["singular"] = _against(x, solver.left_singular(products[PRODUCTS[1]]), None)
    return found


def _order(config: ProductConfig) -> str:
    """A product has no skip connection around it: there the largest modulus is what is selected."""
    return "modulus" if config.order == "skip" else config.order


def _against(x: Any, basis: np.ndarray, average: float | None) -> Against:
    values = np.asarray(_rho(x, as_directions(basis, x.dtype))[..., 0], np.float64)
    dimension = basis.shape[1]
    return Against(
        rho=float(values.mean()),
        se=standard_error(values),
        dimension=dimension,
        chance=chance(x.shape[-1], dimension),
        average=average,
    )


_rho: Callable[..., jax.Array] = jax.jit(rho)


def record(result: CumulativeProducts) -> dict[str, Any]:
    """As JSON has it."""
    return {"order": result.config.order, "alpha": result.config.alpha, "layers": result.layers}


def tables(result: CumulativeProducts) -> dict[str, list[dict[str, Any]]]:
    """The CSV file: one row a layer."""
    rows = []
    for layer in result.layers:
        row: dict[str, Any] = {"layer": layer.index}
        for name in ("plain", "skip", "singular"):
            for key, value in vars(getattr(layer, name)).items():
                row[f"{name}_{key}"] = "" if value is None else value
        rows.append(row)
    return {"layers": rows}


def sentences(result: CumulativeProducts) -> list[str]:
    """What there is to say about it."""
    last = result.layers[-1]
    return [
        f"after layer {last.index}: rho / chance {last.plain.rho / last.plain.chance:.2f} for the "
        f"product of F, {last.skip.rho / last.skip.chance:.2f} for that of I + αF, "
        f"{last.singular.rho / last.singular.chance:.2f} for its left singular vector"
    ]

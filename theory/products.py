"""Fig. 8: layers with different weights, and products of layer matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Oja
from pmt.numerics import einsum
from theory import draws
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import Margin, identity, inequality
from theory.noise import Noise
from theory.oja import PAPER
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    Twin,
    numbered,
)

LAYERS = 4


_DEEP, _STACKS, _WIDTH = 24, 16, 6


def passed(case: Case) -> tuple[Float[Array, "layers n d"], Float[Array, "layers n"]]:
    """The tokens after every layer of uniform attention, and |y_i| on the way."""

    def layer(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
        system = Oja(value=matrix, alpha=case["alpha"])
        moved = system(x)
        return moved, (moved, sphere.norm(system.unnormalized(x)))

    return lax.scan(layer, case["x"], case["layers"])[1]


def conditioning(case: Case, lengths: Float[Array, "layers n"]) -> Array:
    """By how much the layers magnify a rounding error of the first state."""
    sizes = 1.0 + case["alpha"] * jnp.sqrt(jnp.sum(case["layers"] ** 2, axis=(1, 2)))
    return jnp.prod(jnp.maximum(sizes / jnp.min(lengths, axis=1), 1.0))


def _follows_product(shape: Shape, case: Case) -> Margin:
    """Equal tokens are after l layers along Π_l (I + alpha F_l) x(0)."""
    states, lengths = passed(case)
    amplification = conditioning(case, lengths)

    def multiply(y: Array, matrix: Array) -> tuple[Array, Array]:
        y = y + case["alpha"] * einsum("ab,b->a", matrix, y)
        return y, sphere.normalize(y)

    directions = lax.scan(multiply, case["x"][0], case["layers"])[1]
    error = states - directions[:, None]
    return identity(error, scale=1.0, size=LAYERS * shape.d, conditioning=amplification)


def _strongest(case: Case, rates: Float[Array, "layers d"]) -> Margin:
    """The tokens' largest component is the eigenvector whose product of rates is largest."""
    states, lengths = passed(case)
    parts = jnp.abs(einsum("d,dk->k", states[-1, 0], case["frame"]))
    chosen = jnp.argmax(jnp.sum(jnp.log(jnp.maximum(jnp.abs(rates), 1e-300)), axis=0))
    others = jnp.max(jnp.where(jnp.arange(parts.shape[0]) == chosen, 0.0, parts))
    return inequality(
        parts[chosen] - others, size=parts.shape[0], conditioning=conditioning(case, lengths)
    )


def _by_product_of_f(shape: Shape, case: Case) -> Margin:
    del shape
    return _strongest(case, case["spectra"])


def _by_product_with_skip(shape: Shape, case: Case) -> Margin:
    del shape
    return _strongest(case, 1.0 + case["alpha"] * case["spectra"])


def layers(*, common: bool) -> Piece:
    """Layer matrices, Gaussian; ``common``: symmetric with the same eigenvectors.

    Boundary: small ones, next to the identity. Nearly degenerate: nearly of rank one, or nearly
    equal eigenvalues.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        size = noise.log_uniform(0.1, 1.0)
        alpha = jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 1.0))
        if not common:
            layers = size * noise.normal(LAYERS, d, d)
            flat = layers[:, :, :1] * layers[:, :1, :] + noise.hair() * layers
            return {"layers": jnp.where(kind == DEGENERATE, flat, layers), "alpha": alpha}
        spectra = size * noise.normal(LAYERS, d)
        near = spectra[:, :1] + noise.hair() * spectra
        spectra = jnp.where(kind == DEGENERATE, near, spectra)
        frame = noise.orthogonal(d)
        layers = einsum("ak,lk,bk->lab", frame, spectra, frame)
        x = sphere.normalize(jnp.sum(frame, axis=1))
        return {
            "layers": layers,
            "alpha": alpha,
            "spectra": spectra,
            "frame": frame,
            "x": jnp.broadcast_to(x, (shape.n, d)),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        found = {"alpha > 0": case["alpha"] / (1.0 + case["alpha"])}
        if common:
            parts = einsum("id,dk->ik", case["x"], case["frame"])
            even = jnp.max(jnp.abs(parts - 1.0 / np.sqrt(shape.d)))
            found["equal components"] = identity(even, scale=1.0, size=shape.d).value
            moved = einsum("lab,bk->lak", case["layers"], case["frame"])
            off = moved - case["spectra"][:, None] * case["frame"][None]
            size = frobenius(case["layers"])
            found["common eigenvectors"] = identity(off, scale=size, size=shape.d).value
        return found

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        if common:
            spectra = case["spectra"]
            return jnp.max(jnp.abs(spectra[:, 0] - spectra[:, 1])) / jnp.max(jnp.abs(spectra))
        singular = jnp.linalg.svd(case["layers"][0], compute_uv=False)
        return singular[-1] / singular[0]

    return Piece(draw, margins, degeneracy)


def _equal_tokens() -> Piece:
    """Consensus at a random point."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, case
        return {"x": jnp.broadcast_to(noise.unit(1, shape.d), (shape.n, shape.d))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = case["x"] - case["x"][:1]
        return {"equal tokens": identity(off, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def _seed() -> Piece:
    """The number that the stacks follow from, and the size g of F ~ N(0, g²/d), as ``alpha``.

    Boundary: g next to 1. Nearly degenerate: small layers, g next to 1/2.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        hair = noise.hair()
        size = jnp.where(kind == BOUNDARY, 1.0 - hair, noise.uniform(0.55, 0.95))
        size = jnp.where(kind == DEGENERATE, 0.5 + hair, size)
        return {"seed": noise.integer(0, 2**30), "alpha": size}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"0.5 < g < 1": jnp.minimum(case["alpha"] - 0.5, 1.0 - case["alpha"])}

    return Piece(draw, margins, lambda _shape, case: case["alpha"] - 0.5)


def turns(case: Case) -> tuple[Array, Array]:
    """Mean sine of the turn, over the last layer, of the first singular vectors of the product.

    Of Π (I + F_l) over random stacks: on the input side (right), and on the output side (left).
    """
    matrices = case["alpha"] * draws.normals(case["seed"], _DEEP, _STACKS, _WIDTH, _WIDTH)
    factors = jnp.eye(_WIDTH)[None, None] + matrices / np.sqrt(_WIDTH)

    def multiply(product: Array, factor: Array) -> tuple[Array, None]:
        product = einsum("sab,sbc->sac", factor, product)
        return product / jnp.sqrt(jnp.sum(product**2, axis=(1, 2), keepdims=True)), None

    start = jnp.broadcast_to(jnp.eye(_WIDTH), (_STACKS, _WIDTH, _WIDTH))
    before = lax.scan(multiply, start, factors[:-1])[0]
    after = multiply(before, factors[-1])[0]

    def turn(gram: str) -> Array:
        pair = jnp.stack([einsum(gram, product, product) for product in (before, after)])
        leading = jnp.linalg.eigh(pair)[1][..., -1]
        cosine = jnp.abs(jnp.sum(leading[0] * leading[1], axis=-1))
        return jnp.mean(jnp.sqrt(jnp.maximum(1.0 - cosine**2, 0.0)))

    return turn("sba,sbc->sac"), turn("sab,scb->sac")


def _output_turns(shape: Shape, case: Case) -> Margin:
    """The output side turns more than the input side."""
    del shape
    right, left = turns(case)
    value = (left - right) / left
    return Margin(value, jnp.full_like(value, 1e-6))


def _angles(shape: Shape, case: Case) -> dict[str, Any]:
    del shape
    states, _ = jax.jit(passed)(dict(case))
    with_skip = jnp.prod(1.0 + case["alpha"] * case["spectra"], axis=0)
    return {
        "|x'v_k| after the layers": np.abs(np.asarray(states[-1, 0] @ case["frame"])).tolist(),
        "eigenvalues of the product of F": np.asarray(jnp.prod(case["spectra"], axis=0)).tolist(),
        "eigenvalues of the product of I + F": np.asarray(with_skip).tolist(),
    }


SKIPPED = Explicit(
    name="the skip connection decides",
    text="four layers F = diag(1/2, -9/10), alpha = 1: the product of F is diag(.06, .66), but "
    "tokens follow (I + F)^4 = diag(5.06, .0001) to e_1",
    shape=Shape(2, 2),
    case={
        "layers": np.stack([np.diag([0.5, -0.9])] * LAYERS),
        "spectra": np.array([[0.5, -0.9]] * LAYERS),
        "frame": np.eye(2),
        "alpha": np.array(1.0),
        "x": np.full((2, 2), np.sqrt(0.5)),
    },
    numbers=_angles,
)


EXACT = Clause(
    name="exact evolution",
    text="equal tokens follow the product of I + alpha F, layers that do not commute",
    hypotheses=Hypotheses((layers(common=False), _equal_tokens()), (Shape(3, 3),)),
    conclusion=_follows_product,
    twin=Twin(
        "equal tokens",
        Explicit(
            name="tokens that differ",
            text="F = diag(1, 0, 0) in every layer, tokens that differ: the mean decides, and not "
            "the first token alone",
            shape=Shape(3, 3),
            case={
                "layers": np.stack([np.diag([1.0, 0.0, 0.0])] * LAYERS),
                "alpha": np.array(0.5),
                "x": np.array([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
            },
        ),
    ),
)


@numbered
def figure_8() -> Statement:
    """Products of layer matrices."""
    commuting = Hypotheses((layers(common=True),), (Shape(2, 3), Shape(2, 2)))
    tilted = Explicit(
        name="a start along one eigenvector",
        text="as above, but the tokens start at e_2 and stay there",
        shape=Shape(2, 2),
        case=dict(SKIPPED.case) | {"x": np.array([[0.0, 1.0], [0.0, 1.0]])},
    )
    return Statement(
        id="figure-8",
        source=f"Fig. 8 and Sec. 3.2, {PAPER}",
        text="Whether a cumulative product of layer matrices gives the tokens' direction.",
        paper=Form(
            text="as read: if there is a principal direction of alignment, it is the principal "
            "eigenvector of F^(l) ... F^(1).",
            expected="refuted",
            clauses=(
                Clause(
                    name="product of F",
                    text="tokens with equal components are most along the principal eigenvector of "
                    "the product, layers with common eigenvectors",
                    hypotheses=commuting,
                    conclusion=_by_product_of_f,
                    explicit=(SKIPPED,),
                ),
            ),
        ),
        corrected=Form(
            text="Equal tokens follow (I + alpha F^(l)) ... (I + alpha F^(1)) x(0) exactly. Of a "
            "product only the input side settles (Oseledets): over the last of 24 random layers "
            "the first left singular vector turns more than the right one "
            "(numerical evidence).",
            expected="supported",
            clauses=(
                Clause(
                    name="product of I + alpha F",
                    text="the same tokens are most along the principal eigenvector of this product",
                    hypotheses=commuting,
                    conclusion=_by_product_with_skip,
                    explicit=(SKIPPED,),
                    twin=Twin("equal components", tilted),
                ),
                EXACT,
                Clause(
                    name="output side",
                    text=f"{_STACKS} stacks of {_DEEP} Gaussian layers, d = {_WIDTH}",
                    hypotheses=Hypotheses((_seed(),), (Shape(1, _WIDTH),)),
                    conclusion=_output_turns,
                    share=0.001,
                    long=True,
                ),
            ),
        ),
    )

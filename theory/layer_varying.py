"""II.11: layers with different weights and uniform attention, near consensus."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.dynamics import Oja
from theory.instances import BOUNDARY, DEGENERATE
from theory.linearization import frobenius
from theory.margin import Margin, every, identity, inequality
from theory.noise import Noise
from theory.products import EXACT, LAYERS, conditioning, layers, passed
from theory.statement import (
    Case,
    Clause,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    numbered,
)


def _close_tokens() -> Piece:
    """Tokens within a few tenths of each other."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, case
        loose = noise.unit(shape.n, shape.d)
        width = noise.log_uniform(1e-3, 0.3)
        return {"x": sphere.normalize(loose[:1] + width * loose)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["x"]) - 1.0
        return {"unit tokens": identity(off, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def _differences(shape: Shape, case: Case) -> Margin:
    """y_i − y_j = x_i − x_j in every layer."""
    matrix = case["layers"][0]
    system = Oja(value=matrix, alpha=case["alpha"])
    y, x = system.unnormalized(case["x"]), case["x"]
    error = (y - y[:1]) - (x - x[:1])
    size = 1.0 + case["alpha"] * frobenius(matrix)
    return identity(error, scale=size, size=shape.n * shape.d)


def _spread_bound(shape: Shape, case: Case) -> Margin:
    """|x_i⁺ − x_j⁺| <= |x_i − x_j| / √(|y_i||y_j|) in every layer, so Π over the layers."""
    states, lengths = passed(case)
    chords = jnp.concatenate([case["x"][None], states])
    chords = sphere.norm(chords[:, :, None] - chords[:, None, :])
    bound = chords[:-1] / jnp.sqrt(lengths[:, :, None] * lengths[:, None, :])
    excess = jnp.max(chords[1:] - bound)
    bound_all = chords[0] * jnp.prod(
        1.0 / jnp.sqrt(lengths[:, :, None] * lengths[:, None, :]), axis=0
    )
    total = jnp.max(chords[-1] - bound_all)
    amplification = conditioning(case, lengths)
    short = jnp.maximum(jnp.maximum(excess, total), 0.0)
    return identity(short, scale=1.0, size=shape.n * shape.d, conditioning=amplification)


def _derivative(shape: Shape, case: Case) -> Margin:
    """At consensus differences δ become Π_{x⁺} δ / |(I + alpha F) x| at first order."""
    del shape
    system = Oja(value=case["layers"][0], alpha=case["alpha"])
    x = jnp.broadcast_to(case["x"][:1], case["x"].shape)
    loose = sphere.tangent_projection(x, case["x"])
    loose = loose - jnp.mean(loose, axis=0, keepdims=True)
    moved = jax.jvp(system, (x,), (loose,))[1]
    length = sphere.norm(system.unnormalized(x))[:, None]
    expected = sphere.tangent_projection(system(x), loose) / length
    amplification = (1.0 + case["alpha"] * frobenius(case["layers"][0])) / jnp.min(length)
    return identity(
        moved - expected, scale=1.0 / jnp.min(length), size=x.size, conditioning=amplification
    )


def _settles_without_growth(shape: Shape, case: Case) -> Margin:
    """alpha F = R − I, R a quarter turn: norms next to 1, and the spread falls to its square."""
    states, lengths = passed(case)
    width = jnp.max(sphere.norm(case["x"][:, None] - case["x"][None]))
    after = jnp.max(sphere.norm(states[0][:, None] - states[0][None]))
    return every(
        inequality(1.0 - after / width**2, size=shape.n * shape.d, conditioning=1.0 / width**2),
        inequality(2.0 * width - jnp.max(jnp.abs(jnp.log(lengths))), size=shape.n * shape.d),
    )


def _quarter_turns() -> Piece:
    """alpha F = R − I in every layer, and tokens close to each other in the plane."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        width = jnp.where(kind == BOUNDARY, noise.log_uniform(1e-4, 1e-2), noise.uniform(0.02, 0.1))
        width = jnp.where(kind == DEGENERATE, noise.log_uniform(1e-4, 1e-2), width)
        angles = 2.0 * jnp.pi * noise.uniform() + width * jnp.linspace(-0.5, 0.5, shape.n)
        alpha = noise.log_uniform(0.1, 2.0)
        return {
            "layers": jnp.broadcast_to(jnp.asarray(turn - np.eye(2)) / alpha, (LAYERS, 2, 2)),
            "alpha": alpha,
            "x": jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1),
            "width": width,
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"close tokens": jnp.minimum(case["width"], 0.2 - case["width"])}

    return Piece(draw, margins)


@numbered
def ii_11() -> Statement:
    """Layer-varying maps near consensus."""
    loose = Hypotheses((layers(common=False), _close_tokens()), (Shape(3, 3),))
    return Statement(
        id="ii.11",
        source="theory II.11",
        text="Layers with different weights and uniform attention, near consensus.",
        paper=None,
        corrected=Form(
            text="y_i - y_j = x_i - x_j, so |x_i+ - x_j+| <= |x_i - x_j|/sqrt(|y_i||y_j|): the "
            "spread shrinks at least as 1/|(I + alpha F)x| per layer, exactly as the tangent part "
            "of it at first order, and consensus is reached if the product of the norms diverges. "
            "Not only if: alpha F = R - I, R a quarter turn, has norms 1 and still brings tokens "
            "together, since it turns their difference into the direction of the mean.",
            expected="supported",
            clauses=(
                Clause(
                    name="differences",
                    text="y_i - y_j = x_i - x_j",
                    hypotheses=loose,
                    conclusion=_differences,
                ),
                Clause(
                    name="spread",
                    text="the bound layer by layer, and over four layers",
                    hypotheses=loose,
                    conclusion=_spread_bound,
                ),
                Clause(
                    name="first order",
                    text="at consensus a difference w becomes Pi w/|(I + alpha F)x|, Pi the "
                    "projector across the next direction",
                    hypotheses=loose,
                    conclusion=_derivative,
                ),
                EXACT,
                Clause(
                    name="without growth",
                    text="quarter turns: all norms next to 1, and the spread falls to its square",
                    hypotheses=Hypotheses((_quarter_turns(),), (Shape(3, 2),)),
                    conclusion=_settles_without_growth,
                ),
            ),
        ),
    )

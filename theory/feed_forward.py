"""Sec. 5: whether every direction is in the image of the feed-forward block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, identity
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

_POINTS = 240
_NEIGHBOURS = 0.25


def block(case: Case, x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """FFN(x) = W_2 relu(W_1 x), without biases."""
    hidden = jnp.maximum(einsum("kd,md->mk", case["first"], x), 0.0)
    return einsum("dk,mk->md", case["second"], hidden)


def circle() -> Float[Array, "m 2"]:
    """Points evenly on the circle."""
    angles = 2.0 * np.pi * np.arange(_POINTS) / _POINTS
    return jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def size_on_circle(case: Case) -> Float[Array, ""]:
    """max |FFN(x)| over the points."""
    return jnp.max(sphere.norm(block(case, circle())))


def _has_preimage(shape: Shape, case: Case) -> Margin:
    """Some v on the circle has φ(v) = w, φ(x) = normalize(x + FFN(x)).

    φ is continuous where x + FFN(x) ≠ 0: if it passes from one side of w to the other between two
    neighbouring points it hits w. Where it turns so fast that two neighbours are far apart on
    different sides, nothing is decided. Else the value is minus half the distance of the image.
    """
    del shape
    x, w = circle(), case["target"]
    image = sphere.normalize(x + block(case, x))
    along = einsum("md,d->m", image, w)
    across = image[:, 0] * w[1] - image[:, 1] * w[0]
    after = jnp.roll(across, -1)
    near = sphere.norm(jnp.roll(image, -1, axis=0) - image) < _NEIGHBOURS
    changes = across * after <= 0
    crosses = near & changes & (along > 0.5)
    perhaps = jnp.any(~near & changes)
    nearest = jnp.min(sphere.norm(image - w[None]))
    value = jnp.where(perhaps, 0.0, -nearest / 2.0)
    value = jnp.where(jnp.any(crosses), 1.0 - nearest, value)
    # Between two points the image may come nearer than at them.
    return Margin(value, jnp.full_like(value, _NEIGHBOURS / 2.0))


def _weights(*, small: bool) -> Piece:
    """W_1 (4d × d), W_2 (d × 4d) Gaussian and a direction w: wider than the tokens.

    ``small``: scaled so that |FFN| < 1 on the circle. Boundary: by a hair. Nearly degenerate: FFN
    nearly 0.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        first, second = noise.normal(4 * d, d), noise.normal(d, 4 * d)
        found = {"first": first, "second": second, "target": noise.unit(d)}
        size = size_on_circle(found)
        wanted = noise.uniform(0.1, 0.95) if small else noise.uniform(0.3, 6.0)
        hair = noise.hair()
        wanted = jnp.where(kind == BOUNDARY, 1.0 - hair if small else hair, wanted)
        wanted = jnp.where(kind == DEGENERATE, hair, wanted)
        return found | {"second": second * wanted / size, "alpha": wanted}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size = size_on_circle(case)
        unit = identity(sphere.norm(case["target"]) - 1.0, scale=1.0, size=shape.d).value
        found = {"unit target": unit, "FFN != 0": size / (1.0 + size)}
        return found | {"|FFN| < 1": 1.0 - size} if small else found

    return Piece(draw, margins, lambda _shape, case: size_on_circle(case))


def _image(shape: Shape, case: Case) -> dict[str, Any]:
    del shape

    @jax.jit
    def phi(case: Case) -> Array:
        x = circle()
        return sphere.normalize(x + block(case, x))

    image = np.asarray(phi(dict(case)))
    nearest = float(np.min(np.linalg.norm(image - np.asarray(case["target"]), axis=1)))
    return {
        "hidden width, d": list(case["first"].shape),
        "smallest coordinate of the image": float(image.min()),
        "distance of the target from the image": nearest,
    }


FOLDED = Explicit(
    name="absolute values",
    text="FFN(x) = relu(x) + relu(-x) - x with hidden width 4d = 8: the residual cancels, the image"
    " is the positive quadrant, and w = (-1, 0) has no preimage",
    shape=Shape(1, 2),
    case={
        "first": np.concatenate([np.eye(2), -np.eye(2), np.eye(2), -np.eye(2)]),
        "second": np.concatenate([np.eye(2), np.eye(2), -np.eye(2), np.eye(2)], axis=1),
        "target": np.array([-1.0, 0.0]),
        "alpha": np.array(1.0),
    },
    numbers=_image,
)


@numbered
def section_5() -> Statement:
    """Pre-compensation of the feed-forward block."""
    shapes = (Shape(1, 2),)
    return Statement(
        id="section-5",
        source=f"Sec. 5, {PAPER}",
        text="Steering through the feed-forward block by a preimage of the wanted direction.",
        paper=Form(
            text="as read: the hidden layer is wider than d, so phi(x) = N(x + FFN(x)) has a "
            "(possibly non-unique) inverse: every direction w is phi(v) for some v.",
            expected="refuted",
            clauses=(
                Clause(
                    name="preimage",
                    text="d = 2, hidden width 8, relu: some v on the circle has phi(v) = w",
                    hypotheses=Hypotheses((_weights(small=False),), shapes),
                    conclusion=_has_preimage,
                    explicit=(FOLDED,),
                    long=True,
                ),
            ),
        ),
        corrected=Form(
            text="If x + t FFN(x) != 0 for |x| = 1 and t in [0, 1], for instance if |FFN| < 1 on "
            "the sphere, phi is homotopic to the identity, of degree 1, hence onto. In general it "
            "is not. phi is not odd: the sign of the alignment must be fixed too.",
            expected="supported",
            clauses=(
                Clause(
                    name="preimage",
                    text="|FFN| < 1 on the circle: some v has phi(v) = w",
                    hypotheses=Hypotheses((_weights(small=True),), shapes),
                    conclusion=_has_preimage,
                    twin=Twin("|FFN| < 1", FOLDED),
                    long=True,
                ),
            ),
        ),
    )

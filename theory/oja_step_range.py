"""How large a step may be for a given number of tokens before w = mᵀ V m can fall, II.1.

In the plane (d = 2, λ_1 > 0 > λ_2) w falls at states where n − 1 equal tokens are all but cancelled
by their update, y = x + α V m → 0, so that a hair decides where they jump to. That it falls there
from the smallest step on is what searches find, not proved; the ranges that theory II.1 quotes for
n >= 3 end higher, where a search had not found these states.
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.optimize import brentq

from pmt import sphere
from theory import hypotheses as hyp
from theory import instances, witnesses
from theory.instances import BOUNDARY, GENERIC
from theory.margin import Margin, inequality, rounding
from theory.noise import Noise
from theory.oja_lyapunov import conditioning, energies, increases, increment
from theory.statement import Case, Clause, Explicit, Hypotheses, Piece, Shape, Twin

# Of every round, which looks between the neighbours of the best one of the round before.
_DIRECTIONS = 256
_ROUNDS = 4
_LEAST = 0.008


def cancelled_tokens(
    n: int, steps: Any, p: Any, hair: Any, xp: ModuleType = np
) -> tuple[Any, Any, Any]:
    """Angles of n − 1 equal tokens and of the last one, with y = hair p for the equal ones.

    For V = diag(λ_1, λ_2) and ``steps`` = (α λ_1, α |λ_2|), 1 < α |λ_2| < n/(n − 1). With
    ``hair`` = 0 the equal tokens x solve x + α V m = 0, which leaves z = −(n (α V)⁻¹ + n − 1) x
    for the last one and fixes both angles by |x| = |z| = 1; to first order in ``hair``, both are
    turned so that y = hair p, p a unit vector. Also returned: where the last token goes, a unit
    vector.
    """
    first, second = steps
    along, across = n / first + n - 1, n / second - (n - 1)
    c = xp.sqrt((1.0 - across**2) / (along**2 - across**2))
    s = xp.sqrt(1.0 - c * c)
    x, z = xp.stack([c, s]), xp.stack([-along * c, across * s])
    moved = z - x
    step = xp.stack([first + 0.0 * c, -second + 0.0 * c])
    turned = xp.stack([-x[1], x[0]]) * (1.0 + step * (n - 1) / n)
    other = xp.stack([-z[1], z[0]]) * step / n
    cross = turned[0] * other[1] - turned[1] * other[0]
    by = hair * (p[0] * other[1] - p[1] * other[0]) / cross
    by_last = hair * (turned[0] * p[1] - turned[1] * p[0]) / cross
    angles = xp.arctan2(x[1], x[0]) + by, xp.arctan2(z[1], z[0]) + by_last
    return *angles, moved / xp.sqrt(xp.sum(moved * moved))


def worst_direction(n: int, steps: Any, xp: ModuleType = np) -> tuple[Any, Any]:
    """The unit vector p to which the equal tokens jump so that α w falls most, and that change."""
    start = xp.asarray([1.0, 0.0])
    one, last, q = cancelled_tokens(n, steps, start, 0.0, xp)
    weights = xp.stack([steps[0] + 0.0 * one, -steps[1] + 0.0 * one])
    before = ((n - 1) * _unit(one, xp) + _unit(last, xp)) / n

    def change(turn: Any) -> Any:
        after = ((n - 1) * _unit(turn, xp) + q[:, None]) / n
        return xp.sum(weights[:, None] * after**2, axis=0) - xp.sum(weights * before**2)

    best, width = xp.asarray(np.pi), np.pi
    for _ in range(_ROUNDS):
        turns = best + xp.linspace(-width, width, _DIRECTIONS)
        best, width = turns[xp.argmin(change(turns))], 2.0 * width / _DIRECTIONS
    return _unit(best, xp), change(best[None])[0]


def threshold(n: int, ratio: float) -> float:
    """The α |λ_2| at which w begins to fall at cancelled tokens, for λ_2 = −``ratio`` λ_1.

    Lies between 2n/(2n − 1), for ``ratio`` → ∞, and (2n − 1)/(2n − 2), for ``ratio`` → 0, and is
    √(n/(n − 1)) for ``ratio`` = 1.
    """

    def change(step: float) -> float:
        return float(worst_direction(n, (step / ratio, step))[1])

    return float(brentq(change, 1.0 + 1e-6, n / (n - 1) - 1e-6, xtol=1e-12))


def _unit(angle: Any, xp: ModuleType) -> Any:
    return xp.stack([xp.cos(angle), xp.sin(angle)])


def _tokens(n: int, angles: tuple[Any, Any], frame: Any, xp: ModuleType) -> Any:
    equal, last = (_unit(angle, xp) for angle in angles)
    plane = xp.concatenate([xp.broadcast_to(equal[None], (n - 1, 2)), last[None]])
    return xp.sum(plane[:, None, :] * frame[None], axis=-1)


def lower(n: int) -> float:
    """2n/(2n − 1)."""
    return 2.0 * n / (2.0 * n - 1.0)


def upper(n: int) -> float:
    """(2n − 1)/(2n − 2)."""
    return (2.0 * n - 1.0) / (2.0 * n - 2.0)


def _steps(case: Case) -> Array:
    return case["alpha"] * jnp.stack([case["eigenvalues"][0], -case["eigenvalues"][-1]])


def _safe() -> Piece:
    """1 < α |λ_2| <= 2n/(2n − 1); uniform tokens, or n − 1 that are nearly cancelled."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        share = jnp.where(kind == GENERIC, noise.uniform(0.05, 1.0), 1.0)
        step = 1.0 + share * (lower(shape.n) - 1.0)
        alpha = step / jnp.abs(case["eigenvalues"][-1])
        steps = (alpha * case["eigenvalues"][0], step)
        p, hair = noise.unit(2), noise.log_uniform(1e-5, 1e-1)
        one, last, _ = cancelled_tokens(shape.n, steps, p, hair, jnp)
        near = _tokens(shape.n, (one, last), case["frame"], jnp)
        return {"alpha": alpha, "x": jnp.where(kind == GENERIC, case["x"], near)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        room = 1.0 - _steps(case)[1] / lower(shape.n)
        return {"alpha |lambda_2| <= 2n/(2n - 1)": room + rounding(shape.n)}

    return Piece(draw, margins)


def _too_long() -> Piece:
    """(2n − 1)/(2n − 2) < α |λ_2| < n/(n − 1), n − 1 tokens all but cancelled, the worst way.

    Changes λ_2 where it is nearer to 0 than −λ_1/125: w then falls by too little to be seen.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        n, first = shape.n, case["eigenvalues"][0]
        share = jnp.where(kind == BOUNDARY, noise.hair(), noise.uniform(0.05, 0.9))
        step = upper(n) + share * (n / (n - 1) - upper(n))
        eigenvalues = jnp.minimum(case["eigenvalues"], jnp.array([jnp.inf, -_LEAST]) * first)
        alpha = step / jnp.abs(eigenvalues[-1])
        steps = (alpha * first, step)
        p, _ = worst_direction(n, steps, jnp)
        one, last, _ = cancelled_tokens(n, steps, p, noise.log_uniform(1e-8, 1e-6), jnp)
        x = _tokens(n, (one, last), case["frame"], jnp)
        return {"alpha": alpha, "x": x, "eigenvalues": eigenvalues}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        step, first = _steps(case)[1], case["eigenvalues"][0]
        y = instances.oja(shape, case).unnormalized(case["x"])
        return {
            "alpha |lambda_2| > (2n - 1)/(2n - 2)": step / upper(shape.n) - 1.0,
            "lambda_2 <= -lambda_1/125": rounding(1) - _LEAST - case["eigenvalues"][-1] / first,
            "n - 1 tokens nearly cancelled": 1.0 - jnp.max(sphere.norm(y[:-1])) / 1e-3,
        }

    return Piece(draw, margins)


def _falls(shape: Shape, case: Case) -> Margin:
    """w(X⁺) < w(X), relative to |V|."""
    amplification = conditioning(shape, case)
    change = increment(shape, case) / instances.norm_of(case)
    return inequality(-change, size=shape.n * shape.d, conditioning=amplification)


def _witness(n: int, step: float, text: str) -> Explicit:
    """V = diag(1, −1), alpha = ``step``, n − 1 tokens all but cancelled."""
    p, _ = worst_direction(n, (step, step))
    angles = cancelled_tokens(n, (step, step), p, 1e-4)[:2]
    # Rounded, so that the instance can be written down.
    x = _tokens(n, (np.round(angles[0], 6), np.round(angles[1], 6)), np.eye(2), np)

    def numbers(shape: Shape, case: Case) -> dict[str, Any]:
        values = np.asarray(case["eigenvalues"])
        return energies(shape, case) | {
            "threshold of alpha |lambda_2|": threshold(shape.n, float(-values[1] / values[0])),
            "sqrt(n/(n - 1))": float(np.sqrt(shape.n / (shape.n - 1))),
        }

    return Explicit(
        name=f"n = {n}, alpha = {step}",
        text=f"V = diag(1, -1), alpha = {step}, {n} tokens in the plane, all but one of them "
        f"nearly cancelled by their update: {text}",
        shape=Shape(n, 2),
        case=witnesses.symmetric([1.0, -1.0], step, x=x),
        numbers=numbers,
    )


def clauses() -> tuple[Clause, Clause]:
    """The two clauses of II.1 on the largest step for a given number of tokens."""
    return (
        Clause(
            name="given n, below",
            text="d = 2, lambda_1 > 0 > lambda_2: w ascends for alpha |lambda_2| <= 2n/(2n - 1) "
            "(numerical evidence)",
            hypotheses=Hypotheses(
                (hyp.symmetric_value(last="negative"), hyp.tokens(), _safe()),
                (Shape(2, 2), Shape(4, 2)),
            ),
            conclusion=increases,
            twin=Twin("alpha |lambda_2| <= 2n/(2n - 1)", _witness(2, 1.43, "w falls")),
        ),
        Clause(
            name="given n, above",
            text="d = 2, lambda_2 <= -lambda_1/125 < 0: for alpha |lambda_2| > (2n - 1)/(2n - 2) "
            "there are tokens at which w falls",
            hypotheses=Hypotheses(
                (hyp.symmetric_value(last="negative"), _too_long()), (Shape(2, 2), Shape(4, 2))
            ),
            conclusion=_falls,
            explicit=(_witness(3, 1.26, "w falls"), _witness(6, 1.105, "w falls")),
            twin=Twin("alpha |lambda_2| > (2n - 1)/(2n - 2)", _witness(2, 1.4, "w rises")),
        ),
    )

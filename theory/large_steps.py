"""Theory II.9: cycles and chaos of the softmax system below the paper's step bounds."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import (
    Bifurcation,
    Outcome,
    SingleHead,
    bifurcation,
    detect_period,
    largest_lyapunov_exponent,
)
from pmt.stability import jacobian
from theory import instances
from theory import linearization as lin
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, equivalent, every, identity, inequality
from theory.noise import Noise
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

VALUE = np.array([[1.0, 0.5], [0.5, -0.5]])
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
STEP_BOUND = 1.0 / (2.0 * float(np.max(np.abs(np.linalg.eigvalsh(VALUE)))))
"""1/(2|V|) = 0.434."""

FLIP = 2.0
"""alpha β at which the multiplier 1 − alpha β of {e_1, −e_1} is −1: β = 8 at alpha = 1/4."""


def cascade_system(beta: Any, alpha: Any = 0.25) -> SingleHead:
    """V = [[1, 1/2], [1/2, −1/2]] and QᵀK = −β [[0, 1], [1, 0]]."""
    return SingleHead(jnp.asarray(VALUE), -jnp.asarray(beta) * jnp.asarray(SWAP), alpha)


def near_pair(angle: Any) -> Float[Array, "2 2"]:
    """The antipodal pair at ``angle`` radians from e_1: the map keeps it antipodal."""
    u = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    return jnp.stack([u, -u])


def cascade(values: int = 473, low: float = 1.0, high: float = 60.0) -> Bifurcation:
    """The period-doubling cascade of ``cascade_system``, from an antipodal pair near e_1."""
    betas = jnp.linspace(low, high, values)
    return bifurcation(cascade_system, betas, near_pair(jnp.asarray(0.05)))


def _family(low: float, high: float) -> Piece:
    """alpha β between the bounds at a step below 1/(2|V|), and a small angle.

    Boundary: alpha β within a hair of ``FLIP`` or, where that is not inside, of the lower bound.
    Nearly degenerate: a small step (where alpha β is then the smallest allowed or the flip's).
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case, shape
        product = noise.log_uniform(low, high)
        side = jnp.where(noise.coin(), 1.0, -1.0)
        edge = FLIP * (1.0 + side * noise.hair()) if low < FLIP else low * (1.0 + noise.hair())
        product = jnp.where(kind == BOUNDARY, edge, product)
        alpha = jnp.where(
            kind == DEGENERATE, noise.log_uniform(1e-3, 4e-3), noise.uniform(0.1, 0.43)
        )
        return {
            "value": jnp.asarray(VALUE),
            "query_key": -product / alpha * jnp.asarray(SWAP),
            "alpha": alpha,
            "x": near_pair(jnp.zeros(())),
            "angle": noise.uniform(0.02, 0.1),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        product = -case["alpha"] * case["query_key"][0, 1]
        found = {
            "alpha > 0": case["alpha"],
            "alpha < 1/(2|V|)": 1.0 - case["alpha"] / STEP_BOUND,
        }
        if low < FLIP:
            return found | {"alpha beta positive": product, "off the flip": jnp.abs(product - FLIP)}
        return found | {"alpha beta > 2": product / low - 1.0 + 1e-12}

    return Piece(draw, margins, lambda _shape, case: case["alpha"])


def _flip(shape: Shape, case: Case) -> Margin:
    """1 − alpha β and 1 − alpha/2 − alpha β/2 at {e_1, −e_1}; stable iff alpha β < 2."""
    system, x = instances.single_head(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    product, alpha = -case["alpha"] * case["query_key"][0, 1], case["alpha"]
    first, second = 1.0 - product, 1.0 - alpha / 2.0 - product / 2.0
    worst = lin.conditioning(system, x, case["query_key"])
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    radius = jnp.maximum(jnp.abs(first), jnp.abs(second))
    room = jnp.minimum(FLIP - product, product)
    return every(
        identity(system(x) - x, scale=1.0, size=4, conditioning=worst),
        identity(jnp.trace(matrix) - first - second, scale=worst, size=4, conditioning=worst),
        identity(determinant - first * second, scale=worst**2, size=4, conditioning=worst),
        equivalent(
            lin.stable(radius, size=4, conditioning=worst),
            inequality(room / (1.0 + jnp.abs(room)), size=4, conditioning=worst),
        ),
    )


_SETTLE = 400


def _two_cycle(shape: Shape, case: Case) -> Margin:
    """The pair ends in a cycle of period 2, neither in an equilibrium nor in a longer cycle."""
    system = instances.single_head(shape, case)
    found = detect_period(
        system, near_pair(case["angle"]), transient=_SETTLE, max_period=2, tolerance=1e-9
    )
    once, twice = found.residuals[0], found.residuals[1]
    return every(
        # The cycle is as large as a step.
        inequality(once / system.alpha - 0.02, size=4),
        inequality(1.0 - twice / 1e-7, size=4e6),
    )


CHAOTIC = 60.0
_TRANSIENT, _STEPS, _Z = 300, 1600, 3.0


def _chaotic_family() -> Piece:
    """β = 60 at alpha = 1/4, up to 1e-9, from antipodal pairs near e_1.

    Chaos is no open condition: stable cycles occur arbitrarily close to any β (windows).
    Boundary: pairs next to e_1 itself; nearly degenerate: the step exactly 1/4 to 1e-12.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case, shape
        change = jnp.where(kind == DEGENERATE, 1e-12, 1e-9) * (2.0 * noise.uniform() - 1.0)
        alpha = 0.25 * (1.0 + change)
        angle = jnp.where(kind == BOUNDARY, noise.uniform(0.001, 0.009), noise.uniform(0.02, 0.1))
        return {
            "value": jnp.asarray(VALUE),
            "query_key": -CHAOTIC * jnp.asarray(SWAP),
            "alpha": alpha,
            "angle": angle,
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {
            "angle > 0": case["angle"],
            "alpha < 1/(2|V|)": 1.0 - case["alpha"] / STEP_BOUND,
            "beta = 60": 1e-6 - jnp.abs(case["query_key"][0, 1] / -CHAOTIC - 1.0) + 2e-3,
        }

    return Piece(
        draw, margins, lambda _shape, case: 1e9 * jnp.abs(case["alpha"] / 0.25 - 1.0) + 1e-12
    )


def _chaos(shape: Shape, case: Case) -> Margin:
    """The largest Lyapunov exponent is positive: in standard errors, undecided within 3."""
    system = instances.single_head(shape, case)
    found = largest_lyapunov_exponent(
        system, near_pair(case["angle"]), transient=_TRANSIENT, steps=_STEPS
    )
    error = jnp.maximum(found.standard_error, 1e-4)
    value = jnp.where(found.result == Outcome.DONE, found.exponent / error, 0.0)
    return Margin(value, jnp.asarray(_Z))


def at_beta(beta: float, angle: float = 0.05) -> Explicit:
    """The cascade at one β, alpha = 1/4."""
    return Explicit(
        name=f"beta = {beta:g}",
        text=f"V = [[1, .5], [.5, -.5]], Q'K = -{beta:g} [[0, 1], [1, 0]], alpha = 1/4 < .434, "
        f"tokens opposite each other at {angle:g} radians from e_1",
        shape=Shape(2, 2),
        case={
            "value": VALUE,
            "query_key": -beta * SWAP,
            "alpha": np.array(0.25),
            "x": np.array([[1.0, 0.0], [-1.0, 0.0]]),
            "angle": np.array(angle),
        },
    )


def _without_tokens(explicit: Explicit) -> Explicit:
    """The fields that the chaotic family draws."""
    return replace(explicit, case={k: v for k, v in explicit.case.items() if k != "x"})


def endings(
    systems: Any, starts: Float[Array, "runs n d"], *, transient: int, steps: int
) -> dict[str, float]:
    """Where one run of each of many systems ends: shares of 1-, 2-, longer cycles and chaos.

    ``systems`` has a leading axis on every leaf. Chaos: no period up to 64, and an exponent above
    3 standard errors and 0.02. ``unresolved`` is what is neither.
    """

    def one(system: Any, x0: Array) -> tuple[Array, Array, Array]:
        cycle = detect_period(system, x0, transient=transient)
        found = largest_lyapunov_exponent(system, cycle.x, transient=100, steps=steps)
        return cycle.period, found.exponent, found.standard_error

    period, exponent, error = (
        np.asarray(a) for a in jax.jit(jax.vmap(one))(systems, sphere.normalize(starts))
    )
    chaotic = (period == 0) & (exponent > np.maximum(3 * error, 0.02))
    return {
        "equilibrium": float(np.mean(period == 1)),
        "2-cycle": float(np.mean(period == 2)),
        "longer cycle": float(np.mean(period > 2)),
        "chaotic": float(np.mean(chaotic)),
        "unresolved": float(np.mean((period == 0) & ~chaotic)),
        "largest exponent": float(np.max(exponent[chaotic], initial=-np.inf)),
    }


@numbered
def ii_9() -> Statement:
    """Cycles and chaos."""
    pair = Hypotheses((_family(0.05, 15.0),), (Shape(2, 2),))
    backwards = Explicit(
        name="a step backwards",
        text="alpha = -.1, beta = -.2: alpha beta = .02 < 2, and the other multiplier is 1.04",
        shape=Shape(2, 2),
        case=dict(at_beta(-0.2).case) | {"alpha": np.array(-0.1)},
    )
    return Statement(
        id="ii.9",
        source="Theory II.9",
        text="Cycles and chaos of the softmax system below the paper's step bounds.",
        paper=None,
        corrected=Form(
            text="V = [[1, .5], [.5, -.5]], Q'K = -beta [[0, 1], [1, 0]], two tokens, alpha < "
            "1/(2|V|) = .434: the polygonal pair {e_1, -e_1} has the multipliers 1 - alpha beta "
            "and 1 - alpha/2 - alpha beta/2, so that it is stable for beta < 8 at alpha = 1/4, "
            "flips to period 2 at beta = 8, doubles again (period 4 at beta = 40), and is chaotic "
            "at beta = 60 with the exponent +.26 (numerical evidence). So no bound on alpha |V| "
            "alone gives global convergence.",
            expected="supported",
            clauses=(
                Clause(
                    name="flip",
                    text="the two multipliers, and stable iff alpha beta < 2",
                    hypotheses=pair,
                    conclusion=_flip,
                    explicit=(at_beta(7.9), at_beta(8.1)),
                    twin=Twin("alpha > 0", backwards),
                ),
                Clause(
                    name="period 2",
                    text="for alpha beta from 2.2 to 4 the pair ends in a 2-cycle",
                    hypotheses=Hypotheses((_family(2.2, 4.0),), (Shape(2, 2),)),
                    conclusion=_two_cycle,
                    explicit=(at_beta(12.0),),
                    twin=Twin("alpha beta > 2", at_beta(4.0)),
                    share=0.05,
                ),
                Clause(
                    name="chaos",
                    text="at beta = 60 the largest exponent is positive, to three standard errors",
                    hypotheses=Hypotheses((_chaotic_family(),), (Shape(2, 2),)),
                    conclusion=_chaos,
                    explicit=(_without_tokens(at_beta(60.0)),),
                    share=0.01,
                    long=True,
                ),
            ),
        ),
    )

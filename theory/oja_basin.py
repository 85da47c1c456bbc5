"""II.3: how many pairs of the Oja system end opposite each other, in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Oja
from theory import trajectories
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, identity
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

SMALL_STEP = 0.05
_STEPS = 600
_STARTS = 64
# Stratified starts spread less than independent ones, whose deviation this is.
_DEVIATIONS = 4.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


def profile(mu: Any, phi: Any) -> Array:
    """h(φ) = |sin φ|^{1/(1+μ)} |cos φ|^{μ/(1+μ)}: sin δ / h(φ) is conserved for small steps."""
    return jnp.abs(jnp.sin(phi)) ** (1.0 / (1.0 + mu)) * jnp.abs(jnp.cos(phi)) ** (mu / (1.0 + mu))


def top(mu: Any) -> Array:
    """φ* with tan φ* = μ^{-1/2}, where h is largest."""
    return jnp.arctan(1.0 / jnp.sqrt(jnp.asarray(mu)))


def pair_basin(mu: Any) -> Float[Array, ""]:
    """p(μ) = (2/π)² ∫_{φ*}^{π/2} (π/2 − arcsin(h(φ)/h(φ*))) dφ, V = diag(1, −μ), small steps.

    Gauss-Legendre after φ = π/2 − (π/2 − φ*) s⁴, which evens out the root at π/2.
    """
    first = top(mu)
    s = jnp.asarray((_NODES + 1.0) / 2.0)
    phi = jnp.pi / 2.0 - (jnp.pi / 2.0 - first) * s**4
    width = (jnp.pi / 2.0 - first) * 4.0 * s**3 * jnp.asarray(_WEIGHTS / 2.0)
    inside = jnp.pi / 2.0 - jnp.arcsin(jnp.minimum(profile(mu, phi) / profile(mu, first), 1.0))
    return (2.0 / jnp.pi) ** 2 * jnp.sum(width * inside)


def ends_antipodal(mu: Any, phi: Any, delta: Any) -> Array:
    """Positive iff the small-step limit is antipodal: sin δ > h(φ)/h(φ*) and φ > φ*.

    φ and δ are the half-sum and half-difference of the angles, both in (0, π/2).
    """
    first = top(mu)
    beyond = jnp.sin(delta) - profile(mu, phi) / profile(mu, first)
    return jnp.where(phi > first, beyond, -jnp.abs(beyond) - (first - phi))


def pair(phi: Any, delta: Any) -> Float[Array, "2 2"]:
    """The tokens at the angles φ ± δ."""
    angles = jnp.stack([phi + delta, phi - delta])
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _system(mu: Any, alpha: Any) -> Oja:
    return Oja(value=jnp.diag(jnp.stack([jnp.ones_like(mu), -mu])), alpha=alpha)


def _angles(x: Float[Array, "2 2"]) -> tuple[Array, Array]:
    """φ and δ of two tokens, up to signs that h and sin δ do not see."""
    difference, total = x[0] - x[1], x[0] + x[1]
    phi = jnp.arctan2(total[1], total[0])
    return phi, jnp.arctan2(sphere.norm(difference), sphere.norm(total))


def _conserved(shape: Shape, case: Case) -> Margin:
    """d/dalpha of log sin δ − log h(φ) after one step vanishes at alpha = 0."""
    del shape
    mu, x = case["mu"], pair(case["phi"], case["delta"])

    def logarithm(alpha: Array) -> Array:
        phi, delta = _angles(_system(mu, alpha)(x))
        return jnp.log(jnp.sin(delta)) - jnp.log(profile(mu, phi))

    zero = jnp.zeros_like(mu)
    slope = jax.jvp(logarithm, (zero,), (jnp.ones_like(mu),))[1]
    steepness = 1.0 / (jnp.abs(jnp.sin(2.0 * case["phi"])) * jnp.sin(case["delta"]))
    steepness = steepness / jnp.cos(case["delta"])
    return identity(slope, scale=(1.0 + mu) * steepness, size=8, conditioning=steepness)


def _is_apart(mu: Array, alpha: Array, x: Float[Array, "2 2"]) -> Array:
    """1 where the pair becomes antipodal, 0 at consensus, 1/2 in between.

    A pair may pass close to antipodal and part slowly: the mean must still be falling.
    """
    system = _system(mu, alpha)
    half = trajectories.after(system, x, _STEPS // 2)
    final = trajectories.after(system, half, _STEPS - _STEPS // 2)
    before, mean = (sphere.norm(jnp.mean(state, axis=0)) for state in (half, final))
    apart = (mean < 0.05) & (mean < 0.7 * before)
    return jnp.where(apart, 1.0, jnp.where(mean > 0.95, 0.0, 0.5))


def _predicted(shape: Shape, case: Case) -> Margin:
    """The run from the pair ends as the conserved quantity says; undecided next to the border."""
    del shape
    mu = case["mu"]
    claim = ends_antipodal(mu, case["phi"], case["delta"])
    end = _is_apart(mu, case["alpha"], pair(case["phi"], case["delta"])) - 0.5
    value = jnp.sign(claim) * end * 2.0 * jnp.minimum(jnp.abs(claim), 1.0)
    # A step moves the pair by the order of alpha across the curves of the small-step limit.
    return Margin(value, jnp.full_like(value, 2.0 * SMALL_STEP))


def _share(shape: Shape, case: Case) -> Margin:
    """The share of antipodal ends among stratified starts is p(μ), in standard deviations."""
    del shape
    mu = case["mu"]
    index = jnp.arange(_STARTS, dtype=mu.dtype)
    first = (index + case["shift"][0]) / _STARTS
    # The golden ratio fills the second axis evenly whatever the number of starts.
    second = (index * 0.6180339887498949 + case["shift"][1]) % 1.0
    starts = jax.vmap(pair)(jnp.pi / 2.0 * first, jnp.pi / 2.0 * second)
    apart = jax.vmap(lambda x: _is_apart(mu, case["alpha"], x))(starts)
    found, expected = jnp.mean(apart), pair_basin(mu)
    # Unresolved runs may end either way, and the step shifts the border.
    open_ = jnp.mean(jnp.where(apart == 0.5, 0.5, 0.0)) + 0.5 * case["alpha"]
    deviation = jnp.sqrt(jnp.maximum(expected * (1.0 - expected), 0.01) / _STARTS)
    value = 1.0 - jnp.abs(found - expected) / (_DEVIATIONS * deviation + open_)
    return Margin(value, jnp.full_like(value, 1e-6))


def _ratio() -> Piece:
    """V = diag(1, −μ), μ > 0. Nearly degenerate: μ next to 1."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape, case
        mu = noise.log_uniform(0.1, 3.0)
        return {"mu": jnp.where(kind == DEGENERATE, 1.0 + noise.hair(), mu)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"mu > 0": case["mu"]}

    return Piece(draw, margins, lambda _shape, case: jnp.abs(case["mu"] - 1.0))


def _start() -> Piece:
    """φ and δ uniform in (0, π/2), as for uniformly random pairs."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, shape, case
        phi, delta = jnp.pi / 2.0 * noise.uniforms(2)
        return {"phi": phi, "delta": delta}

    return Piece(draw)


def _small_step() -> Piece:
    """alpha max(1, μ) < 0.05; boundary: by a hair."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        share = jnp.where(kind == BOUNDARY, 1.0 - noise.hair(), noise.uniform(0.8, 0.99))
        return {"alpha": SMALL_STEP * share / jnp.maximum(case["mu"], 1.0)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        step = case["alpha"] * jnp.maximum(case["mu"], 1.0)
        return {"small step": 1.0 - step / SMALL_STEP}

    return Piece(draw, margins)


def _shift() -> Piece:
    return Piece(lambda noise, _kind, _shape, _case: {"shift": noise.uniforms(2)})


def _row(mu: float, share: str) -> Explicit:
    return Explicit(
        name=f"mu = {mu}",
        text=f"V = diag(1, -{mu}), alpha = .04/max(1, mu): p = {share}",
        shape=Shape(2, 2),
        case={
            "mu": np.array(mu),
            "alpha": np.array(0.04 / max(1.0, mu)),
            "shift": np.array([0.5, 0.5]),
        },
        numbers=lambda _shape, case: {"p": float(pair_basin(case["mu"]))},
    )


ROWS = (_row(0.1, ".034"), _row(0.5, ".127"), _row(0.9, ".183"), _row(2.0, ".266"))


@numbered
def ii_3() -> Statement:
    """The basin of the antipodal pairs."""
    shapes = (Shape(2, 2),)
    far = Explicit(
        name="a large step",
        text="V = diag(1, -2), alpha = .9: 1 + alpha lambda_2 < 0, and a pair that the small-step "
        "limit brings to consensus ends elsewhere, or the reverse",
        shape=Shape(2, 2),
        case={
            "mu": np.array(2.0),
            "alpha": np.array(0.9),
            "phi": np.array(1.52),
            "delta": np.array(0.33),
        },
    )
    return Statement(
        id="ii.3",
        source="theory II.3",
        text="The share of random pairs of the Oja system that end antipodal, n = d = 2.",
        paper=None,
        corrected=Form(
            text="For V = diag(1, -mu) and small steps sin(delta)/(|sin phi|^{1/(1+mu)} |cos phi|"
            "^{mu/(1+mu)}) is conserved, phi and delta half the sum and the difference of the "
            "angles. So a pair ends antipodal iff phi > phi*, tan phi* = mu^{-1/2}, and sin(delta) "
            "> h(phi)/h(phi*), which has probability p(mu) = .034, .127, .183, .266 for mu = .1, "
            ".5, .9, 2.",
            expected="supported",
            clauses=(
                Clause(
                    name="conserved",
                    text="the quantity does not change at first order in alpha",
                    hypotheses=Hypotheses((_ratio(), _small_step(), _start()), shapes),
                    conclusion=_conserved,
                ),
                Clause(
                    name="which pairs",
                    text="runs with alpha max(1, mu) < .05 end as the criterion says",
                    hypotheses=Hypotheses((_ratio(), _small_step(), _start()), shapes),
                    conclusion=_predicted,
                    twin=Twin("small step", far),
                    share=0.3,
                    long=True,
                ),
                Clause(
                    name="how many",
                    text=f"of {_STARTS} stratified starts the share p(mu) ends antipodal, within "
                    "four standard deviations (evidence)",
                    hypotheses=Hypotheses((_ratio(), _small_step(), _shift()), shapes),
                    conclusion=_share,
                    explicit=ROWS,
                    share=0.001,
                    long=True,
                ),
            ),
        ),
    )

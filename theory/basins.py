"""Supplementary D.4.2: how large the basins of bipartite points are."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from pmt import sphere
from pmt.dynamics import SingleHead
from pmt.numerics import einsum
from pmt.stability import conditions, spectrum
from pmt.stability.basin import basin_fractions
from pmt.stability.intervals import binomial_interval
from theory import hypotheses as hyp
from theory import instances, witnesses
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, identity, inequality
from theory.noise import Noise
from theory.self_attention import PAPER
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

SHARE = 0.1
"""What ``(very) small`` is taken to mean: at most a tenth of all random starts."""

TOKENS, STEPS, Z = 6, 100, 3.0
_STARTS = 24
_ALIGNED = 0.9


def value(ratios: Any = (0.5, -0.3)) -> np.ndarray:
    """V = diag(1, 0.5, −0.3) of the measurements in theory D.4.2."""
    return np.diag([1.0, *ratios])


def fixed_starts() -> np.ndarray:
    """Starts that every instance has, before its own rotation: (starts, n, d), uniform."""
    drawn = np.random.default_rng(42).normal(size=(_STARTS, TOKENS, 3))
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def ends_bipartite(system: Any, starts: Array, v: Array, steps: int) -> Array:
    """For each start whether its tokens are along ±v with both signs after so many steps.

    Along: |x_iᵀ v| > 0.9 for all tokens. What is not aligned by then counts as not bipartite.
    """
    ends = lax.fori_loop(0, steps, lambda _i, x: jax.vmap(system)(x), starts)
    along = einsum("sna,a->sn", ends, v)
    aligned = jnp.all(jnp.abs(along) > _ALIGNED, axis=1)
    return aligned & jnp.any(along > 0, axis=1) & jnp.any(along < 0, axis=1)


def bipartite_share(case: Case) -> tuple[Array, Array]:
    """Share of the starts that end bipartite at v_1 after ``STEPS`` steps, and its standard error.

    The error is Laplace's, which does not vanish at shares of 0 and 1.
    """
    system = instances.single_head(Shape(TOKENS, 3), case)
    starts = einsum("sna,ba->snb", jnp.asarray(fixed_starts()), case["frame"])
    found = ends_bipartite(system, starts, case["frame"][:, 0], STEPS)
    count = jnp.sum(found.astype(starts.dtype))
    smoothed = (count + 1.0) / (_STARTS + 2.0)
    return count / _STARTS, jnp.sqrt(smoothed * (1.0 - smoothed) / _STARTS)


def logits_along_principal(low: float, high: float) -> Piece:
    """d = 3: V with λ_1 = 1, λ_2 and λ_3, B = θ v_1 v_1ᵀ and alpha = 0.2, θ between the bounds.

    λ_2 from 0.3 to 0.6, λ_3 from −0.5 to 0.2. Boundary: θ a hair above ``low``; nearly degenerate:
    λ_3 nearly 0.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case, shape
        frame = noise.orthogonal(3)
        third = jnp.where(kind == DEGENERATE, noise.hair(), noise.uniform(-0.5, 0.2))
        eigenvalues = jnp.stack([jnp.asarray(1.0), noise.uniform(0.3, 0.6), third])
        theta = noise.log_uniform(low, high)
        theta = jnp.where(kind == BOUNDARY, low * (1.0 + noise.hair()), theta)
        v = frame[:, 0]
        return {
            "frame": frame,
            "eigenvalues": eigenvalues,
            "query_key": theta * v[:, None] * v[None, :],
            "alpha": noise.uniform(0.15, 0.25),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        v = case["frame"][:, 0]
        theta = einsum("a,ab,b->", v, case["query_key"], v)
        loose = case["query_key"] - theta * v[:, None] * v[None, :]
        second = case["eigenvalues"][1]
        return {
            "theta large": theta / low - 1.0 + 1e-12,
            "Q'K = theta v_1 v_1'": identity(loose, scale=1.0 + theta, size=shape.d).value,
            "lambda_2 <= 0.6": 0.6 - second + 1e-12,
            "alpha > 0": case["alpha"],
        }

    return Piece(draw, margins, lambda _shape, case: jnp.abs(case["eigenvalues"][2]))


def _small_share(shape: Shape, case: Case) -> Margin:
    """The paper: the share is at most ``SHARE``; in standard errors, undecided within ``Z``."""
    del shape
    share, error = bipartite_share(case)
    return Margin((SHARE - share) / error, jnp.asarray(Z))


def _large_share(shape: Shape, case: Case) -> Margin:
    """The share is above a half; in standard errors, undecided within ``Z``."""
    del shape
    share, error = bipartite_share(case)
    return Margin((share - 0.5) / error, jnp.asarray(Z))


def _few_patterns(shape: Shape, case: Case) -> Margin:
    """The paper: at most ``SHARE`` of the 2^n − 2 mixed sign patterns at v_1 are stable."""
    n, theta = shape.n, instances.theta_of({**case, "direction": case["frame"][:, 0]})
    sizes = np.arange(1, n)
    counts = np.array([math.comb(n, int(k)) for k in sizes]) / (2.0**n - 2.0)

    def room(n1: Array) -> Array:
        values = case["eigenvalues"]
        return conditions.exact_bipartite_margin(values[0], values[1:], theta, n1, n - n1)

    rooms = jax.vmap(room)(jnp.asarray(sizes, jnp.result_type(float)))
    stable = jnp.sum(jnp.where(rooms > 0, jnp.asarray(counts), 0.0))
    return inequality(SHARE - stable, size=n)


def below_threshold() -> Piece:
    """θ_1 below the balanced threshold, tanh θ_1 < λ_2/λ_1, and λ_2 > 0; B otherwise arbitrary.

    Boundary: by a hair. Fields ``query_key`` and ``signs`` come after V, alpha, ``direction``.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        v, ratio = case["direction"], case["eigenvalues"][1] / case["eigenvalues"][0]
        limit = jnp.arctanh(jnp.minimum(ratio, 1.0 - 1e-9))
        fraction = jnp.where(kind == BOUNDARY, 1.0 - noise.hair(), noise.uniform(-0.5, 0.95))
        matrix = noise.normal(shape.d, shape.d)
        correction = fraction * limit - einsum("a,ab,b->", v, matrix, v)
        return {"query_key": matrix + correction * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        ratio = case["eigenvalues"][1] / case["eigenvalues"][0]
        return {"tanh theta_1 < lambda_2/lambda_1": ratio - jnp.tanh(instances.theta_of(case))}

    return Piece(draw, margins)


def second_positive() -> Piece:
    """Assumption 1 with λ_2 > 0, d = 3: 0.05 to 0.95 of λ_1; nearly degenerate: next to λ_1."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        second = noise.uniform(0.05, 0.95)
        second = jnp.where(kind == DEGENERATE, 1.0 - noise.hair(), second)
        rest = second * noise.uniform(-1.0, 0.95)
        values = jnp.stack([jnp.asarray(1.0), second, jnp.where(rest == 0, 0.1, rest)])
        top = noise.log_uniform(0.3, 3.0)
        return {"eigenvalues": top * values, "frame": noise.orthogonal(shape.d)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        values = case["eigenvalues"]
        return {
            "lambda_1 simple": 1.0 - values[1] / values[0],
            "lambda_2 > 0": values[1] / values[0],
        }

    return Piece(
        draw, margins, lambda _shape, case: 1.0 - case["eigenvalues"][1] / case["eigenvalues"][0]
    )


def _every_split_unstable(shape: Shape, case: Case) -> Margin:
    """For all n_1 from 1 to n − 1 the bipartite point at v_1 has a multiplier above 1."""
    sizes = jnp.arange(1, shape.n, dtype=jnp.result_type(float))
    theta, others = instances.theta_of(case), case["eigenvalues"][1:]

    def radius(n1: Array) -> Array:
        found = spectrum.bipartite_multipliers(
            case["alpha"], case["eigenvalues"][0], others, theta, n1, shape.n - n1
        )
        return jnp.max(jnp.abs(found.pair))

    least = jnp.min(jax.vmap(radius)(sizes))
    worst = 1.0 + jnp.abs(theta)
    return inequality((least - 1.0) / least, size=shape.n, conditioning=worst)


def well_spread_tokens() -> Piece:
    """Tokens with |x_iᵀ v_1| >= 0.05, and θ so large that each attends to its own side only.

    θ >= 100/0.05²; B = θ v_1 v_1ᵀ: a token's logits towards its own side exceed those towards the
    other by 2 θ 0.05² >= 200. Boundary: a token 0.05 from the equator; nearly degenerate: all but
    one of the tokens on one side.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        v = case["frame"][:, 0]
        along = 0.1 + 0.85 * noise.uniforms(shape.n)
        along = along.at[0].set(jnp.where(kind == BOUNDARY, 0.05 + noise.hair(), along[0]))
        sign = jnp.where(noise.uniforms(shape.n) < 0.5, -1.0, 1.0)
        lonely = jnp.ones(shape.n).at[0].set(-1.0)
        along = along * jnp.where(kind == DEGENERATE, lonely, sign)
        across = noise.normal(shape.n, shape.d)
        axis = jnp.broadcast_to(v, across.shape)
        across = sphere.normalize(sphere.tangent_projection(axis, across))
        x = along[:, None] * v[None, :] + jnp.sqrt(1.0 - along**2)[:, None] * across
        theta = 100.0 / 0.05**2 * noise.uniform(1.0, 5.0)
        return {"x": sphere.normalize(x), "query_key": theta * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        v = case["frame"][:, 0]
        along = jnp.abs(einsum("ia,a->i", case["x"], v))
        theta = einsum("a,ab,b->", v, case["query_key"], v)
        off = sphere.norm(case["x"]) - 1.0
        return {
            "unit tokens": identity(off, scale=1.0, size=shape.d).value,
            "tokens off the equator": jnp.min(along) - 0.05 + 1e-12,
            "theta large": theta * 0.05**2 / 100.0 - 1.0 + 1e-9,
        }

    return Piece(draw, margins)


_FROZEN_STEPS = 60


def _signs_frozen(shape: Shape, case: Case) -> Margin:
    """The sign of every x_iᵀ v_1 is kept for all steps, and |x_iᵀ v_1| ends above its start."""
    system, v = instances.single_head(shape, case), case["frame"][:, 0]
    start = einsum("ia,a->i", case["x"], v)

    def step(_i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, least = carry
        moved = system(x)
        kept = jnp.sign(start) * einsum("ia,a->i", moved, v)
        return moved, jnp.minimum(least, jnp.min(kept))

    end, least = lax.fori_loop(0, _FROZEN_STEPS, step, (case["x"], jnp.min(jnp.abs(start))))
    del end
    return inequality(least, size=shape.n * shape.d)


def measured_row(theta: float, *, starts: int, seed: int) -> dict[str, float]:
    """Share of random starts that end bipartite at one θ, with Wilson's 95 % interval."""
    v = jnp.array([1.0, 0.0, 0.0])
    system = SingleHead(jnp.asarray(value()), theta * v[:, None] * v[None, :], 0.2)
    found = basin_fractions(
        system, TOKENS, samples=starts, seed=seed, max_steps=3000, verdicts=False
    )
    both = found.share("bipartite")
    return {
        "theta": theta,
        "bipartite": both.fraction,
        "low": both.low,
        "high": both.high,
        "unresolved": found.unresolved.fraction,
    }


def _row_numbers(shape: Shape, case: Case) -> dict[str, Any]:
    """The row of theory D.4.2 from 200 starts, decided after 150 steps."""
    del shape
    thetas, count = np.array([0.5, 0.8, 1.0, 2.0, 5.0, 20.0, 100.0]), 200
    starts = sphere.uniform(jax.random.key(1), (count, TOKENS, 3))
    v = jnp.array([1.0, 0.0, 0.0])

    @jax.jit
    def share(theta: Array) -> Array:
        system = SingleHead(jnp.asarray(value()), theta * v[:, None] * v[None, :], case["alpha"])
        return jnp.mean(ends_bipartite(system, starts, v, 150).astype(v.dtype))

    rows = []
    for theta in thetas:
        found = float(share(jnp.asarray(theta)))
        low, high = binomial_interval(round(found * count), count)
        rows.append({"theta": float(theta), "bipartite": found, "low": low, "high": high})
    return {"limit": 1.0 - 2.0 ** (1 - TOKENS), "starts": count, "row": rows}


def at_theta(theta: float, numbers: Any = None) -> Explicit:
    """V = diag(1, .5, −.3), Q'K = θ v_1 v_1ᵀ, alpha = 0.2."""
    return Explicit(
        name=f"theta = {theta:g}",
        text=f"V = diag(1, .5, -.3), Q'K = {theta:g} v_1 v_1', alpha = .2, six random tokens",
        shape=Shape(TOKENS, 3),
        case={
            "frame": np.eye(3),
            "eigenvalues": np.array([1.0, 0.5, -0.3]),
            "query_key": np.diag([theta, 0.0, 0.0]),
            "alpha": np.array(0.2),
        },
        numbers=numbers,
    )


def _crowded() -> Explicit:
    """Tokens that weak logits draw to one side."""
    along = np.array([0.9, 0.9, 0.9, -0.3])
    x = np.stack([along, np.sqrt(1 - along**2), np.zeros(4)], axis=1)
    return Explicit(
        name="weak logits",
        text="V = diag(1, .5, -.3), theta = .1, alpha = .2: three tokens draw the fourth over",
        shape=Shape(4, 3),
        case={
            "frame": np.eye(3),
            "eigenvalues": np.array([1.0, 0.5, -0.3]),
            "query_key": np.diag([0.1, 0.0, 0.0]),
            "alpha": np.array(0.2),
            "x": x,
        },
    )


@numbered
def section_d_4_2() -> Statement:
    """The size of bipartite basins."""
    above = Explicit(
        name="above the threshold",
        text="V = diag(1, .5, -.3), alpha = .2, theta = 2 > atanh(1/2): (2, 2) is stable",
        shape=Shape(4, 3),
        case=witnesses.symmetric([1.0, 0.5, -0.3], 0.2, query_key=np.diag([2.0, 0.0, 0.0])),
    )
    anywhere = Hypotheses((logits_along_principal(0.1, 200.0), hyp.full_attention()), (_SIX,))
    at_large = Hypotheses((logits_along_principal(20.0, 200.0), hyp.full_attention()), (_SIX,))
    return Statement(
        id="section-d.4.2",
        source=f"Sec. D.4.2, {PAPER}",
        text="The basins of attraction of bipartite points.",
        paper=Form(
            text="as read: stable bipartite points are rare and their basins are (very) small, "
            "here taken as: at most a tenth of the sign patterns are stable, and at most a tenth "
            "of random starts end at one.",
            expected="refuted",
            clauses=(
                Clause(
                    name="small basins",
                    text="at most 10 % of 24 random starts of six tokens end bipartite, to three "
                    "standard errors",
                    hypotheses=anywhere,
                    conclusion=_small_share,
                    explicit=(at_theta(100.0, _row_numbers),),
                    share=0.005,
                    long=True,
                ),
                Clause(
                    name="rare",
                    text="at most a tenth of the mixed sign patterns at v_1 are stable",
                    hypotheses=anywhere,
                    conclusion=_few_patterns,
                    explicit=(at_theta(100.0),),
                ),
            ),
        ),
        corrected=Form(
            text="Rare for small logits: if tanh theta_1 < lambda_2/lambda_1 every bipartite point "
            "at v_1 is unstable. For large logits every token keeps its side of v_1, so "
            "1 - 2^(1-n) of the random starts end bipartite in the limit (96.9 % for n = 6), and "
            "more than half do for theta >= 20 (numerical evidence).",
            expected="supported",
            clauses=(
                Clause(
                    name="none below the threshold",
                    text="tanh theta_1 < lambda_2/lambda_1 makes all splits at v_1 unstable",
                    hypotheses=Hypotheses(
                        (
                            second_positive(),
                            hyp.step("norm"),
                            hyp.eigenpair("first"),
                            below_threshold(),
                            hyp.full_attention(),
                        ),
                        (Shape(4, 3), Shape(7, 3)),
                    ),
                    conclusion=_every_split_unstable,
                    twin=Twin("tanh theta_1 < lambda_2/lambda_1", above),
                ),
                Clause(
                    name="signs frozen",
                    text="for large logits every token keeps its side of v_1",
                    hypotheses=Hypotheses(
                        (
                            second_positive(),
                            hyp.step("norm"),
                            well_spread_tokens(),
                            hyp.full_attention(),
                        ),
                        (Shape(4, 3),),
                    ),
                    conclusion=_signs_frozen,
                    twin=Twin("theta large", _crowded()),
                    share=0.1,
                ),
                Clause(
                    name="large basins",
                    text="more than half of 24 random starts end bipartite for theta >= 20, to "
                    "three standard errors",
                    hypotheses=at_large,
                    conclusion=_large_share,
                    explicit=(at_theta(100.0),),
                    twin=Twin("theta large", at_theta(0.5)),
                    share=0.005,
                    long=True,
                ),
            ),
        ),
    )


_SIX = Shape(TOKENS, 3)

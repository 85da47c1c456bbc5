"""Figure 13 of arXiv 2605.25619: trajectories on the sphere in R³.

(a) A single head and five heads from random tokens, which mostly reach consensus on the principal
eigenvector. (b) A bipartite point of a single head that is stable, a little and a lot disturbed.
The paper does not give its matrices; those here are drawn from the seed, or the simplest that do.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.dynamics import MultiHead, Outcome, SingleHead, simulate
from pmt.equilibria import bipartite
from pmt.errors import RequestError
from pmt.experiments.tokens import random_tokens
from pmt.spectral import chance, principal
from pmt.stability import analyze

# Streams of random numbers; tokens have the plain seed.
_WEIGHTS, _DISTURBANCE = 3, 4
# |1 + alpha lam_2| / |1 + alpha lam_1| at most, so that consensus is seen within the steps.
_FASTEST = 0.95
_DRAWS = 1000
# Tokens closer to ±v than this have arrived.
_ARRIVED = 1e-3
_SETTLED = 1e-2


@dataclass(frozen=True)
class SphereConfig:
    """Figure 13(a): ``n`` tokens in R³, one run for every number of ``heads``; the animation has
    at most ``frames`` pictures.
    """

    n: int = 10
    heads: tuple[int, ...] = (1, 5)
    alpha: float = 0.3
    steps: int = 200
    frames: int = 90


@dataclass(frozen=True)
class BipartiteConfig:
    """Figure 13(b).

    Attributes:
      values, logit: V = diag(values), QᵀK = logit · e_1 e_1ᵀ.
      split: how many tokens start at v_1 and how many at -v_1.
      small, spacing, largest: every token is turned by an angle, in radians, in a random direction
        of its own: by ``small``, and by the first of ``spacing``, 2 ``spacing``, ... up to
        ``largest`` from which all end at the same side; by ``largest`` if there is none.
      frames: of the animation, at most.
    """

    values: tuple[float, float, float] = (1.0, 0.5, -0.3)
    logit: float = 0.6
    alpha: float = 0.2
    split: tuple[int, int] = (5, 5)
    small: float = 0.1
    spacing: float = 0.05
    largest: float = 1.55
    steps: int = 500
    frames: int = 90


@dataclass(frozen=True)
class SphereRun:
    """One run; arrays are NumPy, float64.

    Attributes:
      name: what it shows.
      path: (steps + 1, n, 3).
      axes: (3, m), the real eigenvectors of the layer matrix, in decreasing order.
      eigenvalues: (3,), complex.
      alignment: (steps + 1, n), v_1ᵀ x with its sign.
      chance: of |v_1ᵀ x|.
      distance: (steps + 1,), mean intertoken distance.
      positive: how many tokens end within a thousandth of v_1; negative: of -v_1.
      verdict, spectral_radius: of the bipartite point that the run starts near; None in (a).
    """

    name: str
    path: np.ndarray
    axes: np.ndarray
    eigenvalues: np.ndarray
    alignment: np.ndarray
    chance: float
    distance: np.ndarray
    positive: int
    negative: int
    verdict: str | None = None
    spectral_radius: float | None = None

    @property
    def end(self) -> str:
        """Where it ended: ``"consensus"``, ``"bipartite"`` or ``"elsewhere"``."""
        n = self.path.shape[1]
        if n in (self.positive, self.negative):
            return "consensus"
        return "bipartite" if self.positive + self.negative == n else "elsewhere"

    @property
    def ending(self) -> str:
        """The same as the end of a sentence."""
        ends = {"consensus": "in consensus", "bipartite": "in bipartite consensus"}
        return ends.get(self.end, "elsewhere")

    @property
    def settled(self) -> int:
        """The step from which on every token stays within a hundredth of where it ends."""
        far = np.linalg.norm(self.path - self.path[-1], axis=-1).max(axis=1) > _SETTLED
        return int(np.flatnonzero(far)[-1]) + 1 if far.any() else 0


@dataclass(frozen=True)
class SphereRuns:
    """The runs of a figure, one panel each; ``frames`` of its animation, at most."""

    runs: tuple[SphereRun, ...]
    frames: int


def run_heads(config: SphereConfig, given: Any) -> SphereRuns:
    """Figure 13(a), in float64 whatever the precision of the other items is."""
    runs = []
    with jax.enable_x64(True):
        start = jnp.asarray(random_tokens(1, config.n, 3, given.seed)[0])
        for heads in config.heads:
            system = _draw(heads, config.alpha, given.seed)
            name = "single head" if heads == 1 else f"{heads} heads"
            runs.append(_run(name, system, start, config.steps))
            given.progress(1)
    return SphereRuns(tuple(runs), config.frames)


def run_bipartite(config: BipartiteConfig, given: Any) -> SphereRuns:
    """Figure 13(b), in float64 likewise."""
    runs = []
    with jax.enable_x64(True):
        first = np.outer(np.eye(3)[0], np.eye(3)[0])
        system = SingleHead(
            value=jnp.diag(jnp.asarray(config.values)),
            query_key=jnp.asarray(config.logit * first),
            alpha=config.alpha,
        )
        point = bipartite(system, index=0, split=config.split)
        found = analyze(system, point, affordable=0)
        x = np.asarray(point.x)
        drawn = np.random.default_rng([_DISTURBANCE, given.seed]).standard_normal(x.shape)
        across = drawn - np.sum(drawn * x, axis=1, keepdims=True) * x
        across /= np.linalg.norm(across, axis=1, keepdims=True)

        def turned(angles: Any) -> jax.Array:
            angles = np.asarray(angles)[..., None, None]
            return jnp.asarray(np.cos(angles) * x + np.sin(angles) * across)

        for angle in (config.small, _first_escape(config, system, point, turned)):
            name = f"bipartite, turned by {angle:.3g} rad"
            verdict = (str(found.verdict), float(found.spectral_radius))
            runs.append(_run(name, system, turned(angle), config.steps, *verdict))
            given.progress(1)
    return SphereRuns(tuple(runs), config.frames)


def _first_escape(config: BipartiteConfig, system: Any, point: Any, turned: Any) -> float:
    """The smallest angle of the list after which all tokens end at the same side of v_1."""
    count = round(config.largest / config.spacing)
    angles = config.spacing * np.arange(1, count + 1)
    run = simulate(system, turned(angles), config.steps, keep="last", observables={})
    along = np.asarray(run.x) @ np.asarray(point.x)[0]
    escaped = np.flatnonzero(np.abs(along.sum(axis=1)) > (1 - _ARRIVED) * along.shape[1])
    return float(angles[escaped[0] if len(escaped) else -1])


def _draw(heads: int, alpha: float, seed: int) -> Any:
    """Symmetric Gaussian maps whose sum has a simple, positive principal eigenvalue.

    Drawn again until the rest decays by 0.95 a step at least, and |alpha F| < 1.
    """
    rng = np.random.default_rng([_WEIGHTS, seed, heads])
    for _ in range(_DRAWS):
        maps = rng.standard_normal((heads, 3, 3)) / np.sqrt(heads)
        maps = (maps + np.swapaxes(maps, 1, 2)) / 2
        logits = rng.standard_normal((heads, 3, 3)) / 2
        factors = 1 + alpha * np.linalg.eigvalsh(maps.sum(axis=0))
        if 1 < factors[-1] < 2 and np.all(np.abs(factors[:-1]) <= _FASTEST * factors[-1]):
            if heads == 1:
                return SingleHead(
                    value=jnp.asarray(maps[0]), query_key=jnp.asarray(logits[0]), alpha=alpha
                )
            return MultiHead.from_maps(jnp.asarray(maps), jnp.asarray(logits), alpha=alpha)
    raise RequestError(
        f"none of {_DRAWS} random systems with alpha = {alpha} has a principal eigenvalue that "
        "stands out; choose another seed or a larger alpha"
    )


def _run(name: str, system: Any, start: jax.Array, steps: int, *verdict: Any) -> SphereRun:
    found = principal(system)
    run = simulate(system, start, steps, observables=_OBSERVED)
    if int(run.result) != Outcome.DONE:
        raise RequestError(f"{name}: {Outcome(int(run.result)).message}; choose another seed")
    path = np.asarray(run.x, np.float64)
    axes = found.pairs.vectors[:, found.pairs.is_real].real
    along = path @ axes[:, 0]
    return SphereRun(
        name,
        path,
        axes,
        found.values,
        along,
        chance(3),
        np.asarray(run.observables["distance"], np.float64),
        int(np.sum(along[-1] > 1 - _ARRIVED)),
        int(np.sum(along[-1] < -1 + _ARRIVED)),
        *verdict,
    )


def _distance(system: Any, x: Any) -> jax.Array:
    del system
    return sphere.intertoken_distance(x)


_OBSERVED = {"distance": _distance}


def record(result: SphereRuns) -> dict[str, Any]:
    """As JSON has it; the tokens are in the CSV files."""
    return {
        "runs": [
            {
                "name": run.name,
                "eigenvalues": [complex(value) for value in run.eigenvalues],
                "verdict": run.verdict,
                "spectral_radius": run.spectral_radius,
                "end": run.end,
                "tokens_at_v1": run.positive,
                "tokens_at_minus_v1": run.negative,
                "alignment": np.abs(run.alignment).mean(axis=1),
                "chance": run.chance,
                "intertoken_distance": run.distance,
            }
            for run in result.runs
        ]
    }


def tables(result: SphereRuns) -> dict[str, list[dict[str, Any]]]:
    """The CSV files: every token at every step."""
    found = {}
    for number, run in enumerate(result.runs, 1):
        found[f"trajectories-{number}"] = [
            {
                "step": step,
                "token": token + 1,
                **dict(zip("xyz", run.path[step, token].tolist(), strict=True)),
                "alignment": float(run.alignment[step, token]),
            }
            for step in range(len(run.path))
            for token in range(run.path.shape[1])
        ]
    return found


def sentences(result: SphereRuns) -> list[str]:
    """What there is to say about it."""
    found = []
    for run in result.runs:
        point = "" if run.verdict is None else f" (the point is {run.verdict})"
        found.append(
            f"{run.name}{point}: ends {run.ending}, {run.positive} tokens at v₁ and "
            f"{run.negative} at -v₁"
        )
    return found

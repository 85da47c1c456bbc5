"""Batches of instances as functions of their noise: evaluated, judged, descended, mutated.

Instances are drawn from noise by the pieces of the hypotheses, so that the hypotheses hold
wherever the noise goes. A search moves the noise inside a box: normal numbers up to 6 in modulus,
logits of uniform ones up to 12.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory import instances, noise
from theory.conjecture import NO_MARGIN
from theory.statement import Case, Clause, Hypotheses, Shape
from theory.verify import Runner

BATCH = 128
STEPS = 60
"""Steps of Adam in one descent."""

_RATE = 0.05
# The share of starts whose gradient must consist of numbers.
_ENOUGH = 0.5
_LARGEST_NORMAL = 6.0
_LARGEST_LOGIT = 12.0


class Batch(NamedTuple):
    """Instances with their noise, classes and scores, NumPy arrays with a leading axis.

    Attributes:
    ----------
    uniform, normal
        The noise.
    kind
        Class of each instance, an index into ``instances.KINDS``.
    score
        Margin plus tolerance: a violation below 0; infinite where the margin is no number.
    """

    uniform: np.ndarray
    normal: np.ndarray
    kind: np.ndarray
    score: np.ndarray

    def take(self, index: Any) -> "Batch":
        """Some of the instances."""
        return Batch(*(field[index] for field in self))

    @staticmethod
    def joined(*batches: "Batch") -> "Batch":
        """All instances of several batches."""
        return Batch(*(np.concatenate(fields) for fields in zip(*batches, strict=True)))


class Engine(Runner):
    """Compiles once for each clause and shape whatever a search needs of it."""

    def __init__(self, batch: int = BATCH) -> None:
        super().__init__(batch)
        self.batch = batch
        self._careful: set[Any] = set()
        self._stepper: tuple[Any, Any] | None = None

    def fresh(self, seed: int, path: tuple[int, ...]) -> Batch:
        """Random noise, not evaluated, in the proportions of ``instances.kinds``."""
        generator = np.random.default_rng((seed, *path))
        uniform = generator.uniform(1e-6, 1.0 - 1e-6, (self.batch, noise.UNIFORMS))
        normal = generator.standard_normal((self.batch, noise.NORMALS))
        kind = instances.kinds(self.batch)
        return Batch(uniform, normal, kind, np.full(self.batch, np.inf))

    def evaluate(
        self, clause: Clause, shape: Shape, batch: Batch
    ) -> tuple[Batch, dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """(the batch with scores, its instances, margins, tolerances)."""
        cases = self.drawn(clause.hypotheses, shape, batch)
        values, tolerances = self.conclude(clause, shape, cases)
        return batch._replace(score=score(values, tolerances)), cases, values, tolerances

    def drawn(self, hypotheses: Hypotheses, shape: Shape, batch: Batch) -> dict[str, np.ndarray]:
        """The instances that a batch's noise makes."""
        with jax.enable_x64(True):
            cases = self._call(
                ("draw", hypotheses, shape),
                lambda source, kind: instances.draw(hypotheses, source, kind, shape),
                noise.Raw(jnp.asarray(batch.uniform), jnp.asarray(batch.normal)),
                batch.kind,
            )
            return {name: np.asarray(value) for name, value in cases.items()}

    def conclude(self, clause: Clause, shape: Shape, cases: Case) -> tuple[np.ndarray, np.ndarray]:
        """Margins and tolerances of the conclusion at a full batch of instances."""
        with jax.enable_x64(True):
            return self._conclude(clause, shape, {k: jnp.asarray(v) for k, v in cases.items()})

    def hypotheses(self, clause: Clause, shape: Shape, cases: Case) -> dict[str, np.ndarray]:
        """Margins of every named hypothesis at a full batch of instances."""
        with jax.enable_x64(True):
            found = self._call(
                ("hypotheses", clause.hypotheses, shape, frozenset(cases)),
                lambda case: {
                    name: jnp.asarray(value)
                    for name, value in clause.hypotheses.margins(shape, case).items()
                },
                {k: jnp.asarray(v) for k, v in cases.items()},
            )
            return {name: np.asarray(value) for name, value in found.items()}

    def allowed(self, clause: Clause, shape: Shape, cases: Case) -> np.ndarray:
        """Where every hypothesis holds strictly.

        Statements add the rounding of a closed hypothesis to its margin, so that 0 is outside.
        """
        inside = np.ones(self.batch, bool)
        for margin in self.hypotheses(clause, shape, cases).values():
            inside &= np.broadcast_to(margin, inside.shape) > 0
        return inside

    def slopes(
        self, clause: Clause, shape: Shape, point: Any, kind: np.ndarray, *, careful: bool
    ) -> tuple[np.ndarray, Any]:
        """Margin plus tolerance at every point, and its gradient in the point (logit, normal).

        Compiled in haste, the gradient of a maximum can be 0/0 where it is a number; ``careful``
        compiles it once more where that seems to be so.

        Raises:
        ------
        ValueError
            Where the margin has no reverse-mode derivative (an unbounded loop).
        """
        function = jax.value_and_grad(partial(_objective, clause, shape))
        key = ("slope", clause.hypotheses, clause.conclusion, shape)
        if key not in self._careful:
            value, slope = self._call(key, function, point, kind)
            numbers = np.isfinite(np.concatenate([np.asarray(part) for part in slope], axis=1))
            if not careful or np.mean(np.all(numbers, axis=1)) > _ENOUGH:
                return np.asarray(value), slope
            self._careful.add(key)
        value, slope = self._call((*key, "careful"), function, point, kind, thorough=True)
        return np.asarray(value), slope

    def descended(
        self,
        clause: Clause,
        shape: Shape,
        batch: Batch,
        *,
        over: Callable[[], bool],
        careful: bool,
    ) -> tuple[Batch, float, int]:
        """(the best points of descents by Adam, the share that had a gradient, steps made).

        The objective is margin plus tolerance. Choices such as a sign or an index are not
        descended; entries of a gradient that are no numbers count as 0. Ends early where no start
        has a gradient, or ``over`` says so. ``careful`` as in ``slopes``.

        Raises:
        ------
        ValueError
            As ``slopes`` does.
        """
        with jax.enable_x64(True):
            logit = jnp.asarray(np.log(batch.uniform) - np.log1p(-batch.uniform))
            point: Any = (logit, jnp.asarray(batch.normal))
            begin, advance = self._adam()
            state = begin(point)
            best = [np.asarray(part) for part in point]
            least = np.full(self.batch, np.inf)
            moved = np.zeros(self.batch, bool)
            # Slower towards the end.
            rates = _RATE * np.linspace(1.0, 0.1, STEPS)
            steps = 0
            for rate in rates:
                value, slope = self.slopes(clause, shape, point, batch.kind, careful=careful)
                with self._one_at_a_time():
                    here = [np.asarray(part) for part in point]
                    new, state, has_slope = advance(point, state, slope, jnp.asarray(rate))
                    moved |= np.asarray(has_slope)
                better = score(value, np.zeros_like(value)) < least
                least = np.where(better, value, least)
                best = [np.where(better[:, None], a, b) for a, b in zip(here, best, strict=True)]
                point, steps = new, steps + 1
                if not np.any(moved) or over():
                    break
        uniform = 1.0 / (1.0 + np.exp(-best[0]))
        found = Batch(uniform, best[1], batch.kind, np.full(self.batch, np.inf))
        return found, float(np.mean(moved)), steps

    def _adam(self) -> tuple[Any, Any]:
        """Adam for a batch of points, compiled once."""
        if self._stepper is None:
            import optax  # type: ignore[import-untyped]

            adam = optax.scale_by_adam()

            def advance(point: Any, state: Any, slope: Any, rate: Any) -> tuple[Any, Any, Any]:
                slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
                # Scaled first: squares of large slopes overflow, and only the direction counts.
                size = jnp.maximum(*(jnp.max(jnp.abs(g), axis=1) for g in slope))
                scale = jnp.where(size > 0, size, 1.0)[:, None]
                # Optax divides by a power with a counter for its exponent.
                with jax.numpy_dtype_promotion("standard"):
                    update, state = adam.update(jax.tree.map(lambda g: g / scale, slope), state)
                logit, normal = jax.tree.map(lambda x, u: x - rate * u, point, update)
                logit = jnp.clip(logit, -_LARGEST_LOGIT, _LARGEST_LOGIT)
                normal = jnp.clip(normal, -_LARGEST_NORMAL, _LARGEST_NORMAL)
                return (logit, normal), state, size > 0

            self._stepper = (adam.init, jax.jit(advance))
        return self._stepper

    def mutated(self, parents: Batch, generator: np.random.Generator) -> Batch:
        """A full batch of offspring: parents mixed in pairs and pushed, some in a few entries."""
        first = parents.take(generator.integers(0, len(parents.score), self.batch))
        second = parents.take(generator.integers(0, len(parents.score), self.batch))
        mixed = generator.uniform(size=(self.batch, 1)) < 0.3
        size = np.exp(generator.uniform(np.log(3e-3), 0.0, (self.batch, 1)))
        dense = generator.uniform(size=(self.batch, 1)) < 0.5

        def pushed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            swap = mixed & (generator.uniform(size=one.shape) < 0.5)
            chosen = dense | (generator.uniform(size=one.shape) < 0.1)
            return np.where(swap, other, one) + chosen * size * generator.standard_normal(one.shape)

        def logit(values: np.ndarray) -> np.ndarray:
            return np.log(values) - np.log1p(-values)

        turned = pushed(logit(first.uniform), logit(second.uniform))
        turned = np.clip(turned, -_LARGEST_LOGIT, _LARGEST_LOGIT)
        normal = np.clip(pushed(first.normal, second.normal), -_LARGEST_NORMAL, _LARGEST_NORMAL)
        uniform = 1.0 / (1.0 + np.exp(-turned))
        return Batch(uniform, normal, first.kind, np.full(self.batch, np.inf))


def score(values: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
    """Margin plus tolerance, infinite where that is no number or stands for no margin."""
    total = np.asarray(values) + np.asarray(tolerances)
    return np.where(np.isfinite(total) & (total > NO_MARGIN), total, np.inf)


def _objective(clause: Clause, shape: Shape, source: Any, kind: Any) -> Any:
    raw = noise.Raw(jax.nn.sigmoid(source[0]), source[1])
    case = instances.draw(clause.hypotheses, raw, kind, shape)
    margin = clause.conclusion(shape, case)
    return jnp.sum(margin.value + margin.tolerance)

"""The randomness of an instance: two vectors of numbers, handed out piece by piece.

An instance is a function of these numbers alone, differentiable in them wherever no choice is
made. They come from NumPy: random bits in XLA would cost seconds of compilation in every drawing
function and, for double precision on a CPU, several times the time.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmt import sphere
from pmt.numerics import after

UNIFORMS, NORMALS = 64, 256


class Raw(NamedTuple):
    """Numbers for one instance, or a batch of them with a leading axis.

    Attributes:
    ----------
    uniform
        In (0, 1), shape ``(..., UNIFORMS)``, or as many as the instance takes.
    normal
        Standard normal, shape ``(..., NORMALS)``, or as many as the instance takes.
    """

    uniform: Float[Array | np.ndarray, "*batch u"]
    normal: Float[Array | np.ndarray, "*batch g"]


def raw(
    seed: int | np.random.SeedSequence, count: int, taken: tuple[int, int] = (UNIFORMS, NORMALS)
) -> Raw:
    """Numbers for ``count`` instances, as NumPy arrays of float64.

    Parameters
    ----------
    seed
        Not negative, or several such numbers as a seed sequence.
    count
        The length of the leading axis.
    taken
        How many of both an instance takes: see ``Noise.taken``. Drawing more takes longer than many
        a conclusion does.
    """
    generator = np.random.default_rng(seed)
    # Never 0: logarithms are taken.
    uniform = np.maximum(generator.random((count, taken[0])), 2.0**-54)
    return Raw(uniform=uniform, normal=generator.standard_normal((count, taken[1])))


class Noise:
    """Hands out the numbers of one instance, each of them once."""

    def __init__(self, source: Raw) -> None:
        self._uniform, self._normal = jnp.asarray(source.uniform), jnp.asarray(source.normal)
        self._uniforms = 0
        self._normals = 0
        self._frame: Array | None = None

    @property
    def taken(self) -> tuple[int, int]:
        """How many uniform and how many normal numbers were handed out so far."""
        return self._uniforms, self._normals

    def normal(self, *shape: int) -> Float[Array, "..."]:
        """Independent standard normal numbers."""
        size = int(np.prod(shape, dtype=int))
        first, self._normals = self._normals, self._normals + size
        if self._normals > self._normal.shape[-1]:
            message = f"an instance needs more than {NORMALS} normal numbers; raise NORMALS"
            raise ValueError(message)
        return self._normal[first : self._normals].reshape(shape)

    def uniforms(self, count: int) -> Float[Array, " k"]:
        """Independent numbers in (0, 1)."""
        first, self._uniforms = self._uniforms, self._uniforms + count
        if self._uniforms > self._uniform.shape[-1]:
            message = f"an instance needs more than {UNIFORMS} uniform numbers; raise UNIFORMS"
            raise ValueError(message)
        return self._uniform[first : self._uniforms]

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> Float[Array, ""]:
        """A number between the bounds."""
        return low + (high - low) * self.uniforms(1)[0]

    def log_uniform(self, low: float, high: float) -> Float[Array, ""]:
        """A number between the bounds, uniform in its logarithm."""
        return jnp.exp(self.uniform(np.log(low), np.log(high)))

    def hair(self) -> Float[Array, ""]:
        """A number between 1e-8 and 1e-3: how far boundary instances are from the boundary."""
        return self.log_uniform(1e-8, 1e-3)

    def coin(self) -> Any:
        """Heads or tails."""
        return self.uniforms(1)[0] < 0.5

    def integer(self, low: int, high: int) -> Int[Array, ""]:
        """An integer of at least ``low`` and below ``high``."""
        drawn = jnp.floor(self.uniform(low, high)).astype(jnp.int32)
        return jnp.clip(drawn, low, high - 1)

    def shuffled(self, values: Float[Array, " n"]) -> Float[Array, " n"]:
        """The values in random order."""
        return values[jnp.argsort(self.uniforms(values.shape[0]))]

    def unit(self, *shape: int) -> Float[Array, "..."]:
        """Vectors uniform on the sphere, along the last axis."""
        return sphere.normalize(self.normal(*shape))

    def orthogonal(self, d: int) -> Float[Array, "d d"]:
        """A rotation or reflection, uniformly distributed."""
        drawn = self.normal(d, d)
        # One after the other: see ``pmt.numerics.after``.
        q, r = jnp.linalg.qr(drawn if self._frame is None else after(drawn, self._frame))
        self._frame = q
        return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]

"""What the looped transformer is trained and tested on: unit columns, and their leading eigenspace.

Columns of the paper's X are rows here: ``data`` has shape ``(n, d)``, XXᵀ is ``data.T @ data``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from pmt import sphere
from pmt.errors import RequestError
from pmt.numerics import after, einsum


class Samples(NamedTuple):
    """Independent prompts.

    Attributes:
      data: unit rows x_1..x_n, shape ``(batch, n, d)``.
      query: a, unit, shape ``(batch, d)``.
      leading: orthonormal columns that span Z(X), shape ``(batch, d, r)``.
    """

    data: Float[Array, "*batch n d"]
    query: Float[Array, "*batch d"]
    leading: Float[Array, "*batch d r"]


def covariance(data: Float[Array, "*batch n d"]) -> Float[Array, "*batch d d"]:
    """XXᵀ = Σ_i x_i x_iᵀ, of trace n."""
    return einsum("...ni,...nj->...ij", data, data)


def leading_space(data: Float[Array, "*batch n d"], rank: int = 1) -> Float[Array, "*batch d r"]:
    """Orthonormal eigenvectors of the ``rank`` largest eigenvalues of XXᵀ, as columns."""
    return jnp.linalg.eigh(covariance(data))[1][..., ::-1][..., :rank]


def samples(
    key: PRNGKeyArray, data: Float[Array, "batch n d"], rank: int = 1, dtype: Any = None
) -> Samples:
    """``data`` with independent uniform queries and the eigenspaces of the top ``rank``."""
    data = data if dtype is None else data.astype(dtype)
    query = sphere.uniform(key, (data.shape[0], data.shape[-1]), data.dtype)
    return Samples(data, query, leading_space(data, rank))


def uniform_samples(key: PRNGKeyArray, count: int, n: int, d: int, dtype: Any = None) -> Samples:
    """Columns independent and uniform on the sphere: the paper's, invariant under rotations.

    XXᵀ has a simple leading eigenvalue almost surely.
    """
    rows = sphere.uniform(key, (count, n + 1, d), dtype)
    data, query = rows[:, :n], rows[:, n]
    return Samples(data, query, leading_space(data))


def prescribed_samples(
    key: PRNGKeyArray, count: int, n: int, eigenvalues: Any, rank: int | None = None
) -> Samples:
    """Unit columns such that XXᵀ has the given spectrum, invariant under rotations.

    Args:
      key: explicit random key.
      count: samples.
      n: columns, at least the number of positive eigenvalues.
      eigenvalues: λ_1 >= ... >= λ_d >= 0; scaled to the sum n that unit columns force.
      rank: dimension of Z(X); the multiplicity of λ_1 (to a millionth) if None.

    Raises:
      RequestError: eigenvalues that are no such spectrum, or too few columns for it.
    """
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim != 1 or not np.all(np.isfinite(values)) or values.min(initial=0.0) < 0:
        raise RequestError("eigenvalues must be a list of finite numbers of at least 0")
    if not len(values) or values.max() == 0:
        raise RequestError("all eigenvalues are 0; at least one must be positive")
    values = np.sort(values)[::-1] * n / values.sum()
    if np.count_nonzero(values) > n:
        raise RequestError(
            f"{np.count_nonzero(values)} positive eigenvalues need as many columns, and n is {n}"
        )
    if rank is None:
        rank = int(np.count_nonzero(values > values[0] * (1 - 1e-6)))
    first, second, third = jax.random.split(key, 3)
    dtype = jnp.result_type(float)
    d, spectrum = len(values), jnp.asarray(values, dtype)

    def build(left: Array, right: Array) -> Array:
        frame = jnp.linalg.qr(left)[0]
        return with_spectrum(spectrum, frame, jnp.linalg.qr(after(right, frame))[0])

    normal_left = jax.random.normal(first, (count, d, d), dtype)
    normal_right = jax.random.normal(third, (count, n, n), dtype)
    return samples(second, jax.vmap(build)(normal_left, normal_right), rank)


def with_spectrum(
    eigenvalues: Float[Array, " d"], frame: Float[Array, "d d"], mix: Float[Array, "n n"]
) -> Float[Array, "n d"]:
    """Unit rows x_1..x_n with Σ_i x_i x_iᵀ = Q diag(λ) Qᵀ; the eigenvalues must sum to n.

    Rows R diag(√λ) Qᵀ from orthogonal Q (``frame``) and R (``mix``), then n − 1 plane rotations
    between a row that is too short and one that is too long, which leave the sum as it is (Bendel
    and Mickey's construction of random correlation matrices).
    """
    n, width = mix.shape[0], min(mix.shape[0], eigenvalues.shape[0])
    scaled = jnp.sqrt(eigenvalues[:width])[None, :] * mix[:, :width]
    rows = einsum("np,ip->ni", scaled, frame[:, :width])

    def rotate(_: Any, rows: Array) -> Array:
        square = jnp.sum(rows * rows, axis=-1)
        i, j = jnp.argmin(square), jnp.argmax(square)
        short, long, inner = square[i] - 1.0, square[j] - 1.0, jnp.sum(rows[i] * rows[j])
        done = ~((short < 0) & (long > 0))
        root = jnp.sqrt(jnp.maximum(inner * inner - short * long, 0.0))
        # The root of long t² + 2 inner t + short = 0 that cancels nothing.
        pushed = inner + jnp.where(inner < 0, -root, root)
        t = jnp.where(done, 0.0, -short / jnp.where(pushed == 0, 1.0, pushed))
        c = lax.rsqrt(1.0 + t * t)
        first, second = c * (rows[i] + t * rows[j]), c * (rows[j] - t * rows[i])
        return (
            rows.at[i]
            .set(jnp.where(done, rows[i], first))
            .at[j]
            .set(jnp.where(done, rows[j], second))
        )

    return lax.fori_loop(0, n - 1, rotate, rows)


# One of OUTSIDE.
Outside = str
OUTSIDE: tuple[Outside, ...] = ("spiked", "clustered", "near-degenerate")


def outside_samples(
    key: PRNGKeyArray, kind: Outside, count: int, n: int, d: int, dtype: Any = None
) -> Samples:
    """Unit columns from outside the training distribution.

    - ``spiked``: Gaussian with one direction of standard deviation 3, then normalised.
    - ``clustered``: within about 0.3 of one of three random directions.
    - ``near-degenerate``: λ_2 = 0.98 λ_1, the others decreasing to 0.1 λ_1.
    """
    if kind not in OUTSIDE:
        raise RequestError(f"the kind is {kind!r}; it must be one of {', '.join(OUTSIDE)}")
    first, second, third = jax.random.split(key, 3)
    if kind == "near-degenerate":
        tail = np.linspace(0.9, 0.1, max(d - 2, 0))
        found = prescribed_samples(first, count, n, np.array([1.0, 0.98, *tail])[:d], 1)
        return found if dtype is None else Samples(*(part.astype(dtype) for part in found))
    dtype = dtype or jnp.result_type(float)
    noise = jax.random.normal(first, (count, n, d), dtype)
    if kind == "spiked":
        axis = sphere.uniform(second, (count, 1, d), dtype)
        along = jnp.sum(noise * axis, axis=-1, keepdims=True)
        return samples(third, sphere.normalize(noise + 2.0 * along * axis))
    centres = sphere.uniform(second, (count, 3, d), dtype)[:, np.arange(n) % 3]
    return samples(third, sphere.normalize(centres + (0.3 / d**0.5) * noise))

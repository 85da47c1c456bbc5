"""What several conclusions measure of the linearised map, with bounds on what rounding does to it.

Jacobians come from autodiff of the map itself; closed forms are what they are compared with.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory.margin import Margin, identity, inequality


def frobenius(matrix: Float[Array, "..."]) -> Float[Array, ""]:
    """The root of the sum of squares."""
    return jnp.sqrt(jnp.sum(matrix**2))


def conditioning(system: Any, x: Float[Array, "n d"], query_key: Any = 0.0) -> Float[Array, ""]:
    """c = (1 + alpha |F|) (1 + |B|) / min_i |y_i|: how much a Jacobian entry magnifies rounding.

    Entries are at most of size c, through the division by |y_i|, and their relative error is c
    roundings, through the direction of y_i; |B| multiplies the rounding of the logits.
    """
    value = system.head_matrices if hasattr(system, "head_matrices") else system.layer_matrix
    size = 1.0 + system.alpha * frobenius(value)
    logits = 1.0 + frobenius(jnp.asarray(query_key))
    return size * logits / jnp.min(sphere.norm(system.unnormalized(x)))


def symmetrized(
    system: Any, x: Float[Array, "n d"], weights: Float[Array, " n"]
) -> Float[Array, "m m"]:
    """W J W⁻¹ with J the intrinsic autodiff Jacobian and W = diag(weights) ⊗ I.

    Symmetric at signed consensus points of a symmetric V with full attention, for
    w_i = (|g_i| Σ_j e^{θ s_i s_j})^½ (theory II.4): no general eigensolver is needed.
    """
    scale = jnp.repeat(weights, x.shape[1] - 1, total_repeat_length=x.shape[0] * (x.shape[1] - 1))
    return scale[:, None] * jacobian.intrinsic(system, x) / scale[None, :]


def spectrum_identity(
    matrix: Float[Array, "m m"], claimed: Float[Array, " m"], *, conditioning: Any
) -> Margin:
    """The symmetric ``matrix`` has exactly the eigenvalues ``claimed``, multiplicities counted.

    Both its asymmetry and the difference of the sorted eigenvalues must be rounding (Weyl: the
    eigenvalues of a symmetric matrix are as accurate as its entries).
    """
    values = jnp.linalg.eigvalsh((matrix + matrix.T) / 2.0)
    error = jnp.maximum(
        jnp.max(jnp.abs(jnp.sort(claimed) - values)), jnp.max(jnp.abs(matrix - matrix.T))
    )
    return identity(error, scale=conditioning, size=matrix.shape[0], conditioning=conditioning)


def stable(radius: Any, *, size: int, conditioning: Any) -> Margin:
    """Spectral radius < 1, as (1 − ρ) / max(1, ρ): in (−1, 1]."""
    value = (1.0 - radius) / jnp.maximum(1.0, radius)
    return inequality(value, size=size, conditioning=conditioning**2)


def unstable(radius: Any, *, size: int, conditioning: Any) -> Margin:
    """Spectral radius > 1, as (ρ − 1) / max(1, ρ): in [−1, 1)."""
    margin = stable(radius, size=size, conditioning=conditioning)
    return Margin(-margin.value, margin.tolerance)


def symmetric_radius(matrix: Float[Array, "*batch m m"]) -> Float[Array, ""]:
    """Largest modulus of an eigenvalue of the symmetric parts."""
    even = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2.0
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(even)))


def triangular_blocks(matrix: Float[Array, "m m"], n: int) -> tuple[Array, Array]:
    """The diagonal blocks of a matrix that no token's successor acts on, and the defect.

    Under a causal mask the Jacobian is block triangular, so its spectrum is that of its diagonal
    blocks, which are symmetric at consensus for symmetric F: no Jordan block is in the way. The
    defect is what should vanish: blocks above the diagonal, and asymmetry of those on it.
    """
    width = matrix.shape[0] // n
    blocks = jnp.moveaxis(matrix.reshape(n, width, n, width), 2, 1)
    diagonal = blocks[jnp.arange(n), jnp.arange(n)]
    above = jnp.where(jnp.triu(jnp.ones((n, n), bool), 1)[:, :, None, None], blocks, 0.0)
    asymmetry = diagonal - jnp.swapaxes(diagonal, -1, -2)
    return diagonal, jnp.maximum(jnp.max(jnp.abs(above)), jnp.max(jnp.abs(asymmetry)))


def alternative_extension(system: Any) -> Callable[[Float[Array, "n d"]], Float[Array, "n d"]]:
    """The map continued off the sphere as the paper's series does: x_iᵀ x_i := 1 in |y_i|².

    y_i (1 + 2 alpha x_iᵀ u_i + alpha² |u_i|²)^(−½) with u the update. Equal to the map on the
    sphere, and its derivative equal in tangent directions only (theory, Lemma 2, extension E2).
    """

    def extended(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        u = system.update(x)
        along, square = jnp.sum(x * u, axis=-1), jnp.sum(u * u, axis=-1)
        length = jnp.sqrt(1.0 + 2.0 * system.alpha * along + system.alpha**2 * square)
        return system.unnormalized(x) / length[:, None]

    return extended


def alternative_jacobian(system: Any, x: Float[Array, "n d"]) -> Float[Array, "nd nd"]:
    """The Jacobian as the paper has it: ``extrinsic_formula`` plus δ_ij y_i x_iᵀ / |y_i|³."""
    n, d = x.shape
    y = system.unnormalized(x)
    radial = y[:, :, None] * x[:, None, :] / (sphere.norm(y) ** 3)[:, None, None]
    token = jnp.arange(n)
    blocks = jacobian.extrinsic_formula(system, x).reshape(n, d, n, d)
    return blocks.at[token, :, token, :].add(radial).reshape(n * d, n * d)


def directional(system: Any, x: Float[Array, "n d"], w: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Df(x) w by forward-mode autodiff."""
    return jax.jvp(system, (x,), (w,))[1]


def applied(matrix: Float[Array, "nd nd"], w: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """J w with w given token by token."""
    return einsum("ab,b->a", matrix, w.reshape(-1)).reshape(w.shape)

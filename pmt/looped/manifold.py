"""The manifold on which a looped transformer is the power method, and how far weights are from it.

W = [[0, w I], [0, 0]], V = [[0, 0], [v I, 0]]: the data tokens stay as they are, and the query goes
through y ← Norm((I + ρ XXᵀ) y) with ρ = v w.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Oja
from pmt.looped.core import Weights
from pmt.looped.data import covariance
from pmt.numerics import einsum


class Scalars(NamedTuple):
    """The two numbers of a point of the manifold."""

    v: Float[Array, "*seeds"]
    w: Float[Array, "*seeds"]

    @property
    def rho(self) -> Float[Array, "*seeds"]:
        """ρ = v w."""
        return self.v * self.w


def on_manifold(v: Any, w: Any, d: int, gain: Any = None) -> Weights:
    """The weights of a point of the manifold; ``gain`` is 1/sqrt(2d), as in l2, if None."""
    v = jnp.asarray(v)
    identity = jnp.eye(d, dtype=v.dtype)
    zero = jnp.zeros((2 * d, 2 * d), v.dtype)
    if gain is None:
        gain = jnp.full((2 * d,), (2 * d) ** -0.5, v.dtype)
    value = zero.at[d:, :d].set(v * identity)
    return Weights(value, zero.at[:d, d:].set(jnp.asarray(w, v.dtype) * identity), gain)


def beside_manifold(v: Any, w: Any, eps: Any, delta: Any, d: int) -> Weights:
    """A point of the manifold, with ε I in V's upper right block and δ I in W's lower left one.

    The loss is the same as at that point where ε or δ is zero, and depends on them by ε δ.
    """
    point = on_manifold(v, w, d)
    identity = jnp.eye(d, dtype=point.value.dtype)
    return Weights(
        point.value.at[:d, d:].set(jnp.asarray(eps, identity.dtype) * identity),
        point.key.at[d:, :d].set(jnp.asarray(delta, identity.dtype) * identity),
        point.gain,
    )


def scalars(weights: Weights) -> Scalars:
    """The nearest point of the manifold: the mean diagonals of the two blocks."""
    d = weights.value.shape[-1] // 2
    return Scalars(
        v=jnp.trace(weights.value[..., d:, :d], axis1=-2, axis2=-1) / d,
        w=jnp.trace(weights.key[..., :d, d:], axis1=-2, axis2=-1) / d,
    )


def distance_to_manifold(weights: Weights) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """Frobenius distances of V and of W from their nearest points of the manifold."""
    off = off_manifold(weights)
    return tuple(jnp.sqrt(jnp.sum(part * part, axis=(-2, -1))) for part in off)  # type: ignore[return-value]


def off_manifold(weights: Weights) -> tuple[Float[Array, "*s k k"], Float[Array, "*s k k"]]:
    """V and W without their parts on the manifold."""
    d = weights.value.shape[-1] // 2
    point = scalars(weights)
    identity = jnp.eye(d, dtype=weights.value.dtype).reshape(
        (1,) * (weights.value.ndim - 2) + (d, d)
    )
    lower, upper = point.v[..., None, None] * identity, point.w[..., None, None] * identity
    return (
        weights.value.at[..., d:, :d].add(-lower),
        weights.key.at[..., :d, d:].add(-upper),
    )


def reduced(
    data: Float[Array, "*batch n d"], query: Float[Array, "*batch d"], rho: Any, loops: int
) -> Float[Array, "*batch d"]:
    """(I + ρ XXᵀ)^L a without normalisation: what the model computes on the manifold."""
    y = query
    for _ in range(loops):
        y = y + rho * _times(data, y)
    return y


def power_iterate(
    data: Float[Array, "*batch n d"], query: Float[Array, "*batch d"], loops: int
) -> Float[Array, "*batch d"]:
    """(XXᵀ)^L a / |.|: L steps of the power method, normalised after each."""
    y = query
    for _ in range(loops):
        y = sphere.normalize(_times(data, y))
    return y


def _times(data: Any, y: Any) -> Any:
    return einsum("...ni,...n->...i", data, einsum("...ni,...i->...n", data, y))


def one_token_map(data: Float[Array, "n d"], rho: Any) -> Oja:
    """y ↦ normalize(y + ρ XXᵀ y): one loop on the manifold, as a system with a single token.

    It is the Oja system with V = XXᵀ and alpha = ρ, so that ``pmt.stability`` knows it: at the
    leading eigenvector its multipliers are (1 + ρ λ_l) / (1 + ρ λ_1) (theory II.6).
    """
    return Oja(value=covariance(data), alpha=rho)


def angle_to_space(
    y: Float[Array, "*batch d"], leading: Float[Array, "*batch d r"]
) -> Float[Array, "*batch"]:
    """The angle between y and the space that orthonormal columns span, in [0, π/2]; of 0, π/2."""
    inside = einsum("...i,...ip->...p", y, leading)
    outside = y - einsum("...p,...ip->...i", inside, leading)
    across, along = sphere.norm(outside), sphere.norm(inside)
    return jnp.where(across + along > 0, jnp.arctan2(across, along), jnp.pi / 2)


def angle_to_line(
    y: Float[Array, "*batch d"], z: Float[Array, "*batch d"]
) -> Float[Array, "*batch"]:
    """The angle between the lines of y and z, in [0, π/2]."""
    return angle_to_space(y, sphere.normalize(z)[..., None])

"""Several heads: with a common eigenvector, and near an example without one."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.numerics import einsum
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity
from theory.noise import Noise
from theory.statement import Case, Piece, Shape


def example() -> dict[str, np.ndarray]:
    """Theory II.5: d = 3, two heads, a stable bipartite point at e_1."""
    return {
        "head_eigenvalues": np.array([[1.0, 0.3, -0.2], [0.8, 0.1, 0.4]]),
        "frame": np.eye(3),
        "query_keys": np.stack([2.0 * np.eye(3), 1.5 * np.eye(3)]),
        "alpha": np.array(0.2),
        "direction": np.array([1.0, 0.0, 0.0]),
    }


def example_heads() -> np.ndarray:
    """F_1 = diag(1, .3, −.2) and F_2 = diag(.8, .1, .4)."""
    return np.stack([np.diag(values) for values in example()["head_eigenvalues"]])


def spectral_heads(frame: Any, eigenvalues: Any) -> Float[Array, "h d d"]:
    """F_h = U diag(λ^h) Uᵀ."""
    matrices = einsum("ak,hk,bk->hab", frame, eigenvalues, frame)
    return (matrices + jnp.swapaxes(matrices, 1, 2)) / 2.0


def _common_margins(shape: Shape, case: Case) -> dict[str, Array]:
    moved = einsum("hab,b->ha", case["heads"], case["direction"])
    defect = moved - case["head_eigenvalues"][:, :1] * case["direction"][None, :]
    size = 1.0 + jnp.max(jnp.abs(case["head_eigenvalues"]))
    strongest = jnp.sum(jnp.max(jnp.abs(case["head_eigenvalues"]), axis=1))
    return {
        "alpha > 0": case["alpha"] * strongest,
        "F_h v = lambda^h v": identity(defect, scale=size, size=shape.d).value,
        "step bound": 1.0 - case["alpha"] * strongest,
    }


def commuting_heads() -> Piece:
    """F_h = U diag(λ^h) Uᵀ, B_h arbitrary, v = u_1: ``heads``, ``query_keys``, ``direction``.

    alpha < 1/Σ_h |F_h|, so that bipartite points at v exist; boundary: by a hair. Nearly
    degenerate: all heads but the first nearly vanish.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(shape.d)
        values = noise.normal(shape.h, shape.d)
        # Half of the time v leads in every head, as it does where bipartite points are stable.
        leads = jnp.max(jnp.abs(values), axis=1)
        values = jnp.where(noise.coin(), values.at[:, 0].set(1.2 * leads), values)
        weak = values.at[1:].multiply(noise.hair())
        values = jnp.where(kind == DEGENERATE, weak, values)
        keys = noise.log_uniform(0.1, 3.0) * noise.normal(shape.h, shape.d, shape.d)
        strongest = jnp.sum(jnp.max(jnp.abs(values), axis=1))
        fraction = jnp.where(kind == BOUNDARY, 1.0 - noise.hair(), noise.uniform(0.05, 0.95))
        return {
            "frame": frame,
            "head_eigenvalues": values,
            "heads": spectral_heads(frame, values),
            "query_keys": keys,
            "alpha": fraction / strongest,
            "direction": frame[:, 0],
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.max(jnp.abs(case["head_eigenvalues"][1:]))

    return Piece(draw, _common_margins, degeneracy)


def near_commuting_example(spread: float = 0.05) -> Piece:
    """Eigenvalues and θ_h within ``spread`` of the example's, turned; B_h otherwise arbitrary.

    B_h = θ_h u_1 u_1ᵀ + anything off that entry: only θ_h matters at the point. alpha is 0.3 to 1
    times the example's; boundary: 0.003 to 0.009 times. Nearly degenerate: the example's spectrum.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        known = example()
        size = jnp.where(kind == DEGENERATE, noise.hair() * spread, spread)
        frame = noise.orthogonal(3)
        change = 2.0 * noise.uniforms(6).reshape(2, 3) - 1.0
        values = jnp.asarray(known["head_eigenvalues"]) + size * change
        loose = noise.normal(2, 3, 3)
        theta = jnp.array([2.0, 1.5]) + size * (2.0 * noise.uniforms(2) - 1.0)
        inner = loose.at[:, 0, 0].set(theta)
        lower = jnp.where(kind == BOUNDARY, noise.uniform(0.003, 0.009), noise.uniform(0.3, 1.0))
        del shape
        return {
            "frame": frame,
            "head_eigenvalues": values,
            "heads": spectral_heads(frame, values),
            "query_keys": einsum("ak,hkl,bl->hab", frame, inner, frame),
            "alpha": lower * jnp.asarray(known["alpha"]),
            "direction": frame[:, 0],
        }

    def away(case: Case) -> Array:
        return jnp.max(jnp.abs(case["head_eigenvalues"] - example()["head_eigenvalues"]))

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        v = case["direction"]
        theta = einsum("a,hab,b->h", v, case["query_keys"], v)
        return _common_margins(shape, case) | {
            "spectrum near the example's": spread - away(case) + 1e-12,
            "theta_h near the example's": spread
            - jnp.max(jnp.abs(theta - jnp.array([2.0, 1.5])))
            + 1e-12,
        }

    return Piece(draw, margins, lambda _shape, case: away(case) / spread)


def perturbed_example(largest: float) -> Piece:
    """Heads and logits of the example, all entries changed by ``size`` times normal numbers.

    Then no common eigenvector, and no symmetry, is left. ``size`` up to ``largest``; boundary:
    alpha a small part of the example's; nearly degenerate: ``size`` below 1e-3.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case, shape
        size = jnp.where(kind == DEGENERATE, noise.hair(), noise.log_uniform(3e-3, largest))
        # Bounded noise of unit variance, so that no draw is far out.
        change = np.sqrt(3.0) * (2.0 * noise.uniforms(36).reshape(2, 2, 3, 3) - 1.0)
        lower = jnp.where(kind == BOUNDARY, noise.uniform(0.002, 0.009), noise.uniform(0.5, 1.0))
        return {
            "heads": jnp.asarray(example_heads()) + size * change[0],
            "query_keys": jnp.asarray(example()["query_keys"]) + size * change[1],
            "alpha": lower * 0.2,
            "size": size,
            "direction": jnp.array([1.0, 0.0, 0.0]),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        heads = jnp.max(jnp.abs(case["heads"] - example_heads()))
        keys = jnp.max(jnp.abs(case["query_keys"] - example()["query_keys"]))
        largest_change = jnp.maximum(heads, keys) / (np.sqrt(3.0) * case["size"])
        return {
            "alpha > 0": case["alpha"] / 0.2,
            # Relative to the size, which may be as small as the roundings of the heads themselves.
            "heads within size": 1.0 - largest_change + 1e-14 / case["size"] + 1e-9,
            "size bounded": 1.0 - case["size"] / largest + 1e-9,
        }

    return Piece(draw, margins, lambda _shape, case: case["size"])


def any_heads() -> Piece:
    """Heads F_h and logits B_h arbitrary, a unit vector v, and a step; boundary: a small step.

    Nearly degenerate: heads that nearly cancel.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        heads = noise.log_uniform(0.2, 2.0) * noise.normal(shape.h, shape.d, shape.d)
        sum_of_others = jnp.sum(heads[1:], axis=0)
        cancelled = heads.at[0].set(noise.hair() * heads[0] - sum_of_others)
        keys = noise.log_uniform(0.1, 3.0) * noise.normal(shape.h, shape.d, shape.d)
        free = noise.log_uniform(0.03, 1.0)
        return {
            "heads": jnp.where(kind == DEGENERATE, cancelled, heads),
            "query_keys": keys,
            "alpha": jnp.where(kind == BOUNDARY, noise.hair(), free),
            "direction": noise.unit(shape.d),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = jnp.sum(case["direction"] ** 2) - 1.0
        return {
            "alpha > 0": case["alpha"] / (1.0 + case["alpha"]),
            "|v| = 1": identity(off, scale=1.0, size=shape.d).value,
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        total = jnp.sqrt(jnp.sum(jnp.sum(case["heads"], axis=0) ** 2))
        return total / jnp.sqrt(jnp.sum(case["heads"] ** 2))

    return Piece(draw, margins, degeneracy)

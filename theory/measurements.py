"""The numbers that explicit instances claim: multipliers, and where random starts end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Oja, run_to_equilibrium
from pmt.stability import conditions, jacobian
from theory import instances
from theory.convergence import distance_from_principal
from theory.statement import Case, Shape

STARTS = 2000


def multipliers(system: Any, x: Float[Array, "n d"]) -> list[float | list[float]]:
    """Eigenvalues of the intrinsic Jacobian, decreasing modulus; complex ones as [re, im]."""
    values = np.linalg.eigvals(np.asarray(jax.jit(jacobian.intrinsic)(system, x)))
    values = values[np.argsort(-np.abs(values), kind="stable")]
    if np.all(np.isreal(values)):
        return [float(value) for value in values.real]
    return [[float(value.real), float(value.imag)] for value in values]


def at_signed_point(shape: Shape, case: Case) -> dict[str, Any]:
    """Multipliers at x_i = s_i v."""
    system = instances.single_head(shape, case)
    return {"multipliers": multipliers(system, instances.signed_state(case))}


def at_bipartite_point(shape: Shape, case: Case) -> dict[str, Any]:
    """Multipliers at x_i = s_i v, and what Theorem 3's conditions 2 and 3 ask of them."""
    found = conditions.theorem_3_margins(
        case["alpha"],
        instances.principal_eigenvalue(case),
        instances.other_eigenvalues(case),
        instances.theta_of(case),
        *instances.group_sizes(case),
    )
    return at_signed_point(shape, case) | {
        "condition 2": float(jnp.min(found.schur_cohn)),
        "condition 3, largest 1/g_i": float(1.0 - found.single),
    }


def at_tokens(shape: Shape, case: Case) -> dict[str, Any]:
    """Multipliers of the softmax system at the tokens ``x``."""
    return {"multipliers": multipliers(instances.single_head(shape, case), case["x"])}


def pair_and_endings(shape: Shape, case: Case) -> dict[str, Any]:
    """Multipliers of {v_1, −v_1} in the Oja system, and where uniformly random pairs end."""
    system = instances.oja(shape, case)
    v = case["frame"][:, 0]
    found = endings(system, v, shape.n, starts=STARTS, seed=0)
    return {"multipliers": multipliers(system, jnp.stack([v, -v]))} | found


def endings(
    system: Any, v: Float[Array, " d"], n: int, *, starts: int, seed: int
) -> dict[str, float]:
    """Shares of uniformly random starts that end at ±v consensus, antipodal, or unresolved."""
    x0 = sphere.uniform(jax.random.key(seed), (starts, n, v.shape[0]), v.dtype)
    final = run_to_equilibrium(system, x0, max_steps=3000).x
    consensus = jax.vmap(lambda x: distance_from_principal(x, v))(final) < 1e-6
    # All tokens on one line, and not all on one side.
    signs = jnp.sign(jnp.sum(final * final[:, :1], axis=-1))
    aligned = jnp.max(sphere.norm(signs[:, :, None] * final - final[:, :1]), axis=-1) < 1e-6
    antipodal = aligned & jnp.any(signs < 0, axis=-1)
    counts = {"consensus": int(jnp.sum(consensus)), "antipodal": int(jnp.sum(antipodal))}
    counts["unresolved"] = starts - sum(counts.values())
    return {name: count / starts for name, count in counts.items()} | {"starts": float(starts)}


def oja_pair_basin(second: float, *, alpha: float, starts: int, seed: int) -> float:
    """Share of random pairs that end antipodal in the Oja system with V = diag(1, second)."""
    system = Oja(value=jnp.diag(jnp.array([1.0, second])), alpha=alpha)
    return endings(system, jnp.array([1.0, 0.0]), 2, starts=starts, seed=seed)["antipodal"]

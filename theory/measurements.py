"""The numbers that explicit instances claim: multipliers, and where random starts end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.dynamics import Oja
from pmt.stability import conditions, jacobian
from pmt.stability.basin import basin_fractions
from theory import instances
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
    found = basin_fractions(system, n, samples=starts, seed=seed, max_steps=3000, verdicts=False)
    along = np.asarray(v)
    at_v = found.share("consensus", where=lambda a: abs(a.state[0] @ along) > 1 - 1e-9)
    # All tokens on one line, and not all on one side.
    apart = found.share(where=lambda a: a.collinear and a.kind != "consensus")
    counts = {"consensus": at_v.count, "antipodal": apart.count}
    counts["unresolved"] = starts - sum(counts.values())
    return {name: count / starts for name, count in counts.items()} | {"starts": float(starts)}


def oja_pair_basin(second: float, *, alpha: float, starts: int, seed: int) -> float:
    """Share of random pairs that end antipodal in the Oja system with V = diag(1, second)."""
    system = Oja(value=jnp.diag(jnp.array([1.0, second])), alpha=alpha)
    return endings(system, jnp.array([1.0, 0.0]), 2, starts=starts, seed=seed)["antipodal"]

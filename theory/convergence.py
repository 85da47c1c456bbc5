"""Conclusions about where trajectories of the Oja system end, by simulation.

What is not resolved within the budget counts as undecided, never as a violation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Outcome, run_to_equilibrium, simulate
from theory import instances
from theory.margin import Margin
from theory.statement import Case, Shape

BUDGET = 3000
"""Steps until a start counts as unresolved."""

# Where a run is taken to have arrived, and how far an arrival is pushed to see whether it returns.
_ARRIVED = 1e-3
_PUSH = 1e-3
_AWAY = 0.1


def distance_from_principal(x: Float[Array, "n d"], v: Float[Array, " d"]) -> Float[Array, ""]:
    """min over ± of max_i |x_i ∓ v|: 0 iff all tokens are at v, or all at −v."""
    to_plus = jnp.max(sphere.norm(x - v[None, :]))
    return jnp.minimum(to_plus, jnp.max(sphere.norm(x + v[None, :])))


def reaches_principal(shape: Shape, case: Case) -> Margin:
    """The trajectory from ``x`` ends with all tokens at v_1, or all at −v_1.

    Holds when it comes within 1e-3 of them. Violated when the run converges elsewhere, and again
    elsewhere after a push of 1e-3 along ``w``: an unstable point would not hold it twice.
    Otherwise unresolved, hence undecided.
    """
    system = instances.oja(shape, case)
    v = case["frame"][:, 0]
    first = run_to_equilibrium(system, case["x"], max_steps=BUDGET)
    pushed = sphere.retract(first.x, _PUSH * case["w"])
    second = run_to_equilibrium(system, pushed, max_steps=BUDGET)
    reached = distance_from_principal(first.x, v)
    finally_at = jnp.minimum(reached, distance_from_principal(second.x, v))
    converged = (first.result == Outcome.CONVERGED) & (second.result == Outcome.CONVERGED)
    elsewhere = converged & (finally_at > _AWAY)
    value = jnp.where(elsewhere, -finally_at / 2.0, 0.0)
    value = jnp.where(reached < _ARRIVED, 1.0 - reached, value)
    return Margin(value, jnp.full_like(value, 1e-6))


def pair_leaves(shape: Shape, case: Case) -> Margin:
    """Some small perturbation leaves the antipodal pair ``x`` = {u, −u}.

    Eight perturbations of size 1e-2 and less, ``w`` among them, are followed for 200 steps. One
    leaves if the pair's sum |x_1 + x_2| grows, or a token drifts further than ten times the
    perturbation. If all pairs become antipodal again and stay near, the pair is stable and the
    conclusion violated.
    """
    system = instances.oja(shape, case)
    x, size = case["x"], 1e-2
    turns = jnp.stack([case["w"], -case["w"], *_patterns(x)])
    starts = sphere.retract(jnp.broadcast_to(x[None], turns.shape), size * turns)
    ends = simulate(system, starts, 200, keep="last", observables={}).x
    before = sphere.norm(jnp.sum(starts, axis=1))
    after = sphere.norm(jnp.sum(ends, axis=1))
    # Perturbations that keep the pair antipodal have no sum to grow.
    growth = jnp.where(before > 1e-3 * size, after / jnp.maximum(before, 1e-3 * size), 0.0)
    drift = jnp.max(sphere.norm(ends - x[None]), axis=-1) / (10.0 * size)
    leaves = jnp.max(jnp.maximum(growth, drift))
    value = (leaves - 1.0) / jnp.maximum(leaves, 1.0)
    return Margin(value, jnp.full_like(value, 1e-6))


def _patterns(x: Float[Array, "n d"]) -> list[Float[Array, "n d"]]:
    """Unit tangent perturbations of a pair: together, opposite, and each token alone."""
    basis = sphere.tangent_basis(x)[:, :, 0]
    factors = jnp.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.5], [0.3, -1.0]])
    return list(jax.vmap(lambda f: f[:, None] * basis)(factors))

"""Theory II.10: clustering equilibria, and stable ones among them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pmt import sphere
from pmt.dynamics import Outcome, SingleHead, run_to_equilibrium
from pmt.equilibria import classify
from pmt.numerics import einsum
from pmt.stability import analyze, jacobian
from theory import hypotheses as hyp
from theory import instances, oracles, radius
from theory import linearization as lin
from theory import witnesses_softmax as told
from theory.clusterings import coefficients, fixed_clusters, flipped_clusters
from theory.hypotheses import clusters
from theory.margin import Margin, every, identity, inequality
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Shape,
    Statement,
    Twin,
    numbered,
)

_SETTLE, _SEARCH_STEP = 700, 0.6
_AT_REST, _NEARLY_AT_REST = 1e-11, 1e-3


def _constructed(shape: Shape, case: Case) -> Margin:
    """Two points in general position are an equilibrium, and A has rank 2."""
    system, x = instances.single_head(shape, case), case["x"]
    worst = clusters.conditioning(case)
    _, rest = coefficients(system, x)
    _, weights = clusters.reduced_attention(case)
    determinant = weights[0, 0] * weights[1, 1] - weights[0, 1] * weights[1, 0]
    return every(
        identity(system(x) - x, scale=2.0, size=x.size, conditioning=worst),
        identity(rest, scale=lin.frobenius(system.value), size=x.size, conditioning=worst),
        # Not 0; of two points that nearly agree that cannot be seen.
        inequality(jnp.abs(determinant), size=shape.n),
    )


def _example_persists(shape: Shape, case: Case) -> Margin:
    """The example's tokens end in a stable 2-clustering: not collinear, off the eigenvectors.

    Where the update is parallel to the tokens does not depend on alpha, so it is looked for with
    a large one; the multipliers are those of the instance's own step.
    """
    system = instances.single_head(shape, case)
    other = SingleHead(system.value, system.query_key, _SEARCH_STEP)
    x = lax.fori_loop(0, _SETTLE, lambda _i, state: other(state), case["x"])
    matrix = jacobian.intrinsic(system, x)
    worst = lin.conditioning(system, x, case["query_key"])
    area = jnp.abs(x[0, 0] * x[1, 1] - x[0, 1] * x[1, 0])
    moved = einsum("ab,ib->ia", system.value, x)
    off_axis = jnp.min(sphere.norm(sphere.tangent_projection(x, moved)))
    weights = system.attention(x)
    determinant = weights[0, 0] * weights[1, 1] - weights[0, 1] * weights[1, 0]
    found = every(
        identity(system(x) - x, scale=100.0, size=x.size, conditioning=worst),
        inequality(area - 0.05, size=x.size),
        inequality(off_axis - 0.05, size=x.size),
        inequality(jnp.abs(determinant) - 1e-3, size=x.size),
        radius.stable(matrix, conditioning=worst),
    )
    # A run that is still on its way shows nothing.
    step = jnp.max(jnp.abs(other(x) - x))
    on_the_way = (step > _AT_REST) & (step < _NEARLY_AT_REST)
    return Margin(jnp.where(on_the_way, 0.0, found.value), found.tolerance)


def example_numbers() -> dict[str, Any]:
    """The example's angles, coefficients c_i, multipliers and rank of A, by NumPy alone."""
    fields = told.two_clusters_example()
    value, logits = fields["value"], fields["query_key"]
    step = oracles.single_head(value, logits, float(fields["alpha"]))
    x = fields["x"]
    for _ in range(2000):
        x = step(x)
    weights = oracles.softmax_attention(x, logits, "full")
    update = weights @ x @ value.T
    found = oracles.intrinsic_spectrum(step, x)
    return {
        "angles": [float(a) for a in np.degrees(np.arctan2(x[:, 1], x[:, 0]))],
        "c": [float(c) for c in np.sum(x * update, axis=1)],
        "radius": float(np.max(np.abs(found))),
        "rank A": int(np.linalg.matrix_rank(weights)),
        "moved": float(np.max(np.abs(step(x) - x))),
    }


def random_runs(
    *, d: int, n: int, runs: int, seed: int, logits: float = 5.0, fraction: float = 0.4
) -> dict[str, Any]:
    """One random start of each of many random systems: how often it ends in a stable clustering.

    V symmetric Gaussian scaled to |V| = 1 with λ_1 > 0, QᵀK Gaussian with entries of the size
    ``logits``, alpha = ``fraction``. Every end that is no consensus and no bipartite or polygonal
    point is classified, and its stability is decided by ``pmt.stability``.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    loose = jax.random.normal(keys[0], (runs, d, d))
    even = (loose + jnp.swapaxes(loose, 1, 2)) / 2.0
    values = jnp.linalg.eigvalsh(even)
    even = even * jnp.where(values[:, -1] > 0, 1.0, -1.0)[:, None, None]
    even = even / jnp.max(jnp.abs(values), axis=1)[:, None, None]
    keys_queries = logits * jax.random.normal(keys[1], (runs, d, d))
    starts = sphere.uniform(keys[2], (runs, n, d))

    def one(value: Any, query_key: Any, x0: Any) -> Any:
        system = SingleHead(value, query_key, fraction)
        return run_to_equilibrium(system, x0, max_steps=4000)

    ends = jax.jit(jax.vmap(one))(even, keys_queries, starts)
    counts: dict[str, int] = {}
    radii, ranks = [], []
    for i in np.flatnonzero(np.asarray(ends.result) == Outcome.CONVERGED):
        system = SingleHead(even[i], keys_queries[i], fraction)
        known = classify(system, ends.x[i])
        name = known.kind or known.status
        counts[name] = counts.get(name, 0) + 1
        if name == "clustering":
            found = analyze(system, ends.x[i])
            if found.verdict == "stable":
                counts["stable clustering"] = counts.get("stable clustering", 0) + 1
                radii.append(found.spectral_radius)
                weights = np.asarray(system.attention(ends.x[i]))
                ranks.append((known.cluster_count, int(np.linalg.matrix_rank(weights, tol=1e-9))))
    shares = {name: count / runs for name, count in counts.items()}
    return {"shares": shares, "radii": radii, "clusters and ranks": ranks, "runs": runs}


@numbered
def ii_10() -> Statement:
    """Clustering equilibria."""
    example = told.two_clusters_example()
    without = Explicit(
        name="without logits",
        text="the example with Q'K = 0: its tokens meet",
        shape=Shape(2, 2),
        case={name: example[name] for name in ("value", "alpha", "x")}
        | {"query_key": np.zeros((2, 2))},
    )
    return Statement(
        id="ii.10",
        source="Theory II.10",
        text="Clustering equilibria: they exist for any two points, and can be stable.",
        paper=None,
        corrected=Form(
            text="For any Q'K and any two points (with any numbers of tokens) there are symmetric "
            "V for which they are an equilibrium. Stable m-clusterings exist and persist, are "
            "reached from random tokens, and have rank A = m (numerical evidence): d = 2, n = 2, "
            "V = diag(-1.0007, 1.5111), Q'K = [[13.795, 6.484], [2.167, 1.241]], alpha = .2: "
            "angles 106.1 and -60.9 degrees, c = (.228, -.169), radius .948.",
            expected="supported",
            clauses=(
                Clause(
                    name="constructed",
                    text="two points are fixed for V constructed from them, and rank A = 2",
                    hypotheses=fixed_clusters(Shape(2, 2), Shape(5, 3)),
                    conclusion=_constructed,
                    twin=Twin("1 + alpha c > 0", flipped_clusters()),
                ),
                Clause(
                    name="stable",
                    text="with V and Q'K within 1 % of the example and alpha <= .2 its tokens end "
                    "in a stable 2-clustering, neither collinear nor along eigenvectors",
                    hypotheses=Hypotheses(
                        (clusters.near_example(example, 0.01), hyp.full_attention()),
                        (Shape(2, 2),),
                    ),
                    conclusion=_example_persists,
                    twin=Twin("near the example", without),
                    share=0.1,
                ),
            ),
        ),
    )

"""Random points with known eigenvectors, vmapped: every map, mask and symmetry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.attention import Boolean, LocalWindow
from pmt.dynamics import MultiHead, Oja, SingleHead

N, D = 5, 4
PATTERN = np.array([[True, True, False, False, True],
                    [False, True, True, False, False],
                    [True, False, True, True, False],
                    [False, False, True, False, True],
                    [True, True, True, True, True]])  # fmt: skip
MASKS = {
    "full": "full",
    "causal": "causal",
    "window": LocalWindow(3),
    "two-sided": LocalWindow(2, causal=False),
    "boolean": Boolean(jnp.asarray(PATTERN)),
}


def symmetric_matrix(key, v_index=0):
    """(F, v): a random symmetric F with a known unit eigenvector."""
    first, second = jax.random.split(key)
    q = jnp.linalg.qr(jax.random.normal(first, (D, D)))[0]
    values = jax.random.normal(second, (D,))
    return jnp.einsum("ia,a,ja->ij", q, values, q, precision="highest"), q[:, v_index]


def asymmetric_matrix(key):
    """(F, v): a random real F with F v = λ v, block triangular in an orthonormal basis."""
    keys = jax.random.split(key, 2)
    q = jnp.linalg.qr(jax.random.normal(keys[0], (D, D)))[0]
    inner = 0.5 * jax.random.normal(keys[1], (D, D)).at[1:, 0].set(0.0)
    return jnp.einsum("ia,ab,jb->ij", q, inner, q, precision="highest"), q[:, 0]


def matrix(key, symmetric):
    return symmetric_matrix(key) if symmetric else asymmetric_matrix(key)


@functools.cache
def drawn(symmetric, count, seed=0):
    """``count`` one-head parameter sets with alpha inside 1/|F|, an eigenvector and mixed signs."""

    def draw(key):
        keys = jax.random.split(key, 4)
        value, v = matrix(keys[0], symmetric)
        signs = jnp.where(jax.random.bernoulli(keys[3], 0.5, (N,)), 1.0, -1.0)
        return {
            "value": value,
            "query_key": jax.random.normal(keys[2], (D, D)),
            "alpha": jax.random.uniform(keys[1], minval=0.05, maxval=0.9)
            / jnp.linalg.norm(value, 2),
            "v": v,
            "signs": signs.at[0].set(1.0).at[1].set(-1.0),
        }

    return jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(seed), count))


@functools.cache
def drawn_heads(common, count, seed=0):
    """Two heads; with ``common`` they share v, else only their sum has it as an eigenvector."""

    def draw(key):
        keys = jax.random.split(key, 5)
        total, v = asymmetric_matrix(keys[0])
        part = 0.3 * jax.random.normal(keys[1], (D, D))
        if common:
            q = jnp.concatenate([v[:, None], sphere.tangent_basis(v)], axis=1)
            inner = part.at[1:, 0].set(0.0)
            part = jnp.einsum("ia,ab,jb->ij", q, inner, q, precision="highest")
        size = jnp.linalg.norm(part, 2) + jnp.linalg.norm(total - part, 2)
        signs = jnp.where(jax.random.bernoulli(keys[4], 0.5, (N,)), 1.0, -1.0)
        return {
            "value": jnp.stack([part, total - part]),
            "query_key": jax.random.normal(keys[3], (2, D, D)),
            "alpha": jax.random.uniform(keys[2], minval=0.05, maxval=0.9) / size,
            "v": v,
            "signs": signs.at[0].set(1.0).at[1].set(-1.0),
        }

    return jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(seed), count))


def build(kind, mask, case):
    """The system of one drawn case."""
    if kind == "oja":
        return Oja(case["value"], alpha=case["alpha"], mask=mask)
    if kind == "single":
        return SingleHead(case["value"], case["query_key"], alpha=case["alpha"], mask=mask)
    return MultiHead.from_maps(case["value"], case["query_key"], alpha=case["alpha"], mask=mask)


def one(kind, mask, symmetric=True, index=0):
    """One drawn case as ``(system, v, signs)``; for ``multi``, ``symmetric`` means common v."""
    cases = drawn_heads(symmetric, 10) if kind == "multi" else drawn(symmetric, 10)
    case = jax.tree.map(lambda leaf: leaf[index], cases)
    return build(kind, mask, case), case["v"], case["signs"]


def campaign(function, kind, mask, *batches):
    """``function(system, v, signs)`` over batches of drawn cases: compiled once, run on each."""
    run = jax.jit(
        jax.vmap(lambda case: function(build(kind, mask, case), case["v"], case["signs"]))
    )
    return [run(batch) for batch in batches]


def at_consensus(cases):
    """The same cases with all signs equal."""
    return {**cases, "signs": jnp.ones_like(cases["signs"])}

"""Multipliers at bipartite points: closed form against autodiff Jacobian and dense eigenvalues.

The peer is what one would write without the theory: the tangent Jacobian by ``jax.jacfwd``, its
eigenvalues by LAPACK, both compiled and vmapped over the same instances. The limit is what the
closed form cannot do without: LAPACK's own time for the eigenvalues of V across v, (d − 1)² each.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import compare, limit, timed
from pmt.dynamics import SingleHead, tangent_jacobian
from pmt.stability.spectrum import bipartite_spectrum, transverse


def instances(count: int, n: int, d: int, seed: int = 0) -> dict[str, jax.Array]:
    """Symmetric V, any B, alpha = 1/(2|V|), the principal eigenvector, half of the signs each."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(count, d, d))
    values, vectors = np.linalg.eigh((raw + raw.swapaxes(1, 2)) / 2)
    return {
        "value": jnp.asarray((raw + raw.swapaxes(1, 2)) / 2),
        "query_key": jnp.asarray(rng.normal(size=(count, d, d)) / d**0.5),
        "alpha": jnp.asarray(0.5 / np.abs(values).max(axis=1)),
        "v": jnp.asarray(vectors[:, :, -1]),
        "signs": jnp.asarray(np.tile(np.where(np.arange(n) < (n + 1) // 2, 1.0, -1.0), (count, 1))),
    }


def _system(case: dict[str, jax.Array]) -> SingleHead:
    return SingleHead(case["value"], case["query_key"], alpha=case["alpha"])


def _closed(case: dict[str, jax.Array]) -> jax.Array:
    return bipartite_spectrum(_system(case), case["v"], case["signs"], symmetric=True)


def _dense(case: dict[str, jax.Array]) -> jax.Array:
    x = case["signs"][:, None] * case["v"][None, :]
    return jnp.linalg.eigvals(tangent_jacobian(_system(case), x))


def spectra(count: int, n: int, d: int, calls: int, peer_calls: int) -> dict[str, Any]:
    """One row: seconds of both sides for all instances, their ratio, and the largest difference."""
    cases = instances(count, n, d)
    closed, dense = (jax.jit(jax.vmap(f)) for f in (_closed, _dense))
    began = time.perf_counter()
    compiled = dense.lower(cases).compile()
    compiling = time.perf_counter() - began
    ours, peer, answer, reference = compare(
        lambda: closed(cases), lambda: compiled(cases), calls, peer_calls
    )
    return {
        "name": "spectrum at a bipartite point",
        "peer": "autodiff Jacobian and dense eigenvalues (compiled, vmapped)",
        "size": {"instances": count, "n": n, "d": d},
        "ours": vars(ours),
        "peer_time": vars(peer) | {"compile": compiling},
        "ratio": peer.median / ours.median,
        "largest_difference": float(np.abs(np.sort(answer) - np.sort(reference.real)).max()),
        "limit": limit("LAPACK's eigenvalues of V across v", _lapack(cases), ours.median),
    }


def _lapack(cases: dict[str, jax.Array]) -> float:
    """Seconds of ``numpy.linalg.eigvalsh`` for all instances, the best of five."""
    across = np.array(jax.vmap(transverse)(cases["value"], cases["v"]))
    return min(timed(lambda: np.linalg.eigvalsh(across))[0] for _ in range(5))


def rows(quick: bool) -> list[dict[str, Any]]:
    """All rows; ``quick`` leaves out what takes minutes."""
    found = [spectra(1000, 10, 8, calls=20, peer_calls=3)]
    if not quick:
        found.append(spectra(1, 64, 64, calls=50, peer_calls=1))
    return found

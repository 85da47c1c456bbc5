"""Closed-form spectra of many systems in one compiled call."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt.errors import RequestError
from pmt.numerics import AnyArray, require_count
from pmt.stability.spectrum import bipartite_spectrum, consensus_spectrum


@dataclass(frozen=True)
class Family:
    """What ``family_spectra`` returns.

    Attributes:
      spectral_radius: of every system, ``(batch,)``, NumPy; 0 for d = 1.
      multipliers: all n(d − 1) of every system, ``(batch, m)``, where they were asked for.
    """

    spectral_radius: np.ndarray
    multipliers: np.ndarray | None


def family_spectra(
    systems: Any,
    v: Float[AnyArray, "batch d"],
    signs: Float[AnyArray, " n"],
    *,
    symmetric: bool = False,
    chunk: int = 4096,
    keep: bool = False,
) -> Family:
    """Multipliers at x_i = s_i v of a whole family: ``consensus_spectrum``, ``bipartite_spectrum``.

    One compiled call. It goes through the family ``chunk`` systems at a time, so that what it holds
    between input and output does not grow with their number. Without ``keep`` the output is one
    number for each system.

    Args:
      systems: an ``Oja`` or ``SingleHead`` (with equal signs ``MultiHead`` too) with a leading
        axis on every array.
      v: unit eigenvectors, F v = λ v for each.
      signs: ±1 for every token, the same for the whole family.
      symmetric: every F is symmetric. Without it the eigenvalues come from JAX's general solver,
        which needs a CPU.
      chunk: how many at a time.
      keep: whether all multipliers are returned.

    Raises:
      RequestError: no family, signs that are not ±1, a bad ``chunk``, or as for the two functions.
    """
    s = np.asarray(signs)
    if not np.all(np.abs(s) == 1) or s.ndim != 1 or not len(s):
        raise RequestError("signs must be 1 or -1 for every token")
    leaves = jax.tree.leaves(systems)
    count = np.shape(v)[0]
    if not count:
        raise RequestError("the family is empty; give at least one system and its eigenvector")
    if any(np.ndim(leaf) < 1 or np.shape(leaf)[0] != count for leaf in leaves):
        shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves)
        raise RequestError(
            f"the arrays of the family have shapes {shapes}; every one, the step size and the "
            f"scale too, needs a first axis of length {count} as v has"
        )
    require_count("chunk", chunk, 1)
    run = partial(_spectra, equal=bool(np.all(s == s[0])), symmetric=symmetric, keep=keep)
    radius, multipliers = run(systems, jnp.asarray(v), jnp.asarray(s), chunk=min(chunk, count))
    return Family(np.asarray(radius), None if multipliers is None else np.asarray(multipliers))


@partial(jax.jit, static_argnames=("equal", "symmetric", "keep", "chunk"))
def _spectra(
    systems: Any,
    v: Float[Array, "batch d"],
    signs: Float[Array, " n"],
    *,
    equal: bool,
    symmetric: bool,
    keep: bool,
    chunk: int,
) -> tuple[Array, Array | None]:
    def one(case: Any) -> tuple[Array, Array | None]:
        system, direction = case
        if equal:
            found = consensus_spectrum(system, direction, signs.shape[0], symmetric=symmetric)
        else:
            found = bipartite_spectrum(system, direction, signs, symmetric=symmetric)
        # For d = 1 there are none.
        return jnp.max(jnp.abs(found), initial=0.0), found if keep else None

    return lax.map(one, (systems, v), batch_size=chunk)

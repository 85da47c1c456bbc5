"""Constructors for the points of Lemmas 1 and 8, with the conditions under which they are fixed.

The lemmas list directions; that f(x) = x rather than −x or 0 needs more: at a signed consensus
x_i = s_i v the update gives y_i = s_i g_i v, g_i = 1 + alpha λ γ_i, γ_i = s_i Σ_j a_ij s_j.
All g_i > 0: an equilibrium. All g_i < 0: half of the 2-cycle {x, −x}. Mixed: some tokens jump to
the other side. Any g_i = 0: the map is undefined. (theory: Lemma 1 and Lemma 3, corrected.)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import linalg, sphere
from pmt.condition import Condition
from pmt.dynamics.systems import LayerStack, check_system, head_attention, head_maps
from pmt.equilibria.equilibrium import Equilibrium, Kind, Status
from pmt.errors import RequestError
from pmt.numerics import AnyArray, einsum, epsilon


def consensus(
    system: Any,
    index: int = 0,
    tokens: int = 2,
    *,
    sign: int = 1,
    eigenvector: Float[AnyArray, " d"] | None = None,
) -> Equilibrium:
    """All tokens equal to ``sign`` * v_k; an equilibrium iff 1 + alpha λ_k > 0.

    Args:
      system: an autonomous map.
      index: k, counted from 0 in decreasing order of the real part.
      tokens: n, at least 1.
      sign: 1 or −1.
      eigenvector: a real eigenvector of the layer matrix to use instead of ``index``.

    Raises:
      RequestError: no such real eigenvector, or a bad argument.
    """
    if tokens < 1:
        raise RequestError(f"tokens is {tokens}; a state needs at least one token")
    return _signed(system, "consensus", index, eigenvector, np.full(tokens, _check_sign(sign)))


def bipartite(
    system: Any,
    index: int = 0,
    split: tuple[int, int] = (1, 1),
    *,
    signs: Sequence[int] | np.ndarray | None = None,
    eigenvector: Float[AnyArray, " d"] | None = None,
) -> Equilibrium:
    """x_i = s_i v_k with n_1 tokens at v_k and n_2 at −v_k.

    An equilibrium iff 1 + alpha λ_k γ_i > 0 for every i (Lemmas 9 and 13); for ``Oja`` that is
    alpha |λ_k| |n_1 − n_2| / n < 1. With several heads v must also be an eigenvector of what the
    heads apply together at each group, which a generic eigenvector of F is not.

    Args:
      system: an autonomous map.
      index: k, counted from 0 in decreasing order of the real part.
      split: (n_1, n_2), both at least 1; the first n_1 tokens are the positive ones.
      signs: the sign of every token instead of ``split`` (order matters under a causal mask).
      eigenvector: a real eigenvector of the layer matrix to use instead of ``index``.

    Raises:
      RequestError: an empty group, no such real eigenvector, or a bad argument.
    """
    if signs is None:
        if min(split) < 1:
            raise RequestError(f"split is {tuple(split)}; both groups need at least one token")
        pattern = np.concatenate([np.ones(split[0]), -np.ones(split[1])])
    else:
        pattern = np.asarray(signs)
        if pattern.ndim != 1 or set(np.unique(pattern)) != {-1, 1}:
            raise RequestError("signs must be a list of 1 and -1 that holds both")
    return _signed(system, "bipartite", index, eigenvector, pattern)


def polygonal(
    system: Any, tokens: int | None = None, directions: Float[AnyArray, "p d"] | None = None
) -> Equilibrium:
    """Tokens whose attended means vanish: Σ_j a^h_ij x_j = 0 for every i and head.

    For ``Oja`` with full attention: Σ_j x_j = 0 (Lemma 1). With softmax and full attention:
    Σ_j x_j = 0 *and* x_iᵀ B x_j = 0 for all i, j (the corrected Lemma 8.3), so none exists where
    the symmetric part of B is definite.

    Args:
      system: an autonomous map with full attention (a causal one has no such point: the first
        token attends to itself).
      tokens: n; the number of rows of ``directions`` times two for pairs, at least 3 for a polygon.
        By default the smallest number that the directions allow.
      directions: orthonormal rows. One direction u gives n/2 tokens at u and n/2 at −u; two give
        the regular n-gon in their plane. By default the first two eigenvectors of the layer
        matrix for ``Oja`` with n ≥ 3, else one direction with uᵀ B_h u = 0 for a single head.

    Raises:
      RequestError: no isotropic direction exists, or the tokens do not fit the directions.
    """
    _check_autonomous(system, tokens)
    frame = _default_directions(system, tokens) if directions is None else directions
    frame = jnp.atleast_2d(jnp.asarray(frame, system.layer_matrix.dtype))
    p, d = frame.shape
    if d != system.layer_matrix.shape[-1] or p not in (1, 2):
        raise RequestError(
            f"directions has shape {(p, d)}; expected one or two orthonormal rows of length "
            f"{system.layer_matrix.shape[-1]}"
        )
    gram = np.asarray(frame) @ np.asarray(frame).T
    if np.abs(gram - np.eye(p)).max() > 64 * d * epsilon(frame.dtype):
        raise RequestError("directions must be orthonormal rows; normalise and orthogonalise them")
    n = tokens if tokens is not None else (2 if p == 1 else 3)
    if (p == 1 and n % 2) or (p == 2 and n < 3):
        need = "an even number of tokens" if p == 1 else "at least three tokens"
        raise RequestError(f"tokens is {n}; {p} direction(s) need {need}")
    if p == 1:
        x = _alternating(n, frame.dtype)[:, None] * frame
    else:
        angle = 2 * np.pi * jnp.arange(n, dtype=frame.dtype) / n
        x = einsum("np,pd->nd", jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), frame)
    x = sphere.normalize(x)
    point = describe(system, x, "polygonal")
    vanishing = Condition(
        "attended means",
        "Σ_j a_ij x_j = 0 for every token and head (within rounding)",
        _tolerance(x, 1.0) - float(jnp.max(sphere.norm(attended_means(system, x)))),
    )
    return replace(point, conditions=(vanishing, *point.conditions))


@jax.jit
def attended_means(system: Any, x: Float[Array, "n d"]) -> Float[Array, "h n d"]:
    """z^h_i = Σ_j a^h_ij x_j: what every head of every token looks at, on average."""
    return einsum("hij,jd->hid", head_attention(system, x), x)


def clustering(
    system: Any, centers: Float[AnyArray, "m d"], assignment: Sequence[int] | np.ndarray
) -> Equilibrium:
    """Tokens at m points p_r with Σ_j a_ij V x_j = c_i x_i: Lemma 8.4 with 1 + alpha c_i > 0.

    The centres are taken as given; refine a guess with ``pmt.equilibria.newton`` first. A single
    cluster off the eigenvectors cannot be fixed (Remark 6, corrected).

    Args:
      system: an autonomous map.
      centers: p_r, unit rows.
      assignment: for each token the row of ``centers`` it sits at; every centre must be used.

    Raises:
      RequestError: a centre that is unused, out of range, or not a unit vector.
    """
    centers = jnp.asarray(centers)
    chosen = np.asarray(assignment)
    if chosen.ndim != 1 or set(chosen.tolist()) != set(range(centers.shape[0])):
        raise RequestError(
            f"assignment must use every centre 0..{centers.shape[0] - 1} at least once"
        )
    lengths = np.linalg.norm(np.asarray(centers), axis=-1)
    if np.abs(lengths - 1).max() > 64 * centers.shape[-1] * epsilon(centers.dtype):
        raise RequestError("centers must be unit rows; pass them through pmt.sphere.normalize")
    return describe(system, centers[chosen], "clustering")


def describe(system: Any, x: Float[Array, "n d"], kind: Kind) -> Equilibrium:
    """Whether f(x) is x, −x or neither, by the general condition of Lemma 8.

    With u_i = update_i(x): fixed iff Π_i u_i = 0 and 1 + alpha x_iᵀ u_i > 0 for every token.
    """
    _check_autonomous(system, x.shape[0])
    measured = _measure(system, x)
    alpha = float(system.alpha)
    across = abs(alpha) * float(measured["across"])
    along = np.asarray(measured["along"], np.float64)
    tolerance = _tolerance(x, 1.0 + abs(alpha) * float(measured["update"]))
    conditions = (
        Condition(
            "direction",
            "the update is parallel to every token: |Π_i u_i| = 0 (within rounding)",
            tolerance - across,
        ),
        Condition(
            "orientation",
            "1 + alpha x_i·u_i > 0 for every token, so that no token flips",
            float(along.min()),
            tolerance,
        ),
    )
    status = _status(along, across, tolerance)
    residual = {
        "undefined": float("nan"),
        "2-cycle": float(measured["cycle_residual"]),
    }.get(status, float(measured["residual"]))
    return Equilibrium(x, kind, status, conditions, residual)


@jax.jit
def _measure(system: Any, x: Float[Array, "n d"]) -> dict[str, Array]:
    update, image = system.update(x), system(x)
    return {
        "across": jnp.max(sphere.norm(sphere.tangent_projection(x, update))),
        "along": 1.0 + system.alpha * jnp.sum(x * update, axis=-1),
        "update": jnp.max(sphere.norm(update)),
        "residual": jnp.max(sphere.norm(image - x)),
        "cycle_residual": jnp.max(sphere.norm(system(image) - x)),
    }


def _signed(
    system: Any,
    kind: Kind,
    index: int,
    eigenvector: Float[AnyArray, " d"] | None,
    pattern: np.ndarray,
) -> Equilibrium:
    _check_autonomous(system, len(pattern))
    dtype = system.layer_matrix.dtype
    v = _real_eigenvector(system, index) if eigenvector is None else jnp.asarray(eigenvector, dtype)
    if v.shape != system.layer_matrix.shape[-1:]:
        raise RequestError(
            f"eigenvector has shape {v.shape}; expected {system.layer_matrix.shape[-1:]}"
        )
    v = sphere.normalize(v)
    signs = jnp.asarray(pattern, dtype)
    x = signs[:, None] * v[None, :]
    point = describe(system, x, kind)
    direction = np.asarray(v, np.float64)
    eigenvalue = float(direction @ np.asarray(system.layer_matrix, np.float64) @ direction)
    where = "1 + alpha λ > 0" if kind == "consensus" else "1 + alpha λ γ_i > 0 for every token"
    if kind == "bipartite" and system.__class__.__name__ == "Oja":
        where += " (full attention: alpha |λ| |n1 − n2| / n < 1)"
    parallel, orientation = point.conditions
    named = (
        parallel,
        Condition(where.split(" (")[0], where, orientation.margin, orientation.tolerance),
    )
    return Equilibrium(
        x,
        kind,
        point.status,
        named,
        point.residual,
        eigenvector=v,
        eigenvalue=eigenvalue,
        signs=signs,
    )


def _status(along: np.ndarray, across: float, tolerance: float) -> Status:
    if not np.isfinite(along).all() or (np.abs(along) + across <= tolerance).any():
        return "undefined"
    if across > tolerance:
        return "not fixed"
    if (np.abs(along) <= tolerance).any():
        return "undefined"
    if (along > 0).all():
        return "equilibrium"
    return "2-cycle" if (along < 0).all() else "not fixed"


def _tolerance(x: Float[Array, "n d"], size: float) -> float:
    n, d = x.shape
    return 32 * epsilon(x.dtype) * (n + d) * size


def _check_autonomous(system: Any, n: int | None) -> None:
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack has no equilibria; take one layer with system.layer(index)"
        )
    check_system(system, n)


def _check_sign(sign: int) -> int:
    if sign not in (1, -1):
        raise RequestError(f"sign is {sign}; it must be 1 or -1")
    return sign


def _real_eigenvector(system: Any, index: int) -> Float[Array, " d"]:
    matrix = np.asarray(system.layer_matrix, np.float64)
    if not -len(matrix) <= index < len(matrix):
        raise RequestError(f"index is {index}; the layer matrix has {len(matrix)} eigenvalues")
    pairs = linalg.eigenpairs(matrix)
    value = pairs.values[index]
    if value.imag != 0:
        raise RequestError(
            f"eigenvalue {index} of the layer matrix is complex ({value:.6g}): tokens rotate in "
            "its plane and there is no equilibrium along it; choose a real one"
        )
    return jnp.asarray(pairs.vectors[:, index].real, system.layer_matrix.dtype)


def _alternating(n: int, dtype: Any) -> Float[Array, " n"]:
    return jnp.where(jnp.arange(n) < n // 2, 1.0, -1.0).astype(dtype)


def _default_directions(system: Any, tokens: int | None) -> Float[Array, "p d"]:
    _, query_key = head_maps(system)
    if not np.any(np.asarray(query_key)):
        count = 1 if tokens == 2 else 2
        if system.layer_matrix.shape[-1] < count:
            raise RequestError("a polygon needs d of at least 2; ask for two tokens instead")
        symmetric = np.asarray(system.layer_matrix, np.float64)
        vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)[1][:, ::-1]
        return jnp.asarray(vectors[:, :count].T)
    if len(query_key) > 1:
        raise RequestError("with several heads give the directions of the polygonal point")
    return jnp.asarray(isotropic_direction(np.asarray(query_key[0], np.float64))[None])


def isotropic_direction(matrix: np.ndarray) -> np.ndarray:
    """A unit vector u with uᵀ B u = 0, from the extreme eigenpairs of the symmetric part.

    u = (|λ_-|^½ w_+ + λ_+^½ w_-) normalised, with λ_± the largest and smallest eigenvalue.

    Raises:
      RequestError: the symmetric part is definite, so that none exists.
    """
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    low, high = values[0], values[-1]
    if low > 0 or high < 0:
        raise RequestError(
            "the symmetric part of query_key is definite (eigenvalues from "
            f"{low:.4g} to {high:.4g}), so no polygonal equilibrium exists"
        )
    if low == high == 0:
        return vectors[:, -1]
    u = np.sqrt(-low) * vectors[:, -1] + np.sqrt(high) * vectors[:, 0]
    return u / np.linalg.norm(u)

"""Maps of basins: one token moved over the sphere, or a plane slice through the state space."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import check_system
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon
from pmt.stability.attractor import Attractor
from pmt.stability.basin import attractors_reached
from pmt.stability.ending import real_axes
from pmt.stability.escape import displaced


@dataclass(frozen=True)
class SphereMap:
    """Where the token moved over S² leads the state: two discs, each an equal-area hemisphere.

    Attributes:
      attractors: what was reached; their shares are fractions of the sphere's area, up to the
        pixels, and their intervals mean nothing.
      label: (2, resolution, resolution): number of the attractor, −1 outside the disc. First the
        hemisphere around +frame[2], then the one around −frame[2] seen from its own outside; rows
        are up, columns right.
      frame: (3, 3), orthonormal rows: right, up and towards the eye in the first disc.
      token: which token was moved.
      others: (n − 1, 3), the tokens that start where they are.
      axes: (3, p), the real unit eigenvectors of F.
    """

    attractors: tuple[Attractor, ...]
    label: np.ndarray
    frame: np.ndarray
    token: int
    others: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True)
class SliceMap:
    """Basins on the slice a, b ↦ the end of the geodesic from center along a first + b second.

    Attributes:
      attractors: what was reached; shares are fractions of the pixels.
      label: (resolution, resolution): number of the attractor; rows are b, columns a.
      extent: a and b run over [−extent, extent], pixel centres ``coordinate``.
      coordinate: (resolution,).
      center, first, second: (n, d), as used: first and second tangent and orthonormal.
    """

    attractors: tuple[Attractor, ...]
    label: np.ndarray
    extent: float
    coordinate: np.ndarray
    center: np.ndarray
    first: np.ndarray
    second: np.ndarray


def pixel_points(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in one disc of Lambert's equal-area projection, and their points on S².

    A point at (X, Y), |(X, Y)|² = r² <= 2, stands for (X, Y) sqrt(1 − r²/4), 1 − r²/2 in the frame.

    Returns:
      Whether each pixel lies in the disc, (resolution, resolution), and the points (pixels, 3).
    """
    side = np.sqrt(2.0) * (2 * np.arange(resolution) + 1 - resolution) / resolution
    across, up = np.meshgrid(side, side)
    square = across**2 + up**2
    inside = square <= 2.0
    shrink = np.sqrt(1.0 - np.minimum(square, 2.0) / 4.0)
    points = np.stack([across * shrink, up * shrink, 1.0 - square / 2.0], axis=-1)[inside]
    return inside, points / np.linalg.norm(points, axis=-1, keepdims=True)


def sphere_map(
    system: Any,
    others: Float[AnyArray, "m 3"],
    *,
    token: int = 0,
    resolution: int = 101,
    frame: Float[AnyArray, "3 3"] | None = None,
    **options: Any,
) -> SphereMap:
    """Moves one token over S² and says where the whole state ends, d = 3.

    For a single token of a system give ``others`` of shape (0, 3).

    Args:
      system: an autonomous map, d = 3.
      others: the other tokens in their order, unit vectors.
      token: the place of the moved token among them, from 0.
      resolution: pixels across a disc, 2 to 2001; 79 % of its square are computed.
      frame: orthonormal rows, see ``SphereMap``; if None, +v_1 is in the middle of the first disc
        (any axis where F has no real eigenvector).
      options: as for ``attractors_reached``.

    Raises:
      RequestError: another dimension, a token that is not there, a frame that is not orthonormal,
        or as for ``attractors_reached``.
    """
    rest = np.asarray(others)
    _check_resolution(resolution)
    if rest.ndim != 2 or system.layer_matrix.shape[-1] != 3 or rest.shape[1] != 3:
        raise RequestError(
            f"others has shape {rest.shape} and d = {system.layer_matrix.shape[-1]}; a map of the "
            "sphere needs d = 3 and tokens (n - 1, 3); use slice_map for other dimensions"
        )
    check_system(system, len(rest) + 1)
    if isinstance(token, bool) or not 0 <= token <= len(rest):
        raise RequestError(f"token is {token!r}; it must lie between 0 and {len(rest)}")
    axes = real_axes(system)
    axes = axes[:, np.any(axes != 0, axis=0)]
    rows = _frame(axes) if frame is None else _checked_frame(frame)
    inside, points = pixel_points(resolution)
    # The far disc is seen from its outside: right and up as on the page, towards reversed.
    far = points * np.array([-1.0, 1.0, -1.0])
    placed = np.concatenate([points, far]) @ rows
    placed = placed / np.linalg.norm(placed, axis=-1, keepdims=True)
    x0 = np.empty((len(placed), len(rest) + 1, 3), rest.dtype)
    x0[:, np.arange(len(rest) + 1) != token] = rest[None]
    x0[:, token] = placed
    found = attractors_reached(system, jnp.asarray(x0), keep_states=False, **options)
    label = np.full((2, resolution, resolution), -1)
    label[0][inside], label[1][inside] = np.split(found.label, 2)
    return SphereMap(found.attractors, label, rows, token, rest, axes)


def slice_map(
    system: Any,
    center: Float[AnyArray, "n d"],
    first: Float[AnyArray, "n d"],
    second: Float[AnyArray, "n d"],
    *,
    extent: float = 3.0,
    resolution: int = 101,
    **options: Any,
) -> SliceMap:
    """Where the states of a two-dimensional slice through the product of spheres end.

    Token i starts at the angle |w_i| from its place in center on the great circle along w_i,
    w = a first + b second; (a, b) is the geodesic distance from center in polar coordinates.

    Args:
      system: an autonomous map.
      center: unit tokens.
      first, second: directions; made tangent at ``center`` and orthonormal, in this order.
      extent: half the width of the square, positive.
      resolution: pixels a side, 2 to 2001.
      options: as for ``attractors_reached``.

    Raises:
      RequestError: a center that is no state of the system, directions that span no plane, or as
        for ``attractors_reached``.
    """
    _check_resolution(resolution)
    if not (np.isfinite(extent) and extent > 0):
        raise RequestError(f"extent is {extent!r}; it must be a positive number")
    x = np.asarray(center)
    if x.ndim != 2:
        raise RequestError(f"center has shape {x.shape}; give one state of shape (n, d)")
    check_tokens(x, system)
    plane: list[np.ndarray] = []
    for name, direction in (("first", first), ("second", second)):
        w = np.asarray(direction, np.float64)
        if w.shape != x.shape:
            raise RequestError(f"{name} has shape {w.shape}; expected {x.shape} as center has")
        before = np.linalg.norm(w)
        w = w - x * np.sum(x * w, axis=-1, keepdims=True)
        for other in plane:
            w = w - other * np.sum(other * w)
        if not np.linalg.norm(w) > 1e-6 * before:
            raise RequestError(
                f"{name} is no new tangent direction at center; the slice needs two that are "
                "independent"
            )
        plane.append(w / np.linalg.norm(w))
    coordinate = extent * (2 * np.arange(resolution) + 1 - resolution) / resolution
    b, a = np.meshgrid(coordinate, coordinate, indexing="ij")
    w = a[..., None, None] * plane[0] + b[..., None, None] * plane[1]
    moved = displaced(x, w.reshape(-1, *x.shape), np.ones(w[..., 0, 0].size))
    found = attractors_reached(system, jnp.asarray(moved, x.dtype), keep_states=False, **options)
    label = found.label.reshape(resolution, resolution)
    return SliceMap(found.attractors, label, float(extent), coordinate, x, plane[0], plane[1])


def _check_resolution(resolution: Any) -> None:
    if isinstance(resolution, bool) or int(resolution) != resolution or not 2 <= resolution <= 2001:
        raise RequestError(f"resolution is {resolution!r}; it must be an integer from 2 to 2001")


def _checked_frame(frame: Any) -> np.ndarray:
    rows = np.asarray(frame, np.float64)
    # A frame may come in single precision.
    slack = 64 * epsilon(np.float32)
    if rows.shape != (3, 3) or not np.all(np.abs(rows @ rows.T - np.eye(3)) <= slack):
        raise RequestError(
            "frame must be three orthonormal rows of length 3: right, up and towards the eye"
        )
    return rows


def _frame(axes: np.ndarray) -> np.ndarray:
    """Rows right, up, towards with v_1 towards the eye and v_2 as far right as it can be."""
    columns = [axes[:, k] for k in range(min(2, axes.shape[1]))]
    columns += list(np.eye(3))
    basis: list[np.ndarray] = []
    for column in columns:
        rest = column - sum((b * (b @ column) for b in basis), np.zeros(3))
        if np.linalg.norm(rest) > 1e-3 and len(basis) < 3:
            basis.append(rest / np.linalg.norm(rest))
    towards, right = basis[0], basis[1]
    return np.stack([right, np.cross(towards, right), towards])

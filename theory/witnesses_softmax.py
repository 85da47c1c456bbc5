"""Explicit instances about the equilibria of the softmax system, with their numbers."""

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.numerics import einsum
from theory import instances, oracles
from theory.hypotheses.polygons import quarter_turn
from theory.statement import Case, Explicit, Shape
from theory.witnesses import POLYGONAL, antipodal_pair, signs, symmetric

TURNS = 2.0 * np.pi * np.arange(3) / 3.0
TRIANGLE = np.stack([np.cos(TURNS), np.sin(TURNS)], axis=1)


def residual(shape: Shape, case: Case) -> dict[str, Any]:
    """|f(x) − x|, the largest over the tokens."""
    system = instances.single_head(shape, case)
    return {"moved": float(jnp.max(sphere.norm(system(case["x"]) - case["x"])))}


def attention_rank(shape: Shape, case: Case) -> dict[str, Any]:
    """Singular values of the attention matrix at ``x``, or at x_i = s_i v."""
    system = instances.single_head(shape, case)
    x = case["x"] if "x" in case else instances.signed_state(case)
    singular = np.linalg.svd(np.asarray(system.attention(x)), compute_uv=False)
    return {"singular values": [float(s) for s in singular]}


def one_point(shape: Shape, case: Case) -> dict[str, Any]:
    """Where equal tokens go: |f(x) − x|, and |Pi V p|, which would have to vanish."""
    p, value = case["direction"], instances.value_matrix(case)
    across = np.asarray(sphere.tangent_projection(p, jnp.asarray(value) @ p))
    return residual(shape, case) | {"|Pi V p|": float(np.linalg.norm(across))}


def smallest_singular_value(shape: Shape, case: Case) -> dict[str, Any]:
    """σ_min of A ⊗ V − λ_1 I at a state that is no equilibrium, and how far that moves."""
    system = instances.single_head(shape, case)
    value = np.asarray(instances.value_matrix(case))
    weights = np.asarray(system.attention(case["x"]))
    shift = float(instances.spectrum_of(case)[0]) * np.eye(shape.n * shape.d)
    singular = np.linalg.svd(np.kron(weights, value) - shift, compute_uv=False)
    return {"smallest singular value": float(singular[-1])} | residual(shape, case)


def spectrum(shape: Shape, case: Case) -> dict[str, Any]:
    """Multipliers at the tokens ``x`` by the NumPy transcription: decreasing, complex as [re, im].

    Nothing is compiled, so that many witnesses can tell their numbers.
    """
    value = np.asarray(instances.value_matrix(case))
    step = oracles.single_head(
        value, np.asarray(case["query_key"]), float(case["alpha"]), shape.mask
    )
    values = oracles.intrinsic_spectrum(step, np.asarray(case["x"]))
    values = values[np.argsort(-np.abs(values), kind="stable")]
    if np.all(np.abs(values.imag) < 1e-12):
        return {"multipliers": [float(v) for v in values.real]}
    return {"multipliers": [[float(v.real), float(v.imag)] for v in values]}


def rotation_coordinates(x: Any) -> Any:
    """The rotation of a triangle in its plane, unit, in tangent coordinates."""
    w = einsum("nde,nd->ne", sphere.tangent_basis(x), quarter_turn(x)).reshape(-1)
    return w / jnp.sqrt(jnp.sum(w**2))


TRIANGLE_MOVES = Explicit(
    name="triangle that moves",
    text="V = diag(1, -1/2), Q'K = [[2, 1], [0, 0]], alpha = 1/4, the regular triangle: its tokens "
    "sum to zero and move by 0.10",
    shape=Shape(3, 2),
    case=symmetric([1.0, -0.5], 0.25, x=TRIANGLE, query_key=np.array([[2.0, 1.0], [0.0, 0.0]]))
    | {"value": np.diag([1.0, -0.5])},
    numbers=residual,
)

FLIPPED_BY_A_LARGE_STEP = Explicit(
    name="a step that flips a token",
    text="V = diag(1, -2), alpha = 2, theta = 3 at v_2: 1 + alpha lambda_2 gamma_i = -3",
    shape=Shape(2, 2),
    case=symmetric([1.0, -2.0], 2.0, index=1, signs=signs(1, 1), query_key=np.diag([0.0, 3.0])),
)

FLAT_ATTENTION = Explicit(
    name="theta = 0",
    text="V = diag(1, -1/2), Q'K = 0, alpha = 1/4, tokens {v_1, -v_1}: rank A = 1",
    shape=Shape(2, 2),
    case=symmetric([1.0, -0.5], 0.25, signs=signs(1, 1), query_key=np.zeros((2, 2))),
    numbers=attention_rank,
)

CAUSAL_PAIR = Explicit(
    name="causal attention",
    text="V = diag(1, -1/2), Q'K = diag(1, 0), alpha = 1/4 with causal attention, tokens "
    "{v_1, -v_1}: the first token sees only itself",
    shape=Shape(2, 2, 1, "causal"),
    case=antipodal_pair() | {"query_key": np.diag([1.0, 0.0])},
)

FLAT_TRIANGLE = Explicit(
    name="isotropic triangle",
    text="the regular triangle in the plane e_1, e_2, on which Q'K = e_3 e_3' vanishes: m = 3, "
    "rank A = 1",
    shape=Shape(3, 3),
    case={
        "value": np.diag([1.0, 0.5, -0.5]),
        "query_key": np.diag([0.0, 0.0, 1.0]),
        "alpha": np.array(0.25),
        "x": np.pad(TRIANGLE, ((0, 0), (0, 1))),
        "points": np.pad(TRIANGLE, ((0, 0), (0, 1))),
        "member": np.arange(3),
    },
    numbers=attention_rank,
)


def stable_triangle() -> dict[str, np.ndarray]:
    """d = 3, V of signature (+, +, −), B = 0 on the plane of e_1 and e_2."""
    return {
        "value": np.array([[0.9, 0.1, 0.6], [0.1, -1.4, 0.3], [0.6, 0.3, 0.8]]),
        "query_key": np.array([[0.0, 0.0, -1.9], [0.0, 0.0, 3.2], [-7.5, -0.2, 3.0]]),
        "alpha": np.array(0.33),
        "x": np.pad(TRIANGLE, ((0, 0), (0, 1))),
    }


def stable_triangle_in_four() -> dict[str, np.ndarray]:
    """d = 4, V of signature (+, +, −, −)."""
    return {
        "value": np.array(
            [
                [1.5, 0.6, 0.1, 1.0],
                [0.6, -2.4, -0.6, 0.1],
                [0.1, -0.6, -1.8, -0.3],
                [1.0, 0.1, -0.3, 1.2],
            ]
        ),
        "query_key": np.array(
            [
                [0.0, 0.0, 2.1, -1.8],
                [0.0, 0.0, 3.0, 5.8],
                [-0.6, 6.1, -0.1, 2.4],
                [-6.6, -0.2, 1.1, 0.6],
            ]
        ),
        "alpha": np.array(0.17),
        "x": np.pad(TRIANGLE, ((0, 0), (0, 2))),
    }


TRIANGLES = MappingProxyType({3: stable_triangle, 4: stable_triangle_in_four})

STABLE_TRIANGLE = Explicit(
    name="stable isotropic triangle, d = 3",
    text="V with eigenvalues 1.48, 0.26, -1.44, Q'K = 0 on the plane of the regular triangle, "
    "alpha = .33 < 1/(2|V|): multiplier 1 for its rotation, all others below 0.88",
    shape=Shape(3, 3),
    case=stable_triangle(),
    numbers=spectrum,
)

STABLE_TRIANGLE_IN_FOUR = Explicit(
    name="stable isotropic triangle, d = 4",
    text="V with eigenvalues 2.43, 0.40, -1.47, -2.85, Q'K = 0 on the plane of the regular "
    "triangle, alpha = .17 < 1/(2|V|): multiplier 1 for its rotation, all others below 0.92",
    shape=Shape(3, 4),
    case=stable_triangle_in_four(),
    numbers=spectrum,
)


def stable_pairs(n: int) -> Explicit:
    """n/2 tokens at e_1 and n/2 at −e_1 of the system of ``POLYGONAL``."""
    half = np.concatenate([np.ones(n // 2), -np.ones(n // 2)])
    return Explicit(
        name=f"stable polygonal pair, n = {n}",
        text=f"as the pair, with {n // 2} tokens at e_1 and {n // 2} at -e_1: multipliers 3/4 and "
        "7/8",
        shape=Shape(n, 2),
        case=dict(POLYGONAL.case) | {"x": half[:, None] * np.array([[1.0, 0.0]])},
        numbers=spectrum,
    )


OFF_AXIS = Explicit(
    name="equal tokens off the eigenvectors",
    text="V = diag(1, 1/2), Q'K = 0, alpha = 1/4, both tokens at (3, 4)/5: they turn",
    shape=Shape(2, 2),
    case=symmetric([1.0, 0.5], 0.25, query_key=np.zeros((2, 2)))
    | {"direction": np.array([0.6, 0.8]), "x": np.array([[0.6, 0.8], [0.6, 0.8]])},
    numbers=one_point,
)

ON_AXIS = Explicit(
    name="equal tokens at an eigenvector",
    text="V = diag(1, 1/2), Q'K = 0, alpha = 1/4, both tokens at e_1",
    shape=Shape(2, 2),
    case=symmetric([1.0, 0.5], 0.25, query_key=np.zeros((2, 2)))
    | {"direction": np.array([1.0, 0.0]), "x": np.array([[1.0, 0.0], [1.0, 0.0]])},
    numbers=one_point,
)

SINGULAR_ANYWHERE = Explicit(
    name="singular at no equilibrium",
    text="V = diag(1, 1/2), Q'K = [[2, 1], [0, 0]], alpha = 1/4, tokens e_1 and (3, 4)/5, c_i = "
    "lambda_1 = 1: A (x) V - C (x) I is singular, and the tokens move",
    shape=Shape(2, 2),
    case=symmetric([1.0, 0.5], 0.25, query_key=np.array([[2.0, 1.0], [0.0, 0.0]]))
    | {"x": np.array([[1.0, 0.0], [0.6, 0.8]])},
    numbers=smallest_singular_value,
)


def two_clusters_example() -> dict[str, np.ndarray]:
    """Theory II.10: d = 2, n = 2, with alpha = 0.2 and the tokens at their angles."""
    angles = np.radians([106.07228043, -60.86102946])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return {
        "value": np.diag([-1.0007, 1.5111]),
        "query_key": np.array([[13.795, 6.484], [2.167, 1.241]]),
        "alpha": np.array(0.2),
        "x": points,
        "points": points,
        "member": np.arange(2),
    }

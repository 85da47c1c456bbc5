"""Explicit instances with their numbers: counterexamples, and what negative twins fail at.

The inputs are NumPy arrays, exact as written; the numbers are computed on demand.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory import measurements as measure
from theory.statement import Explicit, Shape


def symmetric(
    eigenvalues: Sequence[float], alpha: float, *, index: int = 0, **fields: Any
) -> dict[str, np.ndarray]:
    """The fields of an instance with V = diag(eigenvalues), decreasing, at v_k = e_k."""
    values = np.array(eigenvalues, float)
    frame = np.eye(len(values))
    case = {
        "eigenvalues": values,
        "frame": frame,
        "alpha": np.array(alpha),
        "index": np.array(index),
        "direction": frame[:, index].copy(),
    }
    return case | {name: np.asarray(value) for name, value in fields.items()}


def signs(positive: int, negative: int) -> np.ndarray:
    """The signs of (n_1, n_2) tokens, positive ones first."""
    return np.concatenate([np.ones(positive), -np.ones(negative)])


def antipodal_pair(alpha: float = 0.25, second: float = -0.5) -> dict[str, np.ndarray]:
    """n = 2 tokens {v_1, −v_1} of the Oja system with V = diag(1, second)."""
    case = symmetric([1.0, second], alpha, signs=signs(1, 1), query_key=np.zeros((2, 2)))
    return case | {"x": np.array([[1.0, 0.0], [-1.0, 0.0]])}


TWO_CYCLE = Explicit(
    name="2-cycle",
    text="V = diag(1, -3), alpha = 1/2: 1 + alpha lambda_2 = -1/2, so (v_2, v_2) goes to "
    "(-v_2, -v_2) and back",
    shape=Shape(2, 2),
    case=symmetric([1.0, -3.0], 0.5, index=1, signs=signs(2, 0), query_key=np.zeros((2, 2))),
    numbers=measure.at_signed_point,
)

PRINCIPAL_BEYOND_BOUND = Explicit(
    name="step beyond the bound",
    text="V = diag(1, -3), alpha = 1.01 > -2/(lambda_1 + lambda_2) = 1: the multiplier of v_2 at "
    "v_1 is -2.03/2.01",
    shape=Shape(2, 2),
    case=symmetric([1.0, -3.0], 1.01, signs=signs(2, 0), query_key=np.zeros((2, 2))),
    numbers=measure.at_signed_point,
)

CYCLE_BEYOND_BOUND = Explicit(
    name="stable 2-cycle",
    text="V = diag(1, -3), alpha = 2: the 2-cycle {v_2, -v_2} has the multipliers 3/5 and 1/5",
    shape=Shape(2, 2),
    case=symmetric([1.0, -3.0], 2.0, index=1, signs=signs(2, 0), query_key=np.zeros((2, 2))),
    numbers=measure.at_signed_point,
)

OJA_PAIR = Explicit(
    name="antipodal pair, n = 2",
    text="V = diag(1, -1/2), alpha = 1/4, tokens {v_1, -v_1}: multipliers 1 and 7/8, perturbed "
    "pairs become antipodal again",
    shape=Shape(2, 2),
    case=antipodal_pair() | {"w": np.array([[0.0, 0.8], [0.0, -0.6]])},
    numbers=measure.pair_and_endings,
)

OJA_PAIR_START = Explicit(
    name="a start that ends antipodal, n = 2",
    text="V = diag(1, -1/2), alpha = 1/4, tokens at 0.3 and 2.9 radians: they end opposite each "
    "other, never in consensus",
    shape=Shape(2, 2),
    case=antipodal_pair()
    | {
        "x": np.array([[np.cos(0.3), np.sin(0.3)], [np.cos(2.9), np.sin(2.9)]]),
        "w": np.array(
            [[-0.6 * np.sin(0.3), 0.6 * np.cos(0.3)], [-0.8 * np.sin(2.9), 0.8 * np.cos(2.9)]]
        ),
    },
    numbers=measure.pair_and_endings,
)

NO_POLYGON = Explicit(
    name="tokens on one side",
    text="V = diag(1, 1/2, -1/2), alpha = 1/4, three tokens within 0.1 of v_1: no polygonal point, "
    "and every multiplier is below 1",
    shape=Shape(3, 3),
    case=symmetric([1.0, 0.5, -0.5], 0.25, query_key=np.zeros((3, 3)))
    | {
        "x": np.array(
            [
                [1.0, 0.0, 0.0],
                [np.cos(0.1), np.sin(0.1), 0.0],
                [np.cos(0.1), 0.0, np.sin(0.1)],
            ]
        )
    },
)

REMARK_10 = Explicit(
    name="stable bipartite point at a negative eigenvalue",
    text="V = diag(1, -2), Q'K = diag(0, -2), alpha = 1/4, bipartite at v_2 (lambda = -2), (3, 2): "
    "every multiplier is below 0.845",
    shape=Shape(5, 2),
    case=symmetric([1.0, -2.0], 0.25, index=1, signs=signs(3, 2), query_key=np.diag([0.0, -2.0])),
    numbers=measure.at_signed_point,
)

BEYOND_NORM = Explicit(
    name="step beyond 1/|V|",
    text="V = diag(1, -2), alpha = 1 > 1/2, theta = 3: gamma_i is next to 1 and 1 + alpha lambda_2 "
    "gamma_i next to -1",
    shape=Shape(2, 2),
    case=symmetric([1.0, -2.0], 1.0, index=1, signs=signs(1, 1), query_key=np.diag([0.0, 3.0])),
)

POLYGONAL = Explicit(
    name="stable polygonal pair",
    text="V = [[1, .5], [.5, -.5]], Q'K = [[0, -1], [-1, 0]], alpha = 1/4, tokens {e_1, -e_1}: "
    "both multipliers are 3/4",
    shape=Shape(2, 2),
    case={
        "value": np.array([[1.0, 0.5], [0.5, -0.5]]),
        "query_key": np.array([[0.0, -1.0], [-1.0, 0.0]]),
        "alpha": np.array(0.25),
        "x": np.array([[1.0, 0.0], [-1.0, 0.0]]),
    },
    numbers=measure.at_tokens,
)

NOT_NECESSARY = Explicit(
    name="stable although condition 3 fails",
    text="n_1 = 1, n_2 = 5 at v_1, theta = .804: 1/(1 + alpha lambda_1 gamma_1) > 1, but the "
    "single token of group 1 has no vector of that class",
    shape=Shape(6, 5),
    case=symmetric(
        [1.205, -0.223, -0.641, -1.706, -1.972],
        0.036,
        signs=signs(1, 5),
        query_key=np.diag([0.804, 0.0, 0.0, 0.0, 0.0]),
    ),
    numbers=measure.at_bipartite_point,
)

SWAPPED_ATTENTION = Explicit(
    name="each token attends only to the other",
    text="F = diag(1, -3), alpha = .01, attention [[0, 1], [1, 0]] with eigenvalue -1: the "
    "multiplier (1 + .03)/1.01 = 1.0198 at v_1, and unstable for every alpha > 0",
    shape=Shape(2, 2, 1, "others"),
    case=symmetric(
        [1.0, -3.0],
        0.01,
        signs=signs(2, 0),
        heads=np.diag([1.0, -3.0])[None],
        query_keys=np.zeros((1, 2, 2)),
    ),
)

HEAD_CYCLE_BEYOND_BOUND = Explicit(
    name="stable 2-cycle",
    text="F = diag(1, -3), alpha = 2: the 2-cycle {v_2, -v_2} has the multipliers 3/5 and 1/5",
    shape=Shape(2, 2),
    case=symmetric(
        [1.0, -3.0],
        2.0,
        index=1,
        signs=signs(2, 0),
        heads=np.diag([1.0, -3.0])[None],
        query_keys=np.zeros((1, 2, 2)),
    ),
)

"""Sec. 2.3: a rank-one edit of the output weights, and how far it turns eigenvector and tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import MultiHead
from pmt.numerics import einsum
from theory import hypotheses as hyp
from theory.hypotheses.edits import (
    attention_heads,
    edit_at_eigenvector,
    gapped_plane,
    strong_edit,
)
from theory.linearization import frobenius
from theory.margin import Margin, every, identity, inequality
from theory.oja import PAPER
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

_POWER_STEPS = 60


DOMINATES = 0.5


"""The cosine from which w is taken to be the principal direction: a generous reading."""


def principal(matrix: Float[Array, "d d"], w: Float[Array, " d"]) -> tuple[Array, Array]:
    """Eigenvalue and unit eigenvector of largest modulus, by the power method from ``w``."""

    def step(_: Any, v: Array) -> Array:
        return sphere.normalize(einsum("ab,b->a", matrix, v))

    start = sphere.normalize(w + 1e-3 * jnp.ones_like(w))
    v = lax.fori_loop(0, _POWER_STEPS, step, start)
    return einsum("a,ab,b->", v, matrix, v), v


def edited(case: Case) -> Float[Array, "d d"]:
    """F' = F + c w uᵀ."""
    return case["value"] + case["strength"] * case["target"][:, None] * case["probe"][None, :]


def _heads(case: Case, output: Array) -> MultiHead:
    return MultiHead(
        query=case["query"],
        key=case["key"],
        value=case["value_weights"],
        output=output,
        alpha=case["alpha"],
        scale=1.0,
    )


def _edit(shape: Shape, case: Case) -> Margin:
    """O' = O + c w uᵀ V⁻¹: F' = F + c w uᵀ, Σ_h P_h = I, and every token gets alpha c κ_i w more.

    P_h = V⁻¹ E_h V, E_h the projector on the rows of head h; κ_i = uᵀ Σ_h P_h z_i^h.
    """
    h, k, d = shape.h, shape.d // shape.h, shape.d
    stacked = case["value_weights"].reshape(h * k, d)
    inverse = jnp.linalg.inv(stacked)
    w, u, c = case["target"], case["probe"], case["strength"]
    change = c * w[:, None] * einsum("a,ab->b", u, inverse)[None, :]
    change = jnp.moveaxis(change.reshape(d, h, k), 1, 0)
    plain = _heads(case, case["output_weights"])
    steered = _heads(case, case["output_weights"] + change)
    expected = plain.layer_matrix + c * w[:, None] * u[None, :]
    projectors = einsum("ahk,hkb->hab", inverse.reshape(d, h, k), case["value_weights"])
    z = einsum("hij,jd->hid", plain.attention(case["x"]), case["x"])
    kappa = einsum("a,hab,hib->i", u, projectors, z)
    difference = steered.update(case["x"]) - plain.update(case["x"])
    y = plain.unnormalized(case["x"])
    push = case["alpha"] * c * kappa
    length = sphere.norm(y)
    cosine = jnp.abs(einsum("id,d->i", steered(case["x"]), w))
    bound = (jnp.abs(push) - length) / (jnp.abs(push) + length)
    size = (1.0 + c) * frobenius(stacked) * (1.0 + frobenius(case["output_weights"]))
    condition = frobenius(stacked) * frobenius(inverse)

    def vanishes(error: Array, scale: Array) -> Margin:
        return identity(error, scale=scale, size=h * k * d, conditioning=condition)

    one = jnp.ones(())
    return every(
        vanishes(steered.layer_matrix - expected, size),
        vanishes(jnp.sum(projectors, axis=0) - jnp.eye(d), one),
        vanishes(difference - c * kappa[:, None] * w[None, :], size),
        vanishes(jnp.maximum(bound - cosine, 0.0), size / jnp.minimum(jnp.min(length), 1.0)),
    )


def _moves_one_eigenvalue(shape: Shape, case: Case) -> Margin:
    """det(zI − F')(z − λ) = det(zI − F)(z − λ − c uᵀw) at d + 2 numbers z: the same polynomial."""
    d = shape.d
    f, changed, own = case["value"], edited(case), case["eigenvalue"]
    shift = case["strength"] * jnp.sum(case["probe"] * case["target"])
    size = frobenius(f) + case["strength"] * sphere.norm(case["probe"])
    points = size * jnp.asarray(np.linspace(-1.7, 1.9, d + 2))

    def determinant(matrix: Array, z: Array) -> Array:
        return jnp.linalg.det(z * jnp.eye(d) - matrix)

    def error(z: Array) -> Array:
        left = determinant(changed, z) * (z - own)
        return left - determinant(f, z) * (z - own - shift)

    errors = jnp.stack([error(z) for z in points])
    scale = (4.0 * size) ** (d + 1)
    return identity(errors, scale=scale, size=d**2)


def _dominates(shape: Shape, case: Case) -> Margin:
    """|cos(v_1', w)| > 1/2 by the power method."""
    _, v = principal(edited(case), case["target"])
    cosine = jnp.abs(jnp.sum(v * case["target"]))
    return inequality(cosine - DOMINATES, size=shape.d * _POWER_STEPS, conditioning=_size(case))


def _size(case: Case) -> Array:
    return 1.0 + frobenius(case["value"]) / case["strength"]


def _exact_angle(shape: Shape, case: Case) -> Margin:
    """d = 2, F w = a w + t w^⊥, F w^⊥ = b w^⊥: tan angle(v_1', w) = |t|/|a + c − b|."""
    del shape
    _, v = principal(edited(case), case["target"])
    w = case["target"]
    across = jnp.stack([-w[1], w[0]])
    moved = einsum("ab,b->a", case["value"], w)
    own, pull = jnp.sum(w * moved), jnp.sum(across * moved)
    other = einsum("a,ab,b->", across, case["value"], across)
    gap = own + case["strength"] - other
    # tan = |across'v| / |w'v|, without the division.
    error = jnp.abs(jnp.sum(across * v)) * jnp.abs(gap) - jnp.abs(pull) * jnp.abs(jnp.sum(w * v))
    size = jnp.abs(gap) + jnp.abs(pull)
    return identity(error, scale=size, size=_POWER_STEPS, conditioning=_size(case))


def _first_order_angle(shape: Shape, case: Case) -> Margin:
    """c >= 8|F|, u = w: |tan angle − |(I − wwᵀ)Fw|/c| <= 4|F|²/c², |λ' − c − wᵀFw| <= 2|F|²/c."""
    value, v = principal(edited(case), case["target"])
    w, c = case["target"], case["strength"]
    moved = einsum("ab,b->a", case["value"], w)
    own = jnp.sum(w * moved)
    along = jnp.abs(jnp.sum(v * w))
    tangent = sphere.norm(v - w * jnp.sum(v * w)) / along
    predicted = sphere.norm(moved - own * w) / c
    ratio = frobenius(case["value"]) / c
    off = jnp.abs(tangent - predicted) / (4.0 * ratio**2)
    shift = jnp.abs(value - c - own) / (2.0 * ratio**2 * c)
    worst = jnp.minimum(jnp.maximum(off, shift), 1e12)
    # Both sides are small numbers of second order.
    return inequality(1.0 - worst, size=shape.d * _POWER_STEPS, conditioning=1.0 / ratio**2)


def _angle(shape: Shape, case: Case) -> dict[str, Any]:
    del shape
    changed = np.asarray(edited(case))
    values, vectors = np.linalg.eig(changed)
    first = int(np.argmax(np.abs(values)))
    w = np.asarray(case["target"])
    return {
        "eigenvalues": np.sort(values.real)[::-1].tolist(),
        "gap": float(np.abs(values[first]) / np.min(np.abs(values))),
        "cos(v_1', w)": float(np.abs(w @ vectors[:, first].real)),
    }


PULLED_AWAY = Explicit(
    name="a gap of twenty",
    text="F = [[1, 0], [100, 1/2]], w = e_1, beta = 10: F' has the eigenvalues 11 and 1/2, and yet "
    "cos(v_1', w) = .104",
    shape=Shape(1, 2),
    case={
        "value": np.array([[1.0, 0.0], [100.0, 0.5]]),
        "target": np.array([1.0, 0.0]),
        "probe": np.array([1.0, 0.0]),
        "strength": np.array(10.0),
        "alpha": np.array(1.0),
    },
    numbers=_angle,
)


@numbered
def section_2_3() -> Statement:
    """Rank-one steering."""
    singular = Explicit(
        name="V of rank 3",
        text="two heads whose stacked V misses a direction: there is no O' with F' = F + c w u'",
        shape=Shape(3, 4, 2),
        case={
            "query": np.zeros((2, 2, 4)),
            "key": np.zeros((2, 2, 4)),
            "value_weights": np.diag([1.0, 1.0, 1.0, 0.0]).reshape(2, 2, 4),
            "output_weights": np.ones((2, 4, 2)),
            "target": np.eye(4)[3],
            "probe": np.eye(4)[3],
            "strength": np.array(10.0),
            "alpha": np.array(1.0),
            "x": np.eye(4)[:3],
        },
    )
    no_eigenvector = Explicit(
        name="w is no eigenvector",
        text="F = diag(1, 1/2, -1/2) with w = (.6, .8, 0): several eigenvalues move",
        shape=Shape(1, 3),
        case={
            "alpha": np.array(1.0),
            "value": np.diag([1.0, 0.5, -0.5]),
            "direction": np.array([1.0, 0.0, 0.0]),
            "eigenvalue": np.array(1.0),
            "target": np.array([0.6, 0.8, 0.0]),
            "probe": np.array([0.6, 0.8, 0.0]),
            "strength": np.array(1.0),
        },
    )
    weak = Explicit(
        name="a weak edit",
        text="F = diag(-20, 30, 0), w = e_1, c = 1: the principal direction stays e_2",
        shape=Shape(1, 3),
        case={
            "value": np.diag([-20.0, 30.0, 0.0]),
            "target": np.array([1.0, 0.0, 0.0]),
            "probe": np.array([1.0, 0.0, 0.0]),
            "strength": np.array(1.0),
            "alpha": np.array(1.0),
        },
    )
    steered = Clause(
        name="the edit",
        text="O' = O + c w u'V^(-1) makes F' = F + c w u' and moves token i by alpha c kappa_i w",
        hypotheses=Hypotheses((attention_heads(), hyp.tokens()), (Shape(3, 4, 2),)),
        conclusion=_edit,
        twin=Twin("V nonsingular", singular),
    )

    def moving(*, both: bool) -> Hypotheses:
        pieces = (hyp.moderate_step(), hyp.real_eigenvector(), edit_at_eigenvector(both=both))
        return Hypotheses(pieces, (Shape(1, 3),))

    plane = Hypotheses((gapped_plane(),), (Shape(1, 2),))
    return Statement(
        id="section-2.3",
        source=f"Sec. 2.3, {PAPER}",
        text="Steering by a rank-one change of the output weights.",
        paper=Form(
            text="as read: O' = O + beta lambda_1 w u'V^(-1), u = w by default, gives F' = F + beta"
            " lambda_1 w u'; if w and u are right and left eigenvectors of lambda_k only that one "
            "moves, by beta lambda_1; with a spectral gap of at least an order of magnitude the "
            "new principal direction w dominates.",
            expected="refuted",
            clauses=(
                Clause(
                    name="a gap of ten",
                    text="lambda_1' >= 10 |lambda_2'| and c >= 10 lambda: |cos(v_1', w)| > 1/2",
                    hypotheses=plane,
                    conclusion=_dominates,
                    explicit=(PULLED_AWAY,),
                ),
                steered,
                Clause(
                    name="eigenvalues",
                    text="w and u eigenvectors of lambda_k: spec F' = spec F, lambda_k moved",
                    hypotheses=moving(both=True),
                    conclusion=_moves_one_eigenvalue,
                ),
            ),
        ),
        corrected=Form(
            text="F' as in the paper. One eigenvector suffices: F w = lambda_k w moves lambda_k by "
            "c u'w and nothing else, for any u. The direction is governed by c against "
            "|(I - ww')Fw|, not by the gap: tan angle(v_1', w) = |(I - ww')Fw|/c + O(c^-2). Token i"
            " moves by c kappa_i w, kappa_i = u' sum_h P_h z_i^h, P_h = V^(-1) E_h V, sum_h P_h = "
            "I, so that c |kappa_i| must exceed |y_i|, and its sign is that of kappa_i.",
            expected="supported",
            clauses=(
                Clause(
                    name="angle in the plane",
                    text="tan angle(v_1', w) = |t|/(a + c - b) exactly",
                    hypotheses=plane,
                    conclusion=_exact_angle,
                    explicit=(PULLED_AWAY,),
                ),
                Clause(
                    name="angle",
                    text="c > 8|F|: |tan angle - |(I - ww')Fw|/c| <= 4|F|^2/c^2, and lambda_1' is "
                    "c + w'Fw up to 2|F|^2/c",
                    hypotheses=Hypotheses((strong_edit(),), (Shape(1, 3),)),
                    conclusion=_first_order_angle,
                    twin=Twin("c > 8|F|", weak),
                ),
                Clause(
                    name="eigenvalues",
                    text="F w = lambda_k w, u any: spec F' = spec F with lambda_k moved by c u'w",
                    hypotheses=moving(both=False),
                    conclusion=_moves_one_eigenvalue,
                    twin=Twin("F w = lambda w", no_eigenvector),
                ),
                steered,
            ),
        ),
    )

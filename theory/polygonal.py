"""Supplementary D.3: polygonal points, Lemma 15 with eq. (20), Remark 9; theory II.7."""

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian
from theory import hypotheses as hyp
from theory import instances, radius, witnesses
from theory import linearization as lin
from theory import witnesses_softmax as told
from theory.hypotheses import clusters, polygons
from theory.margin import Margin, equivalent, every, identity, inequality
from theory.self_attention import PAPER
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

_BALANCED = Hypotheses(
    (
        hyp.symmetric_matrix(),
        hyp.step("half norm"),
        hyp.query_key(),
        hyp.isotropic_pairs(),
        hyp.full_attention(),
    ),
    (Shape(2, 2), Shape(2, 3), Shape(4, 2)),
)


def pair_jacobian(shape: Shape, case: Case) -> jnp.ndarray:
    """Theory II.7: n/2 tokens at x and n/2 at −x with xᵀ B x = 0, s_i = ±1, b = Pi V x.

    J = I ⊗ (I + alpha b (Bx)ᵀ) + (alpha/n) 11ᵀ ⊗ Pi V Pi + (alpha/n) ssᵀ ⊗ b (Bᵀx)ᵀ, on x^⊥ for
    every token. On the differences within a half it is I + alpha b (Bx)ᵀ, on 1 ⊗ w it is
    I + alpha (Pi V Pi + b (Bx)ᵀ), and on s ⊗ w it is I + alpha b ((B + Bᵀ)x)ᵀ.
    """
    x, value, logits, n = case["x"], case["value"], case["query_key"], shape.n
    basis = sphere.tangent_basis(x[0])
    signs = jnp.sign(einsum("ia,a->i", x, x[0]))
    b = einsum("ae,ab,b->e", basis, value, x[0])
    down = einsum("ae,ab,b->e", basis, logits, x[0])
    up = einsum("ae,ba,b->e", basis, logits, x[0])
    own = einsum("ae,ab,bf->ef", basis, value, basis)
    token = jnp.eye(n)
    single = jnp.eye(shape.d - 1) + case["alpha"] * b[:, None] * down[None, :]
    share = case["alpha"] / n
    matrix = (
        einsum("ij,ef->iejf", token, single)
        + share * einsum("ij,ef->iejf", jnp.ones((n, n)), own)
        + share * einsum("i,j,e,f->iejf", signs, signs, b, up)
    )
    size = n * (shape.d - 1)
    return matrix.reshape(size, size)


def _agreement(shape: Shape, case: Case) -> tuple[Margin, jnp.ndarray, jnp.ndarray]:
    """The closed form is the autodiff Jacobian, entry by entry; the Jacobian; its conditioning."""
    system, x = instances.single_head(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    worst = lin.conditioning(system, x, case["query_key"])
    error = matrix - pair_jacobian(shape, case)
    return identity(error, scale=worst, size=x.size, conditioning=worst), matrix, worst


def _pair_entries(shape: Shape, case: Case) -> Margin:
    return _agreement(shape, case)[0]


def _pair_blocks(shape: Shape, case: Case) -> jnp.ndarray:
    """The three actions of ``pair_jacobian`` (two for n = 2) as one block-diagonal matrix."""
    x, value, logits = case["x"][0], case["value"], case["query_key"]
    basis = sphere.tangent_basis(x)
    b = einsum("ae,ab,b->e", basis, value, x)
    down = einsum("ae,ab,b->e", basis, logits, x)
    up = einsum("ae,ba,b->e", basis, logits, x)
    own = einsum("ae,ab,bf->ef", basis, value, basis)
    single = b[:, None] * down[None, :]
    actions = [own + single, single + b[:, None] * up[None, :]]
    actions += [single] if shape.n > 2 else []
    together = jax.scipy.linalg.block_diag(*actions)
    return jnp.eye(together.shape[0]) + case["alpha"] * together


def _pair_margin(shape: Shape, case: Case) -> tuple[Margin, Margin]:
    """That the pair is polygonal and fixed, and that its multipliers (II.7) are below 1."""
    system, x = instances.single_head(shape, case), case["x"]
    worst = lin.conditioning(system, x, case["query_key"])
    size = 1.0 + lin.frobenius(case["query_key"])
    means = einsum("ij,ja->ia", system.attention(x), x)
    polygonal = every(
        identity(means, scale=1.0, size=x.size, conditioning=size),
        identity(system(x) - x, scale=worst, size=x.size, conditioning=worst),
    )
    return polygonal, radius.stable(_pair_blocks(shape, case), conditioning=worst)


def _pair_unstable(shape: Shape, case: Case) -> Margin:
    """The paper: a multiplier above 1."""
    polygonal, stable = _pair_margin(shape, case)
    return every(polygonal, Margin(-stable.value, stable.tolerance))


def _pair_stable(shape: Shape, case: Case) -> Margin:
    return every(*_pair_margin(shape, case))


def _triangle(shape: Shape, case: Case) -> tuple[Margin, jnp.ndarray, jnp.ndarray]:
    """That the rotation in the plane is neutral; the Jacobian without it; its conditioning."""
    system, x = instances.single_head(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    rotation = told.rotation_coordinates(x)
    worst = lin.conditioning(system, x, case["query_key"])
    neutral = einsum("ab,b->a", matrix, rotation) - rotation
    kept = identity(neutral, scale=worst, size=x.size, conditioning=worst)
    return kept, radius.without(matrix, rotation), worst


def _triangle_unstable(shape: Shape, case: Case) -> Margin:
    """The paper: a multiplier above 1; that of the rotation is 1."""
    kept, matrix, worst = _triangle(shape, case)
    return every(kept, radius.unstable(matrix, conditioning=worst))


def _triangle_stable(shape: Shape, case: Case) -> Margin:
    kept, matrix, worst = _triangle(shape, case)
    return every(kept, radius.stable(matrix, conditioning=worst))


_TRIANGLES = Hypotheses(
    (polygons.isotropic_triangle(told.TRIANGLES, 0.01), hyp.full_attention()),
    (Shape(3, 3),),
)

_STABLE_PAIRS = Hypotheses(
    (polygons.asymptotically_stable_pair(), hyp.full_attention()), (Shape(2, 2), Shape(4, 2))
)


def _flipped_pair() -> Explicit:
    case = dict(witnesses.POLYGONAL.case)
    return Explicit(
        name="logits of the other sign",
        text="the stable pair with Q'K = [[0, 1], [1, 0]]: b (B_uw + B_wu) = 1 > 0",
        shape=Shape(2, 2),
        case=case | {"query_key": np.array([[0.0, 1.0], [-0.5, 0.0]])},
    )


@numbered
def lemma_15() -> Statement:
    """Are polygonal points unstable?"""
    pairs = tuple(told.stable_pairs(n) for n in (4, 10))
    triangles = (told.STABLE_TRIANGLE, told.STABLE_TRIANGLE_IN_FOUR)
    return Statement(
        id="lemma-15",
        source=f"Lemma 15, {PAPER}",
        text="Stability of the polygonal points of the softmax system, eq. (20).",
        paper=Form(
            text="as read: for alpha < 1/(2|V|) every polygonal equilibrium, sum_j a_ij x_j = 0 "
            "for all i, is unstable: (20), the Jacobian there, has a multiplier above 1.",
            expected="refuted",
            clauses=(
                Clause(
                    name="pairs",
                    text="n/2 tokens at u and n/2 at -u, u'Bu = 0, have a multiplier above 1",
                    hypotheses=_BALANCED,
                    conclusion=_pair_unstable,
                    explicit=(witnesses.POLYGONAL, *pairs),
                ),
                Clause(
                    name="triangles",
                    text="isotropic triangles have a multiplier above 1",
                    hypotheses=_TRIANGLES,
                    conclusion=_triangle_unstable,
                    explicit=triangles,
                    share=0.5,
                ),
            ),
        ),
        corrected=Form(
            text="Polygonal points can be asymptotically stable, robustly: for d = 2 a balanced "
            "pair is if V_ww + b B_wu < 0, b (B_uw + B_wu) < 0, b B_wu < 0 (n >= 4) and alpha is "
            "small, b = V_wu; isotropic triangles attract, up to their rotation, near the examples "
            "in d = 3 and d = 4.",
            expected="supported",
            clauses=(
                Clause(
                    name="stable pairs",
                    text="under these inequalities all multipliers are below 1",
                    hypotheses=_STABLE_PAIRS,
                    conclusion=_pair_stable,
                    explicit=(witnesses.POLYGONAL, *pairs),
                    twin=Twin("b (B_uw + B_wu) < 0", _flipped_pair()),
                ),
                Clause(
                    name="stable triangles",
                    text="around the examples all multipliers but the rotation's are below 1",
                    hypotheses=_TRIANGLES,
                    conclusion=_triangle_stable,
                    explicit=triangles,
                    share=0.5,
                ),
            ),
        ),
        covers=("equation-20",),
    )


_ROUNDED = 1e3


def _tangency(shape: Shape, case: Case) -> Margin:
    """w_i = c_i v_1 is tangent iff x_iᵀ v_1 = 0 for all i; else x + ε w leaves the sphere at once.

    d|x_i + ε w_i|/dε = c_i x_iᵀ v_1 at ε = 0, and Pi_i w_i is shorter: |c_i| (1 − (x_iᵀv_1)²)^½.
    """
    del shape
    x, v = case["x"], case["frame"][:, 0]
    along = einsum("ia,a->i", x, v)
    w = case["factors"][:, None] * v[None, :]
    leaving = jnp.sum(x * w, axis=1)
    length = sphere.norm(sphere.tangent_projection(x, w))
    shorter = length**2 - case["factors"] ** 2 * (1.0 - along**2)
    # Orthogonal to rounding, or by a hair of 1e-8 not: both take the same for zero.
    tangent = identity(leaving, scale=1.0, size=x.size, conditioning=_ROUNDED)
    return every(
        equivalent(tangent, identity(along, scale=1.0, size=x.size, conditioning=_ROUNDED)),
        identity(leaving - case["factors"] * along, scale=1.0, size=x.size),
        identity(shorter, scale=1.0, size=x.size),
    )


@numbered
def remark_9() -> Statement:
    """The perturbation that the proof of Lemma 15 tests."""
    clause = Clause(
        name="tangent",
        text="w_i = c_i v_1, c_i != 0, is tangent iff every x_i is orthogonal to v_1",
        hypotheses=Hypotheses(
            (hyp.symmetric_value(), hyp.step("norm"), clusters.orthogonal_or_not()),
            (Shape(2, 2), Shape(4, 3)),
        ),
        conclusion=_tangency,
        twin=Twin(
            "c != 0",
            Explicit(
                "no perturbation",
                "tokens at +-v_1 and c = 0: w = 0 is tangent wherever the tokens are",
                Shape(2, 2),
                witnesses.antipodal_pair() | {"factors": np.zeros(2)},
            ),
        ),
    )
    return Statement(
        id="remark-9",
        source=f"Remark 9, {PAPER}",
        text="Perturbations along v_1 at polygonal points.",
        paper=Form(
            text="as read: the perturbation along v_1 used for Lemma 15 belongs to the tangent "
            "space where the tokens are orthogonal to v_1.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="It does only there. Elsewhere its tangent part Pi_i w_i is shorter by the factor "
            "(1 - (x_i'v_1)^2)^(1/2) and is no test of stability along v_1.",
            expected="supported",
            clauses=(clause,),
        ),
    )


def _stable_iff(shape: Shape, case: Case) -> Margin:
    """d = 2: inside the unit circle iff the inequalities of II.7 hold, with no flip below −1."""
    worst = lin.conditioning(instances.single_head(shape, case), case["x"], case["query_key"])
    own, down, both = polygons.pair_rates(case)
    rates = jnp.stack([own + down, both] if shape.n == 2 else [own + down, both, down])
    room = jnp.min(jnp.minimum(-rates, 2.0 + rates))
    return every(
        equivalent(
            _pair_stable(shape, case),
            inequality(room / (1.0 + jnp.abs(room)), size=shape.n, conditioning=worst),
        ),
    )


@numbered
def ii_7() -> Statement:
    """Balanced pairs on the quadric."""
    not_isotropic = Explicit(
        name="a pair with u'Bu != 0",
        text="as the stable pair, but Q'K = [[1, -1], [-1, 0]]: no polygonal point",
        shape=Shape(2, 2),
        case=dict(witnesses.POLYGONAL.case) | {"query_key": np.array([[1.0, -1.0], [-1.0, 0.0]])},
    )
    return Statement(
        id="ii.7",
        source="Theory II.7",
        text="Multipliers of a balanced pair on the quadric x'Bx = 0.",
        paper=None,
        corrected=Form(
            text="With n/2 tokens at x, n/2 at -x, x'Bx = 0 and b = Pi V x, the multipliers are "
            "those of I + alpha b (Bx)' (n - 2 times), of I + alpha (Pi V Pi + b (Bx)') and of "
            "I + alpha b ((B + B')x)' on x^perp. Asymptotically stable for d = 2 iff V_22 + b B_21 "
            "< 0, b B_21 < 0 (n >= 4), b (B_12 + B_21) < 0 and none is below -2/alpha; for d >= 3 "
            "never, since the quadric is a continuum.",
            expected="supported",
            clauses=(
                Clause(
                    name="jacobian",
                    text="the closed form, with these three actions, is the Jacobian",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_matrix(),
                            hyp.step("none"),
                            hyp.query_key(),
                            hyp.isotropic_pairs(),
                            hyp.full_attention(),
                        ),
                        (Shape(4, 2), Shape(2, 3), Shape(4, 3)),
                    ),
                    conclusion=_pair_entries,
                    twin=Twin("x'Bx = 0", not_isotropic),
                ),
                Clause(
                    name="stable, exactly",
                    text="d = 2: stable iff the inequalities hold",
                    hypotheses=Hypotheses(_BALANCED.pieces, (Shape(2, 2), Shape(4, 2))),
                    conclusion=_stable_iff,
                    explicit=(witnesses.POLYGONAL, told.stable_pairs(10)),
                ),
            ),
        ),
    )

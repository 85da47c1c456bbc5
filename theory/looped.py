"""The second paper: the looped transformer, Theorems 4.1, 4.2, 4.3, 4.6 and 4.7."""

from typing import Any

import numpy as np

from theory import looped_conclusions as conclusions
from theory.hypotheses import looped as hyp
from theory.looped_blocks import saddle_clause, stationary_clause
from theory.statement import (
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Shape,
    Statement,
    Twin,
    numbered,
)

PAPER = "arXiv 2606.00605"

# Shape(n, d, r): r is the dimension of the leading eigenspace.
_LAW = (Shape(3, 2), Shape(4, 3))
_SPACES = (Shape(3, 3), Shape(5, 4, 2))


def _diagonal(name: str, text: str, values: Any, coefficients: Any, **more: Any) -> Explicit:
    """Data whose XXᵀ is diagonal: unit columns e_k, each as often as ``values`` say."""
    rows = np.repeat(np.eye(len(values)), np.asarray(values), axis=0)
    query = np.asarray(coefficients) / np.linalg.norm(coefficients)
    case = {
        "data": rows,
        "eigenvalues": np.asarray(values, float),
        "frame": np.eye(len(values)),
        "coefficients": query,
        "query": query,
    }
    case |= {key: np.asarray(value, float) for key, value in more.items()}
    return Explicit(name, text, Shape(len(rows), len(values)), case)


_INVARIANCE = Hypotheses((hyp.data(), hyp.point(0.1, 10.0), hyp.invariant_law()), _LAW)

_ONE_SIDED = _diagonal(
    "one value of the law",
    "X = (e_1, e_1, e_2), a = (3, 4)/5 with probability 1: no rotation of it ever comes",
    (2, 1),
    (3.0, 4.0),
    v=1.0,
    w=1.0,
    alpha=1.0,
    law=np.eye(8)[0],
)

_GROWTH = Hypotheses((hyp.data(), hyp.has_more_rank(), hyp.point(80.0, 160.0)), _SPACES)

_RANK_ONE = _diagonal(
    "one direction only",
    "all columns are e_1: the power method is exact after one step, L_inf = 0, and the loss falls "
    "as rho^(-2L), so that v and w grow as t^(1/(4L + 2))",
    (3, 0, 0),
    (1.0, 1.0, 1.0),
    v=30.0,
    w=30.0,
    alpha=900.0,
)

_LIMIT = Hypotheses((hyp.data(), hyp.has_more_rank(), hyp.point(0.5, 50.0)), _SPACES)

_SECOND_FIRST = _diagonal(
    "the second eigenspace",
    "X = (e_1, e_2, e_2, e_3) with e_1 taken for the leading eigenvector",
    (1, 2, 1),
    (1.0, 1.0, 1.0),
    v=10.0,
    w=10.0,
    alpha=100.0,
)


def _invariance() -> Clause:
    return Clause(
        name="invariance",
        text="at a point of the manifold the population gradient of the full V and W is tangent to "
        "it, and is (1/d) times that of the two-scalar dynamics",
        hypotheses=_INVARIANCE,
        conclusion=conclusions.invariance,
        twin=Twin("law invariant", _ONE_SIDED),
    )


def _growth() -> Clause:
    return Clause(
        name="growth",
        text="w_t, v_t grow with exponent 1/4 and the loss tends to L_inf > 0 with exponent -1/2, "
        "each within 0.03 (0.06 for the loss) over the last factor of four in t",
        hypotheses=_GROWTH,
        conclusion=conclusions.growth,
        twin=Twin("lam_(r+1) > 0", _RANK_ONE),
        long=True,
    )


@numbered
def theorem_4_1() -> Statement:
    """What gradient descent makes of V and W, with Norm."""
    return Statement(
        id="theorem-4.1",
        source=f"Theorem 4.1, {PAPER}",
        text="Gradient descent with Norm from the block-structured initialisation.",
        paper=Form(
            text="as read: for a law of X invariant under rotations, V and W stay on the manifold, "
            "w_t and v_t grow as (eta t)^(1/4), and the loss tends to that of L power steps, which "
            "is positive, as t^(-1/2). Read with lam_(r+1) > 0: without it L_inf = 0.",
            expected="supported",
            clauses=(_invariance(), _growth()),
        ),
        corrected=Form(
            text="The same, and for every rho > 0, not only in the limit, "
            "0 < L(rho) - L_inf <= 2 L |a_perp|^2 / (|a_Z|^2 (1 + rho lam_1)). Where X has rank r "
            "instead, v and w grow as t^(1/(4L + 2)) and L_inf = 0. SGD from that start moves two "
            "blocks alone, whatever the samples. But the manifold is no minimum of the full "
            "matrices: some have a smaller population loss than L_inf, found along two blocks that "
            "stay at zero from this start.",
            expected="supported",
            clauses=(
                _invariance(),
                _growth(),
                Clause(
                    name="limit",
                    text="at any rho the loss of the full model exceeds the power method's, by no "
                    "more than the bound",
                    hypotheses=_LIMIT,
                    conclusion=conclusions.limit_bound,
                    twin=Twin("lam_r > lam_(r+1)", _SECOND_FIRST),
                ),
                stationary_clause(),
                saddle_clause(),
            ),
        ),
    )


_ONE_LAYER = Hypotheses((hyp.data(turning=True), hyp.point(0.1, 2.0)), _LAW)

_ORTHONORMAL = _diagonal(
    "orthonormal columns",
    "X = I: XX'a = a for every a, and V = W = 0 is exact",
    (1, 1, 1),
    (1.0, 2.0, 2.0),
    v=1.0,
    w=1.0,
    alpha=1.0,
)


@numbered
def theorem_4_2() -> Statement:
    """One layer without Norm."""
    clause = Clause(
        name="positive loss",
        text="a uniform over signed permutations, targets XX'a and XX'a/|XX'a|: descent on (v, w) "
        "reaches the least loss on the manifold, at least E sin^2(a, XX'a) and so above 1e-6",
        hypotheses=_ONE_LAYER,
        conclusion=conclusions.positive_without_norm,
        twin=Twin("E sin^2(a, XX'a) > 1e-6", _ORTHONORMAL),
    )
    return Statement(
        id="theorem-4.2",
        source=f"Theorem 4.2, {PAPER}",
        text="One layer without Norm, supervised by one power step.",
        paper=Form(
            text="as read: the loss converges to a strictly positive value, whether the target is "
            "XX'a or XX'a/|XX'a|. Read with E sin^2(a, XX'a) > 0: not every a is an eigenvector.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="The loss is A gamma^2 - 2 B gamma + C in gamma = v w, with A = E|XX'a|^2, "
            "B = E a'XX'(target - a), C = E|target - a|^2; it converges to "
            "C - B^2/A >= E sin^2(a, XX'a). For orthonormal columns (n = d), whose law is "
            "invariant under rotations too, it is 0.",
            expected="supported",
            clauses=(clause,),
        ),
    )


_SMALL_LOSS = Hypotheses((hyp.data(), hyp.enough_rho()), _SPACES)

_SMALL_RHO = _diagonal(
    "small rho",
    "X = (e_1, e_1, e_2, e_3), rho = 0.1: the residual keeps the layer near a",
    (2, 1, 1),
    (1.0, 2.0, 2.0),
    epsilon=0.01,
    alpha=0.1,
)


@numbered
def theorem_4_3() -> Statement:
    """One layer with Norm."""
    clause = Clause(
        name="small loss",
        text="for every eps the loss against XX'a/|XX'a| is below eps once "
        "rho > 2/(sqrt(eps) |XX'a|)",
        hypotheses=_SMALL_LOSS,
        conclusion=conclusions.arbitrarily_small_with_norm,
        twin=Twin("rho > 2/(sqrt(eps)|XX'a|)", _SMALL_RHO),
    )
    return Statement(
        id="theorem-4.3",
        source=f"Theorem 4.3, {PAPER}",
        text="One layer with Norm, supervised by one normalised power step.",
        paper=Form(
            text="as read: with Norm the loss can be made arbitrarily small.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="The loss is at most 4/(rho |XX'a|)^2 at every rho > 0 with XX'a != 0. This is "
            "for the normalised target: a unit vector is never near an XX'a of another length.",
            expected="supported",
            clauses=(clause,),
        ),
    )


_REPEATED = Hypotheses((hyp.data(), hyp.any_gamma()), _SPACES)


@numbered
def theorem_4_6() -> Statement:
    """The trained layer without Norm, applied L times."""
    swapped = _diagonal(
        "the second eigenspace",
        "X = (e_1, e_2, e_2, e_3) with e_1 taken for the leading eigenvector",
        (1, 2, 1),
        (1.0, 1.0, 1.0),
        alpha=0.5,
    )
    clause = Clause(
        name="contraction",
        text="any gamma > 0: R > lam_(r+1)/lam_1, and tan phi_L lies between "
        "(|c_(r+1)|/|a_Z|) R^L and (|a_perp|/|a_Z|) R^L",
        hypotheses=_REPEATED,
        conclusion=conclusions.without_norm,
        twin=Twin("lam_r > lam_(r+1)", swapped),
    )
    return Statement(
        id="theorem-4.6",
        source=f"Theorem 4.6, {PAPER}",
        text="The angle to Z without Norm, loop after loop.",
        paper=Form(
            text="as read: with the finite gamma* of training, the angle contracts in the long run "
            "by R* = (1 + gamma* lam_(r+1))/(1 + gamma* lam_1) > lam_(r+1)/lam_1 a loop.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="The same. R* is the limit of the factors tan phi_(L+1)/tan phi_L from below: "
            "the factors of single loops are smaller as long as eigenvalues below lam_(r+1) still "
            "matter, so that R* is no lower bound for a finite number of loops.",
            expected="supported",
            clauses=(
                clause,
                Clause(
                    name="first loop",
                    text="any gamma > 0, eigenvalues below lam_(r+1): the first loop's factor is "
                    "below R",
                    hypotheses=_REPEATED,
                    conclusion=conclusions.first_loop,
                ),
            ),
        ),
    )


_FAR = Hypotheses((hyp.data(), hyp.far_point()), _SPACES)


@numbered
def theorem_4_7() -> Statement:
    """The trained layer with Norm, applied L times."""
    near = _diagonal(
        "rho = 0.01",
        "X = (e_1 four times, e_2, e_3): training has hardly begun, and three loops hardly turn a",
        (4, 1, 1),
        (2.0, 1.0, 2.0),
        alpha=0.01,
    )
    clause = Clause(
        name="two-sided bound",
        text="|c_(r+1)| q^L <= lim sin phi_L <= (|a_perp|/|a_Z|) q^L with q = lam_(r+1)/lam_1",
        hypotheses=_FAR,
        conclusion=conclusions.with_norm,
        twin=Twin("rho > 1e6", near),
    )
    return Statement(
        id="theorem-4.7",
        source=f"Theorem 4.7, {PAPER}",
        text="The angle to Z with Norm, loop after loop, for any data with unit columns.",
        paper=Form(
            text="as read: the factor tends to q = lam_(r+1)/lam_1, and "
            "|c_(r+1)| q^L <= lim sin phi_L <= (|a_perp|/|a_Z|) q^L as rho tends to infinity.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="The same; the lower bound holds at every rho > 0 and not only in the limit.",
            expected="supported",
            clauses=(clause,),
        ),
    )

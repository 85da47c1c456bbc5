"""Secs. 2.1 and 2.1.1: which direction attracts, and where bipartite points can be stable."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import Oja
from pmt.numerics import einsum
from pmt.stability import jacobian, spectrum
from theory import conclusions, instances, trajectories, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, equivalent, identity, inequality
from theory.noise import Noise
from theory.oja import PAPER
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    Twin,
    numbered,
)

_STEPS = 20_000


def _radius_of_two(matrix: Float[Array, "2 2"]) -> Array:
    """The larger modulus of an eigenvalue of a 2 × 2 matrix, from its trace and determinant."""
    trace = matrix[0, 0] + matrix[1, 1]
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    # trace² − 4 determinant without its cancellation, which small steps would not survive.
    square = (matrix[0, 0] - matrix[1, 1]) ** 2 + 4.0 * matrix[0, 1] * matrix[1, 0]
    real = (jnp.abs(trace) + jnp.sqrt(jnp.maximum(square, 0.0))) / 2.0
    return jnp.where(square < 0, jnp.sqrt(jnp.maximum(determinant, 0.0)), real)


def consensus_radius(shape: Shape, case: Case) -> tuple[Array, Array]:
    """Spectral radius of the autodiff Jacobian at x_1 = x_2 = v, d = 3, and how rounding grows.

    Two tokens with the same role: the Jacobian has the eigenspaces (w, w) and (w, −w), on which it
    is J_11 ± J_12, a 2 × 2 matrix across v.
    """
    v = case["direction"]
    system = Oja(value=case["value"], alpha=case["alpha"], mask=instances.mask_of(shape))
    x = jnp.broadcast_to(v, (2, 3))
    blocks = jacobian.extrinsic(system, x).reshape(2, 3, 2, 3)
    across = sphere.tangent_basis(v)

    def radius(sign: float) -> Array:
        block = blocks[0, :, 0] + sign * blocks[0, :, 1]
        return _radius_of_two(einsum("ae,ab,bf->ef", across, block, across))

    return jnp.maximum(radius(1.0), radius(-1.0)), lin.conditioning(system, x)


def _step_margin(case: Case) -> Array:
    """2 (λ_1 − Re λ_l) − alpha (|λ_l|² − λ_1²), relative: positive iff |1+αλ_l| < 1+αλ_1."""
    own, real, imaginary = case["triple"]
    square = real**2 + imaginary**2
    value = 2.0 * (own - real) - case["alpha"] * (square - own**2)
    size = jnp.abs(own) + jnp.sqrt(square)
    return value / (size * (2.0 + case["alpha"] * size))


def _attracts(shape: Shape, case: Case) -> Margin:
    radius, amplification = consensus_radius(shape, case)
    return lin.stable(radius, size=6, conditioning=amplification * _condition(case))


def _attracts_exactly(shape: Shape, case: Case) -> Margin:
    """Stable iff λ_1 > 0 and |1 + alpha λ_l| < 1 + alpha λ_1 for the other eigenvalues."""
    radius, amplification = consensus_radius(shape, case)
    amplification = amplification * _condition(case)
    own = case["triple"][0]
    positive = own * case["alpha"] / (1.0 + jnp.abs(own) * case["alpha"])
    return equivalent(
        lin.stable(radius, size=6, conditioning=amplification),
        inequality(jnp.minimum(_step_margin(case), positive), size=6, conditioning=amplification),
    )


def _condition(case: Case) -> Array:
    return 1.0 + lin.frobenius(case["value"]) / jnp.maximum(jnp.abs(case["triple"][2]), 1e-3)


def _one_real_and_a_pair(*, leading: bool) -> Piece:
    """F in R³ with a real eigenpair (λ_1, v) and a pair a ± ib: ``triple`` = (λ_1, a, b).

    F = S K S⁻¹ with a basis S that is not orthogonal. ``leading``: 0 < λ_1 and a < λ_1, so that
    λ_1 is strictly dominant by real part. Boundary: alpha within a hair of the exact bound, where
    there is one. Nearly degenerate: λ_1 next to a.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        own = noise.log_uniform(0.2, 2.0)
        below = noise.uniform(0.02, 2.0)
        below = jnp.where(kind == DEGENERATE, noise.hair(), below)
        if not leading:
            below = jnp.where(noise.coin(), below, -below)
        real = own - below
        imaginary = noise.log_uniform(0.1, 4.0)
        stretch = noise.log_uniform(0.6, 1.6)
        block = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) * own
        block = block.at[1, 1].set(real).at[2, 2].set(real)
        block = block.at[1, 2].set(-imaginary * stretch).at[2, 1].set(imaginary / stretch)
        frame = noise.orthogonal(shape.d)
        basis = frame + 0.2 * noise.normal(shape.d, shape.d)
        basis = basis / sphere.norm(basis.T)[None]
        value = einsum("ab,bc,cd->ad", basis, block, jnp.linalg.inv(basis))
        excess = real**2 + imaginary**2 - own**2
        limit = 2.0 * (own - real) / jnp.where(excess * below > 0, excess, 1.0)
        free = noise.log_uniform(0.03, 2.0)
        hair = noise.hair()
        near = limit * jnp.where(noise.coin(), 1.0 - hair, 1.0 + hair)
        bounded = (kind == BOUNDARY) & (excess * below > 0)
        alpha = jnp.where(bounded, near, jnp.where(kind == BOUNDARY, hair, free))
        return {
            "value": value,
            "direction": basis[:, 0],
            "triple": jnp.stack([own, real, imaginary]),
            "alpha": alpha,
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        own, real, _ = case["triple"]
        moved = einsum("ab,b->a", case["value"], case["direction"])
        size = lin.frobenius(case["value"])
        trace = jnp.trace(case["value"]) - own - 2.0 * real
        off = jnp.append(moved - own * case["direction"], trace)
        # The inverse of the basis magnifies rounding.
        exact = identity(off, scale=size, size=shape.d, conditioning=100.0).value
        found = {"eigenvalues": exact, "alpha > 0": case["alpha"] / (1.0 + case["alpha"])}
        found["near the step bound"] = jnp.abs(_step_margin(case))
        if leading:
            found["lambda_1 leads by real part"] = (own - real) / (own + jnp.abs(real))
            found["lambda_1 > 0"] = own / size
        return found

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.abs(case["triple"][0] - case["triple"][1])

    return Piece(draw, margins, degeneracy)


def _where_tokens_end(shape: Shape, case: Case) -> dict[str, Any]:
    """The bound on the step, the spectral radius, and |x_iᵀ v_1| after many steps."""
    own, real, imaginary = (float(value) for value in case["triple"])
    bound = 2.0 * (own - real) / (real**2 + imaginary**2 - own**2)
    steps = (0.05, 0.06, 0.07, 0.2, 1.0)

    @jax.jit
    def measured(alphas: Array, start: Array) -> tuple[Array, Array]:
        def run(alpha: Array) -> Array:
            final = trajectories.after(Oja(value=case["value"], alpha=alpha), start, _STEPS)
            return jnp.abs(einsum("id,d->i", final, case["direction"]))

        return consensus_radius(shape, case)[0], jax.vmap(run)(alphas)

    start = np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [0.8, 0.0, 0.6], [0.6, 0.0, -0.8]])
    radius, ends = measured(jnp.asarray(steps), jnp.asarray(start))
    found: dict[str, Any] = {"step bound": bound, "spectral radius": float(radius)}
    for alpha, along in zip(steps, np.asarray(ends), strict=True):
        key = f"min and max |x'v_1| after {_STEPS} steps, alpha = {alpha}"
        found[key] = [float(along.min()), float(along.max())]
    return found


def _rotor(alpha: float) -> dict[str, np.ndarray]:
    return {
        "value": np.array([[1.0, 0.0, 0.0], [0.0, 0.9, -2.0], [0.0, 2.0, 0.9]]),
        "direction": np.array([1.0, 0.0, 0.0]),
        "triple": np.array([1.0, 0.9, 2.0]),
        "alpha": np.array(alpha),
    }


ROTOR = Explicit(
    name="a pair of larger modulus",
    text="F = [[1, 0, 0], [0, .9, -2], [0, 2, .9]]: eigenvalues 1 and .9 +- 2i; v_1 attracts only "
    "for alpha < .2/3.81 = .0525, and at alpha = .06 tokens rotate in the plane",
    shape=Shape(2, 3),
    case=_rotor(0.06),
    numbers=_where_tokens_end,
)


@numbered
def section_2_1() -> Statement:
    """Which eigenvalue is the principal one."""
    below = Explicit(
        name="the same below the bound",
        text="as above with alpha = .05 < .0525: v_1 attracts",
        shape=Shape(2, 3),
        case=_rotor(0.05),
    )
    swapped = Explicit(
        name="each token attends only to the other",
        text="F with eigenvalues 1, -3 +- i/2, alpha = .01: the step is below the bound, but with "
        "the attention [[0, 1], [1, 0]] there is the multiplier 1.03/1.01",
        shape=Shape(2, 3, 1, "others"),
        case={
            "value": np.array([[1.0, 0.0, 0.0], [0.0, -3.0, -0.5], [0.0, 0.5, -3.0]]),
            "direction": np.array([1.0, 0.0, 0.0]),
            "triple": np.array([1.0, -3.0, 0.5]),
            "alpha": np.array(0.01),
        },
    )

    def points(*, leading: bool) -> Hypotheses:
        pieces = (_one_real_and_a_pair(leading=leading), hyp.full_attention())
        return Hypotheses(pieces, (Shape(2, 3),))

    return Statement(
        id="section-2.1",
        source=f"Secs. 2.1 and D.4.3, {PAPER}",
        text="The order of the eigenvalues, and which direction attracts.",
        paper=Form(
            text="as read: with Re lambda_1 > Re lambda_l for all l >= 2 and lambda_1 real (Case 1)"
            ", tokens converge to v_1, for any F with such a strictly dominant eigenvalue and any "
            "alpha. (By modulus the order contradicts ALBERT-large, |lambda_1| < |lambda_d|.)",
            expected="refuted",
            clauses=(
                Clause(
                    name="attracts",
                    text="v_1 consensus is locally asymptotically stable",
                    hypotheses=points(leading=True),
                    conclusion=_attracts,
                    explicit=(ROTOR,),
                ),
            ),
        ),
        corrected=Form(
            text="The skip connection selects argmax |1 + alpha lambda_l|: v_1 consensus, lambda_1 "
            "> 0 real and full attention, is locally asymptotically stable iff |1 + alpha lambda_l|"
            " < 1 + alpha lambda_1 for all l >= 2, that is alpha (|lambda_l|^2 - lambda_1^2) < "
            "2 (lambda_1 - Re lambda_l); for every alpha if |lambda_1| > |lambda_l|.",
            expected="supported",
            clauses=(
                Clause(
                    name="attracts",
                    text="stable iff the criterion holds",
                    hypotheses=points(leading=False),
                    conclusion=_attracts_exactly,
                    explicit=(ROTOR, below),
                    twin=Twin("full attention", swapped),
                ),
            ),
        ),
    )


# Logits at which the bipartite point is tried: theta = v'Bv from -16 to 16.
_THETAS = np.sinh(np.linspace(-3.5, 3.5, 71))


def best_logit(case: Case) -> Array:
    """max over θ of 1 − spectral radius at the bipartite point, by Lemma 14's closed form."""
    sizes = instances.group_sizes(case)

    def room(theta: Array) -> Array:
        found = spectrum.bipartite_multipliers(
            case["alpha"],
            instances.principal_eigenvalue(case),
            instances.other_eigenvalues(case),
            theta,
            *sizes,
        )
        crowded = jnp.stack(sizes) >= 2
        single = jnp.max(jnp.where(crowded, found.single, 0.0))
        return 1.0 - jnp.maximum(jnp.max(jnp.abs(found.pair)), single)

    return jnp.max(jax.vmap(room)(jnp.asarray(_THETAS)))


def _some_logit(shape: Shape, case: Case) -> Margin:
    return inequality(best_logit(case), size=shape.n * shape.d)


def _no_logit(shape: Shape, case: Case) -> Margin:
    return inequality(-best_logit(case), size=shape.n * shape.d)


def _ends_only(shape: Shape, case: Case) -> Margin:
    """Some θ makes it stable iff k = 1, or k = d with λ_d < −λ_1."""
    values, index = case["eigenvalues"], case["index"]
    size = instances.norm_of(case)
    last = -(values[0] + values[-1]) / size
    simple = (values[-2] - values[-1]) / size
    last = jnp.where(index == shape.d - 1, jnp.minimum(last, simple), -1.0)
    where = jnp.where(index == 0, (values[0] - values[1]) / size, last)
    return equivalent(_some_logit(shape, case), inequality(where, size=shape.d))


def _inner_eigenpair() -> Piece:
    """An eigenpair with 1 < k < d."""
    anywhere = hyp.eigenpair("any")

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        index = noise.integer(1, shape.d - 1)
        return {"index": index, "direction": case["frame"][:, index]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        inner = (case["index"] > 0) & (case["index"] < shape.d - 1)
        place = {"1 < k < d": jnp.where(inner, 1.0, -1.0)}
        return anywhere.margins(shape, case) | place

    return Piece(draw, margins)


def _tried(shape: Shape, case: Case) -> dict[str, Any]:
    del shape
    return {
        "smallest spectral radius": 1.0 - float(jax.jit(best_logit)(dict(case))),
        "theta from, to": [float(_THETAS[0]), float(_THETAS[-1])],
    }


INNER_PAIR = Explicit(
    name="an inner eigenvector",
    text="V = diag(1, 1/2, -3/10), alpha = 1/2, (2, 1) at v_2: unstable whatever theta is",
    shape=Shape(3, 3),
    case=witnesses.symmetric([1.0, 0.5, -0.3], 0.5, index=1, signs=witnesses.signs(2, 1)),
    numbers=_tried,
)


@numbered
def section_2_1_1() -> Statement:
    """Where bipartite points can be stable."""

    def points(*pieces: Piece) -> Hypotheses:
        return Hypotheses(
            (hyp.symmetric_value(), hyp.step("norm"), *pieces), (Shape(4, 4), Shape(3, 3))
        )

    first = Explicit(
        name="the first eigenvector",
        text="V = diag(1, 1/2, -3/10), alpha = 1/2, (2, 1) at v_1: stable for large theta",
        shape=Shape(3, 3),
        case=witnesses.symmetric([1.0, 0.5, -0.3], 0.5, signs=witnesses.signs(2, 1)),
    )
    attentive = points(_inner_eigenpair(), hyp.split_signs(), hyp.query_key(), hyp.full_attention())
    return Statement(
        id="section-2.1.1",
        source=f"Sec. 2.1.1, {PAPER}",
        text="Bipartite consensus points along the remaining eigenvectors.",
        paper=Form(
            text="as read: in the single-head case bipartite points could be locally asymptotically"
            " stable at the remaining eigenvectors v_2, ..., v_d: for some logits each is.",
            expected="refuted",
            clauses=(
                Clause(
                    name="some logits",
                    text="some theta = v_k'Bv_k makes the bipartite point at v_k stable",
                    hypotheses=points(_inner_eigenpair(), hyp.split_signs()),
                    conclusion=_some_logit,
                    explicit=(INNER_PAIR,),
                ),
            ),
        ),
        corrected=Form(
            text="For alpha < 1/|V| only at v_1, and at v_d if lambda_d < 0 with theta_d < 0 and "
            "lambda_d < -lambda_1 simple; at 1 < k < d never, whatever the logits (II.4).",
            expected="supported",
            clauses=(
                Clause(
                    name="no logits",
                    text="1 < k < d: no theta makes the bipartite point stable",
                    hypotheses=points(_inner_eigenpair(), hyp.split_signs()),
                    conclusion=_no_logit,
                    explicit=(INNER_PAIR,),
                    twin=Twin("1 < k < d", first),
                ),
                Clause(
                    name="the ends only",
                    text="some theta does iff k = 1, or k = d with lambda_d < -lambda_1 simple",
                    hypotheses=points(hyp.eigenpair("any"), hyp.split_signs()),
                    conclusion=_ends_only,
                    explicit=(INNER_PAIR,),
                ),
                Clause(
                    name="inner, by the Jacobian",
                    text="1 < k < d: the autodiff Jacobian has a multiplier above 1",
                    hypotheses=attentive,
                    conclusion=conclusions.bipartite_unstable,
                ),
            ),
        ),
    )

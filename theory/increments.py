"""The first-order law of the increments, II.8."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt import sphere
from pmt.dynamics import SingleHead
from pmt.numerics import einsum
from pmt.spectral.increments import law as law
from pmt.spectral.increments import mean_modulus, plane_law
from theory import hypotheses as hyp
from theory import instances
from theory import linearization as lin
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, every, identity, inequality
from theory.noise import Noise
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


def rule(v: Float[Array, " d"]) -> tuple[Float[Array, "m d"], Float[Array, " m"]]:
    """Unit vectors and weights that integrate |vᵀx| x xᵀ over the sphere exactly, d odd.

    x = c v + √(1 − c²) s: Gauss-Legendre in c ∈ (0, 1), whose density (1 − c²)^{(d−3)/2} is a
    polynomial for odd d, and ± an orthonormal basis of v^⊥ for s, exact for squares.
    """
    d = v.shape[0]
    nodes, weights = np.polynomial.legendre.leggauss(d + 2)
    c = (nodes + 1.0) / 2.0
    weights = weights * (1.0 - c**2) ** ((d - 3) / 2)
    weights = weights / weights.sum()
    across = sphere.tangent_basis(v).T
    across = jnp.concatenate([across, -across])
    points = jnp.asarray(c)[:, None, None] * v[None, None]
    points = points + jnp.sqrt(1.0 - jnp.asarray(c) ** 2)[:, None, None] * across[None]
    spread = jnp.asarray(np.repeat(weights / (2 * (d - 1)), 2 * (d - 1)))
    return points.reshape(-1, d), spread


def slope(system: Any, v: Float[Array, " d"], others: Float[Array, "m d"]) -> Float[Array, ""]:
    """d/dalpha E|vᵀx_1⁺| at 0 over the rule's x_1, the other tokens being ± ``others``.

    The two signs cancel what the others contribute at first order: their mean is zero.
    """
    points, weights = rule(v)

    def aligned(x: Float[Array, " d"]) -> Array:
        def modulus(alpha: Array) -> Array:
            total = jnp.zeros(())
            for sign in (1.0, -1.0):
                tokens = jnp.concatenate([x[None], sign * others])
                moved = sphere.normalize(tokens + alpha * system.update(tokens))
                total = total + jnp.abs(einsum("d,d->", moved[0], v)) / 2.0
            return total

        return jax.jvp(modulus, (jnp.zeros(()),), (jnp.ones(()),))[1]

    return jnp.sum(weights * jax.vmap(aligned)(points))


def _first_order(shape: Shape, case: Case) -> Margin:
    """The derivative of the map itself, averaged, is a_11 times the law."""
    system = SingleHead(
        value=case["value"],
        query_key=case["query_key"],
        alpha=case["alpha"],
        mask=instances.mask_of(shape),
    )
    v = case["direction"]
    found = slope(system, v, case["others"])
    share = 1.0 / shape.n
    expected = share * law(case["value"], v)
    size = lin.frobenius(case["value"])
    return identity(found - expected, scale=size, size=shape.n * shape.d**2)


def _sum_vanishes(shape: Shape, case: Case) -> Margin:
    """Over all eigendirections of a real spectrum the law sums to zero, whatever F."""
    del shape
    values = case["eigenvalues"]
    d = values.shape[0]
    terms = values - (jnp.sum(values) - values) / (d - 1)
    inverse = jnp.linalg.inv(case["basis"])
    matrix = einsum("ak,k,kb->ab", case["basis"], values, inverse)
    columns = case["basis"] / sphere.norm(case["basis"].T)[None]
    laws = jax.vmap(lambda v: law(matrix, v))(columns.T)
    condition = lin.frobenius(case["basis"]) * lin.frobenius(inverse)
    scale = jnp.max(jnp.abs(values)) * d
    excess = values[0] - jnp.sum(values) / d
    return every(
        identity(jnp.sum(laws), scale=scale, size=d**2, conditioning=condition),
        identity(laws - mean_modulus(d) * terms, scale=scale, size=d**2, conditioning=condition),
        inequality(jnp.sign(excess) * laws[0] / scale, size=d**2, conditioning=condition),
    )


def _in_plane(shape: Shape, case: Case) -> Margin:
    """The law of a plane, by the same rule: the length of the projection instead of |vᵀx|."""
    del shape
    matrix, basis = case["value"], case["plane"]
    d = basis.shape[0]
    # The density of r is r (1 − r²)^{(d−4)/2}, a polynomial for even d.
    nodes, weights = np.polynomial.legendre.leggauss(2 * d)
    r = (nodes + 1.0) / 2.0
    weights = weights * r * (1.0 - r**2) ** ((d - 4) / 2)
    share = jnp.asarray(weights / weights.sum())
    outside = jnp.linalg.qr(basis, mode="complete")[0][:, 2:]
    inner = jnp.concatenate([basis, -basis], axis=1).T
    outer = jnp.concatenate([outside, -outside], axis=1).T

    def length(x: Array) -> Array:
        return jax.jvp(
            lambda alpha: sphere.norm(
                einsum("ap,a->p", basis, sphere.normalize(x + alpha * einsum("ab,b->a", matrix, x)))
            ),
            (jnp.zeros(()),),
            (jnp.ones(()),),
        )[1]

    radii = jnp.asarray(r)
    points = radii[:, None, None, None] * inner[None, :, None]
    points = points + jnp.sqrt(1.0 - radii**2)[:, None, None, None] * outer[None, None]
    found = jax.vmap(length)(points.reshape(-1, d)).reshape(len(r), -1)
    average = jnp.sum(share * jnp.mean(found, axis=1))
    expected = plane_law(matrix, basis)
    return identity(average - expected, scale=lin.frobenius(matrix), size=d**2)


def _loose_tokens() -> Piece:
    """The n − 1 other tokens."""
    return Piece(
        lambda noise, _kind, shape, _case: {"others": noise.unit(shape.n - 1, shape.d)},
    )


def real_spectrum() -> Piece:
    """F = S diag(λ) S⁻¹ with real λ and a basis S that is not orthogonal.

    Boundary: λ_1 next to the mean tr F/d; nearly degenerate: two equal eigenvalues.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        d = shape.d
        values = noise.normal(d)
        rest = jnp.sum(values[1:]) / (d - 1)
        near = rest + noise.hair()
        values = values.at[0].set(jnp.where(kind == BOUNDARY, near, values[0]))
        values = values.at[-1].set(jnp.where(kind == DEGENERATE, values[-2], values[-1]))
        basis = noise.orthogonal(d) + 0.3 * noise.normal(d, d) / np.sqrt(d)
        return {"eigenvalues": values, "basis": basis}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        singular = jnp.linalg.svd(case["basis"], compute_uv=False)
        excess = case["eigenvalues"][0] - jnp.mean(case["eigenvalues"])
        return {
            "eigenvectors independent": singular[-1] / singular[0],
            "lambda_1 != tr F/d": jnp.abs(excess),
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        ordered = jnp.sort(case["eigenvalues"])
        return jnp.min(ordered[1:] - ordered[:-1])

    return Piece(draw, margins, degeneracy)


def _invariant_plane() -> Piece:
    """F with an invariant plane on which it is Re λ I + Im λ times a similar rotation.

    ``plane`` has orthonormal columns and F plane = plane K, K real with complex eigenvalues.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(shape.d)
        plane = frame[:, :2]
        matrix = noise.normal(shape.d, shape.d)
        # λ = a ± ib in a basis that is not orthogonal: K = [[a, b t], [−b / t, a]].
        a, b = noise.normal(2)
        b = jnp.where(kind == BOUNDARY, noise.hair(), b)
        stretch = jnp.where(kind == DEGENERATE, 1.0 + noise.hair(), noise.log_uniform(0.3, 3.0))
        block = jnp.stack([jnp.stack([a, b * stretch]), jnp.stack([-b / stretch, a])])
        wanted = einsum("ap,pq->aq", plane, block)
        matrix = matrix + einsum("aq,bq->ab", wanted - einsum("ab,bq->aq", matrix, plane), plane)
        return {"value": matrix, "plane": plane, "stretch": stretch, "imaginary": jnp.abs(b)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        plane = case["plane"]
        moved = einsum("ab,bq->aq", case["value"], plane)
        block = einsum("ap,aq->pq", plane, moved)
        off = moved - einsum("ap,pq->aq", plane, block)
        size = lin.frobenius(case["value"])
        return {
            "plane invariant": identity(off, scale=size, size=shape.d).value,
            "eigenvalues not real": case["imaginary"],
        }

    return Piece(draw, margins, lambda _shape, case: jnp.abs(case["stretch"] - 1.0))


@numbered
def ii_8() -> Statement:
    """The first-order law of the increments."""
    line = Hypotheses(
        (
            hyp.moderate_step(),
            hyp.real_eigenvector(),
            _loose_tokens(),
            hyp.uniform_attention(),
            hyp.full_attention(),
        ),
        (Shape(2, 5), Shape(3, 3)),
    )
    attentive = Explicit(
        name="attention that sees the tokens",
        text="F = diag(1, -1/2, -1/4), Q'K = 3 e_1 e_1': the weight a_11 depends on x_1",
        shape=Shape(3, 3),
        case={
            "alpha": np.array(0.25),
            "value": np.diag([1.0, -0.5, -0.25]),
            "direction": np.array([1.0, 0.0, 0.0]),
            "eigenvalue": np.array(1.0),
            "query_key": np.diag([3.0, 0.0, 0.0]),
            "others": np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]]),
        },
    )
    return Statement(
        id="ii.8",
        source="theory II.8",
        text="First-order law of the increments under attention that ignores the tokens.",
        paper=None,
        corrected=Form(
            text="For isotropic independent tokens, attention weights that do not depend on them, "
            "and a unit right eigenvector v of any real F: d/dalpha E|v'x+| at 0 = E[a_ii] kappa_d "
            "(lambda_k - (tr F - lambda_k)/(d - 1)), kappa_d = E|c| (d - 1)/(d + 1); for a complex "
            "pair Re lambda - (tr F - 2 Re lambda)/(d - 2), times E r (d - 2)/(d + 1). It fails "
            "for softmax weights with Q'K != 0.",
            expected="supported",
            clauses=(
                Clause(
                    name="line",
                    text="the derivative of the map, averaged by an exact rule over the sphere",
                    hypotheses=line,
                    conclusion=_first_order,
                    twin=Twin("uniform attention", attentive),
                ),
                Clause(
                    name="plane",
                    text="the same for the invariant plane of a complex pair, n = 1",
                    hypotheses=Hypotheses(
                        (hyp.moderate_step(), _invariant_plane()), (Shape(1, 4),)
                    ),
                    conclusion=_in_plane,
                ),
                Clause(
                    name="sum over directions",
                    text="with a real spectrum the law sums to zero over all eigendirections, and "
                    "it is positive for v_1 iff lambda_1 > tr F/d",
                    hypotheses=Hypotheses(
                        (hyp.moderate_step(), real_spectrum()), (Shape(1, 3), Shape(1, 5))
                    ),
                    conclusion=_sum_vanishes,
                ),
            ),
        ),
    )

"""The first-order law of the increments, theory.md II.8: what any matrix shows, trained or not.

For independent tokens uniform on the sphere, and attention weights a_ij that do not depend on them,
only x_i itself moves E rho(x_i) at first order in alpha. So for a unit v and any real F

    d/dalpha E|vᵀx_i⁺| = a_ii κ_d (vᵀF v − (tr F − vᵀF v)/(d − 1))   at alpha = 0,

κ_d = E|c|(1 − c²), c a coordinate of a uniform unit vector. Where F v = λ v it is positive if and
only if λ > tr F/d. It is linear in F: heads with weights and matrices of their own add up, and
biases of values and outputs drop out, since −x is as likely as x. With softmax weights that depend
on the tokens it fails.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt.numerics import einsum
from pmt.spectral.alignment import chance


def mean_modulus(d: int) -> float:
    """κ_d = E|c|(1 − c²) = E|c| (d − 1)/(d + 1), c a coordinate of a uniform unit vector."""
    return chance(d) * (d - 1) / (d + 1)


def law(matrix: Float[Array, "d d"], v: Float[Array, " d"]) -> Float[Array, ""]:
    """κ_d (vᵀF v − (tr F − vᵀF v)/(d − 1)): II.8 for a unit ``v``, without the factor a_ii.

    d is at least 2; in one dimension rho is always 1.
    """
    d = v.shape[0]
    own = einsum("a,ab,b->", v, matrix, v)
    return mean_modulus(d) * (own - (jnp.trace(matrix) - own) / (d - 1))


def plane_law(matrix: Float[Array, "d d"], basis: Float[Array, "d 2"]) -> Float[Array, ""]:
    """Re λ − (tr F − 2 Re λ)/(d − 2), times E r(1 − r²), r the length in the plane of the pair.

    E r(1 − r²) = (d − 2)/(d + 1) E r, E r the chance level of a plane. 2 Re λ is the trace of F in
    the orthonormal ``basis``. d is at least 3; in two dimensions rho with the plane is always 1.
    """
    d = basis.shape[0]
    inside = einsum("ap,ab,bp->", basis, matrix, basis)
    factor = chance(d, 2) * (d - 2) / (d + 1)
    return factor * (inside / 2.0 - (jnp.trace(matrix) - inside) / (d - 2))

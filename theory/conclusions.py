"""Conclusions that more than one statement draws, each a margin of one instance.

A statement about a signed consensus point takes the softmax system (``single_head``), of which the
Oja system is the case B = 0; where the map itself matters the function says which it takes.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import jacobian, spectrum
from theory import instances
from theory import linearization as lin
from theory.margin import Margin, equivalent, every, identity, inequality
from theory.statement import Case, Shape


def paper_jacobian(system: Any, case: Case) -> Margin:
    """The paper's Jacobian acts on tangent vectors as the map's, and is that of its extension."""
    x, w = case["x"], case["w"]
    formula = lin.alternative_jacobian(system, x)
    extended = jacobian.extrinsic(lin.alternative_extension(system), x)
    # The series takes |y|² as a sum that cancels, so its relative error is the square.
    amplification = lin.conditioning(system, x, case["query_key"]) ** 2
    scale = 1.0 + jnp.max(jnp.abs(formula))
    tangent = lin.applied(formula, w) - lin.directional(system, x, w)
    return every(
        identity(tangent, scale=scale, size=x.size, conditioning=amplification),
        identity(formula - extended, scale=scale, size=x.size, conditioning=amplification),
    )


def exact_jacobian(system: Any, formula: Float[Array, "nd nd"], case: Case) -> Margin:
    """``formula`` is the autodiff Jacobian, entry by entry."""
    x = case["x"]
    amplification = lin.conditioning(system, x, case["query_key"])
    error = formula - jacobian.extrinsic(system, x)
    return identity(error, scale=amplification, size=x.size, conditioning=amplification)


def signed_jacobian(system: Any, formula: Float[Array, "nd nd"], case: Case) -> Margin:
    """``formula`` is the autodiff Jacobian at x_i = s_i v."""
    x = instances.signed_state(case)
    amplification = lin.conditioning(system, x, _logit_matrix(case))
    error = formula - jacobian.extrinsic(system, x)
    return identity(error, scale=amplification, size=x.size, conditioning=amplification)


def _logit_matrix(case: Case) -> Any:
    return case["query_keys"] if "query_keys" in case else case.get("query_key", 0.0)


def is_fixed(system: Any, case: Case) -> Margin:
    """f(x) = x at x_i = s_i v: f(x)_i is parallel to x_i and on its side."""
    x = instances.signed_state(case)
    moved = system(x)
    amplification = lin.conditioning(system, x, _logit_matrix(case))
    across = sphere.tangent_projection(x, moved)
    return every(
        inequality(jnp.min(jnp.sum(x * moved, axis=-1)), size=x.size, conditioning=amplification),
        identity(across, scale=1.0, size=x.size, conditioning=amplification),
    )


def fixed_or_cycle(system: Any, case: Case) -> Margin:
    """At consensus f(x) = x iff 1 + alpha λ_k > 0; otherwise f(x) = −x and f(f(x)) = x."""
    x = instances.signed_state(case)
    moved = system(x)
    factor = 1.0 + case["alpha"] * instances.principal_eigenvalue(case)
    size = 1.0 + case["alpha"] * instances.norm_of(case)
    amplification = lin.conditioning(system, x, _logit_matrix(case))
    cosine = jnp.min(jnp.sum(x * moved, axis=-1))
    back = system(moved) - x
    return every(
        equivalent(
            inequality(cosine, size=x.size, conditioning=amplification),
            inequality(factor / size, size=x.size),
        ),
        identity(
            sphere.tangent_projection(x, moved),
            scale=amplification,
            size=x.size,
            conditioning=amplification,
        ),
        identity(back, scale=amplification, size=x.size, conditioning=amplification),
    )


def consensus_classes(shape: Shape, case: Case) -> Float[Array, " m"]:
    """Classes 2 and 3 of Lemma 3 at x_i = v_k, with multiplicities: the closed form."""
    mu = instances.attention_eigenvalues(shape)
    return spectrum.consensus_multipliers(
        case["alpha"],
        instances.principal_eigenvalue(case),
        instances.other_eigenvalues(case),
        mu,
    ).reshape(-1)


def consensus_spectrum(system: Any, shape: Shape, case: Case) -> Margin:
    """The intrinsic autodiff Jacobian at consensus has the closed form's eigenvalues.

    For full attention and symmetric V the Jacobian is symmetric.
    """
    x = instances.signed_state(case)
    return lin.spectrum_identity(
        jacobian.intrinsic(system, x),
        consensus_classes(shape, case),
        conditioning=lin.conditioning(system, x, _logit_matrix(case)),
    )


def consensus_stability(system: Any, shape: Shape, case: Case, *, stable: bool) -> Margin:
    """All multipliers at x_i = v_k inside the unit circle, or one outside; as the closed form says.

    The autodiff Jacobian decides; the closed form must name the same spectral radius.
    """
    x = instances.signed_state(case)
    amplification = lin.conditioning(system, x, _logit_matrix(case))
    matrix = jacobian.intrinsic(system, x)
    if shape.mask in ("causal", "window"):
        matrix, defect = lin.triangular_blocks(matrix, shape.n)
    else:
        matrix, defect = matrix[None], matrix - matrix.T
    radius = lin.symmetric_radius(matrix)
    closed = jnp.max(jnp.abs(consensus_classes(shape, case)))
    claim = lin.stable if stable else lin.unstable
    return every(
        identity(defect, scale=amplification, size=x.size, conditioning=amplification),
        identity(radius - closed, scale=amplification, size=x.size, conditioning=amplification),
        claim(radius, size=x.size, conditioning=amplification),
    )


def principal_stable(shape: Shape, case: Case) -> Margin:
    """v_1 consensus is locally asymptotically stable."""
    return consensus_stability(instances.single_head(shape, case), shape, case, stable=True)


def others_unstable_equilibria(shape: Shape, case: Case) -> Margin:
    """v_k consensus, k >= 2, is an equilibrium, and unstable (the paper)."""
    system = instances.single_head(shape, case)
    return every(is_fixed(system, case), consensus_stability(system, shape, case, stable=False))


def others_unstable(shape: Shape, case: Case) -> Margin:
    """v_k, k >= 2, is an unstable equilibrium or, where 1 + alpha λ_k < 0, an unstable 2-cycle."""
    system = instances.single_head(shape, case)
    return every(
        fixed_or_cycle(system, case), consensus_stability(system, shape, case, stable=False)
    )


def bipartite_classes(case: Case) -> spectrum.BipartiteSpectrum:
    """Lemma 14's closed form at the instance's bipartite point."""
    return spectrum.bipartite_multipliers(
        case["alpha"],
        instances.principal_eigenvalue(case),
        instances.other_eigenvalues(case),
        instances.theta_of(case),
        *instances.group_sizes(case),
    )


def bipartite_table(case: Case) -> Float[Array, " m"]:
    """The multipliers of ``bipartite_classes`` with their multiplicities, n(d − 1) of them."""
    classes = bipartite_classes(case)
    positive = case["signs"] > 0
    own = jnp.where(positive, classes.single[0], classes.single[1])
    table = jnp.broadcast_to(own[:, None], (positive.shape[0], classes.pair.shape[0]))
    # One token of each group stands for the pair, the others for the third class.
    table = table.at[jnp.argmax(positive)].set(classes.pair[:, 0])
    return table.at[jnp.argmin(positive)].set(classes.pair[:, 1]).reshape(-1)


def bipartite_jacobian(system: Any, case: Case) -> tuple[Float[Array, "m m"], Array]:
    """The symmetrized intrinsic Jacobian at x_i = s_i v, and how it magnifies rounding.

    The weights (|y_i| Σ_j e^{θ s_i s_j})^½ are measured on the map, not taken from a closed form.
    """
    x = instances.signed_state(case)
    logits = einsum("id,de,je->ij", x, case["query_key"], x)
    mass = jnp.sum(jnp.exp(logits - jnp.max(logits)), axis=-1)
    weights = jnp.sqrt(sphere.norm(system.unnormalized(x)) * mass)
    amplification = lin.conditioning(system, x, case["query_key"])
    amplification = amplification * jnp.max(weights) / jnp.min(weights)
    return lin.symmetrized(system, x, weights), amplification


def bipartite_radius(shape: Shape, case: Case) -> tuple[Array, Margin, Array]:
    """Spectral radius of the autodiff Jacobian at the bipartite point, the margin of the closed
    form's agreement with it, and how rounding is magnified.
    """
    matrix, amplification = bipartite_jacobian(instances.single_head(shape, case), case)
    radius = lin.symmetric_radius(matrix)
    closed = jnp.max(jnp.abs(bipartite_table(case)))
    size = matrix.shape[0]
    asymmetry = matrix - matrix.T
    return (
        radius,
        every(
            identity(asymmetry, scale=amplification, size=size, conditioning=amplification),
            identity(radius - closed, scale=amplification, size=size, conditioning=amplification),
        ),
        amplification,
    )


def bipartite_stable(shape: Shape, case: Case) -> Margin:
    """All multipliers at the bipartite point inside the unit circle."""
    radius, agreement, amplification = bipartite_radius(shape, case)
    return every(agreement, lin.stable(radius, size=shape.n * shape.d, conditioning=amplification))


def bipartite_unstable(shape: Shape, case: Case) -> Margin:
    """A multiplier outside the unit circle at the bipartite point."""
    radius, agreement, amplification = bipartite_radius(shape, case)
    return every(
        agreement, lin.unstable(radius, size=shape.n * shape.d, conditioning=amplification)
    )

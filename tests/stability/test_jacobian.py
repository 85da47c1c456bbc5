"""Closed-form Jacobians against autodiff, 1,000 random instances of every kind, entrywise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.dynamics import MultiHead, Oja
from pmt.errors import RequestError
from pmt.stability import jacobian
from tests.dynamics.conftest import make
from tests.stability.instances import (
    MASKS,
    D,
    N,
    at_consensus,
    campaign,
    drawn,
    drawn_heads,
    one,
)
from tests.tolerance import assert_close

INSTANCES = 1000


def disagreement(closed, automatic):
    return jnp.max(jnp.abs(closed - automatic)) / jnp.max(jnp.abs(automatic))


def of_signed_consensus(system, v, signs):
    x = signs[:, None] * v[None, :]
    return disagreement(jacobian.signed_consensus(system, v, signs), jacobian.extrinsic(system, x))


def of_any_state(system, v, signs):
    """A state that has nothing to do with the equilibrium, different for every case."""
    angles = jnp.arange(1.0, N * D + 1).reshape(N, D) * (1.0 + v[None, :])
    x = sphere.normalize(jnp.sin(7.0 * angles) + signs[:, None])
    return disagreement(jacobian.extrinsic_formula(system, x), jacobian.extrinsic(system, x))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["oja", "single"])
def test_signed_consensus_equals_autodiff(kind, mask):
    """Lemmas 3, 11, 12 and II.6: both systems, all masks, symmetric and not."""
    cases = [drawn(symmetric, INSTANCES) for symmetric in (True, False)]
    batches = cases + [at_consensus(batch) for batch in cases]
    for errors in campaign(of_signed_consensus, kind, MASKS[mask], *batches):
        assert errors.shape == (INSTANCES,)
        assert float(errors.max()) < 1e-12


@pytest.mark.parametrize("mask", ["full", "causal", "boolean"])
def test_several_heads_equal_autodiff(mask):
    """At consensus any heads; at other signs heads that share the eigenvector."""
    batches = (drawn_heads(True, INSTANCES), at_consensus(drawn_heads(False, INSTANCES)))
    for errors in campaign(of_signed_consensus, "multi", MASKS[mask], *batches):
        assert float(errors.max()) < 1e-12


def test_negative_twin_heads_without_a_common_eigenvector_differ():
    (errors,) = campaign(of_signed_consensus, "multi", "full", drawn_heads(False, INSTANCES))
    assert float(jnp.median(errors)) > 1e-3


def test_masks_per_head_at_consensus():
    """II.6: (1/|q|)(I + alpha Σ_h A_h ⊗ Π F_h Π) with a mask for each head."""
    masks = np.stack([np.tril(np.ones((N, N), bool)), np.ones((N, N), bool)])
    cases = at_consensus(drawn_heads(False, INSTANCES))
    (errors,) = campaign(of_signed_consensus, "multi", masks, cases)
    assert float(errors.max()) < 1e-12


@pytest.mark.parametrize(
    ("kind", "mask"),
    [("oja", "full"), ("oja", "window"), *[("single", m) for m in MASKS], ("multi", "causal")],
)
def test_formula_for_any_state_equals_autodiff(kind, mask):
    """Lemmas 2 and 10, eqs. (11), (15)-(17)."""
    cases = drawn_heads(False, INSTANCES) if kind == "multi" else drawn(False, INSTANCES)
    (errors,) = campaign(of_any_state, kind, MASKS[mask], cases)
    assert float(errors.max()) < 1e-12


@pytest.mark.parametrize("strength", [0.5, -2.0])
def test_intrinsic_is_the_restriction_at_fixed_points_and_cycles(strength):
    """alpha λ = 1/2 makes the point an equilibrium, −2 half of a 2-cycle."""

    def compare(system, v, signs):
        x = signs[:, None] * v[None, :]
        value = jnp.einsum("a,ab,b->", v, system.layer_matrix, v)
        moved = Oja(system.value, alpha=strength / value)
        dense = jacobian.intrinsic(moved, x)
        return disagreement(jacobian.restrict(jacobian.extrinsic(moved, x), x), dense)

    (errors,) = campaign(compare, "oja", "full", at_consensus(drawn(True, INSTANCES)))
    # Instances with a tiny λ get a huge alpha; the error is relative to the largest entry.
    assert float(errors.max()) < 1e-11


def test_intrinsic_maps_tangent_to_tangent_along_the_flow():
    """At a moving state: finite differences of the map, in the bases at x and at f(x)."""
    system, x = make("single", "full").system, sphere.uniform(jax.random.key(0), (6, 4))
    basis = sphere.tangent_basis(x)
    image = sphere.transport(x, system(x), basis)
    dense, h = np.asarray(jacobian.intrinsic(system, x)), 1e-6
    for column in (0, 7, 17):
        xi = jnp.zeros(18).at[column].set(h).reshape(6, 3)
        ahead = system(sphere.retract(x, jnp.einsum("nde,ne->nd", basis, xi)))
        behind = system(sphere.retract(x, -jnp.einsum("nde,ne->nd", basis, xi)))
        slope = jnp.einsum("nde,nd->ne", image, (ahead - behind) / (2 * h)).reshape(-1)
        np.testing.assert_allclose(dense[:, column], slope, atol=1e-8)


def test_one_dimension_has_no_tangent_space():
    """Fault 66."""
    system = make("oja", "full").system
    line = type(system)(jnp.array([[0.5]]), alpha=0.3)
    assert jacobian.intrinsic(line, jnp.ones((3, 1))).shape == (0, 0)


def test_biases_are_refused_by_the_closed_forms_only():
    system = make("biased", "full").system
    assert isinstance(system, MultiHead)
    x = sphere.uniform(jax.random.key(0), (6, 4))
    assert jacobian.extrinsic(system, x).shape == (24, 24)
    with pytest.raises(RequestError, match="maps without biases"):
        jacobian.extrinsic_formula(system, x)
    with pytest.raises(RequestError, match="maps without biases"):
        jacobian.signed_consensus(system, x[0], jnp.ones(6))


@pytest.mark.float32
def test_single_precision_agrees_with_itself():
    system, v, signs = one("single", "full")
    x = signs[:, None] * v[None, :]
    closed = jacobian.signed_consensus(system, v, signs)
    assert_close(closed, jacobian.extrinsic(system, x), size=N * D)

"""The sphere: defining properties, safe gradients, degenerate sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.errors import RequestError
from tests.tolerance import assert_close


def draw(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.float32
def test_normalized_vectors_are_parallel_and_unit():
    y = draw((50, 7)) * 10.0 ** draw((50, 1), 1)
    x = sphere.normalize(y)
    assert_close(jnp.sum(x * x, -1), jnp.ones(50, x.dtype), size=7)
    assert_close(x * sphere.norm(y)[:, None], y, size=7, entrywise=True)


@pytest.mark.float32
def test_norm_survives_extreme_scales():
    """Fault 56 and overflow: |y|² is out of range, |y| is not."""
    big, small = jnp.finfo(jnp.result_type(float)).max, jnp.finfo(jnp.result_type(float)).tiny
    for scale in (big / 4, small * 4):
        y = scale * jnp.array([3.0, 4.0, 0.0]) / 4
        assert_close(sphere.normalize(y), jnp.array([0.6, 0.8, 0.0], y.dtype))
        assert_close(sphere.norm(y) / scale, jnp.array(1.25, y.dtype))


@pytest.mark.float32
@pytest.mark.parametrize("part", [0.24, 0.26, 0.7, 1.0])
def test_what_has_a_subnormal_reciprocal_is_normalized_too(part):
    """Above a quarter of the largest number 1 / y is subnormal, and devices take it for zero."""
    largest = jnp.finfo(jnp.result_type(float)).max * part
    y = largest * jnp.array([0.6, -1.0, 1e-3])
    unit = np.array([0.6, -1.0, 1e-3]) / np.linalg.norm([0.6, -1.0, 1e-3])
    assert_close(jax.jit(sphere.normalize)(y), unit.astype(y.dtype), entrywise=True)
    assert_close(jax.grad(sphere.norm)(y), unit.astype(y.dtype), entrywise=True)
    length = float(largest) / 2 * np.linalg.norm([0.6, -1.0, 1e-3])
    assert_close(sphere.norm(y / 2), np.asarray(length, y.dtype))


@pytest.mark.float32
def test_an_infinite_vector_is_not_normalized():
    y = jnp.array([jnp.inf, 1.0])
    assert not np.isfinite(np.asarray(sphere.normalize(y))).all()
    assert sphere.norm(y) == jnp.inf


def test_subnormal_vector_counts_as_zero():
    """Fault 56: devices flush subnormals; a direction read off them would depend on the device."""
    y = jnp.array([5e-324, 1e-310, 0.0])
    np.testing.assert_array_equal(sphere.normalize(y), np.zeros(3))


@pytest.mark.float32
def test_gradient_of_norm_and_normalize_at_zero_is_zero():
    """Fault 49."""
    zero = jnp.zeros(4)
    np.testing.assert_array_equal(jax.grad(sphere.norm)(zero), np.zeros(4))
    np.testing.assert_array_equal(jax.jacrev(sphere.normalize)(zero), np.zeros((4, 4)))
    np.testing.assert_array_equal(jax.jacfwd(sphere.normalize)(zero), np.zeros((4, 4)))


def test_derivative_of_normalize_is_the_scaled_projector():
    y = 3.0 * draw((6,))
    unit = np.asarray(y) / np.linalg.norm(y)
    expected = (np.eye(6) - np.outer(unit, unit)) / np.linalg.norm(y)
    assert_close(jax.jacfwd(sphere.normalize)(y), expected)
    assert_close(jax.jacrev(sphere.normalize)(y), expected)


@pytest.mark.float32
@pytest.mark.parametrize("d", [1, 2, 3, 9])
def test_tangent_basis_is_orthonormal_and_even(d):
    x = sphere.uniform(jax.random.key(d), (20, d))
    basis = sphere.tangent_basis(x)
    assert basis.shape == (20, d, d - 1)
    gram = jnp.einsum("nde,ndf->nef", basis, basis, precision="highest")
    if d > 1:
        assert_close(gram, jnp.broadcast_to(jnp.eye(d - 1), gram.shape), size=d, scale=1.0)
        across = jnp.einsum("nd,nde->ne", x, basis, precision="highest")
        assert_close(across, jnp.zeros_like(across), size=d, scale=1.0)
    np.testing.assert_array_equal(basis, sphere.tangent_basis(-x))


@pytest.mark.float32
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_transport_keeps_lengths_and_lands_in_the_tangent_space(sign):
    x = sphere.uniform(jax.random.key(0), (9, 4))
    y = sign * sphere.normalize(x + 0.4 * draw((9, 4), 1))
    moved = sphere.transport(x, y, sphere.tangent_basis(x))
    gram = jnp.einsum("nde,ndf->nef", moved, moved, precision="highest")
    assert_close(gram, jnp.broadcast_to(jnp.eye(3), gram.shape), size=8, scale=1.0)
    across = jnp.einsum("nd,nde->ne", y, moved, precision="highest")
    assert_close(across, jnp.zeros_like(across), size=8, scale=1.0)


def test_transport_is_the_identity_at_both_poles_whatever_the_rounding():
    """A basis chosen anew at f(x) would flip with the sign of a coordinate that is zero."""
    x = jnp.array([[0.0, 1.0, 0.0]])
    basis = sphere.tangent_basis(x)
    for y in (x, -x, x.at[0, 0].set(-1e-17), (-x).at[0, 0].set(1e-17)):
        np.testing.assert_allclose(sphere.transport(x, y, basis), basis, atol=1e-16)
    assert np.abs(sphere.tangent_basis(x.at[0, 0].set(-1e-17)) - basis).max() > 1


def test_tangent_projection_is_idempotent_and_orthogonal():
    x, w = sphere.uniform(jax.random.key(0), (8, 5)), draw((8, 5), 9)
    projected = sphere.tangent_projection(x, w)
    assert_close(jnp.sum(projected * x, -1), jnp.zeros(8), scale=1.0)
    assert_close(sphere.tangent_projection(x, projected), projected)


@pytest.mark.parametrize("angle", [1e-12, 1e-3, 1.0, np.pi - 1e-3, np.pi])
def test_distance_keeps_its_digits_at_both_ends(angle):
    x = jnp.array([1.0, 0.0])
    # sin and cos of an angle near π lose its last digits before the distance sees them.
    y = jnp.array([np.cos(angle), np.sin(angle)])
    assert_close(sphere.distance(x, y), jnp.array(angle), size=2, conditioning=1.0, scale=np.pi)
    if angle < 0.1:
        assert_close(sphere.distance(x, y), jnp.array(angle), conditioning=4.0)


def test_uniform_has_the_moments_of_the_sphere():
    x = np.asarray(sphere.uniform(jax.random.key(3), (200_000, 4)))
    error = 5 / np.sqrt(len(x))
    assert np.abs(x.mean(0)).max() < error * 0.5
    assert np.abs(x.T @ x / len(x) - np.eye(4) / 4).max() < error * 0.5


@pytest.mark.float32
def test_intertoken_distance_is_the_mean_over_pairs():
    x = sphere.uniform(jax.random.key(5), (2, 5, 3))
    pairs = [
        [np.linalg.norm(b[i] - b[j]) for i in range(5) for j in range(i + 1, 5)]
        for b in np.asarray(x, float)
    ]
    assert_close(sphere.intertoken_distance(x), jnp.array([np.mean(p) for p in pairs], x.dtype))
    assert_close(
        sphere.intertoken_distance(x, "max"), jnp.array([np.max(p) for p in pairs], x.dtype)
    )


def test_intertoken_distance_of_one_token_is_zero():
    """Fault 65."""
    assert sphere.intertoken_distance(jnp.ones((1, 1))) == 0.0


def test_intertoken_distance_refuses_an_unknown_reduction():
    with pytest.raises(RequestError, match="'median'; it must be 'mean' or 'max'"):
        sphere.intertoken_distance.__wrapped__(jnp.eye(3), "median")

"""The null models keep the attention and lose the value-output maps, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import MultiHead
from pmt.experiments.nulls import apply_gaussian, apply_rotated, gaussian_maps, random_rotation
from tests.experiments.systems import random_stack


def tokens(seed=0, shape=(3, 4, 6)):
    x = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def step(layer, x):
    return jax.vmap(layer)(x)


@pytest.mark.parametrize("biases", [False, True])
def test_with_the_layers_own_maps_both_are_the_layer(biases):
    layer, x = random_stack(biases=biases).layer(0), tokens()
    own = iter(np.asarray(layer.head_matrices))
    np.testing.assert_allclose(apply_gaussian(layer, own, x), step(layer, x), rtol=1e-12)
    np.testing.assert_allclose(apply_rotated(layer, np.eye(6), x), step(layer, x), rtol=1e-12)


def with_maps(layer, matrices):
    return MultiHead.from_maps(
        value_output=jnp.asarray(matrices),
        query_key=layer.query_key_matrices,
        scale=float(layer.scale),
    )


def test_the_gaussian_null_is_the_system_with_gaussian_heads():
    layer, x = random_stack().layer(0), tokens()
    maps = np.stack(list(gaussian_maps(layer, 5, 0)))
    expected = step(with_maps(layer, maps), x)
    np.testing.assert_allclose(apply_gaussian(layer, iter(maps), x), expected, rtol=1e-12)


def test_the_rotated_null_is_the_system_with_rotated_heads_and_has_its_spectrum():
    layer, x = random_stack().layer(0), tokens()
    r = random_rotation(6, 5, 0)
    heads = r @ np.asarray(layer.head_matrices) @ r.T
    np.testing.assert_allclose(
        apply_rotated(layer, r, x), step(with_maps(layer, heads), x), rtol=1e-12
    )
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(heads.sum(0))),
        np.sort_complex(np.linalg.eigvals(layer.layer_matrix)),
        atol=1e-12,
    )


def test_gaussian_maps_have_the_norm_of_each_head_and_are_the_same_again():
    layer = random_stack().layer(1)
    maps = np.stack(list(gaussian_maps(layer, 5, 1)))
    norms = np.linalg.norm(np.asarray(layer.head_matrices), axis=(1, 2))
    np.testing.assert_allclose(np.linalg.norm(maps, axis=(1, 2)), norms, rtol=1e-12)
    np.testing.assert_array_equal(maps, np.stack(list(gaussian_maps(layer, 5, 1))))
    for other in (
        gaussian_maps(layer, 6, 1),
        gaussian_maps(layer, 5, 2),
        gaussian_maps(layer, 5, 1, 0),
    ):
        assert not np.allclose(maps, np.stack(list(other)))
    # Heads are drawn independently.
    a, b = (m / np.linalg.norm(m) for m in maps)
    assert abs(np.sum(a * b)) < 0.5


@pytest.mark.parametrize("d", [1, 2, 5])
def test_rotations_are_rotations_and_the_same_again(d):
    r = random_rotation(d, 0, 3)
    np.testing.assert_allclose(r @ r.T, np.eye(d), atol=1e-14)
    assert np.linalg.det(r) == pytest.approx(1)
    np.testing.assert_array_equal(r, random_rotation(d, 0, 3))
    assert d == 1 or not np.allclose(r, random_rotation(d, 0, 4))


def test_rotations_have_no_preferred_direction():
    first = np.stack([random_rotation(3, seed, 0)[:, 0] for seed in range(4000)])
    # Uniform on the sphere: mean 0 and second moments 1/3, with errors of 1/sqrt(4000).
    assert np.abs(first.mean(0)).max() < 5 / np.sqrt(3 * 4000)
    moments = first.T @ first / 4000
    assert np.abs(moments - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / 4000)

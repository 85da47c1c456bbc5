"""Equivariances of all four maps: order of the tokens, rotation, antipode, under every mask.

``test_systems`` has the single cases that the theory uses; here is every kind with every mask.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.attention import Boolean, LocalWindow
from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead
from tests.dynamics.conftest import MASKS, D, N, make
from tests.tolerance import assert_close

ORDER = np.array([3, 0, 5, 1, 4, 2])
HEADS = Boolean(jnp.asarray(np.stack([np.tri(N), np.ones((N, N)), np.tri(N).T]).astype(bool)))
KINDS = ["oja", "single", "multi", "stack"]
WITH_HEADS = [*MASKS, "per head"]


def build(kind, mask):
    """A system without biases; ``stack`` has two layers."""
    if kind == "stack":
        return LayerStack.from_layers([build("multi", mask), build_seeded("multi", mask, 1)])
    return build_seeded(kind, mask, 0)


def build_seeded(kind, mask, seed):
    if mask == "per head":
        return dataclasses.replace(make(kind, "full", seed).system, mask=HEADS)
    return make(kind, mask, seed).system


def masks_of(kind):
    """Masks of one kind of system; heads of their own only where there are several."""
    return WITH_HEADS if kind in ("multi", "stack") else list(MASKS)


CASES = [(kind, mask) for kind in KINDS for mask in masks_of(kind)]


def with_mask(system, change):
    """The system with ``change`` applied to its mask, written as boolean matrices."""

    def one(layer):
        allowed = layer.mask.allowed(N)
        if allowed is None:
            return layer
        return dataclasses.replace(layer, mask=Boolean(jnp.asarray(change(np.asarray(allowed)))))

    if isinstance(system, LayerStack):
        return LayerStack.from_layers([one(system.layer(i)) for i in range(system.depth)])
    return one(system)


def turned(system, q):
    """The same map in the coordinates x -> q x."""
    if isinstance(system, LayerStack):
        layers = [turned(system.layer(i), q) for i in range(system.depth)]
        return LayerStack.from_layers(layers)
    if isinstance(system, Oja):
        return dataclasses.replace(system, value=q @ system.value @ q.T)
    if isinstance(system, SingleHead):
        return dataclasses.replace(
            system, value=q @ system.value @ q.T, query_key=q @ system.query_key @ q.T
        )
    assert isinstance(system, MultiHead)
    return dataclasses.replace(
        system,
        query=system.query @ q.T,
        key=system.key @ q.T,
        value=system.value @ q.T,
        output=q @ system.output,
    )


@jax.jit
def step(system, x):
    """Compiled once for each kind of system and mask."""
    return system(x)


def tokens():
    return sphere.uniform(jax.random.key(21), (N, D))


def assert_same(left, right, system):
    # Each layer magnifies rounding by |y| over what is left after cancellation.
    assert_close(left, right, size=8 * N * D, conditioning=worst_cancellation(system))


@jax.jit
def cancellation(layer, x):
    y = layer.unnormalized(x)
    return jnp.max((1 + sphere.norm(y - x)) / sphere.norm(y))


def worst_cancellation(system):
    x, worst = tokens(), 1.0
    for layer in [system.layer(i) for i in range(system.depth)] if stacked(system) else [system]:
        worst *= float(cancellation(layer, x))
        x = step(layer, x)
    return worst


def stacked(system):
    return isinstance(system, LayerStack)


@pytest.mark.parametrize(("kind", "mask"), CASES)
def test_permuting_the_tokens_and_the_mask_permutes_the_image(kind, mask):
    system, x = build(kind, mask), tokens()
    permuted = with_mask(system, lambda allowed: allowed[..., ORDER, :][..., ORDER])
    assert_same(step(permuted, x[ORDER]), step(system, x)[ORDER], system)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["causal", "window", "boolean"])
def test_permuting_the_tokens_alone_does_not_commute_under_a_mask(kind, mask):
    system, x = build(kind, mask), tokens()
    assert np.abs(step(system, x[ORDER]) - step(system, x)[ORDER]).max() > 0.01


@pytest.mark.parametrize("kind", ["oja", "multi", "stack"])
def test_rotating_tokens_and_weights_turns_the_image(kind):
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    x = tokens()
    for mask in masks_of(kind):
        system = build(kind, mask)
        assert_same(step(turned(system, q), x @ q.T), step(system, x) @ q.T, system)
        # Of the weights alone it is another map.
        assert np.abs(step(turned(system, q), x) - step(system, x)).max() > 0.01


def test_reflection_too_and_the_single_head_under_every_mask():
    q = np.diag([1.0, -1.0, 1.0, 1.0])
    for mask in MASKS:
        system, x = build("single", mask), tokens()
        assert_same(step(turned(system, q), x @ q.T), step(system, x) @ q.T, system)


@pytest.mark.parametrize(("kind", "mask"), CASES)
def test_the_antipode_goes_to_the_antipode(kind, mask):
    system, x = build(kind, mask), tokens()
    np.testing.assert_array_equal(step(system, -x), -step(system, x))


def test_turning_some_tokens_over_is_no_symmetry():
    """Nor of Oja: signs of single tokens change the mean."""
    x, signs = tokens(), jnp.where(jnp.arange(N) < 2, -1.0, 1.0)[:, None]
    for kind in KINDS:
        system = build(kind, "full")
        assert np.abs(step(system, signs * x) - signs * step(system, x)).max() > 0.01


def test_a_window_as_a_boolean_matrix_is_the_same_map():
    for kind in KINDS:
        system, x = build(kind, "window"), tokens()
        mask = system.layers.mask if stacked(system) else system.mask
        assert isinstance(mask, LocalWindow)
        assert_same(step(with_mask(system, lambda allowed: allowed), x), step(system, x), system)

"""JAX compares two dataclass nodes by their numbers of leaves and by their static fields only.

Where both agree, trees of different classes count as equal, and a compiled function may now and
then be given one for the other. So no two classes that can stand at the same place may agree.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
import pytest

from pmt.attention import Boolean, Causal, Full, LocalWindow
from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead

MASKS = [
    Full(),
    Causal(),
    LocalWindow(2),
    LocalWindow(2, causal=False),
    Boolean(jnp.ones((2, 2), bool)),
]


def systems():
    value = jnp.eye(2)
    heads = MultiHead.from_maps(value[None], value[None])
    return [
        Oja(value),
        SingleHead(value, value),
        heads,
        LayerStack.from_layers([heads, heads]),
    ]


@pytest.mark.parametrize(("left", "right"), list(combinations(MASKS, 2)), ids=str)
def test_masks_are_different_trees(left, right):
    assert jax.tree.structure(left) != jax.tree.structure(right)
    assert jax.tree.structure(left) == jax.tree.structure(type(left)(**vars(left)))


def test_systems_are_different_trees():
    for left, right in combinations(systems(), 2):
        assert jax.tree.structure(left) != jax.tree.structure(right)

"""Masks and softmax weights against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.attention import (
    Boolean,
    Causal,
    Full,
    LocalWindow,
    as_mask,
    check_mask,
    softmax_weights,
    uniform_weights,
)
from pmt.errors import RequestError
from tests.tolerance import assert_close

RULES = {
    "full": (Full(), lambda i, j: True),
    "causal": (Causal(), lambda i, j: j <= i),
    "window": (LocalWindow(3), lambda i, j: 0 <= i - j < 3),
    "two-sided": (LocalWindow(2, causal=False), lambda i, j: abs(i - j) < 2),
    "boolean": (
        Boolean(jnp.array([[(i + 2 * j) % 3 != 1 for j in range(6)] for i in range(6)])),
        lambda i, j: (i + 2 * j) % 3 != 1,
    ),
}


def loop_softmax(logits, rule):
    n = len(logits)
    weights = np.zeros((n, n))
    for i in range(n):
        seen = [j for j in range(n) if rule(i, j)]
        top = max(logits[i, j] for j in seen)
        total = sum(np.exp(logits[i, j] - top) for j in seen)
        for j in seen:
            weights[i, j] = np.exp(logits[i, j] - top) / total
    return weights


@pytest.mark.float32
@pytest.mark.parametrize("name", RULES)
def test_weights_equal_the_loop(name):
    mask, rule = RULES[name]
    logits = 3 * jax.random.normal(jax.random.key(1), (6, 6))
    weights = softmax_weights(logits, mask)
    # exp turns an absolute error of the logits into a relative one of the weights.
    assert_close(weights, loop_softmax(np.asarray(logits, float), rule), conditioning=10.0)
    flat = uniform_weights(6, mask, logits.dtype)
    assert_close(flat, loop_softmax(np.zeros((6, 6)), rule))


@pytest.mark.float32
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_softmax_survives_huge_logits(size):
    """Fault 55: e^1e30 overflows, the weights do not."""
    logits = size * jnp.array([[1.0, 0.5], [-1.0, 1.0]])
    np.testing.assert_array_equal(softmax_weights(logits, Full()), [[1.0, 0.0], [0.0, 1.0]])
    gradient = jax.grad(lambda a: softmax_weights(a, Causal())[1, 0])(logits)
    assert np.isfinite(np.asarray(gradient)).all()


def test_mask_names_and_matrices_are_accepted():
    assert as_mask("full") == Full()
    assert as_mask("causal") == Causal()
    matrix = jnp.eye(3, dtype=bool)
    assert as_mask(matrix).matrix is matrix


@pytest.mark.parametrize(
    ("mask", "message"),
    [("banded", "'banded'; it must be 'full'"), (np.eye(2), "float64; it must be boolean")],
)
def test_unusable_masks_are_refused(mask, message):
    with pytest.raises(RequestError, match=message):
        as_mask(mask)


def test_a_token_that_sees_nothing_is_refused():
    with pytest.raises(RequestError, match="token 1 attends to no token"):
        check_mask(Boolean(jnp.array([[True, False], [False, False]])), 2)
    with pytest.raises(RequestError, match="window size is 0"):
        check_mask(LocalWindow(0), 2)
    with pytest.raises(RequestError, match=r"must end in \(3, 3\)"):
        check_mask(Boolean(jnp.ones((2, 2), bool)), 3)

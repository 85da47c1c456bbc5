"""Pre-compensation on maps whose image is known (theory.md, Sec. 5)."""

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.steering import precompensate


def folded(x):
    """x + FFN(x) with FFN(x) = -x + relu(x) + relu(-x): the image is the positive orthant."""
    return jnp.maximum(x, 0) + jnp.maximum(-x, 0)


def gaussian(size, d=6, seed=0):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(4 * d, d)), rng.normal(size=(d, 4 * d))
    # |FFN(x)| <= |W_2| |W_1| on the sphere.
    second *= size / np.linalg.norm(second, 2) / np.linalg.norm(first, 2)
    return lambda x: x + jnp.asarray(second) @ jnp.maximum(jnp.asarray(first) @ x, 0)


def test_a_direction_outside_the_image_has_none_and_that_is_said():
    target = np.array([-1.0, 0.2, 0.1])
    found = precompensate(folded, target, dtype="float64", bound=2.0)
    nearest = np.linalg.norm(np.maximum(target, 0)) / np.linalg.norm(target)
    assert not found.found and found.condition_holds is None
    assert found.starts == 3
    assert found.cosine <= nearest + 1e-9
    assert abs(found.residual**2 - 2 * (1 - found.cosine)) < 1e-12


def test_a_direction_inside_the_image_is_found():
    target = np.array([1.0, 2.0, 0.5])
    found = precompensate(folded, 100 * target, dtype="float64")
    assert found.found and found.residual < 1e-12 and found.condition_holds is None
    np.testing.assert_allclose(np.abs(found.direction), target / np.linalg.norm(target))


def test_a_map_that_turns_everything_round_is_found_from_the_other_side():
    """At w the residual is as large as can be, and its slope is zero."""
    target = np.array([0.3, -1.0, 2.0])
    found = precompensate(lambda x: -x, target, dtype="float64")
    assert found.found and found.starts == 2
    np.testing.assert_allclose(found.direction, -target / np.linalg.norm(target), atol=1e-12)
    assert abs(found.plain + 1) < 1e-12 and abs(found.opposite + 1) < 1e-12


@pytest.mark.parametrize("seed", range(2))
def test_a_small_block_is_onto_and_its_map_is_not_odd(seed):
    phi = gaussian(0.9, seed=seed)
    target = np.random.default_rng(seed + 10).normal(size=6)
    found = precompensate(phi, target, dtype="float64", bound=0.9)
    assert found.condition_holds is True and found.found
    image = np.asarray(phi(jnp.asarray(found.direction)))
    unit = target / np.linalg.norm(target)
    np.testing.assert_allclose(image / np.linalg.norm(image), unit, atol=1e-10)
    assert found.plain < 1 - 1e-6
    # The wrong side gets something else than -w.
    assert -1 < found.opposite < -0.5


def test_requests_that_cannot_be_met():
    with pytest.raises(RequestError, match="the target is zero"):
        precompensate(folded, np.zeros(3), dtype="float64")
    with pytest.raises(RequestError, match="starts is 0"):
        precompensate(folded, np.ones(3), dtype="float64", starts=0)
    with pytest.raises(RequestError, match="no finite state at any start"):
        precompensate(lambda x: x / 0.0, np.ones(3), dtype="float64")

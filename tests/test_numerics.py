"""Shared checks of numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.numerics import after, einsum, epsilon, require_finite, require_same_dtype


def test_einsum_asks_for_the_highest_precision():
    """Fault 58: accelerators would otherwise round float32 operands."""
    traced = jax.make_jaxpr(lambda a: einsum("ij,jk->ik", a, a))(jnp.ones((2, 2), jnp.float32))
    assert "HIGHEST" in str(traced)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1.0, np.nan]), r"w holds nan at index \(1,\) \(1 non-finite"),
        (np.array([[np.inf, -np.inf]]), r"w holds inf at index \(0, 0\) \(2 non-finite"),
        (float("nan"), r"w holds nan \(1 non-finite"),
        (np.array([1 + 1j * np.inf]), "w holds"),
        (jnp.array([jnp.inf], jnp.bfloat16), "w holds inf"),
    ],
)
def test_non_finite_numbers_are_named(value, message):
    """Fault 46."""
    with pytest.raises(RequestError, match=message):
        require_finite("w", value)


def test_what_is_finite_or_not_known_yet_passes():
    require_finite("w", np.ones(3))
    require_finite("w", None)
    require_finite("w", np.array([1, 2]))
    jax.jit(lambda a: require_finite("w", a / 0.0) or a)(jnp.ones(2))


def test_mixed_precision_is_refused_and_scalars_are_not():
    with pytest.raises(RequestError, match="a is float32 but b is float64; convert one"):
        require_same_dtype(a=np.ones(2, np.float32), b=np.ones(2))
    require_same_dtype(a=np.ones(2), b=0.5, c=None, d=np.float32(1.0))


def test_epsilon_is_that_of_the_dtype():
    assert epsilon(jnp.float32) == np.finfo(np.float32).eps
    assert epsilon(np.complex128) == np.finfo(np.float64).eps


def test_what_comes_after_waits_for_what_is_done_and_is_not_changed_by_it():
    x = jnp.array([1.0, -0.0, 3.0])
    np.testing.assert_array_equal(jax.jit(after)(x, jnp.full((2, 2), 5.0)), x)
    # The compiler keeps the dependence: else two factorizations may run at once, and hang.
    assert np.isnan(jax.jit(after)(x, jnp.full((2, 2), jnp.nan))).all()

"""The exponential of bounded logits, in which the kernel for small systems spends its time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics.batched import exp_of_small


@pytest.mark.float32
@pytest.mark.parametrize(("name", "most"), [("float32", 20.0), ("float64", 200.0)])
def test_exponential_of_small_numbers_is_right_to_two_roundings(name, most):
    if name == "float64" and not jax.config.jax_enable_x64:
        pytest.skip("there is no float64 in this pass")
    dtype = np.dtype(name)
    rng = np.random.default_rng(0)
    edges = np.log(2) * (np.arange(-28, 29) / 2)
    x = np.concatenate([rng.uniform(-most, most, 20_000), edges, [0.0, -0.0, most, -most, 1e-30]])
    x = x.astype(dtype)
    wide = np.longdouble if dtype.itemsize == 8 else np.float64
    expected = np.exp(x.astype(wide))
    found = np.asarray(jax.jit(exp_of_small)(jnp.asarray(x)))
    assert found.dtype == dtype
    assert np.max(np.abs(found / expected - 1)) <= 2 * np.finfo(dtype).eps
    assert found[-5] == found[-4] == 1.0

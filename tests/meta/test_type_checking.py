"""The annotations are enforced while tests run; without this they would be comments."""

import jax.numpy as jnp
import jaxtyping
import pytest

from pmt import sphere


def test_a_wrong_shape_is_refused_at_the_call():
    assert sphere.normalize(jnp.ones((2, 3))).shape == (2, 3)
    with pytest.raises(jaxtyping.TypeCheckError):
        sphere.normalize("no array")

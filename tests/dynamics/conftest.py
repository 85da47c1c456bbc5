"""Random systems of every kind, each with the loop transcription of the same map."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.attention import Boolean, Full, LocalWindow
from pmt.dynamics import MultiHead, Oja, SingleHead
from tests.dynamics.reference import step

N, D = 6, 4
PATTERN = np.array([[(i * 5 + j * 3) % 4 != 1 or i == j for j in range(N)] for i in range(N)])
MASKS = {
    "full": ("full", lambda h, i, j: True),
    "causal": ("causal", lambda h, i, j: j <= i),
    "window": (LocalWindow(2), lambda h, i, j: 0 <= i - j < 2),
    "two-sided": (LocalWindow(2, causal=False), lambda h, i, j: abs(i - j) < 2),
    "boolean": (Boolean(jnp.asarray(PATTERN)), lambda h, i, j: PATTERN[i, j]),
}


@dataclasses.dataclass
class Case:
    """A system and the same map in loops."""

    system: object
    loops: object


def make(kind, mask_name, seed=0):
    mask, sees = MASKS[mask_name]
    keys = jax.random.split(jax.random.key(seed), 8)

    def draw(i, *shape):
        return jax.random.normal(keys[i], shape)

    if kind == "oja":
        system = Oja(draw(0, D, D), alpha=0.7, mask=mask)
        zero = np.zeros((D, D))
        heads = [(zero, zero, np.asarray(system.value), np.eye(D), 1.0)]
    elif kind == "single":
        system = SingleHead(draw(0, D, D), draw(1, D, D), alpha=0.7, scale=0.8, mask=mask)
        m = np.asarray(system.query_key)
        heads = [(m.T, np.eye(D), np.asarray(system.value), np.eye(D), 0.8)]
    else:
        shapes = [(3, 2, D), (3, 2, D), (3, 2, D), (3, D, 2)]
        weights = [draw(i, *s) for i, s in enumerate(shapes)]
        system = MultiHead(*weights, alpha=0.7, mask=mask)
        if kind == "biased":
            system = dataclasses.replace(
                system,
                query_bias=draw(4, 3, 2),
                key_bias=draw(5, 3, 2),
                value_bias=draw(6, 3, 2),
                output_bias=draw(7, D),
            )
        heads = [tuple(np.asarray(w[h]) for w in weights) + (2**-0.5,) for h in range(3)]
    biases = None
    if kind == "biased":
        names = ("query_bias", "key_bias", "value_bias", "output_bias")
        biases = [np.asarray(getattr(system, name)) for name in names]
    return Case(system, lambda x: step(np.asarray(x, float), heads, 0.7, sees, biases))


KINDS = ["oja", "single", "multi", "biased"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=list(MASKS))
def case(request, kind):
    return make(kind, request.param)


@pytest.fixture
def full_case(kind):
    case = make(kind, "full")
    assert isinstance(case.system.mask, Full)
    return case

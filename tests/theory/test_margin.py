import jax.numpy as jnp
import numpy as np
import pytest

from theory import margin
from theory.margin import Margin, equivalent, every, identity, inequality


def outcome(m: Margin) -> int:
    return int(margin.holds(*m)) - int(margin.violated(*m))


def make(value, tolerance=0.01):
    return Margin(jnp.asarray(float(value)), jnp.asarray(float(tolerance)))


def test_an_identity_holds_up_to_rounding_and_not_beyond():
    bound = float(margin.rounding(4, 10.0))
    assert outcome(identity(jnp.zeros(3), scale=1.0, size=4, conditioning=10.0)) == 1
    assert outcome(identity(jnp.full(3, bound / 2), scale=1.0, size=4, conditioning=10.0)) == 1
    assert outcome(identity(jnp.full(3, bound), scale=1.0, size=4, conditioning=10.0)) == 0
    assert outcome(identity(jnp.full(3, -2 * bound), scale=1.0, size=4, conditioning=10.0)) == -1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_identity_with_no_number_on_one_side_is_violated(bad):
    found = identity(jnp.array([0.0, bad]), scale=1.0, size=2)
    assert outcome(found) == -1
    assert np.isfinite(float(found.value))


def test_an_identity_that_rounding_makes_meaningless_is_undecided():
    assert outcome(identity(0.0, scale=1.0, size=1, conditioning=1e15)) == 0


def test_an_inequality_within_its_rounding_is_undecided():
    assert outcome(inequality(1e-17)) == 0
    assert outcome(inequality(1e-12)) == 1
    assert outcome(inequality(-1e-12)) == -1
    assert outcome(inequality(-1e-12, conditioning=1e6)) == 0
    assert outcome(inequality(np.nan)) == 0


def test_a_conjunction_is_as_bad_as_its_worst_part():
    good, small, open_, bad = make(5), make(0.5), make(0.005), make(-0.2)
    assert float(every(good, small).value) == 0.5
    assert float(every(good, open_, small).value) == 0.005
    assert float(every(good, open_, bad).value) == -0.2
    # An undecided part outweighs a decided one that is smaller.
    assert float(every(make(1e-6, 1e-9), make(0.005, 0.01)).value) == 0.005


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1, 0.5, 0.5), (-1, -0.5, 0.5), (1, -0.5, -0.5), (-0.2, 1, -0.2), (0.001, 1, 0), (1, 0, 0)],
)
def test_an_equivalence_has_the_sign_of_agreement(left, right, expected):
    assert float(equivalent(make(left), make(right)).value) == pytest.approx(expected)

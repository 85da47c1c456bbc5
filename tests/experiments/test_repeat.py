"""One layer repeated: the measured rates are those of the theory, where it applies."""

import json

import numpy as np
import pytest
import scipy.linalg

from pmt.errors import RequestError
from pmt.experiments import RepeatConfig, repeat_json, repeat_layer
from pmt.experiments.repeat import fitted_rate
from tests.experiments.systems import random_stack, stack_of


def repeated(f, **settings):
    chosen = {"layer": 1, "steps": 120, "prompts": 8, "tokens": 5} | settings
    return repeat_layer(stack_of(f), RepeatConfig(**chosen))


def test_alignment_decays_at_the_rate_of_the_theory():
    f = np.diag([2.0, 1.0, 0.5, -0.5])
    basis = np.random.default_rng(0).normal(size=(4, 4))
    result = repeated(basis @ f @ np.linalg.inv(basis), alpha=0.7)
    assert result.attracting
    assert result.rate.theory == pytest.approx(1.7 / 2.4)
    assert result.rate.ratio == pytest.approx(1, abs=1e-3)
    assert result.rho[-1] == pytest.approx(1)
    assert result.intertoken_distance[-1] < 1e-10
    assert len(result.rho) == 121


def test_alignment_with_a_leading_plane_fault_53():
    f = scipy.linalg.block_diag([[1.0, 0.8], [-0.8, 1.0]], 0.4, -0.2)
    result = repeated(f)
    assert result.principal.dimension == 2
    assert result.rate.theory == pytest.approx(1.4 / abs(2 + 0.8j))
    assert result.rate.ratio == pytest.approx(1, abs=1e-3)
    # The tokens rotate in the plane for ever, and never align with a line in it.
    assert result.rho[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("f", "order"),
    [
        (np.diag([1.0, 0.5, -4.0]), "real"),  # |1 - 4| > |1 + 1|
        (np.diag([1.0, 0.5, -4.0]), "modulus"),  # 1 + lam_1 < 0: a 2-cycle
        (np.diag([1.0, -3.0, 0.5]), "real"),  # fault 52 of the skip order: |1 - 3| = |1 + 1|
        (scipy.linalg.block_diag(1.0, [[0.9, -2], [2, 0.9]]), "real"),
    ],
)
def test_no_rate_of_theory_where_the_map_selects_another_direction(f, order):
    result = repeated(f, order=order, steps=20)
    assert not result.attracting
    assert result.rate.theory is None and result.rate.ratio is None


def test_the_rate_at_large_steps_of_the_counterexample():
    """lam = 1, 0.9 +- 2i: the line attracts for alpha < 0.0525 only."""
    f = scipy.linalg.block_diag(1.0, [[0.9, -2], [2, 0.9]])
    small = repeated(f, alpha=0.03, steps=8000)
    large = repeated(f, alpha=0.2, steps=400)
    assert small.attracting and small.rho[-1] > 0.999
    assert small.rate.ratio == pytest.approx(1, abs=1e-4)
    assert not large.attracting and large.rho[-1] < 1e-3


def test_fitted_rate_of_a_geometric_sequence():
    values = np.concatenate([[1.0, 0.9, 0.5], 0.04 * 0.8 ** np.arange(40), np.full(5, 1e-17)])
    assert fitted_rate(values, np.float64) == pytest.approx(0.8)
    # Faster parts die out first and are left out.
    mixed = 0.04 * (0.8 ** np.arange(60) + 0.3 ** np.arange(60))
    assert fitted_rate(mixed, np.float64) == pytest.approx(0.8, rel=1e-4)


def test_no_rate_from_a_sequence_that_is_too_short_or_does_not_decay():
    assert fitted_rate(np.ones(100), np.float64) is None
    assert fitted_rate(0.04 * 0.1 ** np.arange(6), np.float64) is None
    assert fitted_rate(np.zeros(50), np.float64) is None
    # It leaves the linear range again at the end: there is no tail.
    assert fitted_rate(np.r_[0.04 * 0.8 ** np.arange(20), 1.0], np.float64) is None


def test_the_record_is_strict_json_and_starts_before_the_first_step():
    result = repeated(np.diag([1.0, 0.3, 0.1]), steps=5)
    record = json.loads(json.dumps(repeat_json(result), allow_nan=False))
    assert len(record["rho"]) == len(record["rho_se"]) == 6
    assert (record["layer"], record["steps"]) == (1, 5)
    assert set(record["rate"]) == {"theory", "measured", "ratio"}


def test_one_prompt_has_no_standard_error_fault_65():
    result = repeated(np.diag([1.0, 0.3]), prompts=1, tokens=1, steps=3)
    assert result.rho_se is None and np.all(result.intertoken_distance == 0)


def test_fault_84_a_layer_that_is_not_there_and_no_steps_fault_68():
    with pytest.raises(RequestError, match="no layer 4; the model has layers 1 to 3"):
        repeat_layer(random_stack(), RepeatConfig(layer=4))
    with pytest.raises(RequestError, match="no layer 0"):
        repeat_layer(random_stack(), RepeatConfig(layer=0))
    with pytest.raises(RequestError, match="steps is 0"):
        RepeatConfig(layer=1, steps=0)


def test_fault_48_cancellation_is_named():
    with pytest.raises(RequestError, match="after 0 steps, in prompt 0 .*cancelled"):
        repeated(-np.eye(3), tokens=1)

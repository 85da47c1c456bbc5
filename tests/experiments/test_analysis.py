"""The analysis on small stacks: its record, its refusals, and what must not change it."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import LayerStack
from pmt.errors import RequestError
from pmt.experiments import (
    AnalysisConfig,
    analysis_json,
    analyze,
    count_of_steps,
    random_tokens,
)
from pmt.experiments.nulls import apply_rotated, random_rotation
from pmt.spectral import chance
from tests.experiments.systems import random_stack, stack_of

SMALL = AnalysisConfig(prompts=6, tokens=4)


def found(stack, config=SMALL, **given):
    return analysis_json(analyze(stack, config, **given))


LAYER = {
    "index", "mask", "scale", "eigenvalues", "principal", "rho_before", "rho_after",
    "rho_after_std", "delta_rho", "delta_rho_std", "p_increase", "rho_after_se", "delta_rho_se",
    "mean_rho_before", "mean_rho_after", "mean_delta_rho", "mean_p_increase", "plane", "null",
    "intertoken_distance",
}  # fmt: skip


def test_the_record_has_the_fields_of_its_schema_and_survives_strict_json():
    record = found(random_stack())
    assert record["schema"] == "pmt.analysis/1"
    assert set(record) == {"schema", "model", "settings", "layers", "first_order_law"}
    assert set(record["model"]) == {
        "name", "family", "d", "h", "layers", "shared", "revision", "sha256",
    }  # fmt: skip
    assert set(record["settings"]) == {
        "mode", "order", "alpha", "biases", "rotary", "normalize", "seed", "tokens", "dtype",
        "device", "versions",
    }  # fmt: skip
    assert [layer["index"] for layer in record["layers"]] == [1, 2, 3]
    for layer in record["layers"]:
        assert set(layer) == LAYER
        assert set(layer["principal"]) == {
            "eigenvalue", "dimension", "case", "gap", "residual", "condition", "collinearity",
            "chance",
        }  # fmt: skip
        assert set(layer["null"]) == {"gaussian", "rotated"}
        assert all(
            set(null)
            == {
                "delta_rho", "p_increase", "se", "sd", "draws", "margin", "error", "threshold",
                "stands_out", "reason", "after",
            }
            for null in layer["null"].values()
        )  # fmt: skip
        assert len(layer["eigenvalues"]) == 5
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_progress_is_called_as_often_as_announced():
    for nulls in ((), ("gaussian",), ("gaussian", "rotated")):
        config, calls = replace(SMALL, nulls=nulls), []
        analyze(random_stack(), config, progress=calls.append)
        assert sum(calls) == count_of_steps(3, config)


def test_the_same_seed_gives_the_same_record_and_another_seed_another():
    stack = random_stack()
    assert found(stack) == found(stack)
    other = found(stack, replace(SMALL, seed=1))
    for a, b in zip(found(stack)["layers"], other["layers"], strict=True):
        assert a["delta_rho"] != b["delta_rho"]
        assert a["null"]["gaussian"] != b["null"]["gaussian"]


def test_own_tokens_are_used_and_normalised():
    stack = random_stack()
    x = random_tokens(6, 4, 6, seed=0)
    lengths = np.random.default_rng(1).uniform(0.1, 10, (6, 4, 1))
    given, drawn = found(stack, tokens=x * lengths), found(stack)
    for a, b in zip(given["layers"], drawn["layers"], strict=True):
        assert a["delta_rho"] == pytest.approx(b["delta_rho"], rel=1e-9)


def test_single_and_double_precision_agree_and_have_the_same_spectra():
    double = found(random_stack())["layers"]
    single = found(random_stack(dtype=jnp.float32))["layers"]
    for a, b in zip(single, double, strict=True):
        assert a["delta_rho"] == pytest.approx(b["delta_rho"], abs=1e-5)
        assert a["null"]["rotated"]["delta_rho"] == pytest.approx(
            b["null"]["rotated"]["delta_rho"], abs=1e-5
        )
        # The weights are rounded to float32, the eigenproblem is not.
        assert a["principal"]["residual"] < 1e-14
        np.testing.assert_allclose(a["eigenvalues"], b["eigenvalues"], atol=1e-5)


def test_case_3_reports_the_plane_fault_51():
    record = found(stack_of(np.diag([1.0, 0.995, 0.1, -0.3]), np.diag([1.0, 0.5, 0.1, 0.0])))
    first, second = record["layers"]
    assert first["principal"]["case"] == 3 and second["plane"] is None
    assert first["plane"]["chance"] == pytest.approx(chance(4, 2))
    assert first["plane"]["rho_after"] > first["rho_after"]
    assert first["principal"]["chance"] == pytest.approx(chance(4))


def test_fault_50_defective_layer_has_no_infinity_in_its_record():
    record = found(stack_of([[1.0, 1.0, 0], [0, 1.0, 0], [0, 0, 0.2]]))
    principal = record["layers"][0]["principal"]
    assert principal["case"] == 3
    assert principal["condition"] is None or principal["condition"] > 1e12
    assert principal["collinearity"] == pytest.approx(1)
    json.dumps(record, allow_nan=False)


def test_fault_65_one_token_and_one_prompt():
    record = found(random_stack(), AnalysisConfig(prompts=1, tokens=1))
    for layer in record["layers"]:
        assert layer["intertoken_distance"] == 0
        assert layer["delta_rho_se"] is None and layer["null"]["rotated"]["se"] is None


def test_fault_66_dimension_one():
    record = found(stack_of([[0.5]], [[-0.25]]))
    for layer in record["layers"]:
        assert layer["principal"]["gap"] is None
        assert layer["principal"]["chance"] == pytest.approx(1)
        assert layer["rho_after"] == 1 and layer["delta_rho"] == 0 and layer["p_increase"] == 0


def test_fault_64_alpha_zero_changes_nothing_and_negative_is_a_step_back():
    record = found(random_stack(), replace(SMALL, alpha=0.0))
    assert all(abs(layer["delta_rho"]) < 1e-15 for layer in record["layers"])
    f = np.diag([1.0, 0.2, 0.1, 0.0])
    forward, back = (found(stack_of(f), replace(SMALL, alpha=a))["layers"][0] for a in (0.5, -0.5))
    assert forward["delta_rho"] > 0 > back["delta_rho"]


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_fault_64_alpha_that_is_no_number(alpha):
    with pytest.raises(RequestError, match="must be a finite number"):
        AnalysisConfig(alpha=alpha)


def test_fault_64_alpha_that_single_precision_cannot_hold():
    with pytest.raises(RequestError, match="which float32 cannot hold"):
        analyze(random_stack(dtype=jnp.float32), replace(SMALL, alpha=1e300))
    # Double precision can, and only the update is left of the step.
    record = found(random_stack(), replace(SMALL, alpha=1e300))
    assert 0 <= record["layers"][0]["rho_after"] <= 1


def test_fault_48_update_that_cancels_to_zero_is_named():
    with pytest.raises(RequestError, match=r"in layer 1, prompt 0 .*cancelled to zero"):
        analyze(stack_of(-np.eye(3)), AnalysisConfig(prompts=2, tokens=1))


def test_fault_46_nan_in_a_weight_handed_over_directly():
    stack = random_stack()
    bad = LayerStack(replace(stack.layers, value=stack.layers.value.at[1, 0, 0, 0].set(jnp.nan)))
    with pytest.raises(RequestError, match="non-finite"):
        analyze(bad, SMALL)


def test_fault_55_logits_that_would_overflow_a_plain_softmax():
    record = found(stack_of(np.diag([1.0, 0.5, 0.2]), logits=1e6))
    assert np.isfinite(record["layers"][0]["delta_rho"])


def test_fault_69_identical_tokens_stay_identical():
    x = np.broadcast_to(random_tokens(3, 1, 6, seed=0), (3, 4, 6))
    record = found(random_stack(), tokens=x)
    assert all(layer["intertoken_distance"] < 1e-14 for layer in record["layers"])


def test_fault_84_unknown_order_and_null():
    with pytest.raises(RequestError, match="'real', 'skip' or 'modulus'"):
        AnalysisConfig(order="size")
    with pytest.raises(RequestError, match="no null model 'shuffled'"):
        AnalysisConfig(nulls=("shuffled",))


def test_the_null_models_are_means_over_draws_with_their_spread_in_the_error():
    one, many = (
        [layer["null"] for layer in found(random_stack(), replace(SMALL, draws=k))["layers"]]
        for k in (1, 8)
    )
    for name in ("gaussian", "rotated"):
        # The first draw is the same one, and not the mean of eight.
        assert all(
            a[name]["delta_rho"] != b[name]["delta_rho"] for a, b in zip(one, many, strict=True)
        )
    stack, config = random_stack(), replace(SMALL, draws=8, nulls=("rotated",))
    layer, x = stack.layer(0), jnp.asarray(random_tokens(6, 4, 6, seed=0))
    basis = analyze(stack, config).layers[0].principal.basis
    deltas, highs = [], []
    for draw in range(8):
        r = random_rotation(6, 0, draw, 0)
        after = np.asarray(apply_rotated(layer, r, x))
        rho = [np.linalg.norm(np.asarray(z) @ r @ basis, axis=-1) for z in (x, after)]
        deltas.append(rho[1] - rho[0])
        highs.append(rho[1])
    deltas, highs = np.stack(deltas), np.stack(highs)
    null = many[0]["rotated"]
    assert null["delta_rho"] == pytest.approx(deltas.mean(), rel=1e-9)
    assert null["p_increase"] == pytest.approx(np.mean(deltas > 0))
    prompts = deltas.mean(axis=(0, 2)).std(ddof=1) / np.sqrt(6)
    draws = deltas.mean(axis=(1, 2)).std(ddof=1) / np.sqrt(8)
    assert null["se"] == pytest.approx(np.sqrt(prompts**2 + draws**2), rel=1e-9)
    assert null["sd"] == pytest.approx(draws * np.sqrt(8), rel=1e-9) and null["draws"] == 8
    after, level = null["after"], found(stack, config)["layers"][0]["principal"]["chance"]
    assert after["rho"] == pytest.approx(highs.mean(), rel=1e-9)
    prompts = highs.mean(axis=(0, 2)).std(ddof=1) / np.sqrt(6)
    draws = highs.mean(axis=(1, 2)).std(ddof=1) / np.sqrt(8)
    assert after["se"] == pytest.approx(np.hypot(prompts, draws), rel=1e-9)
    assert after["sd"] == pytest.approx(draws * np.sqrt(8), rel=1e-9)
    for name in ("", "_se", "_sd"):
        plain = after[name[1:] or "rho"]
        assert after[f"ratio{name}"] == pytest.approx(plain / level, rel=1e-12)
    assert one[0]["rotated"]["sd"] is None and "a single draw" in one[0]["rotated"]["reason"]
    with pytest.raises(RequestError, match="draws is 0"):
        AnalysisConfig(draws=0)


def test_biases_are_recorded_and_change_the_states_but_not_the_spectra():
    without, kept = found(random_stack()), found(random_stack(biases=True))
    assert (without["settings"]["biases"], kept["settings"]["biases"]) == (False, True)


def test_the_null_models_leave_the_states_alone():
    plain = found(random_stack(), replace(SMALL, nulls=()))
    with_nulls = found(random_stack())
    for a, b in zip(plain["layers"], with_nulls["layers"], strict=True):
        assert a["null"] == {}
        assert {k: v for k, v in a.items() if k != "null"} == {
            k: v for k, v in b.items() if k != "null"
        }

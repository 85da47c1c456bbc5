"""The analysis with leading pairs only, on an accelerator, and with too little device memory."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import figures
from pmt.cli.layer_tables import screen_parts
from pmt.errors import RequestError
from pmt.experiments import (
    AnalysisConfig,
    analysis_json,
    analyze,
    layer_alignment,
    random_tokens,
)
from pmt.experiments.eigen_cache import EigenCache, Solver
from pmt.experiments.layer_by_layer import advance, prepare_layer
from pmt.experiments.nulls import attention_weights
from pmt.experiments.stage import require_states
from pmt.spectral import accelerator
from tests.experiments.systems import random_stack, stack_of
from tests.test_memory import OUT_OF_MEMORY

SMALL = AnalysisConfig(prompts=5, tokens=3, draws=2)
MEANS = ["mean_rho_before", "mean_rho_after", "mean_delta_rho", "mean_p_increase"]


@pytest.fixture(scope="module")
def stack():
    jax.config.update("jax_enable_x64", True)
    return random_stack(layers=2, h=2, k=32, d=64)


@pytest.fixture(scope="module")
def whole(stack):
    return analyze(stack, SMALL)


@pytest.fixture
def small_dense(monkeypatch):
    """A Krylov method at a dimension at which LAPACK answers otherwise."""
    monkeypatch.setattr("pmt.spectral.eigen.DENSE", 8)


def test_the_numbers_are_those_of_the_whole_analysis_without_the_means(
    stack, whole, small_dense, tmp_path
):
    solver = EigenCache(tmp_path)
    result = analyze(stack, replace(SMALL, leading=2), solver=solver)
    assert solver.solved == 2 * (1 + SMALL.draws)
    record, full = analysis_json(result), analysis_json(whole)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["settings"].pop("leading") == 2
    assert record["settings"] == full["settings"]
    for one, other in zip(record["layers"], full["layers"], strict=True):
        found = one.pop("leading")
        assert set(one) == set(other)
        assert all(one.pop(name) is None for name in MEANS)
        kept = len(found["eigenvalues"])
        assert kept in (2, 3) and len(one["eigenvalues"]) == kept
        np.testing.assert_allclose(found["eigenvalues"], other["eigenvalues"][:kept], atol=1e-9)
        assert max(found["residuals"]) < 1e-10 and min(found["conditions"]) >= 1
        solved = {name: one["principal"].pop(name) for name in ("method", "fallback")}
        assert solved == {"method": "krylov", "fallback": None}
        assert "method" not in other["principal"]
        for name, value in other["principal"].items():
            if name not in ("residual", "eigenvalue"):
                same = (
                    value
                    if value is None
                    else pytest.approx(value, rel=1e-2 if name == "condition" else 1e-6)
                )
                assert one["principal"][name] == same
        for name in ("rho_before", "rho_after", "delta_rho", "p_increase", "delta_rho_se"):
            assert one[name] == pytest.approx(other[name], abs=1e-9)
        for name in ("gaussian", "rotated"):
            a, b = (each["null"][name]["delta_rho"] for each in (one, other))
            assert a == pytest.approx(b, abs=1e-9)
    # From the folder the same again, to the last bit, and nothing of the whole problem is there.
    again = EigenCache(tmp_path)
    record["layers"] = analysis_json(result)["layers"]
    repeated = analyze(stack, replace(SMALL, leading=2), solver=again)
    assert again.solved == 0
    assert analysis_json(repeated)["layers"] == record["layers"]
    analyze(stack, SMALL, solver=again)
    assert again.solved == 2 * (1 + SMALL.draws)
    check_words_and_figures(result)


def check_words_and_figures(result):
    lines = [part for part in screen_parts(result, None) if isinstance(part, str)]
    assert any("only the 2 leading eigenpairs of each layer" in line for line in lines)
    assert any("by a Krylov method on the host in 2" in line for line in lines)
    assert not any("mean over all directions in" in line for line in lines)
    headers = [str(c.header) for t in screen_parts(result, None)[1:4] for c in t.columns]
    assert "P" in headers and not any("mean" in header for header in headers)
    panels = figures.alignment_panels(result)
    labels = [text.get_text() for text in panels.legends[0].get_texts()]
    assert "chance" in labels and not any("mean" in label for label in labels)
    spectra = figures.spectra(result)
    labels = [text.get_text() for text in spectra.legends[0].get_texts()]
    assert "others that were asked for" in labels
    (table,) = layer_alignment.tables(result).values()
    assert "delta_rho" in table[0] and "mean_delta_rho" not in table[0]


def test_fault_84_leading_below_one_is_refused():
    with pytest.raises(RequestError, match="leading is 0"):
        AnalysisConfig(leading=0)


def test_fault_59_what_solved_a_layer_and_why_is_in_the_record_and_on_the_screen(
    stack, whole, monkeypatch, tmp_path
):
    device = jax.devices("cpu")[0]
    config, genuine = replace(SMALL, nulls=()), accelerator.device_eig
    asked = []

    def nan_once(f, where):
        asked.append(where)
        values, vectors = genuine(f, where)
        return (values * np.nan if len(asked) == 1 else values), vectors

    monkeypatch.setattr(accelerator, "device_eig", nan_once)
    # One at a time, so that it is known which layer comes first.
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    result = analyze(stack, config, solver=EigenCache(tmp_path, accelerator=device))
    assert asked == [device, device]
    first, second = (layer["principal"] for layer in analysis_json(result)["layers"])
    assert (first["method"], second["method"]) == ("lapack", "accelerator")
    assert first["fallback"] == "cpu answered with NaN" and second["fallback"] is None
    lines = screen_parts(result, None)
    assert any("on the accelerator in 1" in str(line) for line in lines)
    assert "layer 1 went to LAPACK on the host, since cpu answered with NaN" in lines
    for one, other in zip(result.layers, whole.layers, strict=True):
        np.testing.assert_allclose(one.principal.values, other.principal.values, atol=1e-12)
    # The folder knows which solver an answer is from, and what was not solved is tried again.
    host, again = EigenCache(tmp_path), EigenCache(tmp_path, accelerator=device)
    assert analyze(stack, config, solver=again).layers[0].principal.fallback is None
    analyze(stack, config, solver=host)
    assert (again.solved, host.solved) == (1, 2)
    # Leading pairs, and those of their null models, are the host's.
    matrix = np.asarray(stack.layer_matrix)[0]
    asked.clear()
    basis = again.basis(matrix, "real", 1.0, krylov=True)
    np.testing.assert_array_equal(host.basis(matrix, "real", 1.0, krylov=True), basis)
    assert not asked


def test_the_null_models_too_are_solved_where_the_layers_are(stack, whole):
    solver = Solver(accelerator=jax.devices("cpu")[0])
    config = replace(SMALL, nulls=("gaussian",))
    result = analyze(stack, config, solver=solver)
    for one, other in zip(result.layers, whole.layers, strict=True):
        a, b = (each.null["gaussian"].delta_rho for each in (one, other))
        assert a == pytest.approx(b, abs=1e-9)


def test_fault_78_prompts_pass_in_halves_where_memory_is_short(stack, whole, monkeypatch):
    asked = []

    def short(layer, x, present):
        asked.append(len(x))
        if len(x) > 2:
            raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)
        return attention_weights(layer, x, present)

    monkeypatch.setattr("pmt.experiments.layer_run.attention_weights", short)
    solver = Solver()
    result = analyze(stack, SMALL, solver=solver)
    # The second layer knows; nothing is solved twice.
    assert asked == [5, 3, 2, 2, 1, 2, 2, 1]
    assert solver.solved == 2 * (1 + SMALL.draws)
    assert result.prompts_at_once == 2 and whole.prompts_at_once is None
    record, expected = analysis_json(result), analysis_json(whole)
    assert record["settings"].pop("prompts_at_once") == 2
    assert record["settings"] == expected["settings"]
    for one, other in zip(record["layers"], expected["layers"], strict=True):
        assert one["eigenvalues"] == other["eigenvalues"]
        for name in ("rho_after", "delta_rho", "mean_delta_rho", "intertoken_distance"):
            assert one[name] == pytest.approx(other[name], rel=1e-9, abs=1e-12)
        for name in ("gaussian", "rotated"):
            a, b = (each["null"][name]["delta_rho"] for each in (one, other))
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12)
    assert "the device had memory for 2 prompts at a time" in screen_parts(result, None)


def test_prompts_keep_their_numbers_in_what_is_said_of_them():
    x = jnp.asarray(random_tokens(2, 1, 3, seed=0))
    cancels = prepare_layer(stack_of(-np.eye(3)).layer(0), 1.0)
    with pytest.raises(RequestError, match=r"layer 1, prompt 4 \(counted from 0\)"):
        advance(cancels, x, "layer 1", 4)
    with pytest.raises(RequestError, match="token 0 of text 5 "):
        require_states(x.at[1].set(0.0), np.ones((2, 1), bool), "layer 1", 4)

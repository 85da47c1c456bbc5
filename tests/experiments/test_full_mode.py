"""Full mode and padded texts: the real model's states, and null models in the same place."""

import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import (
    AnalysisConfig,
    analysis_json,
    analyze,
    layer_by_layer,
    null_draws,
    random_tokens,
)
from pmt.experiments.full_mode import analyze_full
from pmt.experiments.passage import mean_distance
from pmt.experiments.plain_text import read_own
from pmt.models import Tokens, from_pretrained
from pmt.spectral import chance, principal
from tests.experiments.systems import random_stack
from tests.experiments.transcription import error_over_texts
from tests.models.conftest import DATA

CONFIG = AnalysisConfig(draws=2)


def text_of(model, lengths, width, seed=0):
    ids = np.random.default_rng(seed).integers(0, model.dimensions.vocabulary, (3, 9))
    present = np.arange(width) < np.array(lengths)[:, None]
    ids = np.where(present, np.resize(ids[:, :width], present.shape), 0).astype(np.int32)
    return Tokens(ids, present, np.zeros_like(ids), np.zeros(present.shape, bool))


@pytest.fixture(scope="module", params=["bert-tanh", "gpt-neox-parallel"])
def model(request):
    jax.config.update("jax_enable_x64", True)
    return from_pretrained(DATA / request.param, dtype="float64")


def statistics(low, high):
    return low.mean(), high.mean(), (high - low).mean(), np.mean(high > low)


def test_the_statistics_are_those_of_the_states_and_the_nulls_of_the_same_blocks(
    model, monkeypatch
):
    """In NumPy from the model's own states; and nulls that change nothing give its own numbers."""

    def own_maps(layer, *key, norms=None):
        del key, norms
        yield from np.asarray(layer.head_matrices)

    monkeypatch.setattr(null_draws, "gaussian_maps", own_maps)
    monkeypatch.setattr(null_draws, "random_rotation", lambda d, *key: np.eye(d))
    text = text_of(model, (5, 3, 1), 5)
    there = text.present
    found = analyze_full(model, text, CONFIG)
    states = np.asarray(model(text, logits=False).hidden_states)
    assert found.mode == "full" and found.counted == 9 and found.shape[:2] == (3, 5)
    for layer, before, after in zip(found.layers, states, states[1:], strict=False):
        own = principal(model.layer_map(layer.index - 1))
        low, high = (
            np.linalg.norm(x[there] @ own.basis, axis=1) / np.linalg.norm(x[there], axis=1)
            for x in (before, after)
        )
        expected = statistics(low, high)
        got = layer.alignment
        np.testing.assert_allclose(
            (got.rho_before, got.rho_after, got.delta_rho, got.p_increase), expected, rtol=1e-9
        )
        means = [part.mean() for part in np.split(high - low, [5, 8])]
        assert got.delta_rho_se == pytest.approx(error_over_texts(means, (5, 3, 1)), rel=1e-7)
        assert layer.chance == chance(len(own.values), own.dimension)
        for null in layer.null.values():
            assert null.delta_rho == pytest.approx(got.delta_rho, rel=1e-7, abs=1e-12)
            assert null.se == pytest.approx(got.delta_rho_se, rel=1e-6)
            assert null.p_increase == pytest.approx(got.p_increase)
        unit = after / np.linalg.norm(after, axis=-1, keepdims=True)
        pairs = [[(0, i, j) for i in range(5) for j in range(i)]]
        pairs += [[(1, i, j) for i in range(3) for j in range(i)]]
        distances = [
            np.mean([np.linalg.norm(unit[k, i] - unit[k, j]) for k, i, j in some]) for some in pairs
        ]
        assert layer.intertoken_distance == pytest.approx(np.mean(distances))


def test_padding_never_counts():
    """With a causal window, of which padding's rows see padding only."""
    model = from_pretrained(DATA / "qwen2-mixed", dtype="float64")
    short, wide = (analyze_full(model, text_of(model, (4, 2, 3), n), CONFIG) for n in (4, 7))
    for a, b in zip(short.layers, wide.layers, strict=True):
        for name, value in vars(a.alignment).items():
            assert value == pytest.approx(vars(b.alignment)[name], rel=1e-9)
        assert a.average.delta_rho == pytest.approx(b.average.delta_rho, rel=1e-9)
        assert a.null["rotated"].delta_rho == pytest.approx(b.null["rotated"].delta_rho, rel=1e-9)
        assert a.null["gaussian"].se == pytest.approx(b.null["gaussian"].se, rel=1e-9)
        for name in ("rho", "se", "sd", "ratio", "ratio_se", "ratio_sd"):
            after = [getattr(each.null["gaussian"].after, name) for each in (a, b)]
            assert after[0] == pytest.approx(after[1], rel=1e-9)

    # The seed is that of the null models, and the record says what was read.
    text = text_of(model, (4, 2, 3), 4)
    record, other = (
        analysis_json(each) for each in (short, analyze_full(model, text, replace(CONFIG, seed=1)))
    )
    settings = record["settings"]
    assert settings["mode"] == "full" and settings["normalize"] == "the model's own"
    assert settings["texts"] == "given" and settings["counted_tokens"] == 9
    for a, b in zip(record["layers"], other["layers"], strict=True):
        assert a["delta_rho"] == b["delta_rho"] and a["null"] != b["null"]


def test_stripped_texts_of_unequal_length_move_as_each_alone():
    stack, lengths = random_stack(), (4, 2, 1)
    x = random_tokens(3, 4, 6, seed=3)
    present = np.arange(4) < np.array(lengths)[:, None]
    found = analyze(stack, CONFIG, tokens=x, present=present)
    texts = [jnp.asarray(x[i, :n]) for i, n in enumerate(lengths)]
    for index, layer in enumerate(found.layers):
        own = layer_by_layer.prepare_layer(stack.layer(index), 1.0)
        moved = [own(text) for text in texts]
        basis = principal(own).basis
        low, high = (
            np.concatenate([np.linalg.norm(np.asarray(t) @ basis, axis=1) for t in some])
            for some in (texts, moved)
        )
        np.testing.assert_allclose(
            (layer.alignment.rho_before, layer.alignment.rho_after, layer.alignment.delta_rho),
            statistics(low, high)[:3],
            rtol=1e-9,
        )
        texts = moved
    # All of them present is the same as no padding at all.
    whole = analyze(stack, CONFIG, tokens=x, present=np.ones((3, 4), bool))
    for a, b in zip(whole.layers, analyze(stack, CONFIG, tokens=x).layers, strict=True):
        assert a.alignment.delta_rho == pytest.approx(b.alignment.delta_rho, rel=1e-9)
        assert a.null["gaussian"].se == pytest.approx(b.null["gaussian"].se, rel=1e-9)
        for name in ("rho", "se", "sd", "ratio", "ratio_se", "ratio_sd"):
            after = [getattr(each.null["gaussian"].after, name) for each in (a, b)]
            assert after[0] == pytest.approx(after[1], rel=1e-9)


def test_the_distance_within_a_long_text_takes_memory_of_its_length_and_not_its_square():
    n, d = 300, 64
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, n, d)))
    present = np.arange(n) < np.array([[n], [1]])
    tracemalloc.start()
    found = mean_distance(x, present)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * x.size * 8 < n * n * d * 8 / 10
    unit = np.asarray(x[0]) / np.linalg.norm(x[0], axis=1, keepdims=True)
    products = (unit @ unit.T)[np.triu_indices(n, 1)]
    assert found == pytest.approx(np.sqrt(2 - 2 * products).mean(), rel=1e-12)


def test_fault_46_states_that_are_not_finite_are_named():
    model = from_pretrained(DATA / "bert-tanh", dtype="float64")
    norm = model.blocks[1].mlp_norm
    norm.scale[...] = norm.scale[...].at[0].set(jnp.nan)
    with pytest.raises(RequestError, match="in layer 2, token 0 of text 0"):
        analyze_full(model, text_of(model, (4, 2, 3), 4), replace(CONFIG, nulls=()))


def test_texts_whose_attention_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("pmt.experiments.plain_text._MOST_WEIGHTS", 10)
    with pytest.raises(RequestError, match="give fewer or shorter texts"):
        read_own(from_pretrained("minilm"), ["Tokens align."])

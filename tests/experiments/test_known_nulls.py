"""What null models showed is kept by content: the same numbers, and nothing is drawn again."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pmt.experiments import AnalysisConfig, analyze, count_of_steps, layer_run
from pmt.experiments.eigen_cache import EigenCache
from pmt.experiments.full_mode import analyze_full
from pmt.experiments.tokens import random_tokens
from pmt.models import from_pretrained
from tests.experiments.systems import random_stack
from tests.experiments.test_full_mode import text_of
from tests.models.conftest import DATA

CONFIG = AnalysisConfig(prompts=5, tokens=4, draws=2)
TOKENS = random_tokens(5, 4, 6, 0)


@pytest.fixture
def drawn(monkeypatch):
    """Which layers are drawn for, in order: one number a layer."""
    seen, true = [], layer_run.null_draws

    def null_draws(layer, x, weights, seed, block):
        seen.append(block)
        return true(layer, x, weights, seed, block)

    monkeypatch.setattr(layer_run, "null_draws", null_draws)
    return seen


@pytest.fixture(scope="module")
def stack():
    return random_stack(layers=2, biases=True)


def texts(folder):
    """Files of what null models showed."""
    found = []
    for path in folder.iterdir():
        with np.load(path) as archive:
            if "text" in archive.files:
                found.append(path)
    return found


@pytest.mark.parametrize("nulls", [("gaussian", "rotated"), ("rotated",), ()])
def test_the_second_analysis_is_the_first_and_draws_nothing(tmp_path, drawn, stack, nulls):
    config = replace(CONFIG, nulls=nulls)
    fresh = analyze(stack, config, tokens=TOKENS)
    drawn.clear()
    results, steps = [], []
    for _ in range(2):
        calls, solver = [], EigenCache(tmp_path)
        results.append(analyze(stack, config, tokens=TOKENS, solver=solver, progress=calls.append))
        steps.append((list(drawn), solver.solved, sum(calls)))
        drawn.clear()
    problems = 2 + 2 * config.draws_of("gaussian")
    assert steps[0] == ([0, 1] if nulls else [], problems, count_of_steps(2, config))
    assert steps[1] == ([], 0, count_of_steps(2, config))
    assert len(texts(tmp_path)) == (2 if nulls else 0)
    for result in results:
        for one, other in zip(result.layers, fresh.layers, strict=True):
            assert one.null == other.null and set(one.null) == set(nulls)
            assert one.alignment == other.alignment and one.average == other.average


def test_all_that_the_numbers_depend_on_is_in_the_key(tmp_path, drawn, stack):
    def run(config=CONFIG, tokens=TOKENS, layers=stack, **given):
        drawn.clear()
        found = analyze(layers, config, tokens=tokens, solver=EigenCache(tmp_path), **given)
        assert (
            found.layers[0].null == analyze(layers, config, tokens=tokens, **given).layers[0].null
        )
        # The second analysis draws for both layers in any case.
        return len(drawn) - 2

    assert run() == 2 and run() == 0
    for changed in ({"seed": 1}, {"draws": 1}, {"alpha": 0.5}, {"order": "skip"}):
        assert run(replace(CONFIG, **changed)) == 2
    assert run(replace(CONFIG, nulls=("gaussian",))) == 2
    other = TOKENS.copy()
    other[-1, -1, -1] += 1e-9
    assert run(tokens=other) == 2
    present = np.ones((5, 4), bool)
    assert run(present=present) == 2
    present[0, -1] = False
    assert run(present=present) == 2
    # One number of one map, in the second layer only.
    for name in ("query", "key", "value", "output", "output_bias"):
        maps = stack.layers
        array = np.array(getattr(maps, name))
        array[1].flat[0] = np.nextafter(array[1].flat[0], 9)
        changed = replace(stack, layers=replace(maps, **{name: jax.numpy.asarray(array)}))
        assert run(layers=changed) == 1, name
    assert run() == 0


def test_a_block_of_which_only_the_first_layer_is_known(tmp_path, drawn, stack):
    """The draws' eigenproblems, which belong to the block, are solved when they are needed."""
    layers = SimpleNamespace(depth=3, layer=lambda i: stack.layer(0), block=lambda i: 0)
    whole = analyze(layers, CONFIG, tokens=TOKENS, solver=EigenCache(tmp_path / "one"))
    analyze(
        SimpleNamespace(depth=1, layer=layers.layer, block=layers.block),
        CONFIG,
        tokens=TOKENS,
        solver=EigenCache(tmp_path / "other"),
    )
    calls, solver = [], EigenCache(tmp_path / "other")
    drawn.clear()
    found = analyze(layers, CONFIG, tokens=TOKENS, solver=solver, progress=calls.append)
    assert len(drawn) == 2 and sum(calls) == count_of_steps(3, CONFIG)
    for one, other in zip(found.layers, whole.layers, strict=True):
        assert one.null == other.null


@pytest.mark.parametrize("text", ["", "[1]", '{"gaussian": {"sd": 1}}', '{"gaussian": 3}'])
def test_a_text_that_is_none_of_ours_is_replaced(tmp_path, drawn, stack, text):
    first = analyze(stack, CONFIG, tokens=TOKENS, solver=EigenCache(tmp_path))
    damaged = texts(tmp_path)[0]
    with open(damaged, "wb") as stream:
        np.savez(stream, text=np.array(text))
    for expected in (1, 0):
        drawn.clear()
        again = analyze(stack, CONFIG, tokens=TOKENS, solver=EigenCache(tmp_path))
        assert len(drawn) == expected
        assert [layer.null for layer in again.layers] == [layer.null for layer in first.layers]
    with np.load(damaged) as archive:
        assert set(json.loads(str(archive["text"]))) == {"gaussian", "rotated"}


def test_in_full_mode_the_rest_of_the_block_counts_too(tmp_path):
    """Two models with the same attention and other feed-forward parts have other null models."""
    solver, found = EigenCache(tmp_path), []
    for factor in (1.0, 1.5):
        model = from_pretrained(DATA / "bert-tanh", dtype="float64")
        kernel = model.blocks[0].mlp.up.kernel
        kernel[...] = factor * kernel[...]
        text = text_of(model, (4, 2, 3), 4)
        given = replace(CONFIG, prompts=3)
        found.append([analyze_full(model, text, given, solver=each) for each in (solver, None)])
    for kept, fresh in found:
        assert [each.null for each in kept.layers] == [each.null for each in fresh.layers]
    (one, _), (other, _) = found
    assert one.layers[0].null != other.layers[0].null

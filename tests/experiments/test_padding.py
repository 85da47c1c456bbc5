"""Texts of several lengths, padded to one: every item gives what these texts give one by one.

The one way has padding and masks, the other has neither.
"""

from dataclasses import replace

import numpy as np

from pmt.experiments import AnalysisConfig, analyze, describe
from pmt.experiments.cumulative_products import DIRECTIONS, ProductConfig
from pmt.experiments.items import Given, find_items
from pmt.experiments.plain_text import initial_tokens
from pmt.experiments.shared_layer import SharedConfig
from pmt.experiments.steer import SteerConfig, steer
from pmt.models import from_pretrained
from tests.experiments.systems import random_stack
from tests.experiments.transcription import error_over_texts
from tests.models.conftest import DATA

LENGTHS = np.array([3, 1, 3, 3])
PRESENT = np.arange(3) < LENGTHS[:, None]


def item(name):
    (found,) = find_items([name])
    return found


def padded(d):
    """Tokens of texts, padded by anything at all."""
    return np.random.default_rng(1).normal(size=(4, 3, d))


def alone(x):
    """Every text with no padding."""
    return [text[None, :length] for text, length in zip(x, LENGTHS, strict=True)]


def together(means):
    """A mean over all tokens, and its standard error with texts as units, from those of texts."""
    means = np.asarray(means, np.float64)
    return means @ LENGTHS / LENGTHS.sum(), error_over_texts(means, LENGTHS)


def test_a_repeated_layer():
    x, stack, each = padded(6), random_stack(d=6, layers=3), item("figure-6b")
    config = SharedConfig(draws=2, null_prompts=3)

    def run(tokens, present=None):
        return each.run(config, Given(layers=stack, layer=2, tokens=tokens, present=present))

    found, single = run(x, PRESENT), [run(text) for text in alone(x)]
    for text, (own, length) in enumerate(zip(single, LENGTHS, strict=True)):
        for name in ("first", "second", "plane"):
            ours, theirs = getattr(found, name), getattr(own, name)
            np.testing.assert_allclose(ours[:, text].compressed(), theirs.ravel(), atol=1e-12)
        np.testing.assert_allclose(found.signed[text].compressed(), own.signed[0], atol=1e-12)
        if length > 1:
            np.testing.assert_allclose(found.distance[:, text], own.distance[:, 0], atol=1e-9)
    expected = [together([own.average[step] for own in single])[0] for step in range(4)]
    np.testing.assert_allclose(found.average, expected, atol=1e-12)
    # One text has no pair of tokens.
    pairs = LENGTHS > 1
    several = np.stack([own.distance[:, 0] for own in single], axis=1)[:, pairs]
    np.testing.assert_allclose(found.distance.mean(axis=1), several.mean(axis=1), atol=1e-9)
    for name in ("gaussian", "rotated"):
        # The first three texts, of each draw.
        rho = np.stack([own.null[name].rho.mean(axis=(2, 3)) for own in single[:3]], axis=-1)
        mean = rho @ LENGTHS[:3] / LENGTHS[:3].sum()
        last = found.under(name, 3)
        assert abs(last.rho - mean[:, -1].mean()) < 1e-12
        assert abs(last.sd - mean[:, -1].std(ddof=1)) < 1e-12
        units = rho[:, -1].mean(axis=0)
        error = np.hypot(error_over_texts(units, LENGTHS[:3]), mean[:, -1].std(ddof=1) / 2**0.5)
        assert abs(last.se - error) < 1e-12
        apart = np.mean([single[k].null[name].distance for k in (0, 2)], axis=0)
        np.testing.assert_allclose(found.null[name].distance, apart, atol=1e-9)
    rows = each.tables(found)
    assert len(rows["final-tokens"]) == LENGTHS.sum()
    mean, error = together([own.first[-1].mean() for own in single])
    shown = each.record(found)["rho_v1"]
    assert abs(rows["steps"][-1]["rho_v1"] - mean) < 1e-12
    assert abs(shown["mean"][-1] - mean) < 1e-12 and abs(shown["se"][-1] - error) < 1e-12
    short = run(alone(x)[1], np.ones((1, 1), bool))
    assert each.tables(short)["steps"][-1]["intertoken_distance"] == 0


def test_cumulative_products():
    x, stack, each = padded(5), random_stack(d=5, layers=2), item("figure-8")
    config = ProductConfig(draws=2)

    def run(tokens, present=None):
        return each.run(config, Given(layers=stack, tokens=tokens, present=present)).layers

    found, single = run(x, PRESENT), [run(text) for text in alone(x)]
    for layer in (0, 1):
        for name in DIRECTIONS:
            own, others = (
                getattr(found[layer], name),
                [getattr(one[layer], name) for one in single],
            )
            mean, error = together([other.rho for other in others])
            assert abs(own.rho - mean) < 1e-12 and abs(own.se - error) < 1e-12
            if own.average is not None:
                assert abs(own.average - together([one.average for one in others])[0]) < 1e-12
            for null in ("gaussian", "rotated"):
                mean, _ = together([other.null[null].rho for other in others])
                assert abs(own.null[null].rho - mean) < 1e-12


def test_a_steered_layer_and_its_dose_response():
    model, x = from_pretrained(DATA / "bert-tanh"), padded(24)
    target = np.random.default_rng(2).normal(size=24)
    config = SteerConfig(c=3.0, doses=3, spectra=True)
    found = steer(model, target, config, tokens=x, present=PRESENT)
    single = [steer(model, target, config, tokens=text) for text in alone(x)]
    for name in ("before", "after", "positive_before", "positive_after"):
        ours, theirs = getattr(found, name), [getattr(one, name) for one in single]
        assert abs(ours - together(theirs)[0]) < 1e-6
    for edit in ("base", "steered"):
        for layer in range(3):
            ours = getattr(found, edit)[layer]
            theirs = [getattr(one, edit)[layer] for one in single]
            for part in ("target", "principal", "average"):
                expected, _ = together([getattr(one, part).rho_after for one in theirs])
                assert abs(getattr(ours, part).rho_after - expected) < 1e-6
    at = int(np.flatnonzero(found.curve.c == 3.0)[0])
    assert abs(found.curve.measured[at] - found.after) < 1e-6
    assert np.all(np.abs(found.curve.measured - found.curve.predicted) <= found.curve.error)
    # What was added nothing to leaves as it would have.
    assert abs(found.curve.addition[0] - found.before) < 1e-6


def test_figure_9_and_the_orders_take_the_same_tokens():
    model, x = from_pretrained(DATA / "bert-tanh"), padded(24)
    given = Given(
        layers=model.layer_stack(),
        model=describe(model),
        tokens=x,
        present=PRESENT,
        open_model=lambda: model,
    )
    orders = item("orders").run(item("orders").quick, given)
    steered = item("figure-9").run(replace(item("figure-9").quick, alignment=0.9), given)
    expected = analyze(model.layer_stack(), AnalysisConfig(nulls=()), tokens=x, present=PRESENT)
    for index, layer in enumerate(expected.layers):
        assert orders.analyses["real"].layers[index].alignment == layer.alignment
        assert steered.unedited.layers[index].alignment == layer.alignment
    own = item("orders").record(orders)["real"]["settings"]
    assert own["texts"] == "given" and own["counted_tokens"] == LENGTHS.sum()


def test_initial_tokens_are_the_embeddings_and_padding_is_none():
    model = from_pretrained("minilm")
    texts = ["Yes.", "A stitch in time saves nine."]
    tokens, present = initial_tokens(model, texts)
    whole = model.tokenize(texts)
    np.testing.assert_array_equal(present, whole.present)
    states = np.asarray(model(whole).hidden_states)[0]
    np.testing.assert_allclose(tokens[present], states[present], atol=1e-6)
    assert np.all(np.isfinite(tokens)) and np.all(np.linalg.norm(tokens, axis=-1) > 0)

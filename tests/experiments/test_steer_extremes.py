"""Steering at its limits: strengths that overflow (fault 62), V = 0 (60), texts without an end."""

import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import directions
from pmt.experiments.collateral import Readout, run_within_range
from pmt.experiments.steer import SteerConfig
from pmt.experiments.steered_runs import FullRun
from pmt.models import Tokens, from_pretrained
from pmt.models.editing import steered
from pmt.models.partial import embed, run_layers
from pmt.steering import unit
from tests.models.conftest import DATA, Tiny


def some_text(model, batch=3, n=4):
    shape = (batch, n)
    ids = np.random.default_rng(0).integers(2, model.dimensions.vocabulary, shape)
    present = np.ones(shape, bool)
    present[0, 1:] = n == 1
    none = np.zeros(shape, bool)
    return Tokens(ids.astype(np.int32), present, none.astype(np.int32), none)


class Costs:
    """Of the edit of a model's layer at any c."""

    def __init__(self, model, index, text):
        d = model.dimensions.d
        w = unit("w", np.random.default_rng(3).normal(size=d), d)
        self.run, self.target = FullRun(model, index, text), w
        self.edit = self.run.design(w, w, SteerConfig(c=1.0), "target")
        self.readout = Readout(model, text, index, self.run.leaving(None, None))

    def at(self, c):
        edit = self.edit.at(c)
        with steered(self.run.model, self.run.index, edit):
            state = self.run.leaving(None, None)
            return self.readout.cost("edit", c, state, self.target)


@pytest.mark.parametrize("name", ["gpt2-inverse", "llama-linear", "bert-tanh", "albert-groups"])
def test_fault_62_a_strength_is_refused_where_squares_overflow_and_right_below(name):
    """Pre-norm and post-norm: the norm would return zero or its bias, both finite."""
    found, refused = [], []
    for dtype in ("float32", "float64"):
        model = from_pretrained(DATA / name, dtype=dtype)
        index = 5 if name == "albert-groups" else len(model.schedule) - 1
        costs = Costs(model, index, some_text(model))
        cost = costs.at(1e16)
        found.append(cost.similarity_change if cost.kl is None else cost.kl)
        for c in (1e22, 1e28, -1e35):
            try:
                costs.at(c)
            except RequestError as error:
                refused.append((dtype, c, str(error)))
    assert found[1] > 1e-4 and abs(found[0] / found[1] - 1) < 1e-3, found
    assert [each[:2] for each in refused] == [("float32", c) for c in (1e22, 1e28, -1e35)]
    for *_, message in refused:
        assert "overflow float32; give a smaller strength, or --dtype float64" in message


@pytest.mark.parametrize("name", ["gpt2-inverse", "bert-tanh", "distilbert-learned"])
def test_states_whose_range_is_checked_are_those_of_the_model(name):
    model = from_pretrained(DATA / name)
    text = some_text(model)
    x, depth = embed(model, text), len(model.schedule)
    checked = run_within_range(model, x, text.present, 0, depth)
    for one, other in zip(checked, run_layers(model, x, text.present, 0, depth), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_addition_whose_squares_overflow_is_refused():
    model = from_pretrained(DATA / "gpt2-inverse")
    costs = Costs(model, 0, some_text(model))
    plain = costs.run.leaving(None, None)
    assert costs.readout.cost("addition", 1e15, plain + np.float32(1e15), costs.target).kl > 0
    with pytest.raises(RequestError, match="the states at layer 1 .* overflow float32"):
        costs.readout.cost("addition", 1e20, plain + np.float32(1e20), costs.target)


def test_texts_of_one_token_have_no_perplexity():
    """There is nothing to predict; exp(0) = 1 would be a perfect model."""
    model = from_pretrained(DATA / "gpt2-inverse")
    one, more = (Costs(model, 0, some_text(model, n=n)).at(1.0) for n in (1, 4))
    assert one.perplexity is None and one.kl > 0
    assert more.perplexity > 1


def test_fault_60_nothing_is_fitted_to_values_that_are_zero():
    model = from_pretrained(DATA / "bert-tanh")
    text = some_text(model)
    config, w = SteerConfig(c=1.0), np.ones(model.dimensions.d)
    assert FullRun(model, 0, text).design(w, w, config, "fit").response.share_positive == 1
    value = model.layer(0).attention.value
    value[...] = 0 * value[...]
    for read in ("fit", "target"):
        with pytest.raises(RequestError, match="the value weights V see nothing of the"):
            FullRun(model, 0, text).design(w, w, config, read)


def test_differences_are_those_of_whole_texts():
    """As for `pmt analyze`: what a model cannot read is refused, and not cut."""
    model = from_pretrained("minilm")
    start = "sea " * 260
    one, other = (
        directions.from_difference(model, 0, [start + end], ["A day."]).vector
        for end in ("storm", "lamp")
    )
    assert np.linalg.norm(one - other) > 1e-4 * np.linalg.norm(one)
    with pytest.raises(RequestError, match="has 602 tokens; this model takes at most 512"):
        directions.from_difference(model, 0, ["A day."], ["sea " * 600])


def test_fault_62_an_alignment_is_looked_for_below_where_states_overflow(tmp_path):
    """The residual stream is so long that the grid of strengths steps over what can be held."""
    size = 3e17
    tiny = Tiny(tmp_path / "long", "gpt2-inverse")
    tiny.tensors(lambda found: found | {k: size * v for k, v in found.items() if "wpe" in k})
    model = from_pretrained(tiny.folder)
    wide = from_pretrained(tiny.folder, dtype="float64")
    d = model.dimensions.d
    w = unit("w", np.random.default_rng(3).normal(size=d), d)

    def found(each, alignment):
        run = FullRun(each, 0, some_text(each))
        edit = run.design(w, w, SteerConfig(alignment=alignment), "fit")
        return edit.strength, np.abs(run.cosines(edit, None, w)[run.present]).mean()

    with pytest.raises(RequestError, match="the states reach .* overflow float32 beyond c") as no:
        found(model, 0.9999)
    assert "no strength reaches the mean alignment 0.9999 after" in str(no.value)
    assert str(no.value).endswith("ask for less, or --dtype float64")
    reached, beyond = (
        float(str(no.value).split(name)[1].split(end)[0])
        for name, end in (("the states reach ", ","), ("beyond c = ", ":"))
    )
    # Between the last strength of the grid that can be held and the first that cannot.
    near = 0.999 * reached
    strength, measured = found(model, near)
    assert 0.5 * beyond < strength < beyond and abs(measured - near) < 1e-3
    np.testing.assert_allclose(found(wide, near), (strength, measured), rtol=1e-2)
    assert found(wide, 0.5 + reached / 2)[0] > beyond

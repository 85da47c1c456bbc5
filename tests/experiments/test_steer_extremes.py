"""Steering at its limits: strengths that overflow (fault 62), V = 0 (60), texts without an end."""

import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import directions
from pmt.experiments.collateral import Readout
from pmt.experiments.steer import SteerConfig
from pmt.experiments.steered_runs import FullRun
from pmt.models import Tokens, from_pretrained
from pmt.models.editing import steered
from pmt.steering import unit
from tests.models.conftest import DATA


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

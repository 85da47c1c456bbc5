"""Items on models whose layers share weights, all of them or some."""

from dataclasses import replace

import numpy as np
import pytest

from pmt.experiments import AnalysisConfig, analyze, describe, shared_layer, steered_layers
from pmt.experiments.items import Given
from pmt.experiments.shared_layer import SharedConfig
from pmt.experiments.steered_layers import SteeredConfig
from pmt.models import from_pretrained
from pmt.models.editing import layers_with
from pmt.spectral import chance
from pmt.steering import apply
from tests.experiments.systems import random_stack
from tests.models.conftest import DATA


class Scheduled:
    """Layers that are dealt out to blocks."""

    def __init__(self, *schedule):
        self.schedule, self.depth = schedule, len(schedule)
        self.stack = random_stack(layers=2, d=5)

    def layer(self, index):
        return self.stack.layer(self.schedule[index])

    def block(self, index):
        return self.schedule[index]


class OfModel:
    """The layers of a model that is there as a whole."""

    def __init__(self, model):
        self._model, self.depth = model, len(model.schedule)

    def layer(self, index):
        return self._model.layer_map(index)

    def block(self, index):
        return self._model.schedule[index]


@pytest.mark.parametrize(
    ("schedule", "one"), [((0, 0, 0), True), ((0, 0, 1), False), ((0, 1), False), ((0,), False)]
)
def test_a_shared_layer_is_that_of_a_model_with_one_block(schedule, one):
    config = SharedConfig(prompts=2, tokens=2, draws=1, null_prompts=2)
    result = shared_layer.run(config, Given(layers=Scheduled(*schedule), layer=len(schedule)))
    assert result.shared is one
    assert shared_layer.record(result)["shared_weights"] is one


@pytest.fixture(scope="module", params=["albert-groups", "bert-tanh"])
def steered(request):
    model = from_pretrained(DATA / request.param)
    layers, done = OfModel(model), []
    given = Given(
        layers=layers, model=describe(model), open_model=lambda: model, progress=done.append
    )
    config = SteeredConfig(prompts=4, tokens=3, draws=2)
    result = steered_layers.run(config, given)
    return model, result, sum(done), steered_layers.pieces(config, given)


def test_progress_ends_at_the_whole(steered):
    _, _, done, pieces = steered
    assert done == pieces


def test_all_layers_with_the_edited_weights_are_named(steered):
    model, result, _, _ = steered
    depth = len(model.schedule)
    expected = [index + 1 for index in layers_with(model, depth - 1)]
    assert list(result.edited) == list(steered_layers.record(result)["edited_layers"]) == expected
    said, *nulls = steered_layers.sentences(result)
    assert [f"of layer {expected[-1]}: rho" in each for each in nulls] == [True, True]
    # What an edit does is no word on training.
    assert not any("trained" in each for each in nulls)
    assert all("the edited weights are" in each for each in nulls)
    if len(expected) == 1:
        assert said.startswith(f"layer {depth} steered with c")
    else:
        named = ", ".join(map(str, expected[:-1])) + f" and {expected[-1]}"
        assert said.startswith(f"layers {named}, which have the same weights, steered together")
        assert f"of the tokens that leave layer {expected[0]} with the target" in said


def test_the_table_has_what_the_directions_are_compared_with(steered):
    model, result, _, _ = steered
    rows = steered_layers.tables(result)["layers"]
    depth, d = len(model.schedule), model.dimensions.d
    assert len(rows) == 2 * depth
    layers = (*result.unedited.layers, *result.steered.layers)
    for row, layer in zip(rows, layers, strict=True):
        assert row["target_chance"] == chance(d) and row["chance"] == chance(d, row["dimension"])
        assert row["dimension"] == 1 + (row["eigenvalue_im"] != 0)
        value = complex(row["eigenvalue_re"], row["eigenvalue_im"])
        assert value == layer.principal.eigenvalue
        assert row["rotated_after_rho"] == layer.null["rotated"].after.rho
        assert 0 <= row["target_cosine"] <= 1 + 1e-12
        steered_row = row["edit"] == "steered"
        assert row["changed"] == (steered_row and row["layer"] in result.edited)
    values = np.linalg.eigvals(np.asarray(model.layer_map(0).layer_matrix, np.float64))
    assert rows[0]["eigenvalue_re"] == pytest.approx(values.real.max(), rel=1e-4)


def test_both_analyses_are_those_of_the_model_without_and_with_the_edit(steered):
    """As all layers would be analysed, whichever are edited: those before them are as they were."""
    model, result, _, _ = steered
    edit, dtype = result.steering.edit, np.dtype(result.steering.cast.dtype)

    class Edited(OfModel):
        def layer(self, index):
            own = self._model.layer_map(index)
            return apply(own, edit, dtype) if index + 1 in result.edited else own

    config = AnalysisConfig(prompts=4, tokens=3, draws=2)
    for layers, found in ((OfModel(model), result.unedited), (Edited(model), result.steered)):
        whole = analyze(layers, config)
        for one, other in zip(whole.layers, found.layers, strict=True):
            assert one.index == other.index
            assert one.principal.eigenvalue == other.principal.eigenvalue
            # Tokens that are normalised once more differ by a rounding, which the layers after
            # it, with weights of the size of the edit, make larger.
            for name in ("rho_after", "delta_rho"):
                assert abs(getattr(one.alignment, name) - getattr(other.alignment, name)) < 1e-4
            for null in ("gaussian", "rotated"):
                assert abs(one.null[null].after.rho - other.null[null].after.rho) < 1e-4
    last = result.steered.layers[result.edited[-1] - 1]
    # The rotated null has the edit's spectrum, and the Gaussian one nothing of it.
    assert last.alignment.rho_after > 0.9 and last.null["rotated"].after.rho > 0.8
    assert last.null["gaussian"].after.rho < last.alignment.rho_after


def test_a_share_of_increases_that_rounding_decides_is_told(steered):
    _, result, _, _ = steered
    layers, least = result.steered.layers, 16 * float(np.finfo(result.steered.dtype).eps)
    assert all(layer.alignment.delta_rho_std > least for layer in layers)
    said = steered_layers.sentences(result)
    still = replace(layers[-1].alignment, delta_rho=-least / 2, delta_rho_std=least / 2)
    ends = replace(result.steered, layers=(*layers[:-1], replace(layers[-1], alignment=still)))
    told = steered_layers.sentences(replace(result, steered=ends))
    assert len(told) == len(said) + 1 and f"in layer {layers[-1].index} tokens keep" in told[-1]

"""Items on models whose layers share weights, all of them or some."""

import numpy as np
import pytest

from pmt.experiments import describe, shared_layer, steered_layers
from pmt.experiments.items import Given
from pmt.experiments.shared_layer import SharedConfig
from pmt.experiments.steered_layers import SteeredConfig
from pmt.models import from_pretrained
from pmt.models.editing import layers_with
from pmt.spectral import chance
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
    if request.param == "bert-tanh":
        layers = model.layer_stack()
    else:
        layers = Scheduled(*model.schedule)
    done = []
    given = Given(
        layers=layers, model=describe(model), open_model=lambda: model, progress=done.append
    )
    config = SteeredConfig(prompts=4, tokens=3)
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
    (said,) = steered_layers.sentences(result)
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
    for row, panel in zip(rows, (*result.base, *result.steered), strict=True):
        assert row["target_chance"] == chance(d) and row["chance"] == chance(d, row["dimension"])
        assert row["dimension"] == 1 + (row["eigenvalue_im"] != 0)
        assert complex(row["eigenvalue_re"], row["eigenvalue_im"]) == panel.eigenvalue
        assert 0 <= row["cosine"] <= 1 + 1e-12
        steered_row = row["edit"] == "steered"
        assert row["changed"] == (steered_row and row["layer"] in result.edited)
    values = np.linalg.eigvals(np.asarray(model.layer_map(0).layer_matrix, np.float64))
    assert rows[0]["eigenvalue_re"] == pytest.approx(values.real.max(), rel=1e-4)

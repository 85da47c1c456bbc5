"""The figure of a steered model shows what was measured, and no text covers another."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pmt.experiments.collateral import Cost
from pmt.experiments.steer import SteerConfig, steer
from pmt.figures import figure_bytes
from pmt.figures.steering import steering
from pmt.models import from_pretrained
from tests.models.conftest import DATA


@pytest.fixture(scope="module")
def result():
    model = from_pretrained(DATA / "bert-tanh")
    config = SteerConfig(alignment=0.9, prompts=5, tokens=4, doses=4)
    return steer(model, np.random.default_rng(0).normal(size=24), config)


def costs(**fields):
    doses = [("edit", 30.0, 0.9), ("none", 0.0, 0.1), ("edit", 3.0, 0.4), ("edit", 9.0, 0.6)]
    doses += [("addition", 1.0, 0.3), ("addition", 4.0, 0.8)]
    return tuple(
        Cost(name, dose, at, 0.5, **{key: value * dose for key, value in fields.items()})
        for name, dose, at in doses
    )


CASES = {
    "stripped": {},
    "encoder": {"costs": costs(similarity_change=0.1, similarity_rank=0.02)},
    "decoder": {"costs": costs(kl=0.3, perplexity=100.0)},
    "full mode": {"curve": None, "costs": costs(kl=0.3, perplexity=100.0)},
    "nothing but panels": {"curve": None},
}


@pytest.fixture(params=CASES)
def shown(request, result):
    return replace(result, **CASES[request.param])


def axes(figure):
    return {axis.get_ylabel(): axis for axis in figure.axes}


def line(axis, label):
    (found,) = [each for each in axis.lines if each.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_the_lines_are_the_numbers(result):
    figure = steering(replace(result, **CASES["decoder"]))
    panels = axes(figure)
    layers, rho = line(panels["alignment ρ after the layer"], "target, steered")
    np.testing.assert_array_equal(layers, [1, 2, 3])
    np.testing.assert_array_equal(rho, [panel.target.rho_after for panel in result.steered])
    _, share = line(panels["share P of increases"], "principal, unedited")
    np.testing.assert_array_equal(share, [panel.principal.p_increase for panel in result.base])
    c, predicted = line(panels["mean ρ, stripped mode"], "edit, predicted")
    np.testing.assert_array_equal(c, result.curve.c[1:])
    np.testing.assert_array_equal(predicted, result.curve.predicted[1:])
    at, kl = line(panels["KL of the next token (nats)"], "activation addition")
    np.testing.assert_allclose([at, kl], [[0.1, 0.3, 0.8], [0.0, 0.3, 1.2]])


def test_no_text_leaves_the_frame_or_covers_another(shown):
    figure = steering(shown)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    texts = [label for axis in figure.axes for label in (axis.xaxis.label, axis.yaxis.label)]
    for part in figure.subfigs:
        texts += [text for legend in part.legends for text in legend.get_texts()]
    texts = [text for text in texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 8
    for i, box in enumerate(boxes):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, texts[i]
        assert not any(box.overlaps(other) for other in boxes[:i]), texts[i]
    assert min(text.get_fontsize() for text in texts) >= 6.5


def test_results_without_spectra_or_strength_are_drawn_and_bytes_repeat(result):
    bare = [replace(p, principal=None) for p in result.base]
    figures = [
        steering(replace(result, base=tuple(bare), steered=tuple(bare))),
        steering(replace(result, edit=result.edit.at(0.0))),
    ]
    assert all(figure_bytes(figure, "svg").startswith(b"<?xml") for figure in figures)
    assert figure_bytes(steering(result), "svg") == figure_bytes(steering(result), "svg")

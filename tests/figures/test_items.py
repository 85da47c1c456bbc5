"""The figures of the items: what they say, in their frame, for every case of a spectrum."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from pmt.experiments.contrast import NullRho
from pmt.experiments.cumulative_products import (
    Against,
    CumulativeProducts,
    ProductConfig,
    ProductLayer,
)
from pmt.experiments.items import ITEMS
from pmt.experiments.leading_eigenvalues import EigenvalueConfig, LeadingEigenvalues
from pmt.experiments.null_runs import NullRun
from pmt.experiments.shared_layer import SharedRun
from pmt.experiments.sphere_runs import SphereRun, SphereRuns
from pmt.figures import figure_bytes
from pmt.figures.items import animate_item, draw_item
from pmt.spectral import principal

TURNING = scipy.linalg.block_diag([[1.0, 0.8], [-0.8, 1.0]], 0.4, -0.2)
STRETCHING = np.diag([1.0, 0.6, 0.2, -0.4])


def shared(matrix, steps=3):
    """A run with made-up tokens."""
    rho = np.random.default_rng(0).uniform(size=(steps + 1, 2, 5))
    own = principal(matrix)
    drawn = NullRun(rho[None], (1,), rho.mean(axis=(1, 2)), rho[None, 0] - 0.5, rho[None, 0])
    return SharedRun(
        layer=2,
        shared=False,
        depth=2,
        steps=steps,
        spectrum=own.spectrum,
        first=rho,
        second=rho / 2,
        plane=np.sqrt(rho),
        signed=np.linspace(-1, 1, 10).reshape(2, 5),
        average=rho.mean(axis=(1, 2)),
        null={"gaussian": replace(drawn, plane=None), "rotated": drawn},
        distance=rho.mean(axis=2),
        chances=(0.4, 0.6, 0.5, 0.55),
    )


def texts(figure):
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_title(loc="left")]
        found += [axis.get_xlabel(), axis.get_ylabel()]
    for legend in [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]:
        found += [text.get_text() for text in legend.get_texts()]
    return " | ".join(filter(None, found))


def test_every_key_of_an_item_has_figures_and_a_table_has_none():
    from pmt.figures.items import _DRAWN

    assert {item.figure for item in ITEMS if item.figure is not None} <= set(_DRAWN)
    assert draw_item(None, object()) == {}


@pytest.mark.parametrize(("matrix", "name"), [(TURNING, "Re $v_1$"), (STRETCHING, "$v_1$")])
def test_a_repeated_layer_is_drawn_with_what_it_is_compared_with(matrix, name):
    result = shared(matrix)
    figure = draw_item("correlations", result)["figure"]
    assert f"with {name}" in texts(figure)
    compared = ("Gaussian null", "rotated null", "chance", "mean over all eigendirections")
    for label in (*compared, "chance of that mean", "one token"):
        assert label in texts(figure)
    # The mean is drawn over the tokens, and is theirs.
    panel = figure.axes[0].lines
    np.testing.assert_allclose(panel[-2].get_ydata(), result.first.mean(axis=(1, 2)))
    histograms = draw_item("final_alignment", result)["figure"]
    heights = [patch.get_height() for patch in histograms.axes[1].patches[:40]]
    assert abs(sum(heights) * 2 / 40 - 1) < 1e-9
    assert f"correlation with {name}" in texts(histograms)
    distance = draw_item("consensus", replace(result, shared=True))["figure"]
    assert "shared layer, applied 3 times" in texts(distance)
    (axis,) = distance.axes
    (line,) = (each for each in axis.lines if each.get_label() == "rotated null")
    np.testing.assert_array_equal(line.get_ydata(), result.null["rotated"].distance)
    assert "rotated null" in texts(histograms) and "Gaussian null" in texts(distance)
    for drawn in (figure, histograms, distance):
        assert len(figure_bytes(drawn, "png")) > 1000


@pytest.mark.parametrize("key", ["final_alignment", "correlations"])
def test_in_a_text_column_the_same_panels_stand_one_above_the_other(key):
    page, column = draw_item(key, shared(STRETCHING)).values()
    assert page.get_figwidth() == 7.0 and column.get_figwidth() == 3.4
    assert len(page.axes) == len(column.axes) == 3
    figure_bytes(column, "png")
    left = {round(axis.get_position().x0, 2) for axis in column.axes}
    tops = [axis.get_position().y1 for axis in column.axes]
    assert len(left) == 1 and tops == sorted(tops, reverse=True)
    for axis, other in zip(column.axes, page.axes, strict=True):
        assert axis.get_xlabel() in ("", other.get_xlabel()) and axis.get_ylabel()
        for one, same in zip(axis.lines, other.lines, strict=True):
            np.testing.assert_array_equal(one.get_ydata(), same.get_ydata())


@pytest.mark.parametrize("column", ["figure", "figure-column"])
def test_no_figure_of_a_repeated_layer_has_a_legend_beyond_its_edge(column, caplog):
    result = with_draws(shared(STRETCHING), 5)
    for key in ("final_alignment", "correlations"):
        figure = draw_item(key, result)[column]
        figure_bytes(figure, "png")
        (legend,) = figure.legends
        box, edge = legend.get_window_extent(), figure.bbox
        assert box.x0 >= edge.x0 and box.x1 <= edge.x1
    # Neither has matplotlib a word to say on limits and aspects.
    assert caplog.text == ""


@pytest.mark.parametrize("steps", [2, 3])
def test_the_upright_line_at_the_depth_of_the_model_is_in_the_legend(steps):
    figure = draw_item("correlations", shared(STRETCHING, steps))["figure"]
    upright = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [2, 2]]
    assert len(upright) == (steps > 2) and ("model's depth" in texts(figure)) == (steps > 2)


def with_draws(result, draws):
    """Null models whose draws lie 0.02 apart."""
    shift = 0.02 * np.arange(draws)[:, None, None, None]
    null = {
        name: replace(each, rho=each.rho[:1] / 2 + shift, dimensions=(1,) * draws)
        for name, each in result.null.items()
    }
    return replace(result, null=null)


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 5])
def test_the_band_of_the_null_models_is_seen_or_their_draws_are(draws):
    """Under Student's law two draws would make a band that fills the panel."""
    result = with_draws(shared(STRETCHING), draws)
    figure = draw_item("correlations", result)["figure"]
    axis = figure.axes[0]
    bands = axis.collections
    assert len(bands) == (2 if draws >= 4 else 0)
    assert ("one more draw of a null (95 %)" in texts(figure)) == (draws >= 4)
    assert (f"each of {draws} null draws" in texts(figure)) == (1 < draws < 4)
    gaussian = result.null["gaussian"].rho.mean(axis=(2, 3))
    shown = [list(line.get_ydata()) for line in axis.lines]
    assert all((list(each) in shown) == (draws < 4) for each in gaussian)
    tokens = [line for line in axis.lines if line.get_rasterized()]
    mean, *_ = (line for line in axis.lines if line.get_linewidth() == 1.8)
    nulls = [line for line in axis.lines if line.get_color() in ("#E69F00", "#CC79A7")]
    dashed = [line for line in nulls if line.get_linewidth() == 1.4]
    top = max(line.get_zorder() for line in tokens)
    assert len(tokens) == 10 and all(band.get_zorder() > top for band in bands)
    assert len(dashed) == 2 and all(line.get_zorder() > mean.get_zorder() for line in dashed)
    chance = next(line for line in axis.lines if line.get_color() == "#7F7F7F")
    assert chance.get_zorder() > top and tokens[0].get_color() != chance.get_color()


def test_of_a_single_prompt_the_draws_are_shown_since_its_band_is_not_known():
    result = with_draws(shared(STRETCHING), 5)
    null = {name: replace(each, rho=each.rho[:, :, :1]) for name, each in result.null.items()}
    figure = draw_item("correlations", replace(result, null=null))["figure"]
    assert "95 %" not in texts(figure) and "each of 5 null draws" in texts(figure)
    shown = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert all(list(draw) in shown for draw in null["rotated"].rho.mean(axis=(2, 3)))


def test_without_a_second_eigenvector_the_panel_says_so():
    result = replace(shared(STRETCHING), second=None, plane=None)
    figure = draw_item("final_alignment", result)["figure"]
    assert "no second real eigenvector" in texts(figure)
    lines = draw_item("correlations", result)["figure"]
    assert len(lines.axes) == 1


def test_the_leading_eigenvalues_and_their_gap():
    spectra = tuple(principal(m).spectrum for m in (STRETCHING, TURNING))
    result = LeadingEigenvalues(EigenvalueConfig(shown=3), spectra, (0.6, 0.9), False)
    figure = draw_item("leading_eigenvalues", result)["figure"]
    left, right = figure.axes
    assert [patch.get_height() for patch in right.patches] == pytest.approx(
        [0.4, 0.6 / np.hypot(1, 0.8)]
    )
    assert left.get_ylabel() == "Re λ" and "complex" in texts(figure)
    assert right.get_ylabel() == "relative gap of λ₁"
    assert [0.6, 0.9] in [list(line.get_ydata()) for line in left.lines]


def line_of(axis, color):
    (line,) = (each for each in axis.lines if each.get_color() == color)
    return line.get_ydata()


def test_no_point_of_the_products_is_cut_off():
    null = {
        "gaussian": NullRho(0.95, 0.01, 0.02, 9.5, 0.1, 0.2, 4, 1),
        "rotated": NullRho(0.1, None, None, 1.0, None, None, 1, 2),
    }

    def against(rho, average):
        level = None if average is None else 0.12
        return Against(rho, 0.01, 2, 0.1, average, level, null)

    layers = tuple(
        ProductLayer(
            index,
            plain=against(0.1, 0.1),
            plain_singular=against(0.2, None),
            skip=against(0.1 * index, 0.2),
            skip_singular=against(0.9, None),
        )
        for index in (1, 2, 3)
    )
    figure = draw_item("cumulative_products", CumulativeProducts(ProductConfig(), layers))["figure"]
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 9.6 for axis in figure.axes)
    np.testing.assert_allclose(line_of(figure.axes[2], "#000000"), [0.2 / 0.12] * 3)
    for label in ("left singular vector", "chance", "Gaussian null", "rotated null", "plane"):
        assert label in texts(figure)


def run_on_sphere(steps=30):
    """A token that turns by less and less, and one that stays."""
    angle = 2 * (1 - 0.7 ** np.arange(steps + 1))
    turning = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    path = np.stack([turning, np.tile(np.eye(3)[2], (steps + 1, 1))], axis=1)
    return SphereRun(
        name="two tokens",
        path=path,
        axes=np.eye(3),
        eigenvalues=np.array([1.0, 0.5, 0.2], complex),
        alignment=path[..., 0],
        chance=0.5,
        distance=np.ones(steps + 1),
        positive=0,
        negative=0,
    )


def test_the_animation_is_small_and_its_bytes_repeat():
    run = run_on_sphere()
    result = SphereRuns((run, run), frames=6)
    assert run.settled == np.argmax(np.linalg.norm(run.path[:, 0] - run.path[-1, 0], axis=1) < 0.01)
    found = animate_item("sphere_runs", result)["animation.gif"]
    assert found == animate_item("sphere_runs", result)["animation.gif"]
    assert animate_item("orders", object()) == {}
    with Image.open(io.BytesIO(found)) as image:
        assert image.n_frames == 6 and image.info["loop"] == 0 and len(found) < 200_000
        frames = []
        for number in range(6):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB"), int))
    # Every picture shows another step, and the first has no way behind its tokens.
    assert all(np.any(a != b) for a, b in itertools.pairwise(frames))
    drawn = [np.count_nonzero(np.abs(f - frames[0]).sum(axis=2) > 60) for f in frames[1:]]
    assert drawn == sorted(drawn) and drawn[0] > 50


def test_a_run_is_drawn_as_far_as_it_moves():
    run = run_on_sphere()
    figure = draw_item("sphere_runs", SphereRuns((run,), frames=6))["figure"]
    right = figure.axes[1]
    assert right.get_xlim() == (0, round(1.25 * run.settled))
    assert "the tokens end elsewhere" in right.get_title(loc="right")

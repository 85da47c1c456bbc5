"""Figures need no display and no global state, say what they show, and stay in their frame."""

import itertools
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import scipy.linalg
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pmt import figures
from pmt.errors import RequestError
from pmt.experiments import AnalysisConfig, RepeatConfig, analyze, repeat_layer
from tests.experiments.systems import random_stack, stack_of

SMALL = AnalysisConfig(prompts=4, tokens=3)


@pytest.fixture(scope="module")
def analysis():
    return analyze(random_stack(layers=4, d=8, k=4), SMALL)


@pytest.fixture(scope="module")
def repetition():
    f = scipy.linalg.block_diag([[1.0, 0.8], [-0.8, 1.0]], 0.4, -0.2)
    return repeat_layer(stack_of(f), RepeatConfig(layer=1, steps=60, prompts=4, tokens=3))


def drawn(analysis, repetition):
    return {
        "spectra": figures.spectra(analysis),
        "alignment": figures.alignment_panels(analysis),
        "distance": figures.token_distance(analysis),
        "repetition": figures.repetition(repetition),
    }


def test_every_axis_says_what_it_shows(analysis, repetition):
    for name, figure in drawn(analysis, repetition).items():
        for axis in figure.axes:
            if name == "spectra":
                continue
            assert axis.get_xlabel() in ("layer", "step") and axis.get_ylabel()
    spectra = figures.spectra(analysis)
    assert {text.get_text() for text in spectra.texts} >= {"Re λ", "Im λ"}
    assert [axis.get_title().split(",")[0] for axis in spectra.axes[:4]] == [
        f"layer {i}" for i in (1, 2, 3, 4)
    ]


def test_the_series_are_the_numbers_of_the_analysis(analysis):
    drawn = figures.alignment_panels(analysis)
    left, middle, right = drawn.axes
    (legend,) = drawn.legends
    assert "± standard error" in [text.get_text() for text in legend.get_texts()]
    layers = analysis.layers
    for axis, own, average in (
        (left, "rho_after", "rho_after"),
        (middle, "delta_rho", "delta_rho"),
        (right, "p_increase", "p_increase"),
    ):
        lines = [list(line.get_ydata()) for line in axis.lines]
        assert [getattr(layer.alignment, own) for layer in layers] in lines
        assert [getattr(layer.average, average) for layer in layers] in lines
    for name in ("gaussian", "rotated"):
        null = [layer.null[name] for layer in layers]
        for axis, values in (
            (left, [each.after.rho for each in null]),
            (middle, [each.delta_rho for each in null]),
            (right, [each.p_increase for each in null]),
        ):
            assert values in [list(line.get_ydata()) for line in axis.lines]
    (axis,) = figures.token_distance(analysis).axes
    expected = [analysis.initial_distance] + [layer.intertoken_distance for layer in layers]
    assert list(axis.lines[0].get_ydata()) == expected


def test_all_eigenvalues_are_in_the_panel(analysis):
    axis = figures.spectra(analysis).axes[1]
    points = np.concatenate([line.get_xydata() for line in axis.lines])
    values = analysis.layers[1].principal.values
    wanted = np.stack([values.real, values.imag], axis=1)
    np.testing.assert_allclose(points[np.lexsort(points.T)], wanted[np.lexsort(wanted.T)])
    (low, high), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert np.all((points > [low, bottom]) & (points < [high, top]))


def test_the_panel_counts_what_the_map_amplifies_more():
    # |1 - 4| and |1 + 0.9 +- 2i| are both larger than |1 + 1|.
    f = scipy.linalg.block_diag(1.0, [[0.9, -2], [2, 0.9]], -4.0)
    (axis,) = figures.spectra(analyze(stack_of(f), SMALL)).axes
    assert axis.get_title() == "layer 1, Case 1, 3 outside"


def test_the_predicted_slope_is_that_of_the_run(repetition):
    right = figures.repetition(repetition).axes[1]
    (line,) = [line for line in right.lines if line.get_label().startswith("theory")]
    steps, values = line.get_xdata(), line.get_ydata()
    np.testing.assert_allclose(values[1:] / values[:-1], repetition.rate.theory)
    np.testing.assert_allclose(values, repetition.misalignment[steps], rtol=0.2)


def texts(figure):
    """Titles, labels and legends; tick labels beyond the limits exist too but are not drawn."""
    found = list(figure.texts)
    for axis in figure.axes:
        found += [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    found += [text for legend in legends if legend is not None for text in legend.get_texts()]
    return [text for text in found if text.get_text().strip()]


def test_no_text_leaves_the_frame_or_covers_another(analysis, repetition):
    shown = drawn(analysis, repetition) | {
        "alignment in a column": figures.alignment_panels(analysis, column=True),
        "repetition in a column": figures.repetition(repetition, column=True),
    }
    for name, figure in shown.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
        assert boxes
        for i, (text, box) in enumerate(boxes):
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (name, text, box, (width, height))
            for other, second in boxes[:i]:
                assert not box.overlaps(second), (name, text, other)


def test_legible_at_the_width_of_a_page_or_of_a_column(analysis, repetition):
    pages = drawn(analysis, repetition)
    columns = {
        "alignment": figures.alignment_panels(analysis, column=True),
        "repetition": figures.repetition(repetition, column=True),
    }
    for shown, width in ((pages, 7.2), (columns, 3.4)):
        for figure in shown.values():
            assert figure.get_figwidth() <= width
            assert min(text.get_fontsize() for text in texts(figure)) >= 6.5
    for name, figure in columns.items():
        # The same lines, in panels of a readable size that stand below each other.
        assert len(figure.axes) == len(pages[name].axes)
        for axis, other in zip(figure.axes, pages[name].axes, strict=True):
            assert [list(a.get_ydata()) for a in axis.lines] == [
                list(a.get_ydata()) for a in other.lines
            ]
        FigureCanvasAgg(figure).draw()
        boxes = [axis.get_position() for axis in figure.axes]
        assert min(box.width for box in boxes) * figure.get_figwidth() > 2.2
        assert all(high.y0 > low.y1 for high, low in itertools.pairwise(boxes))


@pytest.fixture(scope="module")
def many(analysis):
    """48 layers, those of the small analysis again and again."""
    layers = [replace(analysis.layers[i % 4], index=i + 1) for i in range(48)]
    return replace(analysis, layers=tuple(layers))


@pytest.mark.parametrize(("layers", "columns"), [(6, 3), (12, 3), (24, 4), (48, 6)])
def test_panels_of_many_layers_stay_legible_and_fill_the_page(many, layers, columns):
    figure = figures.spectra(replace(many, layers=many.layers[:layers]))
    FigureCanvasAgg(figure).draw()
    assert len({round(axis.get_position().x0, 3) for axis in figure.axes}) == columns
    width, height = figure.get_size_inches()
    boxes = [axis.get_position() for axis in figure.axes[:layers]]
    assert min(box.width for box in boxes) * width > 0.75
    assert sum(box.width * box.height for box in boxes) > 0.4
    assert height < 1.6 * 7.2


def test_many_layers_have_small_markers_and_no_error_bars(many):
    figure = figures.alignment_panels(many)
    for axis in figure.axes:
        marked = [line for line in axis.lines if line.get_marker() not in ("None", "")]
        assert {line.get_color() for line in marked} <= {"#D55E00"}
        assert len(marked) == 48 and max(line.get_markersize() for line in marked) < 3
        assert not axis.containers
    # The errors are shaded instead: of the principal direction, and of both null models.
    left, middle, right = (len(axis.collections) for axis in figure.axes)
    assert (left, middle, right) == (1 + 3, 3, 0)
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert "draws of both kinds" not in labels and "± standard error" in labels


@pytest.mark.parametrize("layers", [1, 2, 6, 12, 24, 48])
def test_the_layer_axis_begins_with_layer_1(many, layers):
    some = replace(many, layers=many.layers[:layers])
    for figure, first in ((figures.alignment_panels(some), 1), (figures.token_distance(some), 0)):
        FigureCanvasAgg(figure).draw()
        for axis in figure.axes:
            ticks = axis.get_xticks()
            assert ticks[0] == first and ticks[-1] <= layers and len(ticks) <= 9
            assert np.all(ticks == np.round(ticks))
            low, high = axis.get_xlim()
            assert low <= first and layers <= high


def test_odd_results_are_drawn_too():
    one = analyze(stack_of([[0.5]]), AnalysisConfig(prompts=1, tokens=1, nulls=()))
    real = analyze(stack_of(*[np.diag([1.0, 0.5, 0.2])] * 13), replace(SMALL, alpha=0.0))
    for analysis in (one, real):
        for draw in (figures.spectra, figures.alignment_panels, figures.token_distance):
            assert figures.figure_bytes(draw(analysis)).startswith(b"\x89PNG")
    lost = RepeatConfig(layer=1, steps=2, prompts=1, tokens=1)
    assert figures.figure_bytes(
        figures.repetition(repeat_layer(stack_of(np.diag([1.0, -3.0])), lost))
    )


@pytest.mark.parametrize("form", figures.FORMATS)
def test_the_same_figure_gives_the_same_bytes(analysis, form):
    first = figures.figure_bytes(figures.alignment_panels(analysis), form)
    assert first == figures.figure_bytes(figures.alignment_panels(analysis), form)


def test_save_writes_the_formats_asked_for_fault_83(analysis, tmp_path):
    folder = tmp_path / "Bilder-図"
    folder.mkdir()
    paths = figures.save(figures.token_distance(analysis), folder, "distance", figures.FORMATS)
    assert [path.name for path in paths] == ["distance.png", "distance.svg", "distance.pdf"]
    assert b"<svg" in paths[1].read_bytes()


def test_an_unknown_format_is_refused(analysis):
    with pytest.raises(RequestError, match="'bmp'; it must be one of png, svg, pdf"):
        figures.figure_bytes(figures.token_distance(analysis), "bmp")


def test_the_users_settings_neither_matter_nor_change(analysis):
    plain = figures.figure_bytes(figures.token_distance(analysis))
    with mpl.rc_context({"font.size": 30, "axes.grid": False}):
        assert figures.figure_bytes(figures.token_distance(analysis)) == plain
        assert mpl.rcParams["font.size"] == 30


def test_fault_82_no_display_and_no_pyplot():
    code = (
        "import sys, pmt.figures; "
        "sys.exit('matplotlib.pyplot' in sys.modules or 'matplotlib.backends' in "
        "{m for m in sys.modules if 'tk' in m})"
    )
    environment = {"PATH": "", "MPLBACKEND": "", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == 0

"""The figures of the items: what they say, in their frame, for every case of a spectrum."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from pmt.experiments.cumulative_products import (
    Against,
    CumulativeProducts,
    ProductConfig,
    ProductLayer,
)
from pmt.experiments.items import ITEMS
from pmt.experiments.leading_eigenvalues import EigenvalueConfig, LeadingEigenvalues
from pmt.experiments.shared_layer import SharedRun
from pmt.figures import figure_bytes
from pmt.figures.items import draw_item
from pmt.spectral import principal

TURNING = scipy.linalg.block_diag([[1.0, 0.8], [-0.8, 1.0]], 0.4, -0.2)
STRETCHING = np.diag([1.0, 0.6, 0.2, -0.4])


def shared(matrix, steps=3):
    """A run with made-up tokens."""
    rho = np.random.default_rng(0).uniform(size=(steps + 1, 2, 5))
    own = principal(matrix)
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
        null=rho.mean(axis=(1, 2)) / 2,
        distance=rho.mean(axis=2),
        chances=(0.4, 0.6, 0.5),
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
    (figure,) = draw_item("correlations", result).values()
    assert f"with {name}" in texts(figure)
    for label in ("rotated null", "chance", "mean over all eigendirections", "one token"):
        assert label in texts(figure)
    # The mean is drawn over the tokens, and is theirs.
    panel = figure.axes[0].lines
    np.testing.assert_allclose(panel[-2].get_ydata(), result.first.mean(axis=(1, 2)))
    (histograms,) = draw_item("final_alignment", result).values()
    heights = [patch.get_height() for patch in histograms.axes[1].patches]
    assert abs(sum(heights) * 2 / 40 - 1) < 1e-9
    assert f"correlation with {name}" in texts(histograms)
    (distance,) = draw_item("consensus", replace(result, shared=True)).values()
    assert "shared layer, applied 3 times" in texts(distance)
    for drawn in (figure, histograms, distance):
        assert len(figure_bytes(drawn, "png")) > 1000


def test_without_a_second_eigenvector_the_panel_says_so():
    result = replace(shared(STRETCHING), second=None, plane=None)
    (figure,) = draw_item("final_alignment", result).values()
    assert "no second real eigenvector" in texts(figure)
    (lines,) = draw_item("correlations", result).values()
    assert len(lines.axes) == 1


def test_the_leading_eigenvalues_and_their_gap():
    spectra = tuple(principal(m).spectrum for m in (STRETCHING, TURNING))
    result = LeadingEigenvalues(EigenvalueConfig(shown=3), spectra, False)
    (figure,) = draw_item("leading_eigenvalues", result).values()
    left, right = figure.axes
    assert [patch.get_height() for patch in right.patches] == pytest.approx(
        [0.4, 0.6 / np.hypot(1, 0.8)]
    )
    assert left.get_ylabel() == "Re λ" and "complex" in texts(figure)
    assert right.get_ylabel() == "relative gap of λ₁"


def test_no_point_of_the_products_is_cut_off():
    def against(rho, average):
        return Against(rho=rho, se=0.01, dimension=2, chance=0.1, average=average)

    layers = tuple(
        ProductLayer(index, against(0.1, 0.1), against(0.1 * index, 0.2), against(0.9, None))
        for index in (1, 2, 3)
    )
    (figure,) = draw_item(
        "cumulative_products", CumulativeProducts(ProductConfig(), layers)
    ).values()
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 0.9 for axis in figure.axes)
    assert "singular vector" in texts(figure) and "chance" in texts(figure)

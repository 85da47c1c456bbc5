"""The bifurcation diagram: axes, what is drawn, and what is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pmt import figures
from pmt.dynamics import Bifurcation, Outcome
from pmt.errors import RequestError


def result(values=5, samples=4):
    """Two cycles, two chaotic values and one run that failed."""
    angle = np.linspace(-0.1, 0.1, values * samples).reshape(values, samples)
    u = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Bifurcation(
        parameter=jnp.arange(1.0, values + 1),
        states=jnp.asarray(np.stack([u, -u], axis=2)),
        period=jnp.array([1, 2, 0, 0, 0]),
        exponent=jnp.array([-0.5, -0.1, 0.2, 0.3, np.nan]),
        standard_error=jnp.array([0.0, 0.0, 0.01, 0.01, np.nan]),
        result=jnp.array([0, 0, 0, 0, Outcome.NONFINITE]),
    )


def test_the_axes_say_what_they_show_and_the_points_are_the_result():
    figure = figures.cascade(result(), parameter="logit scale", critical=2.0)
    top, bottom = figure.axes
    assert top.get_ylabel() == "angle of token 1 (degrees)"
    assert "exponent" in bottom.get_ylabel() and bottom.get_xlabel() == "logit scale"
    drawn = sum(len(line.get_xdata()) for line in top.lines if len(line.get_xdata()) > 2)
    # The failed value is left out.
    assert drawn == 4 * 4
    below = {line.get_label(): line.get_ydata() for line in bottom.lines}
    np.testing.assert_allclose(below["equilibrium or cycle"], [-0.5, -0.1])
    np.testing.assert_allclose(below["chaotic"], [0.2, 0.3])
    FigureCanvasAgg(figure).draw()


def test_the_same_result_gives_the_same_bytes():
    first, second = (figures.figure_bytes(figures.cascade(result())) for _ in range(2))
    assert first == second


def test_only_tokens_in_the_plane_are_drawn():
    with pytest.raises(RequestError, match="dimension 2"):
        figures.cascade(dataclasses.replace(result(), states=jnp.zeros((5, 4, 2, 3))))
    with pytest.raises(RequestError, match="token 2 is asked for"):
        figures.cascade(result(), token=2)

"""The circle through the principal eigenvalue, also where it is far larger than what is seen."""

import time

import numpy as np
import pytest
from matplotlib.figure import Figure

from pmt.figures.level_circle import level_circle
from pmt.figures.style import DOTTED, figure_bytes


@pytest.mark.parametrize("alpha", [-1.0, 1.0, 0.1, 1e-3, -1e-6, 1e-12])
@pytest.mark.parametrize("value", [0.5 + 0j, -0.3 + 0.4j, 0j])
def test_all_of_it_has_the_modulus_and_it_is_drawn_at_once(alpha, value):
    """Fault: dots along a circle a million times as large as the panel took minutes and memory."""
    figure = Figure()
    axis = figure.subplots()
    axis.set(xlim=(-1, 1), ylim=(-1, 1))
    level_circle(axis, value, alpha, 1.0, color="k", ls=DOTTED)
    if axis.lines:
        x, y = np.array(axis.lines[0].get_data(), np.longdouble)
        # Of |1 + alpha lam|² - 1 what is not rounding.
        own = 2 * x + alpha * (x**2 + y**2)
        expected = 2 * value.real + alpha * abs(value) ** 2
        assert np.max(np.abs(own - expected)) < 1e-12 * (1 + np.max(np.abs(y)))
    else:
        (circle,) = axis.patches
        assert np.isclose(
            abs(1 + alpha * (circle.center[0] + circle.radius)), abs(1 + alpha * value)
        )
    assert axis.get_xlim() == (-1, 1)
    begun = time.perf_counter()
    figure_bytes(figure, "png")
    assert time.perf_counter() - begun < 20

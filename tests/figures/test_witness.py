"""Figures of failures: what is in the axes is what was handed over."""

import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.figures import figure_bytes
from pmt.figures.witness import Runs, bars_figure, curve_figure, plane_figure, runs_figure


def runs(n=2, d=2, starts=3, steps=5, **given):
    turn = np.random.default_rng(0).normal(size=(starts, steps + 1, n, d))
    path = turn / np.linalg.norm(turn, axis=-1, keepdims=True)
    distance = np.geomspace(1.0, 1e-6, starts * (steps + 1)).reshape(starts, steps + 1)
    return Runs(
        **{
            "path": path,
            "point": path[0, 0],
            "distance": distance,
            "distance_label": "distance",
            "axes": np.eye(d),
            "labels": [f"v{k}" for k in range(d)],
            "multipliers": np.array([0.5, 1.25]),
            **given,
        }
    )


def panel(figure, label):
    (found,) = [ax for ax in figure.axes if ax.get_ylabel() == label]
    return found


def segments(ax):
    return [np.asarray(s) for c in ax.collections for s in getattr(c, "get_segments", list)()]


def test_distances_are_those_given_and_logarithmic_beside_multipliers():
    given = runs()
    ax = panel(runs_figure(given), "distance")
    drawn = np.stack([s[:, 1] for s in segments(ax)])
    np.testing.assert_array_equal(drawn, given.distance)
    assert ax.get_yscale() == "log"


def test_a_point_that_moves_has_its_own_run_and_the_spread():
    spread = np.full((3, 6), 0.5)
    moving = runs(multipliers=None, at_point=np.arange(6.0), spread=spread)
    figure = runs_figure(moving)
    ax = panel(figure, "distance")
    assert ax.get_yscale() == "linear"
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), np.arange(6.0))
    wide = segments(panel(figure, "widest two tokens"))
    np.testing.assert_array_equal(np.stack([s[:, 1] for s in wide]), spread)


def test_zero_distances_stay_in_the_picture():
    distance = np.zeros((3, 6))
    for given in (runs(distance=distance), runs(distance=np.geomspace(1, 1e-30, 18).reshape(3, 6))):
        ax = panel(runs_figure(given), "distance")
        assert all(np.all(np.isfinite(s)) and len(s) == 6 for s in segments(ax))


def test_on_the_circle_time_runs_outward():
    angle = np.linspace(0.0, 0.5, 6)
    path = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None, :, None]
    given = runs(n=1, path=path, distance=np.ones((1, 6)), point=path[0, 0])
    ax = runs_figure(given).axes[0]
    (line,) = segments(ax)
    radius = np.linalg.norm(line, axis=1)
    np.testing.assert_allclose(radius[[0, -1]], [1.0, 2.0])
    assert np.all(np.diff(radius) > 0)
    np.testing.assert_allclose(np.arctan2(line[-1, 1], line[-1, 0]), 0.5)


def test_no_line_suggests_a_way_for_a_jump():
    path = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])[None, :, None]
    given = runs(n=1, path=path, distance=np.ones((1, 3)), point=path[0, 0])
    assert segments(runs_figure(given).axes[0]) == []


@pytest.mark.parametrize(("n", "d"), [(1, 3), (9, 2), (3, 5)])
def test_sizes_at_the_edge_give_a_picture(n, d):
    figure = runs_figure(runs(n=n, d=d, starts=1, steps=1))
    # Without a circle or sphere there are the distance and the multipliers.
    assert len(figure.axes) == (3 if d <= 3 else 2)
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_curves_level_and_band():
    x, y = np.arange(1.0, 4.0), np.array([1.0, np.nan, 3.0])
    figure = curve_figure(
        x, {"a": y}, xlabel="x", ylabel="y", level=2.0, level_label="two", band=(y - 1, y + 1)
    )
    ax = figure.axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), y)
    assert list(ax.lines[1].get_ydata()) == [2.0, 2.0]
    assert len(ax.collections) == 1


def test_bars_have_the_values_beside_them():
    groups = [("one", ["p", "q"], np.array([0.25, -2.0])), ("two", ["r"], np.array([0.0]))]
    figure = bars_figure(groups)
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.25, -2.0]
    assert [text.get_text() for text in first.texts] == ["0.25", "-2"]
    assert [bar.get_width() for bar in second.patches] == [0.0]


def test_plane_draws_points_and_reaches_the_longest_direction():
    cloud = np.array([[0.5, 0.25]])
    ax = plane_figure({"w": np.array([0.0, 3.0])}, {"image": cloud}).axes[0]
    assert ax.get_ylim()[1] > 3.0
    (dots,) = [line for line in ax.lines if line.get_label() == "image"]
    np.testing.assert_array_equal(dots.get_xydata(), cloud)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars_figure([]),
        lambda: bars_figure([("t", [], np.array([]))]),
        lambda: bars_figure([("t", ["a"], np.array([1.0, 2.0]))]),
        lambda: curve_figure(np.arange(2.0), {}, xlabel="x", ylabel="y"),
        lambda: curve_figure(np.arange(2.0), {"a": np.ones(3)}, xlabel="x", ylabel="y"),
        lambda: plane_figure({}),
        lambda: runs_figure(runs(path=np.zeros((0, 3, 2, 2)))),
    ],
)
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(RequestError, match=r"nothing to draw|expected"):
        draw()

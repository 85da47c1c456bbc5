"""The figures of runs and of multipliers: what is drawn is where it should be."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from pmt.figures.multipliers import multiplier_figure
from pmt.figures.sphere import View, choose_view, draw_sphere
from pmt.figures.style import figure_bytes, new_figure, styled
from pmt.figures.trajectory import Trajectory, token_colors, trajectory_figure
from tests.tolerance import assert_close


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def trajectory(d, n=4, steps=6, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    path = unit(np.cumsum(0.1 * draw((steps + 1, n, d)), axis=0) + draw((n, d)))
    axes = np.linalg.qr(draw((d, d)))[0]
    return Trajectory(
        steps=np.arange(steps + 1),
        path=path,
        axes=axes,
        labels=[f"$v_{{{k + 1}}}$" for k in range(d)],
        plane=axes[:, :2] if d >= 2 else None,
        alignment=np.abs(path @ axes[:, 0]),
        alignment_label=r"$|x_i \cdot v_1|$",
        others={"other": np.abs(path @ axes[:, -1])},
        chance=0.4,
        distance=np.linspace(1.0, 0.5, steps + 1),
    )


def lines(ax):
    """The data of every line on the axes, those in collections too."""
    collected = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [np.asarray(line.get_xydata()) for line in ax.lines] + [
        np.asarray(segment) for collection in collected for segment in collection.get_segments()
    ]


def test_a_view_is_a_rotation_with_the_first_axis_upright():
    run = trajectory(3)
    view = choose_view(run.path, run.axes)
    assert_close(view.frame @ view.frame.T, np.eye(3))
    assert np.linalg.det(view.frame) == pytest.approx(1.0)
    flat, _ = view.project(run.axes[:, 0])
    assert flat[0] == pytest.approx(0.0, abs=1e-12)
    assert flat[1] > 0
    page, depth = view.project(run.path)
    assert_close(np.sum(page**2, axis=-1) + depth**2, np.ones(depth.shape))


@pytest.mark.parametrize("pole", [[1.0, 0, 0], [0, -1, 0], [0.6, 0, 0.8]])
def test_a_view_shows_where_the_tokens_gather(pole):
    noise = np.random.default_rng(1).standard_normal((20, 5, 3))
    path = unit(np.asarray(pole) + 0.05 * noise)
    _, depth = choose_view(path, np.zeros((3, 0))).project(path)
    assert (depth > 0).mean() > 0.9


def test_paths_bend_with_the_sphere_and_are_cut_at_jumps():
    ahead = View(np.eye(3))
    path = np.array([[0.6, 0, 0.8], [0, 0.6, 0.8], [0, -0.6, -0.8]])[:, None]
    with styled():
        ax = new_figure(3.0, 3.0).subplots()
        before = len(lines(ax))
        draw_sphere(ax, path, ["#123456"], np.zeros((3, 0)), [], view=ahead)
    drawn = [
        np.asarray(segment)
        for collection in ax.collections
        if isinstance(collection, LineCollection)
        and np.allclose(collection.get_color()[0][:3], (0x12 / 255, 0x34 / 255, 0x56 / 255))
        for segment in collection.get_segments()
    ]
    assert before == 0
    assert len(drawn) == 1
    assert_close(drawn[0][0], path[0, 0, :2])
    assert_close(drawn[0][-1], path[1, 0, :2])
    # The middle of the great arc, and not that of the chord.
    middle = drawn[0][len(drawn[0]) // 2]
    assert np.linalg.norm(middle) > np.linalg.norm(path[:2, 0, :2].mean(axis=0)) + 0.02


@pytest.mark.parametrize(("d", "panels"), [(1, 2), (2, 3), (3, 3), (5, 2)])
def test_a_run_has_a_picture_of_its_tokens_where_one_can_be_drawn(d, panels):
    run = trajectory(d)
    figure = trajectory_figure(run, "a title")
    assert len(figure.axes) == panels
    alignment, distance = figure.axes[-2:]
    assert figure.get_suptitle() == "a title"
    assert alignment.get_ylabel() == run.alignment_label
    assert distance.get_xlabel() == "step"
    mean = np.column_stack([run.steps, run.alignment.mean(axis=1)])
    assert any(line.shape == mean.shape and np.allclose(line, mean) for line in lines(alignment))
    every = sum(line.shape == mean.shape for line in lines(alignment))
    assert every == run.path.shape[1] + 2
    assert_close(lines(distance)[0][:, 1], run.distance)
    texts = [text.get_text() for text in alignment.get_legend().get_texts()]
    assert texts == ["mean", "mean other", "chance"]
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_axes_are_labelled_on_the_sphere_and_on_the_circle():
    ball, circle = (trajectory_figure(trajectory(d)).axes[0] for d in (3, 2))
    assert {"$v_{1}$", "$v_{2}$", "$v_{3}$", "start", "end"} <= {t.get_text() for t in ball.texts}
    assert [t.get_text() for t in circle.texts] == [
        "$v_{1}$",
        "$-$$v_{1}$",
        "$v_{2}$",
        "$-$$v_{2}$",
    ]


def test_angles_keep_the_seam_away_from_the_eigenvectors():
    run = trajectory(2, steps=40, seed=3)
    ax = trajectory_figure(run).axes[0]
    low, high = ax.get_ylim()
    assert high - low == pytest.approx(360)
    for text in ax.texts:
        assert min(text.xy[1] - low, high - text.xy[1]) > 40
    # No line crosses the page where a token passes the seam.
    for line in lines(ax):
        if len(line) > 2:
            assert np.nanmax(np.abs(np.diff(line[:, 1]))) < 180


def test_few_tokens_have_colours_of_their_own_and_many_a_scale():
    for n in (1, 7, 8, 60):
        colors = token_colors(n)
        assert len({str(color) for color in colors}) == n


def test_many_tokens_and_one_state_can_be_drawn():
    many = trajectory_figure(trajectory(3, n=80, steps=2))
    assert figure_bytes(many).startswith(b"\x89PNG")
    alone = trajectory_figure(trajectory(3, n=1, steps=0))
    assert [text.get_text() for text in alone.axes[-1].texts] == ["one token: no distance"]
    assert figure_bytes(alone).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("distance", "scale"),
    [
        (np.array([1.0, 0.5, 0.2]), "linear"),
        (np.array([1.0, 1e-3, 1e-6]), "log"),
        (np.array([1.0, 1e-3, 0.0]), "log"),
        (np.zeros(3), "linear"),
    ],
)
def test_the_distance_is_logarithmic_where_it_falls_far(distance, scale):
    run = trajectory(5, steps=2)
    figure = trajectory_figure(Trajectory(**{**vars(run), "distance": distance}))
    assert figure.axes[-1].get_yscale() == scale
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_a_figure_is_the_same_bytes_again():
    first, again = (figure_bytes(trajectory_figure(trajectory(3)), "svg") for _ in range(2))
    assert first == again


def test_multipliers_outside_the_circle_are_told_apart():
    values = np.array([1.2 + 0.5j, 1.2 - 0.5j, 0.5, 0.5, 0.5, -0.9, 1.0])
    figure = multiplier_figure(values, "a point")
    plane, moduli = figure.axes
    marks = {c.get_label(): np.asarray(c.get_offsets()) for c in plane.collections}
    assert len(marks["modulus at most 1"]) == 5
    assert_close(marks["above 1"], np.array([[1.2, 0.5], [1.2, -0.5]]))
    drawn = np.concatenate([line.get_ydata() for line in moduli.lines[1:]])
    assert_close(np.sort(drawn), np.sort(np.abs(values)))
    assert max(map(abs, plane.get_xlim())) > 1.3
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_a_point_without_multipliers_has_a_figure_too():
    assert figure_bytes(multiplier_figure(np.zeros(0, complex))).startswith(b"\x89PNG")

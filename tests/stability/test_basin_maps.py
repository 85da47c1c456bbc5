"""Maps of basins, escape radii and phase diagrams, where geometry or theory says what they are."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria
from pmt.dynamics import Oja
from pmt.errors import RequestError
from pmt.figures import basins as figures
from pmt.figures.style import figure_bytes
from pmt.stability.basin_map import pixel_points, slice_map, sphere_map
from pmt.stability.escape import displaced, escape_radius
from pmt.stability.phase import phase_diagram
from tests.tolerance import assert_close

# One shape of batch for all runs of one token.
CHUNK = {"chunk": 256, "max_steps": 1024, "tolerance": 1e-4}


@pytest.fixture(scope="module")
def power():
    """One token of Oja with V > 0: the power method, whose basins are the two half spheres."""
    return Oja(jnp.diag(jnp.array([1.0, 0.4, 0.2])), alpha=0.5)


@pytest.fixture(scope="module")
def hemispheres(power):
    return sphere_map(power, jnp.zeros((0, 3)), resolution=24, **CHUNK)


def test_the_basins_of_the_power_method_are_two_half_spheres(hemispheres):
    inside, points = pixel_points(24)
    assert [a.name for a in hemispheres.attractors] == ["consensus at +v1", "consensus at -v1"]
    np.testing.assert_array_equal(hemispheres.label[0], np.where(inside, 0, -1))
    np.testing.assert_array_equal(hemispheres.label[1], np.where(inside, 1, -1))
    assert [a.share.fraction for a in hemispheres.attractors] == [0.5, 0.5]
    assert_close(np.linalg.norm(points, axis=1), np.ones(len(points)))
    # Equal areas: heights of uniform points are uniform.
    assert abs(points[:, 2].mean() - 0.5) < 0.01
    assert_close(hemispheres.frame @ hemispheres.frame.T, np.eye(3))


def test_a_map_turned_by_its_frame_is_cut_by_the_equator(power):
    turned = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = sphere_map(
        power, jnp.zeros((0, 3)), resolution=24, frame=turned.astype(np.float32), **CHUNK
    )
    names = [a.name for a in found.attractors]
    right, left = names.index("consensus at +v1"), names.index("consensus at -v1")
    assert (found.label[0][:, 12:][found.label[0][:, 12:] >= 0] == right).all()
    assert (found.label[0][:, :12][found.label[0][:, :12] >= 0] == left).all()
    # The far side is seen from its outside, so left and right change places.
    assert (found.label[1][:, :12][found.label[1][:, :12] >= 0] == right).all()
    with pytest.raises(RequestError, match="frame must be three orthonormal rows"):
        sphere_map(power, jnp.zeros((0, 3)), resolution=24, frame=2 * turned, **CHUNK)


def test_a_slice_changes_hands_at_a_quarter_of_a_great_circle(power):
    center, first = np.array([[1.0, 0.0, 0.0]]), np.array([[0.3, 1.0, 0.0]])
    found = slice_map(
        power, center, first, np.array([[0.0, 0.5, 2.0]]), extent=3.0, resolution=24, **CHUNK
    )
    assert_close(np.sum(found.first * found.second), 0.0, scale=1.0)
    b, a = np.meshgrid(found.coordinate, found.coordinate, indexing="ij")
    names = [each.name for each in found.attractors]
    expected = np.where(np.hypot(a, b) < np.pi / 2, "consensus at +v1", "consensus at -v1")
    np.testing.assert_array_equal(np.array(names)[found.label], expected)
    with pytest.raises(RequestError, match="second is no new tangent direction"):
        slice_map(power, center, first, first + 4 * center, **CHUNK)
    with pytest.raises(RequestError, match="unit"):
        slice_map(power, 2 * center, first, center, **CHUNK)


@pytest.fixture(scope="module")
def lost(power):
    x = equilibria.consensus(power, 0, 1).x
    return escape_radius(power, x, directions=40, seed=2, reach=3.0, scan=5, bisections=6, **CHUNK)


def test_the_power_method_loses_v1_at_a_right_angle_in_every_direction(lost):
    assert not lost.doubtful.any()
    assert (lost.kept < np.pi / 2).all() and (np.pi / 2 < lost.lost).all()
    width = lost.reach / 5 / 2**6
    np.testing.assert_allclose(lost.lost - lost.kept, width, rtol=0, atol=1e-12)
    for _, radius in lost.quantiles:
        assert abs(radius - np.pi / 2) <= width
    again = displaced(np.array([[1.0, 0, 0]]), lost.probes, lost.kept)
    assert_close(again[:, 0, 0], np.cos(lost.kept), scale=1.0)


def test_a_point_out_of_reach_is_never_lost_and_an_unfixed_one_is_refused(power):
    x = equilibria.consensus(power, 0, 1).x
    near = escape_radius(power, x, directions=40, reach=1.0, scan=2, **CHUNK)
    assert np.isinf(near.lost).all() and (near.kept == 1.0).all()
    assert near.as_dict()["quantiles"][0] == [0.05, None]
    with pytest.raises(RequestError, match="x is not fixed"):
        escape_radius(power, jnp.array([[0.6, 0.8, 0.0]]), directions=40, **CHUNK)
    with pytest.raises(RequestError, match="seed is -1"):
        escape_radius(power, x, seed=-1, **CHUNK)
    # x + alpha F x cancels: the run is over without having come back.
    cancelling = Oja(jnp.diag(jnp.array([1.0, -2.0, 0.2])), alpha=0.5)
    with pytest.raises(RequestError, match="x is not fixed"):
        escape_radius(cancelling, jnp.array([[0.0, 1.0, 0.0]]), directions=40, **CHUNK)


def test_a_budget_that_ends_first_leaves_the_radius_in_doubt(power):
    """Fault 71: next to the equator the power method is slow, and that is no loss."""
    x = equilibria.consensus(power, 0, 1).x
    options = {**CHUNK, "max_steps": 64}
    found = escape_radius(power, x, directions=40, scan=2, bisections=20, **options)
    assert found.doubtful.any()
    assert (found.kept < np.pi / 2).all()


@pytest.mark.parametrize("split", [(3, 3), pytest.param((4, 2), marks=pytest.mark.long)])
def test_the_spectrum_changes_at_the_boundary_psi(split):
    theta, ratio = np.geomspace(0.1, 6.0, 40), np.linspace(0.01, 0.99, 33)
    found = phase_diagram(theta, ratio, split=split)
    assert found.disagreements == 0
    clear = np.abs(ratio[:, None] - found.boundary[None]) > 1e-9
    below = ratio[:, None] < found.boundary[None]
    np.testing.assert_array_equal(found.stable[clear], below[clear])
    assert 0.2 < found.stable.mean() < 0.95
    if split == (3, 3):
        assert_close(found.boundary, np.tanh(theta), conditioning=100.0)


def test_diagrams_that_make_no_sense_are_refused():
    for options, words in (
        ({"theta": np.array([-1.0, 1.0])}, "theta starts at -1"),
        ({"ratio": np.array([0.5, 1.0])}, "ratio runs to 1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
    ):
        with pytest.raises(RequestError, match=words):
            arguments = {"theta": np.array([1.0]), "ratio": np.array([0.5]), **options}
            phase_diagram(**arguments)


@pytest.mark.long
def test_runs_end_bipartite_on_one_side_of_the_boundary_only():
    found = phase_diagram(
        np.array([0.3, 3.0]), np.array([0.6]), split=(1, 1), samples=200, max_steps=2048
    )
    assert found.fraction[0, 0] == 0.0 and found.stable.tolist() == [[False, True]]
    assert found.low[0, 1] < found.fraction[0, 1] < found.high[0, 1]
    assert found.fraction[0, 1] > 0.25
    assert found.unresolved.max() < 0.05
    image = figure_bytes(figures.phase_figure(found))
    assert image.startswith(b"\x89PNG")


def test_what_is_drawn_are_the_labels(hemispheres, lost):
    colors = figures.attractor_colors(hemispheres.attractors)
    assert len(set(colors)) == 2
    image = figures._image(hemispheres.label[0], colors)
    inside, _ = pixel_points(24)
    assert (image[~inside][:, 3] == 0).all() and (image[inside][:, 3] == 1).all()
    figure = figures.sphere_basins(hemispheres)
    drawn = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_array_equal(np.asarray(drawn[0]), image)
    curve = figures.escape_figure(lost).axes[0].lines[0].get_xydata()
    assert curve[0, 1] == 0.0 and curve[-1, 1] == 1.0
    assert abs(curve[np.argmax(curve[:, 1] > 0), 0] - np.pi / 2) < 0.05


def test_cells_of_neighbouring_seeds_do_not_share_their_starts(monkeypatch):
    asked = []

    def noted(_system, _tokens, *, seed, **_options):
        asked.append(seed)
        return SimpleNamespace(share=lambda *_kinds, where: share, unresolved=share)

    share = SimpleNamespace(fraction=0.5, low=0.4, high=0.6)
    monkeypatch.setattr("pmt.stability.phase.basin_fractions", noted)
    for seed in (0, 1, 2**32 - 1):
        phase_diagram(jnp.array([0.5, 1.0]), jnp.array([0.1, 0.2]), samples=4, seed=seed)
    assert len(set(asked)) == 12 and all(0 <= seed < 2**32 for seed in asked)
    with pytest.raises(RequestError, match="seed is -1"):
        phase_diagram(jnp.array([0.5, 1.0]), jnp.array([0.1, 0.2]), samples=4, seed=-1)

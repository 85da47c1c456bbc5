"""Which class a state belongs to, with margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria, run_to_equilibrium, sphere
from pmt.dynamics import Oja, SingleHead
from pmt.errors import RequestError
from tests.tolerance import assert_close

VALUE = jnp.diag(jnp.array([1.0, 0.4, -0.5]))


def single(theta=1.0, alpha=0.3, value=VALUE):
    return SingleHead(value, theta * jnp.eye(3), alpha=alpha)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda s: equilibria.consensus(s, 1, 4), "consensus"),
        (lambda s: equilibria.bipartite(s, 2, (1, 3)), "bipartite"),
    ],
)
def test_constructed_points_are_recognised(build, kind):
    system = single()
    point = build(system)
    found = equilibria.classify(system, point.x)
    assert (found.kind, found.status) == (kind, "equilibrium")
    assert_close(jnp.abs(found.eigenvector), jnp.abs(point.eigenvector), scale=1.0)
    assert_close(found.eigenvalue, point.eigenvalue, dtype=point.x.dtype, scale=1.0)
    flip = found.signs[0] * point.signs[0]
    np.testing.assert_array_equal(found.signs * flip, point.signs)


def test_classes_that_overlap_show_in_the_margins():
    """A balanced pair of Oja at an eigenvector is bipartite and polygonal."""
    system = Oja(VALUE, alpha=0.3)
    found = equilibria.classify(system, equilibria.bipartite(system, 0, (2, 2)).x)
    assert found.kind == "bipartite"
    assert found.margins["attended means"] > 0
    off_axis = sphere.normalize(jnp.array([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]))
    found = equilibria.classify(system, off_axis)
    assert found.kind == "polygonal"
    assert found.margins["eigenvector"] < 0


def test_clusters_are_counted_by_first_appearance():
    system = Oja(VALUE, alpha=0.3)
    corners = equilibria.polygonal(system, 3).x
    found = equilibria.classify(system, corners[jnp.array([1, 0, 1, 2, 0, 2])])
    assert found.clusters.tolist() == [0, 1, 0, 2, 1, 2]
    assert found.cluster_count == 3
    assert_close(found.cluster_gap, np.sqrt(3.0), dtype=jnp.float64, size=10)


def test_two_cycles_and_moving_states_are_not_equilibria():
    """Faults 71 and 72."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=0.5)
    found = equilibria.classify(system, equilibria.consensus(system, 1, 2).x)
    assert (found.kind, found.status) == ("consensus", "2-cycle")
    moving = equilibria.classify(single(), sphere.uniform(jax.random.key(0), (4, 3)))
    assert (moving.kind, moving.status) == (None, "not fixed")
    assert moving.margins["fixed"] < 0
    undefined = equilibria.classify(
        Oja(jnp.diag(jnp.array([1.0, -2.0])), alpha=0.5), jnp.array([[0.0, 1.0]] * 2)
    )
    assert undefined.status == "undefined"


def test_states_reached_by_iteration_are_classified():
    runs = run_to_equilibrium(single(theta=3.0), sphere.uniform(jax.random.key(1), (20, 5, 3)))
    kinds = {equilibria.classify(single(theta=3.0), x).kind for x in runs.x}
    assert {"consensus", "bipartite"} <= kinds


def test_bad_requests_are_refused():
    with pytest.raises(RequestError, match="tolerance is 0.0"):
        equilibria.classify(single(), equilibria.consensus(single(), 0, 2).x, tolerance=0.0)
    with pytest.raises(RequestError, match="the token at"):
        equilibria.classify(single(), jnp.ones((2, 3)))

"""II.10, Proposition 1, Remarks 5 to 7: clusterings, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.theory.test_oracles import drawn
from theory import clusters, oracles, oracles_softmax
from theory import witnesses_softmax as told


def test_the_example_has_its_numbers():
    found = clusters.example_numbers()
    # theory.md has the angles 106.086, -60.876: the matrices are given to four digits.
    np.testing.assert_allclose(found["angles"], [106.086, -60.876], atol=0.02)
    np.testing.assert_allclose(found["c"], [0.227, -0.169], atol=1e-3)
    assert found["radius"] == pytest.approx(0.948, abs=5e-4)
    assert found["rank A"] == 2 and found["moved"] < 1e-15


def test_constructed_clusterings_are_equilibria():
    shape, cases = drawn("ii.10", "corrected", "constructed", 6)
    for case in cases:
        value, logits, alpha = case["value"], case["query_key"], float(case["alpha"])
        np.testing.assert_allclose(value, value.T, atol=1e-12 * np.abs(value).max())
        x = case["x"]
        c, residual = oracles_softmax.clustering_residual(value, logits, alpha, x)
        step = oracles.single_head(value, logits, alpha)
        error = 1e-7 * (1 + np.abs(value).max())
        assert residual < error and np.all(1 + alpha * c > 0)
        np.testing.assert_allclose(step(x), x, atol=error)
        np.testing.assert_allclose(step(-x), -x, atol=error)
        rank = np.linalg.matrix_rank(oracles.softmax_attention(x, logits, "full"), tol=1e-10)
        assert rank == 2
    assert shape.n == 5


def test_the_matrix_of_proposition_1_is_singular_where_nothing_is_fixed():
    rng = np.random.default_rng(0)
    for _ in range(5):
        loose = rng.normal(size=(3, 3))
        value, logits = (loose + loose.T) / 2, rng.normal(size=(3, 3))
        x = rng.normal(size=(4, 3))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        weights = oracles.softmax_attention(x, logits, "full")
        for eigenvalue in np.linalg.eigvalsh(value):
            matrix = np.kron(weights, value) - eigenvalue * np.eye(12)
            assert np.linalg.svd(matrix, compute_uv=False)[-1] < 1e-14
        assert np.abs(oracles.single_head(value, logits, 0.2)(x) - x).max() > 0.01


def test_witnesses_tell_their_numbers():
    def numbers(explicit):
        case = {name: jnp.asarray(value) for name, value in explicit.case.items()}
        return explicit.numbers(explicit.shape, case)

    assert numbers(told.OFF_AXIS)["|Pi V p|"] == pytest.approx(0.24)
    singular = numbers(told.SINGULAR_ANYWHERE)
    assert singular["smallest singular value"] < 1e-15 < 0.05 < singular["moved"]
    assert numbers(told.FLAT_ATTENTION)["singular values"][1] < 1e-15
    flat = numbers(told.FLAT_TRIANGLE)["singular values"]
    assert flat[0] == pytest.approx(1) and max(flat[1:]) < 1e-15


def test_a_single_cluster_off_the_eigenvectors_turns_by_the_stated_angle():
    step = oracles.single_head(np.diag([1.0, 0.5]), np.eye(2), 0.25, "causal")
    p = np.array([0.6, 0.8])
    moved = step(np.tile(p, (3, 1)))
    y = p + 0.25 * np.array([0.6, 0.4])
    sine = 0.25 * 0.24 / np.linalg.norm(y)
    cross = np.abs(moved[:, 0] * p[1] - moved[:, 1] * p[0])
    np.testing.assert_allclose(cross, sine, atol=1e-15)


@pytest.mark.long
@pytest.mark.parametrize(("d", "n", "expected"), [(2, 3, 0.077), (2, 6, 0.069), (3, 6, 0.015)])
def test_random_tokens_reach_stable_clusterings(d, n, expected):
    """theory.md: 7.7 %, 6.9 % and 1.5 % of runs, radius at most .95, rank A = m."""
    found = clusters.random_runs(d=d, n=n, runs=800, seed=5)
    share = found["shares"].get("stable clustering", 0.0)
    # The logit scale of theory.md is not given.
    assert expected / 4 < share < 4 * expected
    assert max(found["radii"]) < 1
    assert all(m == rank and m >= 2 for m, rank in found["clusters and ranks"])
    assert jax.config.jax_enable_x64

"""The second paper's statements: their ingredients against plain NumPy, and what breaks them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.looped import core, manifold, two_scalar
from tests.known_statements import STATEMENTS
from tests.tolerance import assert_close
from theory import looped_conclusions as conclusions
from theory import oracles_looped as oracle
from theory import verify
from theory.hypotheses import looped_blocks
from theory.hypotheses.looped import signed_permutations
from theory.looped_blocks import below_the_limit
from theory.statement import Shape

RNG = np.random.default_rng(11)


def test_signed_permutations_average_like_all_rotations():
    turns = signed_permutations(3)
    assert len(turns) == 48 and len(np.unique(turns, axis=0)) == 48
    matrix = RNG.normal(size=(3, 3))
    average = np.mean(np.swapaxes(turns, 1, 2) @ matrix @ turns, axis=0)
    assert_close(average, np.trace(matrix) / 3 * np.eye(3), size=100, scale=1.0)


def test_the_population_gradient_is_the_average_of_finite_differences():
    """At (v, w) on the manifold, against the oracle at every value of the law, d = 2."""
    x = RNG.normal(size=(2, 3))
    x, a = x / np.linalg.norm(x, axis=0), np.array([0.6, 0.8])
    v, w, loops = 0.9, 0.7, 2
    value, key = np.zeros((2, 4, 4))
    value[2:, :2], key[:2, 2:] = v * np.eye(2), w * np.eye(2)
    parts = [oracle.loss_gradient(q @ x, q @ a, value, key, loops) for q in signed_permutations(2)]
    in_v, in_w = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    lam, frame = np.linalg.eigh(x @ x.T)
    slope = jax.grad(two_scalar.manifold_loss)(
        v * w, jnp.asarray(lam[::-1]), jnp.asarray((frame.T @ a)[::-1]), 1, loops, "l2", "subspace"
    )
    on_v, on_w = np.zeros((2, 4, 4))
    on_v[2:, :2] = w * float(slope) / 2 * np.eye(2)
    on_w[:2, 2:] = v * float(slope) / 2 * np.eye(2)
    np.testing.assert_allclose(in_v, on_v, atol=1e-8)
    np.testing.assert_allclose(in_w, on_w, atol=1e-8)
    assert abs(float(slope)) > 1e-3


def evaluated(statement, clause, monkeypatch, module, name, function):
    """The form's outcome on a few instances once a formula is replaced."""
    form = STATEMENTS[statement].corrected
    (chosen,) = [one for one in form.clauses if one.name == clause]
    monkeypatch.setattr(module, name, function)
    return verify.Runner(16).clause(chosen, 12, 5)


def test_a_wrong_sign_in_the_reduced_loss_is_caught(monkeypatch, request):
    request.addfinalizer(jax.clear_caches)
    right = two_scalar.manifold_loss

    def wrong(rho, *rest):
        return right(-0.1 * rho, *rest)

    found = evaluated("theorem-4.1", "growth", monkeypatch, two_scalar, "manifold_loss", wrong)
    assert found.violations


def test_a_model_that_moves_too_far_is_caught(monkeypatch, request):
    request.addfinalizer(jax.clear_caches)
    right = core.apply

    def wrong(weights, data, query, loops, norm):
        return right(weights._replace(value=0.3 * weights.value), data, query, loops, norm)

    found = evaluated("theorem-4.6", "contraction", monkeypatch, core, "apply", wrong)
    assert found.violations


@pytest.mark.parametrize("d", [2, 3])
def test_the_leftover_without_norm_is_what_is_left_of_every_query(d):
    """E sin² of the angle between a and XXᵀa, in a loop."""
    x = RNG.normal(size=(d, 4))
    x, a = x / np.linalg.norm(x, axis=0), RNG.normal(size=d)
    a = a / np.linalg.norm(a)
    left = []
    for q in signed_permutations(d):
        image = x @ x.T @ q @ a
        left.append(1 - (image @ q @ a) ** 2 / (image @ image))
    case = {"data": jnp.asarray(x.T), "query": jnp.asarray(a)}
    found = conclusions.mean_turn(Shape(4, d), case)
    assert_close(found, np.asarray(np.mean(left)), size=100)


def test_the_manifold_of_the_statements_is_the_papers():
    point = manifold.on_manifold(2.0, 3.0, 2)
    expected = np.zeros((4, 4))
    expected[2:, :2] = 2.0 * np.eye(2)
    assert np.array_equal(point.value, expected)
    assert np.array_equal(point.key, 1.5 * expected.T)


def test_the_way_down_from_the_manifold_in_plain_numpy():
    """The four-scalar weights against the power method, at every value of the law."""
    v = w = 20.0
    value, key = np.zeros((2, 4, 4))
    value[2:, :2], key[:2, 2:] = v * np.eye(2), w * np.eye(2)
    value[:2, 2:], key[2:, :2] = 0.3 * np.eye(2), -0.3 * np.eye(2)
    x, a = looped_blocks.ROWS.T, looped_blocks.QUERY
    found, exact = [], []
    for q in signed_permutations(2):
        y = oracle.looped(q @ x, q @ a, value, key, np.ones(4), 2, "l2")
        z = np.linalg.matrix_power(q @ x @ x.T @ q.T, 2) @ q @ a
        for unit, losses in ((y, found), (z / np.linalg.norm(z), exact)):
            losses.append(np.sum((unit - q[:, 0] * (q[:, 0] @ unit)) ** 2))
    assert np.mean(found) < 0.8 * np.mean(exact)
    spare = {name: jnp.asarray(n) for name, n in (("v", v), ("w", w), ("eps", 0.3))}
    turns = signed_permutations(2)
    case = spare | {"delta": jnp.asarray(-0.3)}
    # Turned one by one, and not as the statement's law does it.
    case["turned"] = jnp.asarray(np.stack([(q @ x).T for q in turns]))
    case["queries"] = jnp.asarray(np.stack([q @ a for q in turns]))
    margin = below_the_limit(Shape(3, 2), case)
    assert_close(margin.value, np.asarray(np.mean(exact) - np.mean(found)), size=100)


def _moved_keys(weights):
    return weights._replace(key=weights.key + 0.01)


def _no_signs(weights):
    return weights._replace(value=jnp.abs(weights.value), key=jnp.abs(weights.key))


@pytest.mark.parametrize(("clause", "wrong"), [("two blocks", _moved_keys), ("saddle", _no_signs)])
def test_a_model_of_other_weights_breaks_the_clauses_off_the_manifold(
    clause, wrong, monkeypatch, request
):
    request.addfinalizer(jax.clear_caches)
    right = core.apply

    def changed(weights, *rest):
        return right(wrong(weights), *rest)

    assert evaluated("theorem-4.1", clause, monkeypatch, core, "apply", changed).violations

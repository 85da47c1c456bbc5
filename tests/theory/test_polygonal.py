"""Lemma 15, Lemma 8.3 and II.7: the figures of theory.md about polygonal points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from pmt import sphere
from pmt.dynamics import Outcome, SingleHead, run_to_equilibrium
from pmt.equilibria import classify, polygonal
from pmt.stability import analyze, jacobian
from theory import oracles, oracles_softmax, radius, witnesses
from theory import polygonal as statements
from theory import witnesses_softmax as told
from theory.statement import Shape

PAIR = witnesses.POLYGONAL.case
TRIANGLES = [told.STABLE_TRIANGLE, told.STABLE_TRIANGLE_IN_FOUR]


def system_of(case):
    return SingleHead(case["value"], case["query_key"], float(case["alpha"]))


def spread_evenly(n):
    signs = np.where(np.arange(n) < n // 2, 1.0, -1.0)
    return signs[:, None] * np.array([[1.0, 0.0]])


@pytest.mark.parametrize("n", [2, 4, 6, 10])
def test_lemma_15_the_pair_is_stable_with_any_even_number_of_tokens(n):
    step = oracles.single_head(PAIR["value"], PAIR["query_key"], 0.25)
    x = spread_evenly(n)
    np.testing.assert_allclose(step(x), x, atol=1e-15)
    found = np.sort(oracles.intrinsic_spectrum(step, x).real)
    # Defective for n = 4 and more in floating point: the difference modes all have 7/8.
    expected = [0.75, 0.75] + [0.875] * (n - 2)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert 0.25 < 1 / (2 * np.linalg.norm(PAIR["value"], 2))
    if n == 4:
        answer = analyze(system_of(PAIR), jnp.asarray(x))
        assert answer.kind == "polygonal" and answer.verdict == "stable"
        assert answer.spectral_radius == pytest.approx(0.875, abs=1e-7)


@pytest.mark.parametrize(("size", "expected"), [(0.05, 1.0), (0.2, 0.976), (0.4, 0.764)])
def test_lemma_15_perturbations_return(size, expected):
    x, starts = jnp.asarray(PAIR["x"]), 1500
    w = size * jax.random.normal(jax.random.key(5), (starts, 2, 2))
    ends = run_to_equilibrium(system_of(PAIR), sphere.normalize(x[None] + w), max_steps=4000)
    back = jnp.max(sphere.norm(ends.x - x[None]), axis=1) < 1e-6
    share = float(jnp.mean(back.astype(float)))
    # Where random perturbations end depends on how they are drawn: normal in every coordinate.
    assert abs(share - expected) < 4 * np.sqrt(max(expected * (1 - expected), 1e-4) / starts) + 0.03


def rotation_and_rest(system, x):
    matrix, rotation = jacobian.intrinsic(system, x), told.rotation_coordinates(x)
    return matrix, rotation, radius.without(matrix, rotation)


@pytest.mark.parametrize(("explicit", "largest"), [(TRIANGLES[0], 0.8758), (TRIANGLES[1], 0.9126)])
def test_lemma_15_triangles_are_neutral_only_along_their_rotation(explicit, largest):
    case = explicit.case
    system, x = system_of(case), jnp.asarray(case["x"])
    matrix, rotation, without = jax.jit(rotation_and_rest)(system, x)
    np.testing.assert_allclose(matrix @ rotation, rotation, atol=1e-12)
    rest = np.abs(np.linalg.eigvals(np.asarray(without)))
    assert rest.max() == pytest.approx(largest, abs=1e-4)
    assert float(case["alpha"]) < 1 / (2 * np.linalg.norm(case["value"], 2))
    signature = np.sign(np.linalg.eigvalsh(case["value"]))
    assert list(signature) == ([-1, 1, 1] if len(signature) == 3 else [-1, -1, 1, 1])


def near(x, size, starts, seed):
    w = jax.random.normal(jax.random.key(seed), (starts, *x.shape))
    states = jnp.broadcast_to(x, w.shape)
    w = sphere.tangent_projection(states, w)
    return sphere.retract(states, size * w / jnp.sqrt(jnp.sum(w**2, axis=(1, 2), keepdims=True)))


@pytest.mark.parametrize("explicit", TRIANGLES, ids=["d3", "d4"])
def test_lemma_15_perturbed_triangles_return_to_the_circle_of_triangles(explicit):
    x = jnp.asarray(explicit.case["x"])
    ends = run_to_equilibrium(system_of(explicit.case), near(x, 0.01, 200, 1), max_steps=4000)
    assert np.all(np.asarray(ends.result) == Outcome.CONVERGED)
    gram = ends.x @ jnp.swapaxes(ends.x, 1, 2)
    np.testing.assert_allclose(gram, np.broadcast_to(x @ x.T, gram.shape), atol=1e-9)
    np.testing.assert_allclose(jnp.sum(ends.x, axis=1), 0.0, atol=1e-9)


def test_lemma_15_in_four_dimensions_the_circle_survives_perturbations_of_the_logits():
    """20 generic changes of B, after which B vanishes on no given plane: 20 still attract."""
    case, survived = told.STABLE_TRIANGLE_IN_FOUR.case, 0
    starts = near(jnp.asarray(case["x"]), 0.01, 4, 2)
    rng = np.random.default_rng(0)

    @jax.jit
    def ends(query_key):
        system = SingleHead(jnp.asarray(case["value"]), query_key, float(case["alpha"]))
        return run_to_equilibrium(system, starts, max_steps=20_000)

    for _ in range(20):
        found = ends(jnp.asarray(case["query_key"] + 0.05 * rng.normal(size=(4, 4))))
        totals = np.abs(np.asarray(jnp.sum(found.x, axis=1))).max()
        gram = np.abs(np.asarray(found.x @ jnp.swapaxes(found.x, 1, 2)) - [[TRIANGLE_GRAM]]).max()
        survived += bool(totals < 1e-8 and gram < 1e-6)
    assert survived == 20


TRIANGLE_GRAM = np.where(np.eye(3, dtype=bool), 1.0, -0.5)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (4, 3)])
def test_ii_7_the_closed_form_is_the_spectrum(n, d):
    rng = np.random.default_rng(n)
    value, logits = rng.normal(size=(2, d, d))
    value = (value + value.T) / 2
    u = rng.normal(size=d)
    u /= np.linalg.norm(u)
    logits = logits - (u @ logits @ u) * np.outer(u, u)
    x = np.where(np.arange(n) < n // 2, 1.0, -1.0)[:, None] * u[None]
    single, mean, sign = oracles_softmax.pair_multipliers(value, logits, 0.2, u)
    claimed = np.concatenate([mean, sign, np.tile(single, n - 2)])
    step = oracles.single_head(value, logits, 0.2)
    jac = oracles.jacobian(step, x)
    basis = oracles.tangent_basis(x)
    matrix = basis.T @ jac @ basis
    # Multiple eigenvalues: compare power sums, which are as exact as the entries.
    for power in range(1, n * (d - 1) + 1):
        trace = np.trace(np.linalg.matrix_power(matrix, power))
        assert trace == pytest.approx(np.sum(claimed**power).real, rel=1e-9, abs=1e-9)
    case = {"value": value, "query_key": logits, "alpha": 0.2, "x": x}
    case = {name: jnp.asarray(a) for name, a in case.items()}
    shape = Shape(n, d)
    ours, blocks = jax.jit(
        lambda c: (statements.pair_jacobian(shape, c), statements._pair_blocks(shape, c))
    )(case)
    # The bases differ by a rotation of every tangent space, the same for all tokens but for signs.
    assert np.trace(ours) == pytest.approx(np.trace(matrix))
    assert np.trace(ours @ ours) == pytest.approx(np.trace(matrix @ matrix))
    blocks = np.linalg.eigvals(np.asarray(blocks))
    wanted = np.concatenate([mean, sign, *([single] if n > 2 else [])])
    np.testing.assert_allclose(np.sort(blocks.real), np.sort(wanted.real), atol=1e-7)


def test_lemma_8_tokens_that_sum_to_zero_move_by_a_tenth():
    case = {name: jnp.asarray(a) for name, a in told.TRIANGLE_MOVES.case.items()}
    moved = told.TRIANGLE_MOVES.numbers(told.TRIANGLE_MOVES.shape, case)["moved"]
    assert moved == pytest.approx(0.10, abs=5e-3)


def polygon_problem(logits, n, d, rng):
    """Solves z_i = 0 for all i by least squares from one random start."""

    def attended(flat):
        x = flat.reshape(n, d)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        weights = np.exp(x @ logits @ x.T)
        return ((weights / weights.sum(axis=1, keepdims=True)) @ x).reshape(-1)

    found = least_squares(attended, rng.normal(size=n * d), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    x = found.x.reshape(n, d)
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.abs(found.fun).max()


def polygon_campaign(problems, seed):
    rng = np.random.default_rng(seed)
    solved, least_definite = [], np.inf
    for _ in range(problems):
        n, d = int(rng.integers(2, 5)), int(rng.integers(2, 5))
        logits = rng.normal(size=(d, d))
        x, residual = polygon_problem(logits, n, d, rng)
        if residual < 1e-10:
            solved.append((np.abs(x @ logits @ x.T).max(), np.abs(x.sum(axis=0)).max()))
        definite = np.eye(d) + 0.3 * (logits - logits.T)
        least_definite = min(least_definite, polygon_problem(definite, n, d, rng)[1])
    return solved, least_definite


def test_lemma_8_every_polygonal_point_found_is_isotropic_and_definite_logits_have_none():
    solved, least_definite = polygon_campaign(10, 0)
    assert len(solved) >= 2
    assert max(logit for logit, _ in solved) < 1e-4
    assert max(total for _, total in solved) < 1e-8
    assert least_definite > 0.03


@pytest.mark.long
def test_lemma_8_the_same_on_three_hundred_problems():
    solved, least_definite = polygon_campaign(300, 1)
    # theory.md: 135 of 300; the share depends on the sizes drawn.
    assert 60 < len(solved) < 220
    assert max(logit for logit, _ in solved) < 1e-3
    assert least_definite > 0.02


@pytest.mark.long
def test_random_tokens_reach_stable_polygonal_pairs():
    """theory.md: 3.7 to 5.2 % of runs with d = 2 and n even."""
    rng, runs, reached = np.random.default_rng(3), 600, 0
    run = jax.jit(lambda v, m, x: run_to_equilibrium(SingleHead(v, m, 0.25), x, max_steps=4000))
    for _ in range(runs):
        value = rng.normal(size=(2, 2))
        value = (value + value.T) / 2
        value = value / np.abs(np.linalg.eigvalsh(value)).max()
        if np.linalg.eigvalsh(value)[-1] <= 0:
            value = -value
        logits = 2 * rng.normal(size=(2, 2))
        x = sphere.normalize(jnp.asarray(rng.normal(size=(4, 2))))
        end = run(jnp.asarray(value), jnp.asarray(logits), x)
        if int(end.result) == Outcome.CONVERGED:
            known = classify(SingleHead(value, logits, 0.25), end.x)
            reached += known.kind == "polygonal"
    assert 0.015 < reached / runs < 0.09


def test_the_constructor_builds_the_same_pair():
    system = system_of(PAIR)
    point = polygonal(system, 2)
    assert point.exists
    step = oracles.single_head(PAIR["value"], PAIR["query_key"], 0.25)
    np.testing.assert_allclose(step(np.asarray(point.x)), point.x, atol=1e-12)


def test_bounds_on_the_radius():
    rng = np.random.default_rng(1)
    bounds = jax.jit(radius.radius_bounds)
    for matrix in (
        rng.normal(size=(4, 4)),
        0.3 * rng.normal(size=(4, 4)),
        np.diag([0.5, 0.5, 0.5, 0.5]) + np.diag([1.0, 1.0, 1.0], 1),
        np.array([[0, -2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
    ):
        exact = np.abs(np.linalg.eigvals(matrix)).max()
        lower, upper = (float(b) for b in bounds(jnp.asarray(matrix)))
        assert lower <= exact * (1 + 1e-9)
        assert upper >= exact * (1 - 1e-3 if matrix[0, 1] == 1.0 else 1 - 1e-9)
        assert upper / lower < 1 + 2e-2
    # Rounding hides a Jordan block's nilpotent part: a matrix without eigenvalues but 0.
    assert float(bounds(jnp.asarray(np.diag([1.0, 1.0, 1.0], 1)))[1]) < 1

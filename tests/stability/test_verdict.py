"""Verdicts: the theory's examples, honest uncertainty, conditions, refusals."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria, run_to_equilibrium, sphere
from pmt.dynamics import LocalWindow, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.stability import analyze, conditions
from tests.tolerance import assert_close


def conditions_of(answer):
    return {c.name: c for c in answer.conditions}


@pytest.mark.parametrize(
    ("split", "radius"), [((2, 2), 0.8434), ((3, 2), 0.8443), ((2, 1), 0.8461)]
)
def test_remark_10_counterexample_is_stable(split, radius):
    """V = diag(1, −2), QᵀK = diag(0, −2), alpha = 1/4, at v_2."""
    system = SingleHead(
        jnp.diag(jnp.array([1.0, -2.0])), jnp.diag(jnp.array([0.0, -2.0])), alpha=0.25
    )
    answer = analyze(system, equilibria.bipartite(system, 1, split))
    assert answer.verdict == "stable"
    assert answer.method == "closed form"
    assert answer.disagreement < 1e-14
    assert round(answer.spectral_radius, 4) == radius
    held = conditions_of(answer)
    assert held["exact criterion (II.4)"].holds
    assert held["theorem 3, condition 3"].holds


def test_antipodal_pair_of_oja_is_marginal():
    """Theorem 2's counterexample: multipliers {1, 7/8}; linearisation does not decide."""
    system = Oja(jnp.diag(jnp.array([1.0, -0.5])), alpha=0.25)
    answer = analyze(system, equilibria.bipartite(system, 0, (1, 1)))
    assert answer.verdict == "marginal"
    assert_close(answer.eigenvalues.real, np.array([1.0, 0.875]))
    assert conditions_of(answer)["theorem 2, tokens (corrected)"].status == "fails"
    positive = Oja(jnp.diag(jnp.array([1.0, 0.5])), alpha=0.25)
    answer = analyze(positive, equilibria.bipartite(positive, 0, (1, 1)))
    assert answer.verdict == "unstable"
    assert conditions_of(answer)["theorem 2, tokens (corrected)"].holds


def test_lemma_15_counterexample_is_stable():
    """A stable polygonal pair, multipliers 3/4, 3/4, by the dense method."""
    system = SingleHead(
        jnp.array([[1.0, 0.5], [0.5, -0.5]]), -jnp.array([[0.0, 1.0], [1.0, 0.0]]), alpha=0.25
    )
    answer = analyze(system, equilibria.polygonal(system, 2, jnp.array([[1.0, 0.0]])))
    assert (answer.verdict, answer.method, answer.kind) == ("stable", "dense", "polygonal")
    assert_close(answer.eigenvalues.real, np.array([0.75, 0.75]))
    assert answer.disagreement is None


def test_theorem_3_is_not_necessary():
    """n1 = 1, n2 = 5: stable although condition 3 fails for the group of one token."""
    values = [1.205, -0.223, -0.641, -1.706, -1.972]
    system = SingleHead(jnp.diag(jnp.array(values)), 0.804 * jnp.eye(5), alpha=0.036)
    answer = analyze(system, equilibria.bipartite(system, 0, (1, 5)))
    assert answer.verdict == "stable"
    held = conditions_of(answer)
    assert held["theorem 3, condition 3"].status == "fails"
    assert held["exact criterion (II.4)"].holds


def test_stable_bipartite_point_of_two_heads():
    """II.5: radius .812 at v_1 with (3, 2)."""
    heads = np.stack([np.diag([1.0, 0.3, -0.2]), np.diag([0.8, 0.1, 0.4])])
    system = MultiHead.from_maps(heads, np.stack([2 * np.eye(3), 1.5 * np.eye(3)]), alpha=0.2)
    answer = analyze(system, equilibria.bipartite(system, 0, (3, 2)))
    assert (answer.verdict, answer.method) == ("stable", "closed form")
    assert round(answer.spectral_radius, 3) == 0.812


def test_clustering_example_has_its_radius():
    """II.10, printed to three decimals."""
    system = SingleHead(
        jnp.diag(jnp.array([-1.0007, 1.5111])),
        jnp.array([[13.795, 6.484], [2.167, 1.241]]),
        alpha=0.2,
    )
    angles = jnp.deg2rad(jnp.array([106.086, -60.876]))
    found = equilibria.newton(system, jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1))
    answer = analyze(system, found.x)
    assert (answer.kind, answer.method, answer.verdict) == ("clustering", "dense", "stable")
    assert round(answer.spectral_radius, 3) == 0.948


@pytest.mark.parametrize(
    ("alpha", "verdict"),
    [(0.99, "stable"), (1.0, "marginal"), (1.01, "unstable")],
)
def test_lemma_4_bound_is_sharp(alpha, verdict):
    """V = diag(1, −3): v_1 loses stability at alpha = −2/(λ1 + λd) = 1."""
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=alpha)
    answer = analyze(system, equilibria.consensus(system, 0, 4))
    assert (answer.verdict, answer.status) == (verdict, "equilibrium")
    margin = conditions_of(answer)["theorem 1, step"]
    assert_close(margin.margin, 1 - alpha, scale=1.0, dtype=float)
    # And stability passes to the 2-cycle {v_2, −v_2}, whose steps are analysed too.
    cycle = analyze(system, equilibria.consensus(system, 1, 4))
    assert cycle.status == "2-cycle"
    assert cycle.verdict == {"stable": "unstable", "unstable": "stable"}.get(verdict, "marginal")


def test_a_mask_with_eigenvalue_minus_one_defeats_theorem_1():
    """Two tokens that only look at each other, λ_d < −λ_1: unstable for every alpha."""
    swap = jnp.array([[False, True], [True, False]])
    system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=0.01, mask=swap)
    answer = analyze(system, equilibria.consensus(system, 0, 2))
    assert answer.verdict == "unstable"
    assert round(answer.spectral_radius, 4) == 1.0198
    full = dataclasses.replace(system, mask="full")
    assert analyze(full, equilibria.consensus(full, 0, 2)).verdict == "stable"


def test_dense_answers_undecided_within_its_uncertainty():
    """A defective block: the closed form knows the margin, LAPACK's eigenvalues are off by more."""
    tokens, alpha, second = 16, 0.5, 0.9999
    system = Oja(jnp.diag(jnp.array([1.0, second])), alpha=alpha, mask=LocalWindow(2))
    biased = MultiHead.from_maps(
        system.value[None], jnp.zeros((1, 2, 2)), alpha=alpha, mask=LocalWindow(2)
    )
    point = equilibria.consensus(system, 0, tokens)
    closed = analyze(system, point)
    assert (closed.method, closed.verdict) == ("closed form", "stable")
    # A zero bias changes nothing but the method: the closed forms refuse biases.
    dense = analyze(
        dataclasses.replace(biased, output_bias=jnp.zeros(2)),
        dataclasses.replace(point, eigenvector=None),
    )
    assert dense.method == "dense"
    assert dense.tolerance > abs(dense.spectral_radius - closed.spectral_radius)
    tight = dataclasses.replace(system, value=jnp.diag(jnp.array([1.0, 1.0 - 1e-13])))
    near = analyze(
        dataclasses.replace(biased, value=tight.value[None], output_bias=jnp.zeros(2)),
        dataclasses.replace(point, eigenvector=None),
    )
    assert near.verdict == "undecided"


def test_states_from_an_iteration_get_their_verdict():
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.4, -0.5])), 3 * jnp.eye(3), alpha=0.3)
    x0 = sphere.normalize(jnp.array([[1.0, 0.2, 0.1], [-1.0, 0.1, 0.3], [1.0, -0.2, 0.0]]))
    run = run_to_equilibrium(system, x0)
    answer = analyze(system, run.x)
    constructed = analyze(system, equilibria.bipartite(system, 0, (2, 1)))
    assert (answer.kind, answer.method) == ("bipartite", "closed form")
    assert abs(answer.spectral_radius - constructed.spectral_radius) <= answer.tolerance


@pytest.mark.float32
def test_single_precision_never_contradicts_double():
    """Fault 57: the same verdict, or undecided or marginal within the coarser tolerance."""
    for alpha in (0.5, 0.9999999, 1.5):
        system = Oja(jnp.diag(jnp.array([1.0, -3.0])), alpha=alpha)
        answer = analyze(system, equilibria.consensus(system, 0, 3))
        expected = "stable" if alpha < 1 else "unstable"
        assert answer.verdict in (expected, "marginal", "undecided")
        if abs(alpha - 1) > 1e-3:
            assert answer.verdict == expected


def test_alpha_zero_is_marginal_and_negative_fails_its_condition():
    """Fault 64."""
    still = Oja(jnp.diag(jnp.array([1.0, 0.5])), alpha=0.0)
    assert analyze(still, equilibria.consensus(still, 0, 3)).verdict == "marginal"
    backwards = dataclasses.replace(still, alpha=-0.3)
    answer = analyze(backwards, equilibria.consensus(backwards, 0, 3))
    assert answer.verdict == "unstable"
    assert conditions_of(answer)["alpha > 0"].status == "fails"


def test_repeated_defective_and_opposite_eigenvalues():
    """Faults 50, 51, 52."""
    repeated = Oja(jnp.diag(jnp.array([1.0, 1.0, 0.2])), alpha=0.3)
    answer = analyze(repeated, equilibria.consensus(repeated, 0, 3))
    assert answer.verdict == "marginal"
    assert conditions_of(answer)["λ1 simple"].status == "undecided"
    jordan = Oja(jnp.array([[1.0, 1.0], [0.0, 1.0]]), alpha=0.3)
    answer = analyze(jordan, equilibria.consensus(jordan, 0, 3))
    assert answer.verdict == "undecided"
    assert conditions_of(answer)["symmetric"].status == "fails"
    opposite = Oja(jnp.diag(jnp.array([1.0, -1.0])), alpha=0.3)
    assert analyze(opposite, equilibria.consensus(opposite, 0, 3)).verdict == "stable"


def test_near_collinear_eigenvectors_widen_the_tolerance():
    """Fault 54: F = Q [[1, 1], [0, 1 + δ]] Qᵀ; the true multiplier at the second is known."""
    turn, delta, alpha = 0.7, 1e-7, 1.0
    q = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    system = Oja(q @ np.array([[1.0, 1.0], [0.0, 1.0 + delta]]) @ q.T, alpha=alpha)
    answer = analyze(system, equilibria.consensus(system, 0, 3))
    true_radius = (1 + alpha) / (1 + alpha * (1 + delta))
    error = abs(answer.spectral_radius - true_radius)
    assert error > 1e-13
    assert error <= answer.tolerance < 1e-6
    assert answer.verdict == "stable"


def test_one_dimension_is_stable_with_no_multipliers():
    """Faults 65, 66."""
    line = Oja(jnp.array([[0.5]]), alpha=0.3)
    answer = analyze(line, equilibria.consensus(line, 0, 1))
    assert answer.eigenvalues.shape == (0,)
    assert (answer.verdict, answer.spectral_radius, answer.conditions) == ("stable", 0.0, ())


def test_points_that_are_not_fixed_are_refused():
    system = Oja(jnp.diag(jnp.array([1.0, 0.2])), alpha=3.0)
    with pytest.raises(RequestError, match="status: not fixed"):
        analyze(system, equilibria.bipartite(system, 0, (3, 1)))
    with pytest.raises(RequestError, match="not an equilibrium"):
        analyze(system, sphere.normalize(jnp.array([[1.0, 2.0], [0.5, 1.0]])))


def test_answers_are_plain_data():
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.4])), 2 * jnp.eye(2), alpha=0.3)
    answer = analyze(system, equilibria.bipartite(system, 0, (2, 2)))
    text = json.loads(json.dumps(answer.as_dict(), allow_nan=False, default=float))
    assert len(text["eigenvalues"]) == 4
    assert {c["status"] for c in text["conditions"]} <= {"holds", "fails", "undecided"}


def test_psi_thresholds_of_the_theory():
    """II.4: θ* for λ2/λ1 = .5, .9, .95, .99 balanced and 3:1, printed to three decimals."""
    for sizes, thetas in (
        ((1, 1), (0.549, 1.472, 1.832, 2.647)),
        ((3, 1), (0.911, 1.745, 2.095, 2.904)),
    ):
        for ratio, theta in zip((0.5, 0.9, 0.95, 0.99), thetas, strict=True):
            below, above = (conditions.psi(theta + s * 1e-3, *sizes) - ratio for s in (-1, 1))
            assert below < 0 < above
    assert_close(conditions.psi(0.7, 2, 2), np.tanh(0.7), dtype=float, scale=1.0)


def test_exact_criterion_agrees_with_the_spectrum_on_random_points():
    """II.4 on random instances: no mismatch outside the rounding of the margins."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(150):
        # Few shapes, since each one compiles.
        d, n1, n2 = [(2, 1, 1), (3, 2, 2), (3, 3, 1), (4, 1, 4)][int(rng.integers(4))]
        values = np.sort(rng.normal(size=d))[::-1]
        if values[0] <= 0.05:
            continue
        k = int(rng.choice([0, d - 1, rng.integers(d)]))
        theta = rng.normal() * 2
        alpha = rng.uniform(0.05, 0.95) / np.abs(values).max()
        system = SingleHead(np.diag(values), theta * np.eye(d), alpha=alpha)
        answer = analyze(system, equilibria.bipartite(system, k, (n1, n2)), affordable=0)
        exact = conditions_of(answer)["exact criterion (II.4)"]
        if answer.verdict in ("stable", "unstable") and exact.status != "undecided":
            assert (answer.verdict == "stable") == exact.holds, (values, k, theta, n1, n2, alpha)
            seen.add((answer.verdict, k == 0, k == d - 1))
    assert len(seen) >= 4

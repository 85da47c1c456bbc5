"""The settings of the second paper's figures, and what is known of them in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from pmt.experiments.loop_figure_1 import FIGURE_1, shorter
from pmt.experiments.loop_figure_2 import FIGURE_2, FIGURE_2_QUICK
from pmt.experiments.loop_norms import NORMS_STUDY
from pmt.experiments.loop_plateaus import plateaus
from pmt.looped import NORMS


def test_the_settings_are_the_papers():
    assert (FIGURE_1.d, FIGURE_1.n, FIGURE_1.loops, FIGURE_1.norm) == (16, 32, 10, "l2")
    assert (FIGURE_1.rate, FIGURE_1.batch, FIGURE_1.epochs) == (0.1, 128, 2000)
    assert (FIGURE_1.train, FIGURE_1.test, FIGURE_1.steps) == (10_000, 2_000, 156_000)
    assert FIGURE_2.most_loops == 25 and set(FIGURE_2.norms) == {"l2", "none"}
    assert FIGURE_2.training.loops == 1 and FIGURE_2.training.objective == "unit-power"
    assert NORMS_STUDY.norms == NORMS and NORMS_STUDY.training.objective == "sine"


def test_a_shorter_run_is_recorded_about_a_hundred_times():
    assert [shorter(FIGURE_1, epochs).every for epochs in (700, 13, 2000, 150)] == [7, 1, 20, 1]


def test_gamma_for_the_power_target_is_known_in_closed_form():
    """γ* = 1 − E tr XXᵀ / E tr (XXᵀ)² = (n − 1)/(n − 1 + d) for uniform columns."""
    config = replace(FIGURE_2.training, objective="power", d=2, n=3)
    value, error = plateaus(config).gamma
    assert abs(value - 2 / 4) < 4 * error < 0.05


@pytest.mark.parametrize("training", [FIGURE_2.training, FIGURE_2_QUICK.training])
def test_without_norm_the_best_point_of_the_manifold_is_a_saddle(training):
    """Against NumPy: the loss of a + A XXᵀ B a with full blocks, on samples of its own."""
    d, n, rng = training.d, training.n, np.random.default_rng(0)
    x, a = rng.standard_normal((8000, n, d)), rng.standard_normal((8000, d))
    x, a = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (x, a))
    s = np.swapaxes(x, 1, 2) @ x
    target = np.einsum("sij,sj->si", s, a)
    target /= np.linalg.norm(target, axis=1, keepdims=True)

    def losses(one, other):
        y = a + np.einsum("sij,sj->si", s, a @ other.T) @ one.T
        return np.sum((y - target) ** 2, axis=1)

    def mean(values):
        return values.mean(), values.std(ddof=1) / len(values) ** 0.5

    found, identity = plateaus(training), np.eye(d)
    root = found.gamma[0] ** 0.5
    base = losses(root * identity, root * identity)
    half = np.diag(np.where(np.arange(d) < d // 2, 1.0, -1.0))
    for sign, bends in ((-1, -1), (1, 1)):
        pairs = [
            losses(root * (identity + e * half), root * (identity + sign * e * half))
            for e in (0.1, -0.1)
        ]
        # Opposite changes of A and B lower the loss, equal ones raise it.
        bend, error = mean(sum(pairs) / 2 - base)
        assert bends * bend > 4 * error
    p = (identity + half) / 2
    image = np.einsum("sij,sj->si", s, a @ (identity - p)) @ p
    gamma = np.sum(image * (target - a)) / np.sum(image**2)
    for expected, values in (
        (found.manifold, base),
        (found.split, losses(p, gamma * (identity - p))),
    ):
        ours, error = mean(values)
        assert abs(ours - expected[0]) < 4 * np.hypot(error, expected[1])
    assert found.less[0] < -10 * found.less[1] < 0 < found.split[0]

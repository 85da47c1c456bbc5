"""The settings of the second paper's figures, and what is known of them in closed form."""

from dataclasses import replace

from pmt.experiments.loop_figure_1 import FIGURE_1, shorter
from pmt.experiments.loop_figure_2 import FIGURE_2, best_gamma
from pmt.experiments.loop_norms import NORMS_STUDY
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
    value, error = best_gamma(config)
    assert abs(value - 2 / 4) < 4 * error < 0.05

"""Trained weights are told apart from a null model only beyond what one more draw would show."""

import numpy as np
import pytest
from scipy.stats import t

from pmt.experiments import AnalysisConfig, analyze, layer_alignment
from pmt.experiments.contrast import contrast, judge, null_rho, sentence
from tests.experiments.systems import random_stack


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_one_more_draw_of_the_null_is_rarely_called_special(draws):
    """Normal draws, prompts without noise: 5 % to sampling error, where two errors give more."""
    rng = np.random.default_rng(draws)
    values = rng.standard_normal((2000, draws + 1))
    verdicts = []
    for own, *null in values:
        sd = float(np.std(null, ddof=1))
        found = judge(float(own - np.mean(null)), 0.0, sd / draws**0.5, sd, draws)
        verdicts.append(found.stands_out)
    # Three standard errors of a share of 5 % of 2000 are 1.5 %.
    assert abs(np.mean(np.abs(verdicts)) - 0.05) < 0.015
    assert {*verdicts} == {-1, 0, 1}
    assert found.threshold == pytest.approx(t.ppf(0.975, draws - 1), rel=1e-9)


def test_a_real_difference_is_called_one():
    found = judge(1.0, 0.03, 0.05, 0.1, 5)
    assert found.error == pytest.approx(np.sqrt(0.0134), rel=1e-12)
    assert found.stands_out == 1 and judge(-1.0, 0.03, 0.05, 0.1, 5).stands_out == -1


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ((None, None, 0.1, 5), "a single prompt or text"),
        ((0.1, 0.1, None, 1), "a single draw"),
        ((0.0, 0.0, 0.0, 5), "neither prompts nor draws"),
    ],
)
def test_without_an_error_there_is_no_verdict(errors, reason):
    found = judge(1.0, *errors)
    assert found.stands_out is None and found.reason.startswith(reason)


def test_the_sentence_says_against_what():
    # Draws of means 0.1 and 0.3, the same over both prompts.
    values = np.array([[[0.1], [0.1]], [[0.3], [0.3]]])
    null = null_rho(values, 50, (1, 1))
    assert null.sd == pytest.approx(0.02**0.5) and null.draws == 2
    found = contrast("rotated", 0.9, 0.0, 0.1, null)
    assert found.error == pytest.approx(0.03**0.5) and found.stands_out == 0
    assert sentence(found).endswith(
        "(+0.700, standard error of one more draw 0.173): the trained weights are within what one "
        "more draw of the null would show (95 %, 2 draws)"
    )
    alone = contrast("rotated", 0.9, 0.0, 0.1, null_rho(values[:1], 50, (1,)))
    assert sentence(alone).endswith("null; a single draw of the null shows no spread, so this "
                                    "tells nothing")  # fmt: skip


def test_one_prompt_is_said_to_tell_nothing_of_any_layer():
    config = AnalysisConfig(prompts=1, tokens=3, draws=2)
    found = layer_alignment.sentences(analyze(random_stack(), config))
    assert len(found) == 3
    assert all(each.endswith("a single prompt or text has no standard error, so this tells nothing")
               for each in found[1:])  # fmt: skip

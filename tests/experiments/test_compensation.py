"""What `pmt steer --precompensate` says of the last norm of real layers (theory.md, Sec. 5)."""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.cli.steer_lines import _verdict
from pmt.experiments.compensation import compensate, last_norm_reach, remainder
from pmt.experiments.steer import SteerConfig
from pmt.experiments.steered_runs import FullRun
from pmt.models import from_pretrained
from pmt.steering import precompensate, reach
from tests.experiments.test_steer_extremes import some_text
from tests.models.conftest import DATA

CONFIG = SteerConfig(c=20.0, mode="full", precompensate=True)


@pytest.fixture(scope="module")
def distilbert():
    model = from_pretrained(DATA / "distilbert-learned")
    return FullRun(model, len(model.schedule) - 1, some_text(model))


def compensated(run, target):
    return compensate(run.model, run.index, target, run.attended, CONFIG, "target")


@pytest.mark.parametrize(
    ("seed", "excluded", "sentence"),
    [
        (0, True, "no preimage exists, since the last norm gives no multiple of the target but"),
        (1, False, "gives the target only where the state before it has the variance 1.62e-13"),
        (2, True, "only for normed entries of mean square 3.31, and theirs is below 1"),
    ],
)
def test_the_best_direction_is_as_near_as_the_last_norm_allows(
    distilbert, seed, excluded, sentence
):
    """Two ways to one number: least squares through the layer, and the norm by itself."""
    d = distilbert.model.dimensions.d
    found = compensated(distilbert, np.random.default_rng(seed).normal(size=d))
    assert not found.found and found.excluded == excluded
    assert found.reach.cosine - 1e-5 < found.cosine < found.reach.cosine + 1e-6 < 1
    assert sentence in _verdict(found)
    assert f"its outputs come to the target with a cosine of at most {found.reach.cosine:.4f}" in (
        _verdict(found)
    )


def test_a_direction_that_a_state_has_is_not_excluded(distilbert):
    d = distilbert.model.dimensions.d
    v = np.random.default_rng(4).normal(size=d)
    phi = remainder(distilbert.model, distilbert.index, 1e4)
    target = np.asarray(phi(jnp.asarray(v / np.linalg.norm(v), jnp.float32)), np.float64)
    found = precompensate(phi, target, dtype="float32", starts=2)
    assert found.cosine > 0.9 and found.reach is None
    said = last_norm_reach(distilbert.model, distilbert.index, target, distilbert.attended)
    # The state is in float32 and the variance far above epsilon: q = 1 to rounding.
    assert abs(said.mean_square - 1) < 1e-5 and said.cosine > 1 - 1e-9
    assert said.seen > 0.5


def test_a_rounded_state_is_not_said_to_have_no_preimage(distilbert):
    """To the last bit about half of a model's own states are outside the range of their norm."""
    run = distilbert
    states = np.asarray(run.leaving(None, None), np.float64)[run.present]
    said = [last_norm_reach(run.model, run.index, w, run.attended) for w in states]
    outside = [(w, norm) for w, norm in zip(states, said, strict=True) if norm.excluded]
    assert outside and all(norm.cosine > 1 - 1e-12 for _, norm in outside)
    found = compensated(run, outside[0][0])
    assert found.found and found.reach.excluded and not found.excluded
    # Nor where the solver misses it; but what is far from every output stays excluded.
    missed = replace(found, found=False)
    assert not missed.excluded and _verdict(missed).endswith("the last norm does not forbid one")
    near = replace(missed, reach=replace(found.reach, cosine=1 - 1e-6))
    assert near.excluded and "at most 1 - 1.0e-06" in _verdict(near)
    assert not replace(near, dtype="float16").excluded


def test_pre_norm_layers_end_in_no_norm():
    model = from_pretrained(DATA / "gpt2-inverse")
    run = FullRun(model, 1, some_text(model))
    found = compensated(run, np.random.default_rng(0).normal(size=model.dimensions.d))
    assert found.reach is None and not found.excluded
    assert _verdict(found) == "a preimage was found"


def test_the_other_reasons_in_words():
    def said(gain, bias, target, **more):
        norm = reach(np.array(gain), np.array(bias), 0.1, np.array(target), **more)
        return _verdict(SimpleNamespace(found=False, excluded=norm.excluded, reach=norm))

    silent = said([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0])
    assert "has a gain of zero, in whose entries 0.67 of the target's length lies" in silent
    silent = said([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    assert "has 2 gains of zero" in silent
    assert "gives no multiple of the target;" in said([1.0] * 3, [1.0] * 3, [1.0, -1.0, 0.0])
    # A factor of zero, which a norm without a bias has, is none.
    assert "gives no multiple of the target;" in said([1.0] * 3, [-0.0] * 3, [1.0, 2.0, 0.0])
    free = said([1.0, 2.0, 0.0, 0.0], [0.1] * 4, [1.0, 1.0, 1.0, 1.0], inputs=np.eye(4))
    assert free == "no preimage was found, and the last norm does not forbid one"

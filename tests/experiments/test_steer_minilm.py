"""Steering the packaged real model, against a plain NumPy transcription of Sec. 2.3."""

from dataclasses import replace

import numpy as np
import pytest

from pmt.checkpoints import locate
from pmt.errors import RequestError
from pmt.experiments import directions, plain_text
from pmt.experiments.steer import SteerConfig, steer
from pmt.models import from_pretrained
from tests.experiments import steered_transcription

# In stripped mode, without what takes the longest.
QUICK = SteerConfig(alignment=0.9, spectra=False, doses=0)
RANDOM = np.random.default_rng(5).normal(size=384)


@pytest.fixture(scope="module")
def minilm():
    return from_pretrained("minilm")


@pytest.fixture(scope="module")
def text(minilm):
    return plain_text.read_tokens(minilm, plain_text.sentences())


@pytest.fixture(scope="module")
def at_nine_tenths(minilm):
    return steer(minilm, RANDOM, replace(QUICK, doses=6))


def test_a_random_direction_is_reached(minilm):
    result = steer(minilm, RANDOM, replace(QUICK, alignment=None, c=3000.0))
    assert result.before < 0.05 < 0.99 <= result.after
    assert result.shape == (100, 10, 384) and result.layer == 6
    # The sign is that of kappa, and it is said that it differs.
    assert 0.4 < result.positive_after < 0.6


def test_a_requested_alignment_is_reached(at_nine_tenths):
    assert abs(at_nine_tenths.after - 0.9) < 1e-4
    assert at_nine_tenths.edit.exact and at_nine_tenths.edit.residual < 1e-13
    assert at_nine_tenths.cast.dtype == "float32" and at_nine_tenths.cast.relative < 1e-7
    base, steered = at_nine_tenths.base, at_nine_tenths.steered
    assert steered[:5] == base[:5]
    assert abs(steered[5].target.rho_after - at_nine_tenths.after) < 1e-5
    assert steered[5].target.p_increase > 0.99


def test_the_dose_response_is_the_predicted_one_within_its_stated_error(at_nine_tenths):
    curve = at_nine_tenths.curve
    assert len(curve.c) == 8 and curve.c[0] == 0
    assert (np.abs(curve.measured - curve.predicted) <= curve.error).all()
    assert curve.error.max() < 0.01
    assert curve.measured[-1] > 0.98 and (np.diff(curve.measured) > 0).all()
    assert curve.addition[-1] > 0.98 and (np.diff(curve.addition) > 0).all()


def test_the_numbers_are_those_of_the_transcription(minilm):
    given = np.random.default_rng(2).normal(size=(2, 4, 384))
    result = steer(minilm, RANDOM, replace(QUICK, layer=2, alignment=0.7, doses=2), tokens=given)
    x, maps = steered_transcription.states_before(
        locate("minilm").weights[0], given, layers=6, heads=12, index=1
    )
    assert abs(result.after - 0.7) < 1e-5
    for each, measured in zip(result.curve.c, result.curve.measured, strict=True):
        wanted = steered_transcription.alignment(x, maps, RANDOM, RANDOM, each, 12)
        assert abs(measured - wanted) < 1e-5
    f = maps["dense"][0] @ maps["value"][0]
    w = RANDOM / np.linalg.norm(RANDOM)
    tilt = np.linalg.norm(f @ w - (w @ f @ w) * w) / result.edit.strength
    assert abs(result.edit.tilt / tilt - 1) < 1e-6


def test_with_the_mean_token_read_vector_all_tokens_have_the_same_sign(minilm, text):
    """In stripped mode, on the embeddings of real text, which have a common direction."""
    whole = text.present[:, :12].all(axis=1)
    x = np.asarray(minilm(text, logits=False).hidden_states[0])[whole, :12]
    assert len(x) > 8
    result = steer(minilm, RANDOM, replace(QUICK, read="mean"), tokens=x)
    assert result.positive_after == 1.0 and abs(result.after - 0.9) < 1e-4
    assert result.edit.strength < 20
    # The far side of the line has them all too.
    cosines = result.edit.response.cosines(-result.edit.strength)
    assert (cosines < 0).all()


@pytest.mark.long
def test_in_full_mode_a_fitted_read_vector_and_pre_compensation(minilm, text):
    """The mean does not fix the signs there, where value biases count; the fit does. The last
    norm cannot give the target, so there is no exact preimage, and a better aim all the same.
    """
    ocean = directions.from_token(minilm, " ocean")
    assert "'ocean'" in ocean.source
    plain, aimed = (
        steer(
            minilm,
            ocean.vector,
            SteerConfig(
                c=100.0, mode="full", read="fit", spectra=False, precompensate=precompensate
            ),
            text=text,
        )
        for precompensate in (False, True)
    )
    assert plain.positive_after == aimed.positive_after == 1.0
    assert plain.before < 0.1 and aimed.after > plain.after + 0.05 > 0.75
    found = aimed.preimage
    assert not found.found and found.cosine > 0.99 > found.plain
    assert found.condition_holds is None
    # Two gains of its last norm are nothing, so that what it has there is, too.
    assert found.excluded and found.reach.silent == 2
    assert found.cosine < found.reach.cosine < found.cosine + 1e-3
    # At equal alignment the edit keeps the order of the similarities better than addition.
    this, none = aimed.costs[:2]
    assert (none.similarity_change, this.method) == (0.0, "edit")
    assert 0.999 < none.similarity_rank and this.similarity_rank > 0.6
    added = [cost for cost in aimed.costs if cost.method == "addition" and cost.alignment > 0.8]
    assert this.similarity_rank > max(cost.similarity_rank for cost in added)
    with pytest.raises(RequestError, match="no strength reaches the mean alignment 0.99 after"):
        steer(
            minilm,
            ocean.vector,
            SteerConfig(alignment=0.99, mode="full", read="fit", spectra=False),
            text=text,
        )


def test_a_token_is_one_token(minilm):
    with pytest.raises(RequestError, match="'New York' is 2 tokens, 'new', 'york'; give a text"):
        directions.from_token(minilm, "New York")
    with pytest.raises(RequestError, match="' ' has no token of its own .* or a vector file$"):
        directions.from_token(minilm, " ")
    with pytest.raises(RequestError, match="the text is empty; give one token"):
        directions.from_token(minilm, "")
    with pytest.raises(RequestError, match="not in the model's vocabulary"):
        directions.from_token(minilm, "\u13a3\u13a3")
    same = ["The sea is calm."]
    with pytest.raises(RequestError, match="the same mean state"):
        directions.from_difference(minilm, 5, same, same)
    sea = directions.from_difference(minilm, 5, same, ["Stocks fell on Monday."])
    assert sea.vector.shape == (384,) and np.linalg.norm(sea.vector) > 1

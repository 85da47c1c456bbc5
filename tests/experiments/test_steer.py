"""Steering tiny models of every kind: what is measured is what a fresh model of the files does."""

from dataclasses import replace

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.special
import scipy.stats

from pmt.checkpoints.delta import apply_delta
from pmt.errors import RequestError
from pmt.experiments import directions, plain_text
from pmt.experiments.states import summarize_present
from pmt.experiments.steer import SteerConfig, count_of_pieces, steer
from pmt.models import Tokens, from_pretrained, save_pretrained
from pmt.models.editing import steered
from pmt.models.untie import untie
from pmt.spectral import summarize
from tests.experiments.transcription import error_over_texts
from tests.models.conftest import DATA, Tiny

QUICK = SteerConfig(c=20.0, prompts=4, tokens=3, spectra=False, doses=0)


def made_up_text(model, batch=4, n=5, seed=0):
    """Ids of a model without a tokenizer, the last text padded."""
    shape = (batch, n)
    ids = np.random.default_rng(seed).integers(2, model.dimensions.vocabulary, shape)
    present = np.ones(shape, bool)
    present[-1, 3:] = False
    empty = np.zeros(shape, np.int32)
    return Tokens(ids.astype(np.int32), present, empty, np.zeros(shape, bool))


def direction(model, seed=3):
    return np.random.default_rng(seed).normal(size=model.dimensions.d)


@pytest.fixture(scope="module")
def gpt2():
    return from_pretrained(DATA / "gpt2-inverse")


@pytest.fixture(scope="module")
def bert():
    return from_pretrained(DATA / "bert-tanh")


def test_the_cost_of_a_decoder_is_that_of_the_written_model(gpt2, tmp_path):
    """KL and perplexity by NumPy from the logits of both checkpoints, the Conv1D axis included."""
    text, w = made_up_text(gpt2), direction(gpt2)
    before = np.asarray(gpt2.layer(0).attention.output[...]).tobytes()
    config = replace(QUICK, c=3.0, mode="full", read="fit", layer=1)
    result = steer(gpt2, w, config, text=text)
    assert np.asarray(gpt2.layer(0).attention.output[...]).tobytes() == before
    assert result.delta.axis == 1 and result.delta.tensor.endswith("h.0.attn.c_proj.weight")
    apply_delta(gpt2.checkpoint, result.delta, tmp_path / "edited")
    edited = from_pretrained(tmp_path / "edited")
    one, other = (m(text) for m in (gpt2, edited))
    p, q = (
        scipy.special.log_softmax(np.asarray(o.logits, np.float64), axis=-1) for o in (one, other)
    )
    kl = (np.exp(p) * (p - q)).sum(axis=-1)[text.present].mean()
    loss = [
        -q[row, i, text.ids[row, i + 1]]
        for row in range(4)
        for i in range(4)
        if text.present[row, i + 1]
    ]
    this, none = result.costs[:2]
    assert abs(this.kl - kl) < 1e-5 and kl > 1e-3
    assert abs(this.perplexity / np.exp(np.mean(loss)) - 1) < 1e-5
    assert none.kl < 1e-7 and none.perplexity != this.perplexity
    state = np.asarray(other.hidden_states[1], np.float64)[text.present]
    cosines = state @ w / np.linalg.norm(state, axis=1) / np.linalg.norm(w)
    assert abs(this.alignment - np.abs(cosines).mean()) < 1e-5
    assert abs(result.after - this.alignment) < 1e-6
    methods = [cost.method for cost in result.costs]
    assert methods[:2] == ["edit", "none"] and set(methods[2:]) == {"edit", "addition"}
    added = [cost for cost in result.costs if cost.method == "addition"]
    np.testing.assert_allclose([a.alignment for a in added][-2:], [0.85, 0.95], atol=1e-4)


def test_the_cost_of_an_encoder_is_the_change_of_its_similarities(tmp_path):
    """Where layers share the edited weights, all of them have the edit."""
    albert = from_pretrained(DATA / "albert-groups")
    text, w = made_up_text(albert), direction(albert)
    result = steer(albert, w, replace(QUICK, c=1.0, all_layers=True), text=text)
    apply_delta(albert.checkpoint, result.delta, tmp_path / "edited")
    similarities = []
    for model in (albert, from_pretrained(tmp_path / "edited")):
        final = np.asarray(model(text).final, np.float64)
        pooled = [final[row][text.present[row]].mean(axis=0) for row in range(4)]
        pooled = [v / np.linalg.norm(v) for v in pooled]
        similarities.append([pooled[i] @ pooled[j] for i in range(4) for j in range(i + 1, 4)])
    this = result.costs[0]
    assert this.kl is None and this.perplexity is None
    change = np.abs(np.subtract(*similarities)).mean()
    assert abs(this.similarity_change - change) < 1e-5 and change > 1e-3
    assert abs(this.similarity_rank - scipy.stats.spearmanr(*similarities).statistic) < 1e-6


def test_full_mode_takes_the_strength_from_the_state_that_leaves_the_layer(bert):
    text, w = made_up_text(bert), direction(bert)
    config = replace(QUICK, c=None, alignment=0.5, mode="full", read="fit")
    result = steer(bert, w, config, text=text)
    assert abs(result.after - 0.5) < 1e-3
    # The panels leave the padding out, as the alignment does.
    assert abs(result.steered[-1].target.rho_after - result.after) < 1e-6
    assert result.positive_after == 1.0
    aimed = steer(bert, w, replace(config, precompensate=True), text=text)
    assert aimed.preimage.cosine > aimed.preimage.plain
    assert aimed.preimage.dtype == "float32"


def test_an_alignment_out_of_reach_names_what_was_not_tried(bert):
    text, w = made_up_text(bert), direction(bert)
    for more, hints in (
        ({}, "ask for less, or pre-compensate, or choose the read vector 'fit'"),
        ({"precompensate": True, "read": "fit"}, "ask for less"),
    ):
        config = replace(QUICK, c=None, alignment=0.9999, mode="full", **more)
        with pytest.raises(RequestError, match="no strength reaches the mean") as error:
            steer(bert, w, config, text=text)
        assert str(error.value).split(": ", 1)[1] == hints


def test_faults_46_47_62_requests_that_cannot_be_met(bert):
    w, text = direction(bert), made_up_text(bert)
    for change, reason in (
        ({"layer": 4}, "no layer 4; the model has layers 1 to 3"),
        ({"mode": "full"}, "give texts that the model's tokenizer reads"),
        ({"c": 1e39}, "which float32 cannot hold"),
        ({"c": None}, "none of strength, c and alignment was given"),
    ):
        with pytest.raises(RequestError, match=reason):
            steer(bert, w, replace(QUICK, **change))
    with pytest.raises(RequestError, match="pre-compensation is for the feed-forward block"):
        replace(QUICK, precompensate=True)
    with pytest.raises(RequestError, match="the mode is 'half'"):
        replace(QUICK, mode="half")
    with pytest.raises(RequestError, match="doses is 1"):
        replace(QUICK, doses=1)
    with pytest.raises(RequestError, match="token 1 of prompt 0 is zero"):
        steer(bert, w, QUICK, tokens=np.eye(24)[None, :3] * (np.arange(3) != 1)[:, None])
    with pytest.raises(RequestError, match="without any edit the states have"):
        low = replace(QUICK, c=None, alignment=1e-3, mode="full")
        steer(bert, w, low, text=text)


def test_fault_62_strength_zero_is_the_same_model(bert):
    result = steer(bert, direction(bert), replace(QUICK, c=None, strength=0.0), text=None)
    assert result.before == result.after and result.base == result.steered
    assert result.delta.base_sha256 == result.delta.edited_sha256
    assert result.costs == ()


def test_spectra_are_solved_once_each_and_show_the_new_principal_direction(bert):
    done = []
    config = replace(QUICK, c=1e3, spectra=True)
    result = steer(bert, direction(bert), config, progress=done.append)
    assert sum(done) == count_of_pieces(bert, config) == 3 + 4
    last = result.steered[-1]
    assert last.cosine > 0.9999 and last.dimension == 1
    assert abs(last.eigenvalue.real / 1e3 - 1) < 0.01
    assert result.steered[:-1] == result.base[:-1]
    assert result.base[0].average is not None and result.base[-1].cosine < 0.9


def test_grouped_heads_are_steered_as_far_as_they_read(tmp_path):
    """Fault 60: V of a llama is singular, always."""
    llama = from_pretrained(DATA / "llama-linear")
    assert llama.dimensions.key_value_heads < llama.dimensions.heads
    config = replace(QUICK, c=None, alignment=0.9, doses=2)
    result = steer(llama, direction(llama), config)
    assert not result.edit.exact and result.edit.residual > 0.1
    assert abs(result.after - 0.9) < 1e-4
    assert (abs(result.curve.measured - result.curve.predicted) <= result.curve.error).all()


def test_shared_weights_are_refused_edited_together_or_untied(tmp_path):
    albert = from_pretrained(DATA / "albert-groups")
    w = direction(albert)
    with pytest.raises(RequestError, match="change layers 6, 8; give --all-layers .* --untie-last"):
        steer(albert, w, QUICK)
    together = steer(albert, w, replace(QUICK, all_layers=True))
    # The first layer that has them is where the effect is exact; both show it.
    assert together.layer == 6
    changed = [a.target != b.target for a, b in zip(together.base, together.steered, strict=True)]
    assert changed == [False] * 5 + [True] * 3
    own = from_pretrained(untie(albert, tmp_path / "own"))
    assert len(own.blocks) == len(own.schedule) == len(albert.schedule)
    ids = jnp.arange(5, dtype=jnp.int32)
    np.testing.assert_array_equal(own(ids).final, albert(ids).final)
    alone = steer(own, w, QUICK)
    assert alone.layer == 8
    changed = [a.target != b.target for a, b in zip(alone.base, alone.steered, strict=True)]
    assert changed == [False] * 7 + [True]
    with pytest.raises(RequestError, match="there is nothing to untie"):
        untie(from_pretrained(DATA / "bert-tanh"), tmp_path / "no")


def test_what_is_measured_is_in_the_stored_dtype_and_written_in_it(tmp_path):
    """The model in memory, the file and the checkpoint that is saved agree bit for bit."""
    stored = ml_dtypes.bfloat16
    tiny = Tiny(tmp_path / "narrow", "bert-tanh")
    tiny.tensors(lambda tensors: {name: t.astype(stored) for name, t in tensors.items()})
    model = from_pretrained(tiny.folder)
    result = steer(model, direction(model), replace(QUICK, c=3.0))
    assert result.cast.dtype == np.dtype(stored) and 1e-4 < result.cast.relative < 0.1
    apply_delta(model.checkpoint, result.delta, tmp_path / "applied")
    with steered(model, 2, result.edit, result.cast.dtype):
        save_pretrained(model, tmp_path / "saved")
    one, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("applied", "saved")
    )
    assert one == other
    again = from_pretrained(tmp_path / "saved")
    zero = steer(again, direction(model), replace(QUICK, c=0.0))
    assert zero.after == result.after


def test_a_checkpoint_in_more_digits_than_the_run_is_refused(tmp_path):
    tiny = Tiny(tmp_path / "wide", "bert-tanh")
    tiny.tensors(lambda tensors: {name: t.astype(np.float64) for name, t in tensors.items()})
    model = from_pretrained(tiny.folder)
    with pytest.raises(RequestError, match="stored in float64 .* give --dtype float64"):
        steer(model, direction(model), QUICK)


def test_a_model_of_no_checkpoint_is_measured_and_has_no_file(bert):
    bert = from_pretrained(DATA / "bert-tanh")
    bert.checkpoint = None
    result = steer(bert, direction(bert), QUICK)
    assert result.delta is None and result.after > result.before
    with pytest.raises(RequestError, match="came from no checkpoint"):
        directions.from_token(bert, "sea")


def test_directions_of_eigenvectors_and_files_faults_53_63(bert, tmp_path):
    found = directions.from_eigenvector(bert, 1, 1)
    assert found.vector[np.argmax(np.abs(found.vector))] > 0
    assert "eigenvector 2 of layer 2" in found.source
    with pytest.raises(RequestError, match="is complex .* the nearest real one is number 2"):
        directions.from_eigenvector(bert, 1, 4)
    with pytest.raises(RequestError, match="no eigenvector 25; layer 2 has 1 to 24"):
        directions.from_eigenvector(bert, 1, 24)
    path = tmp_path / "v.npy"
    np.save(path, np.arange(24))
    np.testing.assert_array_equal(directions.from_file(path, 24).vector, np.arange(24.0))
    np.save(path, np.zeros(24))
    with pytest.raises(RequestError, match=r"the vector in .*v\.npy is zero"):
        directions.from_file(path, 24)


def test_the_statistics_without_padding_are_the_usual_ones():
    before, after = np.random.default_rng(0).random((2, 5, 4))
    assert summarize_present(before, after, np.ones((5, 4), bool)) == summarize(before, after)
    present = np.ones((5, 4), bool)
    present[0, 1:] = False
    found = summarize_present(before, after, present)
    kept = np.concatenate([after[0, :1], after[1:].ravel()])
    assert abs(found.rho_after - kept.mean()) < 1e-15
    means = [after[0, 0], *after[1:].mean(axis=1)]
    assert abs(found.rho_after_se - error_over_texts(means, (1, 4, 4, 4, 4))) < 1e-15


def test_the_text_that_comes_along_is_whole_and_its_source_named(tmp_path):
    paragraphs, sentences = plain_text.paragraphs(), plain_text.sentences()
    assert len(paragraphs) == 8 and " ".join(sentences) == " ".join(paragraphs)
    assert sum(len(each.split()) for each in paragraphs) > 500
    assert not any(each.startswith("#") for each in paragraphs)
    assert "Lincoln" in plain_text.SOURCE and "public domain" in plain_text.SOURCE
    own = tmp_path / "eigene-Sätze.txt"
    own.write_text("One.\n\n  Two. \n", encoding="utf-8")
    assert plain_text.load_texts(own) == ["One.", "Two."]
    for content, reason in ((b"\n \n", "holds no text"), (b"\xff\xfe", "is not UTF-8")):
        own.write_bytes(content)
        with pytest.raises(RequestError, match=reason):
            plain_text.load_texts(own)
    with pytest.raises(RequestError, match="cannot read"):
        plain_text.load_texts(tmp_path / "none.txt")


def test_long_texts_are_cut_at_what_the_model_takes():
    model = from_pretrained("minilm")
    assert plain_text.can_read(model)
    assert not plain_text.can_read(from_pretrained(DATA / "bert-tanh"))
    tokens = plain_text.read_tokens(model, ["sea " * 600, "sea"])
    assert tokens.ids.shape == (2, 256) and tokens.present.sum() == 256 + 3

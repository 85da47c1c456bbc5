"""What the tokens do is predicted exactly, for every kind of layer and precision."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import attention, steering
from pmt.errors import RequestError
from pmt.steering import Response
from tests.steering.layers import grouped, random_layer, tokens
from tests.tolerance import assert_close

W = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.0])
X = tokens()


@jax.jit
def run(layer, x):
    return jax.vmap(layer)(x)


def measured(layer, edit, dtype=None):
    after = run(steering.apply(layer, edit, dtype), jnp.asarray(X, layer.query.dtype))
    return np.asarray(after, np.float64) @ edit.direction


# Made in the test: in the float32 pass there is no float64 when tests are collected.
LAYERS = {
    "plain": lambda: random_layer(),
    "causal": lambda: random_layer(alpha=-0.3, mask="causal"),
    "biases": lambda: random_layer(biases=True, seed=3),
    "window": lambda: random_layer(mask=attention.LocalWindow(2)),
    "grouped": lambda: grouped(random_layer()),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_cosine_is_predicted(kind):
    layer = LAYERS[kind]()
    attended = steering.attend(layer, X)
    edit = steering.design(layer, W, c=1.0, tokens=attended)
    for c in (0.0, 0.3, -4.0, 1000.0):
        assert_close(edit.response.cosines(c), measured(layer, edit.at(c)), size=30, scale=1e3)


def test_fault_57_the_stated_error_covers_stored_and_running_precision():
    for dtype, stored, most in (
        ("float64", "float64", 1e-11),
        ("float64", "float16", 0.05),
        ("float32", "float32", 1e-3),
    ):
        layer = random_layer(dtype=dtype)
        attended = steering.attend(layer, X)
        edit = steering.design(layer, W, c=1.0, tokens=attended)
        for c in (0.01, 1.0, 30.0, 1e4):
            now = edit.at(c)
            lost = now.lost(layer, stored)
            error = steering.predicted_error(attended, edit.response, c, edit.flat, lost)
            off = abs(np.abs(measured(layer, now, stored)).mean() - edit.response.alignment(c))
            assert off <= error <= most, (dtype, stored, c)
            if stored == "float16":
                # And it is there for a reason: rounding the weights is most of what there is.
                without = (attended, edit.response, c, edit.flat, 0 * lost)
                assert steering.predicted_error(*without) < off


def test_the_strength_for_an_alignment_is_the_first_that_gives_it():
    layer = random_layer()
    for read in ("target", "mean", "fit", W[::-1]):
        for wanted in (0.5, 0.9, 0.999):
            attended = steering.attend(layer, X)
            edit = steering.design(layer, W, alignment=wanted, read=read, tokens=attended)
            assert abs(np.abs(measured(layer, edit)).mean() - wanted) < 1e-9
            below = np.linspace(0, edit.strength * 0.999, 50)
            assert all(edit.response.alignment(c) < wanted for c in below)


def test_tokens_that_pass_through_zero_do_not_mislead_the_search():
    """All start against w: the alignment falls to 0 before it rises."""
    one = np.ones((1, 4))
    response = Response(-0.9 * one, 0.4 * one, 1e-3 * one, one > 0)
    assert response.alignment(0.0) > 0.9 and response.alignment(900.0) < 1e-12
    c = response.strength(0.95)
    assert c > 900 and abs(response.alignment(c) - 0.95) < 1e-12


def test_the_tokens_that_the_edit_decides_about_are_those_that_it_moves_more_than_they_are_long():
    one = np.ones((1, 4))
    response = Response(0.6 * one, 0.8 * one, np.array([[0.0, 0.1, -0.3, 2.0]]), one > 0)
    assert [response.share_dominated(c) for c in (0.0, 1.0, -4.0, 100.0)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("wanted", [0.0, 1.0, -0.5, 1.5, np.nan])
def test_alignments_that_are_none(wanted):
    response = steering.attend(random_layer(), X).response(W / np.linalg.norm(W), np.ones(6))
    with pytest.raises(RequestError, match="must be between 0 and 1"):
        response.strength(wanted)


def test_alignments_that_are_there_already_or_never():
    one = np.ones((1, 4))
    held = Response(0.5 * one, one, np.array([[1.0, 0, 0, 0]]), one > 0)
    with pytest.raises(RequestError, match="have 0.4472 already; ask for more"):
        held.strength(0.3)
    with pytest.raises(RequestError, match=r"no strength reaches .* keep it below 0.5854"):
        held.strength(0.6)
    assert 0 < held.strength(0.58)
    with pytest.raises(RequestError, match="choose another read vector"):
        Response(0.5 * one, one, 0 * one, one > 0).strength(0.6)


def test_the_mean_gives_one_sign_near_consensus_and_the_fit_wherever_there_is_one():
    layer = random_layer(h=4, k=3, d=12)
    rng = np.random.default_rng(3)
    near = np.ones(12) + 0.2 * rng.normal(size=(5, 6, 12))
    near /= np.linalg.norm(near, axis=-1, keepdims=True)
    w = rng.normal(size=12)
    for read in ("mean", "fit"):
        edit = steering.design(layer, w, c=1.0, read=read, tokens=steering.attend(layer, near))
        assert edit.response.share_positive == 1.0, read
    # Independent tokens: the mean is no longer enough, and the target never was.
    far = tokens(2, 5, 12, seed=5)
    shares = {
        read: steering.design(
            layer, w, c=1.0, read=read, tokens=steering.attend(layer, far)
        ).response.share_positive
        for read in ("target", "fit")
    }
    assert shares["fit"] == 1.0 and 0 < shares["target"] < 1
    # A step backwards turns the sign, and the fit knows.
    back = steering.attend(replace(layer, alpha=jnp.asarray(-0.5)), near)
    edit = steering.design(layer, w, c=1.0, read="fit", tokens=back)
    assert edit.response.share_positive == 1.0


def test_padding_counts_in_nothing():
    layer = random_layer(biases=True)
    present = np.ones((4, 5), bool)
    present[1, 3:] = present[2, 1:] = False
    attended = steering.attend(layer, X, present=present)
    other = np.where(present[..., None], X, 17.0)
    again = steering.attend(layer, other, present=present)
    for read in ("mean", "fit"):
        one, two = (
            steering.design(layer, W, alignment=0.8, read=read, tokens=a) for a in (attended, again)
        )
        assert_close(one.strength, two.strength, conditioning=1e3)
    np.testing.assert_array_equal(attended.mixed[present], again.mixed[present])


@pytest.mark.parametrize("x", [X[0], X[..., :5], X[:, :0]])
def test_tokens_of_another_shape_are_refused(x):
    with pytest.raises(RequestError, match=r"expected \(batch, n, 6\)"):
        steering.attend(random_layer(), x)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"present": np.ones((4, 6), bool)}, r"shape \(4, 6\) .* expected \(4, 5\)"),
        ({"present": np.zeros((4, 5), bool)}, "0 tokens in it"),
        ({"residual": X[:, :2]}, r"residual has shape \(4, 2, 6\); expected that of the tokens"),
    ],
)
def test_what_comes_with_tokens_has_their_shape(more, reason):
    with pytest.raises(RequestError, match=reason):
        steering.attend(random_layer(), X, **more)


def test_tokens_that_are_not_finite_are_refused():
    x = X.copy()
    x[1, 2, 3] = np.inf
    with pytest.raises(RequestError, match=r"tokens holds inf at index \(1, 2, 3\)"):
        steering.attend(random_layer(), x)


def test_what_was_compiled_for_one_mask_is_never_run_for_another():
    """Masks without fields are different trees; else the compiled code of one serves the other."""
    full, causal = (jax.tree.structure(each()) for each in (attention.Full, attention.Causal))
    assert full != causal
    assert full == jax.tree.structure(attention.Full())

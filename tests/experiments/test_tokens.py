"""Initial tokens: validated, normalised, and the same in both precisions."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import load_tokens, prepare_tokens, random_tokens


def test_random_tokens_are_unit_and_belong_to_their_seed():
    x = random_tokens(7, 5, 4, seed=3)
    assert x.shape == (7, 5, 4)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, rtol=1e-15)
    np.testing.assert_array_equal(x, random_tokens(7, 5, 4, seed=3))
    assert not np.array_equal(x, random_tokens(7, 5, 4, seed=4))


@pytest.mark.parametrize("bad", [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (1, 1, 1, -1)])
def test_counts_and_seeds_that_make_no_sense(bad):
    with pytest.raises(RequestError, match="must be"):
        random_tokens(*bad)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64, np.int32])
def test_prepared_tokens_are_unit_in_the_runs_dtype(stored, dtype):
    given = np.array([[[3, 4], [-1, 0]]], stored)
    x = prepare_tokens(given, 2, dtype)
    assert x.dtype == dtype
    np.testing.assert_allclose(x, [[[0.6, 0.8], [-1, 0]]], rtol=1e-7)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e200, 1e308])
def test_fault_56_tiny_and_huge_tokens_keep_their_direction(scale):
    x = prepare_tokens(np.array([[[1.0, 1.0]]]) * scale, 2, jnp.float64)
    np.testing.assert_allclose(x, np.sqrt(0.5) * np.ones((1, 1, 2)), rtol=1e-15)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\); expected \(prompts, n, d\)"),
        (np.ones((0, 2, 3)), r"shape \(0, 2, 3\); expected"),
        (np.ones((1, 2, 4)), r"dimension 4 .* but the model has d = 3"),
        (np.ones((1, 2, 3), complex), "tokens are complex128; they must be real numbers"),
        (np.ones((1, 2, 3), bool), "tokens are bool"),
        (np.full((1, 2, 3), "x"), "must be real numbers"),
    ],
)
def test_fault_84_tokens_of_the_wrong_kind(tokens, message):
    with pytest.raises(RequestError, match=message):
        prepare_tokens(tokens, 3, jnp.float64)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fault_46_nonfinite_token_is_named(bad):
    x = np.ones((2, 2, 3))
    x[1, 0, 2] = bad
    with pytest.raises(RequestError, match="at prompt 1, token 0, entry 2"):
        prepare_tokens(x, 3, jnp.float64)


def test_fault_47_zero_token_is_named():
    x = np.ones((2, 2, 3))
    x[1, 1] = 0
    with pytest.raises(RequestError, match="token 1 of prompt 1 is zero"):
        prepare_tokens(x, 3, jnp.float64)


def test_load_round_trip_with_fault_83_a_non_ascii_path(tmp_path):
    path = tmp_path / "Wörter-単語.npy"
    np.save(path, np.arange(6.0).reshape(1, 2, 3))
    np.testing.assert_array_equal(load_tokens(path), np.arange(6.0).reshape(1, 2, 3))


def damaged(tmp_path):
    whole = tmp_path / "whole.npy"
    np.save(whole, np.ones((4, 4, 4)))
    content = whole.read_bytes()
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{1}, {2}], dtype=object), allow_pickle=True)
    return {
        "empty": b"",
        "text": b"1, 2, 3",
        "truncated": content[:-9],
        "truncated header": content[:20],
        "header that is no header": content[:10] + b"x" * 118,
        "huge shape": content.replace(b"(4, 4, 4)", b"(999999,)"),
        "pickle": pickle.dumps(np.ones(3)),
        "objects": objects.read_bytes(),
    }


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "text",
        "truncated",
        "truncated header",
        "header that is no header",
        "huge shape",
        "pickle",
        "objects",
    ],
)
def test_a_file_that_is_no_array(tmp_path, name):
    path = tmp_path / "tokens.npy"
    path.write_bytes(damaged(tmp_path)[name])
    with pytest.raises(RequestError, match="not a NumPy array file that can be read"):
        load_tokens(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="cannot read .*No such file"):
        load_tokens(tmp_path / "nothing.npy")

"""The edit against explicit inverses, its strengths, and every request that cannot be met."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pmt import steering
from pmt.dynamics import LayerStack
from pmt.errors import RequestError
from pmt.spectral import layer_matrix
from tests.steering.layers import grouped, layer_with, random_layer, stacked, tokens
from tests.tolerance import assert_close

W = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.0])


def test_the_edit_is_that_of_the_paper_with_the_inverse_written_out():
    layer, z = random_layer(), np.arange(6.0) - 1
    edit = steering.design(layer, W, c=7.0, read=z)
    value, output = stacked(layer)
    w, unit = W / np.linalg.norm(W), z / np.linalg.norm(z)
    wanted = output + 7.0 * np.outer(w, unit) @ np.linalg.inv(value)
    after = steering.apply(layer, edit)
    assert_close(stacked(after)[1], wanted, size=6, conditioning=np.linalg.cond(value))
    assert_close(
        layer_matrix(after),
        output @ value + 7.0 * np.outer(w, unit),
        size=6,
        conditioning=np.linalg.cond(value),
    )
    assert edit.exact and edit.rank == 6 and edit.residual < 1e-14
    assert edit.multiple is None and edit.response is None


def test_kappa_is_that_of_the_oblique_projectors():
    """kappa_i = z' Σ_h P_h z_i^h with P_h = V^-1 E_h V and Σ_h P_h = I (theory.md 2.3)."""
    layer, x = random_layer(alpha=0.5), tokens()
    edit = steering.design(layer, W, c=1.0, tokens=steering.attend(layer, x))
    value, _ = stacked(layer)
    inverse = np.linalg.inv(value)
    attention = np.asarray(jax.jit(jax.vmap(layer.attention))(jnp.asarray(x)))
    kappa = np.zeros(x.shape[:2])
    total = np.zeros((6, 6))
    for head in range(3):
        keep = np.zeros((6, 6))
        keep[2 * head : 2 * head + 2, 2 * head : 2 * head + 2] = np.eye(2)
        projector = inverse @ keep @ value
        total += projector
        for prompt in range(len(x)):
            weights = attention[prompt, head]
            kappa[prompt] += 0.5 * (weights @ x[prompt]) @ projector.T @ edit.read
    assert_close(total, np.eye(6), size=6, conditioning=np.linalg.cond(value))
    assert_close(edit.response.kappa, kappa, size=6, conditioning=10 * np.linalg.cond(value))


def test_fault_60_a_singular_value_matrix_takes_least_squares_and_says_what_it_achieves():
    layer = grouped(random_layer())
    edit = steering.design(layer, W, c=3.0)
    value, output = stacked(layer)
    w = W / np.linalg.norm(W)
    achieved = w @ np.linalg.pinv(value) @ value
    assert edit.method == "least squares" and not edit.exact and edit.rank == 2
    assert edit.condition is None
    assert_close(edit.achieved, achieved, size=6, conditioning=1e3)
    assert_close(edit.residual, np.linalg.norm(achieved - w), size=6, conditioning=1e3)
    moved = layer_matrix(steering.apply(layer, edit)) - output @ value
    assert_close(moved, 3.0 * np.outer(w, achieved), size=6, conditioning=1e3)
    # Of all that achieve it, the smallest.
    assert_close(edit.flat, w @ np.linalg.pinv(value), size=6, conditioning=1e3)


def test_fault_60_singular_but_for_rounding_is_singular():
    """LU finds no pivot that is exactly zero, and what it would solve is rounding."""
    layer = random_layer(d=7, h=7, k=1)
    rows = np.array(layer.value)
    rows[3] = rows[:3].sum(axis=0) / 3 - rows[5] / 7
    edit = steering.design(replace(layer, value=jnp.asarray(rows)), np.arange(7.0), c=1.0)
    assert edit.method == "least squares" and edit.rank == 6
    assert np.linalg.norm(edit.flat) < 100


@pytest.mark.parametrize("width", [1, 3])
def test_heads_that_are_narrower_or_wider_than_the_model_divides(width):
    layer = random_layer(k=width)
    edit = steering.design(layer, W, c=2.0)
    value, output = stacked(layer)
    assert edit.exact is (width == 3)
    moved = layer_matrix(steering.apply(layer, edit)) - output @ value
    assert_close(moved, 2.0 * np.outer(edit.direction, edit.achieved), size=9, conditioning=1e3)


def test_a_read_vector_that_nothing_sees_is_refused():
    layer = grouped(random_layer())
    value, _ = stacked(layer)
    unseen = np.linalg.svd(value)[2][-1]
    with pytest.raises(RequestError, match="see nothing of the read vector .* rank 2 of d = 6"):
        steering.design(layer, W, c=1.0, read=unseen)


@pytest.mark.parametrize("size", [1e-300, 1e-3, 1e300])
def test_fault_61_a_direction_of_any_length_is_the_same(size):
    layer = random_layer()
    one, other = (steering.design(layer, v, c=1.0) for v in (W, size * W))
    assert_close(other.direction, one.direction)
    assert abs(np.linalg.norm(other.direction) - 1) < 1e-15


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros(6), "is zero and has no direction"),
        (np.ones(5), r"shape \(5,\), and the model has d = 6"),
        (np.ones((1, 6)), r"shape \(1, 6\)"),
        (np.array([1.0, np.nan, 0, 0, 0, 0]), "holds nan"),
        (np.array([np.inf, 1, 0, 0, 0, 0]), "holds inf"),
        (np.ones(6, complex), "must hold real numbers"),
        (np.array(["a"] * 6), "must hold real numbers"),
    ],
)
def test_fault_61_directions_that_are_none(given, reason):
    layer = random_layer()
    with pytest.raises(RequestError, match=reason):
        steering.design(layer, given, c=1.0)
    with pytest.raises(RequestError, match=reason):
        steering.design(layer, W, c=1.0, read=given)


def test_fault_61_a_target_parallel_to_an_eigenvector_moves_one_eigenvalue_only():
    layer = random_layer(seed=6)
    values, vectors = np.linalg.eig(layer_matrix(layer))
    (real,) = np.flatnonzero(values.imag == 0)[:1]
    edit = steering.design(layer, -3 * vectors[:, real].real, c=5.0, read=W)
    after = np.linalg.eigvals(layer_matrix(steering.apply(layer, edit)))
    wanted = values.copy()
    wanted[real] += 5.0 * edit.read @ edit.direction
    assert edit.tilt < 1e-13
    assert_close(np.sort_complex(after), np.sort_complex(wanted), size=6, conditioning=1e4)


def test_the_tilt_is_the_angle_of_the_principal_eigenvector_to_first_order():
    layer = random_layer()
    errors = []
    for c in (40.0, 400.0):
        edit = steering.design(layer, W, c=c)
        values, vectors = np.linalg.eig(layer_matrix(steering.apply(layer, edit)))
        v = vectors[:, np.argmax(np.abs(values))].real
        along = abs(v @ edit.direction)
        errors.append(abs(np.sqrt(1 - along**2) / along - edit.tilt) / edit.tilt)
    assert errors[0] < 0.1 and errors[1] < errors[0] / 5
    # Where z'w = 0 no eigenvector of F' is near w, and none is promised.
    across = np.array([2.0, 1.0, 0, 0, 0, 0])
    assert steering.design(layer, np.eye(6)[5], c=1.0, read=across).tilt is None


def test_fault_62_strength_zero_changes_no_bit():
    layer = random_layer(dtype="float32")
    layer = replace(layer, output=layer.output.at[0].set(-0.0))
    for asked in ({"strength": 0.0}, {"c": 0.0}):
        edit = steering.design(layer, W, **asked)
        after = steering.apply(layer, edit)
        assert np.asarray(after.output).tobytes() == np.asarray(layer.output).tobytes()
        assert edit.tilt is None and edit.cast(layer).relative is None


@pytest.mark.parametrize("c", [1e-12, 1e-30, 1e-300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_lost_of_an_edit_below_rounding_is_all_of_it(dtype, c):
    """And not nothing, though O + c w aᵀ is O in float64 too."""
    layer = random_layer(dtype=dtype)
    cast = steering.design(layer, W, c=c).cast(layer)
    if (dtype, c) != ("float64", 1e-12):
        # In float32 an entry of nearly zero may keep a part of 1e-12.
        np.testing.assert_allclose((cast.relative, cast.map_error), 1.0, atol=1e-3)
    else:
        assert 1e-6 < cast.relative < 1e-3
    assert 0.0 < cast.largest < 10 * c


@pytest.mark.parametrize(("dtype", "c"), [("float32", 1e39), ("float16", 1e6), ("float64", 1e308)])
def test_fault_62_a_strength_that_overflows_is_refused(dtype, c):
    layer = random_layer()
    edit = steering.design(layer, W, c=c)
    with pytest.raises(RequestError, match=f"which {dtype} cannot hold; give a smaller one"):
        steering.apply(layer, edit.at(10 * c), dtype)


@pytest.mark.parametrize(
    ("matrix", "size"),
    [
        pytest.param(np.eye(3) * 0.5 + np.eye(3, k=1), 0.5, id="fault 50, Jordan block"),
        pytest.param(np.diag([2.0, 2.0, 1.0]), 2.0, id="fault 51, repeated"),
        pytest.param(np.diag([1.0, -3.0, 0.5]), 1.0, id="fault 52, opposite signs"),
        pytest.param([[1.0, -2, 0], [2, 1, 0], [0, 0, 0.5]], 5**0.5, id="fault 53, complex pair"),
        pytest.param([[1.0, 1e6, 0], [0, 0.999, 0], [0, 0, 0]], 1.0, id="fault 54, collinear"),
    ],
)
def test_the_strength_counts_in_the_modulus_of_the_first_eigenvalue(matrix, size):
    edit = steering.design(layer_with(np.array(matrix)), [0.0, 0.0, 1.0], 10.0)
    assert edit.multiple == 10.0
    assert abs(edit.strength - 10 * size) < 1e-6
    if size == 1.0 and matrix[1][1] == -3.0:
        modulus = steering.design(layer_with(matrix), [0.0, 0.0, 1.0], 10.0, order="modulus")
        assert abs(modulus.strength - 30) < 1e-12


def test_fault_57_the_same_weights_in_both_precisions_give_the_same_edit():
    single = random_layer(dtype="float32")
    double = jax.tree.map(lambda leaf: leaf.astype("float64"), single)
    one, other = (steering.design(layer, W, 10.0) for layer in (single, double))
    np.testing.assert_array_equal(one.flat, other.flat)
    assert one.strength == other.strength


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "none of strength, c and alignment was given"),
        ({"c": 1.0, "strength": 2.0}, "strength and c of strength, c and alignment were given"),
        ({"strength": np.nan}, "strength is nan; it must be a finite number"),
        ({"c": np.inf}, "c is inf"),
        ({"alignment": 0.5}, "is that of tokens; give the tokens too"),
        ({"c": 1.0, "read": "mean"}, "'mean' comes from tokens; give the tokens too"),
        ({"c": 1.0, "read": "median"}, "must be 'target', 'mean', 'fit' or a vector of 6 numbers"),
        ({"strength": 1.0, "order": "size"}, "the order is 'size'"),
    ],
)
def test_fault_84_requests_that_contradict_or_lack_something(asked, reason):
    with pytest.raises(RequestError, match=reason):
        steering.design(random_layer(), W, **asked)


def test_fault_84_what_is_no_single_layer_or_not_the_one_of_the_tokens():
    layer = random_layer()
    for other in (LayerStack.from_layers([layer, layer]), layer.value):
        for act in (
            lambda it: steering.design(it, W, c=1.0),
            lambda it: steering.attend(it, np.ones((1, 1, 6))),
            lambda it: steering.apply(it, steering.design(layer, W, c=1.0)),
        ):
            with pytest.raises(RequestError, match=f"is a {type(other).__name__}; expected one"):
                act(other)
    # The arrays of a stack are a MultiHead with one more axis.
    with pytest.raises(RequestError, match="expected one layer"):
        steering.design(LayerStack.from_layers([layer, layer]).layers, W, c=1.0)
    wider = steering.attend(random_layer(k=3), np.ones((1, 1, 6)))
    with pytest.raises(RequestError, match="whose heads have 9 values, and this one has d = 6 and"):
        steering.design(layer, W, alignment=0.5, tokens=wider)


def test_fault_46_weights_that_are_not_finite():
    layer = random_layer()
    broken = replace(layer, value=layer.value.at[1, 0, 2].set(jnp.nan))
    with pytest.raises(RequestError, match=r"value holds nan at index \(1, 0, 2\)"):
        steering.design(broken, W, c=1.0)


def test_a_layer_without_eigenvalues_has_no_multiples():
    nilpotent = np.zeros((3, 3))
    with pytest.raises(RequestError, match="leading eigenvalue is zero; give c"):
        steering.design(layer_with(nilpotent), np.ones(3), 10.0)


def test_the_solve_has_one_thread_and_so_the_same_bits_in_every_run(monkeypatch):
    """With two, LAPACK's estimate of the condition differed in its last bits from call to call."""
    # The function hides the module of its name.
    module = sys.modules["pmt.steering.design"]
    real, seen = module._coefficients, []

    def watched(*given):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return real(*given)

    monkeypatch.setattr(module, "_coefficients", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        steering.design(random_layer(), W, c=1.0)
    assert set(seen) == {1}


def test_the_edit_of_another_layer_does_not_fit():
    edit = steering.design(random_layer(h=2, k=3), W, c=1.0)
    with pytest.raises(RequestError, match="the edit is for 2 heads of width 3 and d = 6"):
        steering.apply(random_layer(), edit)


def test_the_same_edit_at_another_strength():
    layer = random_layer()
    edit = steering.design(layer, W, 10.0)
    twice, fresh = edit.at(2 * edit.strength), steering.design(layer, W, 20.0)
    assert_close(twice.multiple, 20.0)
    assert_close(twice.tilt, fresh.tilt)
    np.testing.assert_array_equal(twice.flat, fresh.flat)
    assert edit.at(0.0).tilt is None

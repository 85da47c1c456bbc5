"""The principal direction, its case and its warnings."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from pmt.dynamics import LayerStack, MultiHead, Oja
from pmt.errors import RequestError
from pmt.spectral import layer_matrix, principal


def similar(block, seed=0):
    basis = np.random.default_rng(seed).normal(size=block.shape)
    return basis @ block @ np.linalg.inv(basis), basis


def same_span(a, b):
    return np.allclose(a @ np.linalg.pinv(a), b @ np.linalg.pinv(b), atol=1e-7)


def test_case_1_line_with_its_gap():
    f, basis = similar(np.diag([2.0, 1.5, -3.0]))
    answer = principal(f)
    assert (answer.case, answer.dimension, answer.second, answer.plane) == (1, 1, None, None)
    assert answer.gap == pytest.approx(0.5)
    assert same_span(answer.basis, basis[:, :1])
    v1, v2 = answer.pairs.vectors[:, 0].real, answer.pairs.vectors[:, 1].real
    assert answer.collinearity == pytest.approx(abs(v1 @ v2))
    assert answer.residual < 1e-14 and answer.condition >= 1


def test_case_2_complex_leading_pair_fault_53():
    f, basis = similar(scipy.linalg.block_diag([[1, 2], [-2, 1]], 0.25))
    answer = principal(f)
    assert (answer.case, answer.dimension) == (2, 2)
    assert answer.eigenvalue == pytest.approx(1 + 2j)
    assert answer.gap == pytest.approx(0.75)  # to lam_3, not to the conjugate
    assert answer.collinearity is None and answer.plane is None
    np.testing.assert_allclose(answer.basis.T @ answer.basis, np.eye(2), atol=1e-14)
    assert same_span(answer.basis, basis[:, :2])


def test_case_3_nearly_equal_real_eigenvalues():
    f, basis = similar(np.diag([1.0, 0.995, 0.2]))
    answer = principal(f)
    assert (answer.case, answer.dimension, answer.second) == (3, 1, 1)
    assert same_span(answer.basis, basis[:, :1])
    assert same_span(answer.plane, basis[:, :2])
    assert principal(np.diag([1.0, 0.989])).case == 1


def test_case_3_looks_at_the_next_real_eigenvalue():
    # A complex pair close behind leaves it Case 1 with its small gap; a real one further on counts.
    close = scipy.linalg.block_diag(1.0, [[0.999, 1], [-1, 0.999]])
    answer = principal(close)
    assert answer.case == 1 and answer.gap == pytest.approx(1e-3) and answer.collinearity is None
    answer = principal(scipy.linalg.block_diag(close, 0.995))
    assert answer.case == 3 and answer.second == 3
    assert answer.collinearity == pytest.approx(0, abs=1e-15)


def test_fault_51_repeated_leading_eigenvalue():
    f = np.diag([2.0, 2.0, 1.0])
    answer = principal(f)
    assert (answer.case, answer.gap) == (3, 0.0)
    assert same_span(answer.plane, np.eye(3)[:, :2])
    # Not symmetric, not defective: two independent eigenvectors are found all the same.
    f, basis = similar(f, 5)
    answer = principal(f)
    assert answer.case == 3 and answer.gap == pytest.approx(0, abs=1e-12)
    assert same_span(answer.plane, basis[:, :2])


def test_fault_50_and_54_defective_leading_eigenvalue_keeps_its_plane():
    f, basis = similar(np.diag([2.0, 2.0, 1.0, -1.0]) + np.diag([1.0, 0, 0], 1), 1)
    answer = principal(f)
    # Rounding splits the double eigenvalue into two real or two conjugate ones, 1e-8 apart.
    assert answer.condition > 1e5
    plane = answer.basis if answer.case == 2 else answer.plane
    if answer.case == 3:
        assert answer.collinearity > 1 - 1e-10
    # That plane is invariant: F maps it into itself.
    projected = plane @ (plane.T @ f @ plane)
    np.testing.assert_allclose(f @ plane, projected, atol=1e-5 * np.linalg.norm(f))
    assert same_span_loosely(plane, basis[:, :2])


def same_span_loosely(a, b):
    return np.allclose(a @ np.linalg.pinv(a), b @ np.linalg.pinv(b), atol=1e-4)


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9])
def test_fault_54_near_collinear_leading_eigenvectors(angle):
    # Eigenvectors e_1 and (cos, sin)(angle); the invariant plane stays e_1, e_2. The eigenvalues
    # differ by as little, so that F stays of order 1 and the plane well-conditioned.
    v = np.array([[1, np.cos(angle)], [0, np.sin(angle)]])
    f = np.zeros((4, 4))
    f[:2, :2] = v @ np.diag([1.0, 1 - angle]) @ np.linalg.inv(v)
    f[2:, 2:] = [[0.3, 1.0], [0.2, -0.1]]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    answer = principal(rotation @ f @ rotation.T)
    assert answer.condition > min(0.1 / angle, 1e7)
    plane = answer.basis if answer.case == 2 else answer.plane
    assert same_span_loosely(plane, rotation[:, :2])
    if answer.case == 3:
        assert answer.collinearity > 1 - max(angle**2, 1e-14)


def test_fault_52_equal_modulus_opposite_sign():
    f, basis = similar(np.diag([1.0, -1.0, 0.2]))
    by_modulus = principal(f, order="modulus")
    assert by_modulus.case == 1 and by_modulus.gap == pytest.approx(0, abs=1e-12)
    assert by_modulus.eigenvalue == pytest.approx(1)
    assert principal(f, order="real").gap == pytest.approx(0.8)
    # With the skip connection 1 + 1 and 1 - 1 are far apart.
    assert principal(f, order="skip").gap == pytest.approx(0.8)


def test_fault_46_nan_in_one_layer_is_refused():
    f = np.stack([np.eye(2), np.full((2, 2), np.nan)])
    with pytest.raises(RequestError, match="non-finite"):
        principal(f)


def test_fault_66_dimension_one():
    answer = principal(np.array([[-0.5]]))
    assert (answer.case, answer.dimension, answer.gap, answer.collinearity) == (1, 1, None, None)


def test_threads_give_what_one_at_a_time_gives_and_report_progress():
    f = np.random.default_rng(0).normal(size=(7, 20, 20))
    seen = []
    together = principal(f, progress=seen.append)
    assert seen == [1] * 7
    for matrix, answer in zip(f, together, strict=True):
        np.testing.assert_array_equal(principal(matrix).pairs.vectors, answer.pairs.vectors)


def stack(dtype):
    rng = np.random.default_rng(4)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    return LayerStack.from_layers(
        [
            MultiHead(
                query=draw(2, 3, 6),
                key=draw(2, 3, 6),
                value=draw(2, 3, 6),
                output=draw(2, 6, 3),
                alpha=0.4,
            )
            for _ in range(3)
        ]
    )


def test_a_stack_gives_a_tuple_and_a_system_one_answer():
    layers = stack(jnp.float64)
    answers = principal(layers, order="skip")
    assert len(answers) == 3 and answers[0].alpha == 0.4
    one = principal(layers.layer(1), order="skip")
    np.testing.assert_array_equal(one.pairs.values, answers[1].pairs.values)
    assert principal(Oja(value=jnp.eye(2), alpha=0.5)).eigenvalue == 1


def test_layer_matrix_on_the_host_is_the_systems_own():
    layers = stack(jnp.float64)
    np.testing.assert_allclose(layer_matrix(layers), layers.layer_matrix, rtol=1e-13)
    single = stack(jnp.float32)
    assert layer_matrix(single).dtype == np.float64
    # The product of float32 weights is taken in float64, so it is exact to that.
    o, v = (np.asarray(a, np.float64) for a in (single.layers.output, single.layers.value))
    np.testing.assert_allclose(
        layer_matrix(single), np.einsum("lhdk,lhke->lde", o, v), rtol=1e-12, atol=1e-12
    )


def test_refuses_a_wrong_shape_and_order():
    with pytest.raises(RequestError, match=r"expected \(d, d\) or \(layers, d, d\)"):
        principal(np.zeros(3))
    with pytest.raises(RequestError, match="'real', 'skip' or 'modulus'"):
        principal(np.eye(2), order="largest")

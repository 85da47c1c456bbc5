"""Leading eigenpairs by a Krylov method: those of LAPACK, or LAPACK's with the reason said."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence

from pmt.dynamics import LayerStack, MultiHead, Oja
from pmt.errors import RequestError
from pmt.spectral import krylov, layer_matrix, layer_operators, principal

D = 160


@pytest.fixture(autouse=True)
def krylov_from_a_smaller_dimension(monkeypatch):
    monkeypatch.setattr("pmt.spectral.eigen.DENSE", 128)


def random_matrix(seed, d=D):
    return np.random.default_rng(seed).standard_normal((d, d)) / d**0.5


def with_leaders(*blocks, seed=0, d=D):
    """The blocks and, far behind them, a random one, in a basis that is not orthogonal."""
    size = sum(len(np.atleast_2d(block)) for block in blocks)
    f = scipy.linalg.block_diag(*blocks, 0.3 * random_matrix(seed, d - size))
    basis = np.eye(d) + 0.3 * random_matrix(seed + 1, d)
    return basis @ f @ np.linalg.inv(basis), basis


def spans(a, b):
    return np.allclose(a @ np.linalg.pinv(a), b @ np.linalg.pinv(b), atol=1e-7)


def assert_the_same(found, whole):
    """A ``Leading`` has the first pairs of the ``Principal`` to the last digits that count."""
    kept = len(found.values)
    scale = np.max(np.abs(whole.values))
    error = 1e-9 * scale * max(1.0, float(whole.conditions[:kept].max()))
    np.testing.assert_allclose(found.values, whole.values[:kept], atol=error)
    np.testing.assert_allclose(found.conditions, whole.conditions[:kept], rtol=1e-2)
    np.testing.assert_allclose(found.vectors, whole.pairs.vectors[:, :kept], atol=1e-7)
    assert np.all(found.residuals <= krylov.RESIDUAL)
    assert (found.case, found.second, found.dimension) == (
        whole.case, whole.second, whole.dimension
    )  # fmt: skip
    assert found.gap == pytest.approx(whole.gap, abs=2 * error)
    assert spans(found.basis, whole.basis)
    assert (found.plane is None) == (whole.plane is None)
    assert whole.plane is None or spans(found.plane, whole.plane)
    assert (found.collinearity is None) == (whole.collinearity is None)


@pytest.mark.parametrize("order", ["real", "skip", "modulus"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_leading_pairs_are_those_of_the_whole_problem(order, seed):
    f = random_matrix(seed)
    found = principal(f, order, 0.7, leading=4)
    assert (found.method, found.fallback) == ("krylov", None)
    assert len(found.values) in (4, 5) and found.products > 10
    assert not found.complete and found.spectrum.complete is False
    assert_the_same(found, principal(f, order, 0.7))
    # As seen from the operator with another step, the order is another one.
    if order == "skip":
        assert_the_same(principal(f, order, -0.7, leading=4), principal(f, order, -0.7))


def test_case_2_a_complex_pair_leads_fault_53():
    f, _ = with_leaders([[1, 2], [-2, 1]], 0.9)
    found = principal(f, leading=1)
    assert found.case == 2 and found.eigenvalue == pytest.approx(1 + 2j, abs=1e-9)
    assert len(found.values) == 2 and found.method == "krylov"
    np.testing.assert_array_equal(found.vectors[:, 1], found.vectors[:, 0].conj())
    assert found.gap == pytest.approx(0.1, abs=1e-8)
    assert_the_same(found, principal(f))


def test_case_3_brings_the_plane_of_both_and_looks_for_the_next_real_one():
    # Seven complex eigenvalues lie between the two real ones: more must be asked for.
    pairs = [[[0.999 - k * 1e-4, 0.5 + k], [-0.5 - k, 0.999 - k * 1e-4]] for k in range(7)]
    f, basis = with_leaders(1.0, *pairs, 0.995)
    found = principal(f, leading=1)
    assert (found.case, found.second, found.method) == (3, 15, "krylov")
    assert spans(found.plane, basis[:, [0, 15]])
    assert_the_same(found, principal(f))


def test_fault_52_equal_modulus_opposite_sign():
    f, _ = with_leaders(1.0, -1.0)
    found = principal(f, "modulus", leading=1)
    assert found.method == "krylov" and found.eigenvalue == pytest.approx(1)
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert_the_same(principal(f, "skip", 1.0, leading=2), principal(f, "skip", 1.0))


def seen_once(operator, count, *, which, **_options):
    """What a Krylov space in exact arithmetic would show: one direction of each eigenspace."""
    values, vectors = np.linalg.eig(operator.matmat(np.eye(len(operator.matvec(np.ones(D))))))
    key = values.real if which == "LR" else np.abs(values)
    order = np.argsort(-key, kind="stable")
    values, vectors = values[order], vectors[:, order]
    new = np.concatenate([[True], np.abs(np.diff(values)) > 1e-9])
    return values[new][:count].astype(complex), vectors[:, new][:, :count].astype(complex)


def test_fault_51_a_repeated_eigenvalue_is_not_taken_for_a_simple_one(monkeypatch):
    f, basis = with_leaders(2.0, 2.0, 1.0)
    low = random_matrix(0)[:, :3] @ random_matrix(1)[:3]

    def check():
        found = principal(f, leading=2)
        assert found.case == 3 and found.gap == pytest.approx(0, abs=1e-10)
        assert spans(found.plane, basis[:, :2])
        # Zero, which F of little rank has many times, likewise.
        found = principal(low, leading=3)
        expected = principal(low).values[: len(found.values)]
        np.testing.assert_allclose(found.values, expected, atol=1e-12)

    check()
    monkeypatch.setattr(krylov, "eigs", seen_once)
    found = principal(f, leading=2)
    assert found.method == "lapack" and "repeated" in found.fallback
    for order, alpha in (("modulus", 1.0), ("skip", 1.0), ("skip", 1e-4), ("skip", 1e-6)):
        found = principal(f, order, alpha, leading=2)
        assert found.method == "lapack", (order, alpha)
        # At 1e-6 the residual is too large already.
        assert alpha == 1e-6 or "repeated" in found.fallback
    # Without the second copy nothing is refused.
    once, _ = with_leaders(2.0, 1.0, 0.5)
    assert principal(once, "skip", 1e-4, leading=2).method == "krylov"
    check()


def test_faults_50_and_54_a_defective_leading_eigenvalue_goes_to_lapack():
    for coupling in (1.0, 1e-2, 1e-3):
        f, _ = with_leaders([[1.0, coupling], [0.0, 1.0]])
        found = principal(f, leading=2)
        assert found.method == "lapack" and found.fallback is not None
        whole = principal(f)
        np.testing.assert_array_equal(found.values, whole.values[: len(found.values)])


def test_ties_among_more_than_can_be_asked_for_go_to_lapack():
    # All eigenvalues of a rotation have modulus one.
    f = np.linalg.qr(random_matrix(0))[0]
    found = principal(f, "modulus", leading=2)
    assert found.method == "lapack" and found.fallback is not None
    whole = principal(f, "modulus")
    np.testing.assert_array_equal(found.values, whole.values[: len(found.values)])
    # With alpha = 0 all tie, and the larger real part decides.
    found = principal(f, "skip", 0.0, leading=1)
    assert found.eigenvalue == principal(f, "skip", 0.0).eigenvalue


def test_no_convergence_and_a_wrong_answer_go_to_lapack(monkeypatch):
    f = random_matrix(3)
    whole = principal(f)

    def stops(*_given, **_options):
        raise ArpackNoConvergence("no %s", np.zeros(0), np.zeros((D, 0)))

    def wrong(operator, count, **options):
        values, vectors = genuine(operator, count, **options)
        return values, vectors + 1e-6

    genuine = krylov.eigs
    for fake, words in ((stops, "did not converge"), (wrong, "residual")):
        monkeypatch.setattr(krylov, "eigs", fake)
        found = principal(f, leading=3)
        assert found.method == "lapack" and words in found.fallback
        np.testing.assert_array_equal(found.values, whole.values[: len(found.values)])


def test_factors_are_not_multiplied_where_that_saves_work(monkeypatch):
    rng = np.random.default_rng(0)
    h, k, d = 4, 8, 600

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape) / d**0.5)

    heads = MultiHead(draw(h, k, d), draw(h, k, d), draw(h, k, d), draw(h, d, k))
    (operator,) = layer_operators(heads)
    assert [f.shape for f in operator.factors] == [(d, h * k), (h * k, d)]
    whole = principal(heads)
    matrix = layer_matrix(heads)
    np.testing.assert_allclose(np.ldexp(operator.matrix(), operator.exponent), matrix, atol=1e-12)
    size = float(np.linalg.norm(matrix))
    assert np.ldexp(operator.norm(), operator.exponent) == pytest.approx(size, rel=0.1)
    monkeypatch.setattr("pmt.spectral.operator.LayerOperator.matrix", None)
    found = principal(heads, leading=2)
    assert found.method == "krylov"
    assert_the_same(found, whole)
    # Wide heads, and a stack of layers, each its own operator.
    wide = MultiHead(*(draw(2, 9, 20) for _ in range(3)), draw(2, 20, 9))
    (operator,) = layer_operators(wide)
    assert len(operator.factors) == 1
    assert len(list(layer_operators(LayerStack.from_layers([wide, wide, wide])))) == 3


def test_scales_small_dimensions_and_stacks():
    f = random_matrix(5)
    for scale in (1e-200, 1e200, 1e307):
        found = principal(scale * f, leading=2)
        assert found.method == "krylov"
        np.testing.assert_allclose(found.values / scale, principal(f).values[:2], rtol=1e-9)
    found = principal(np.array([[-0.5]]), leading=3)
    assert (found.method, found.fallback, found.complete) == ("lapack", None, True)
    together = principal(np.stack([f, f.T]), leading=2)
    assert isinstance(together, tuple) and len(together) == 2
    np.testing.assert_allclose(together[0].values, together[1].values, rtol=1e-9)
    one = principal(Oja(value=jnp.asarray(f)), leading=2)
    np.testing.assert_array_equal(one.values, together[0].values)
    assert principal(np.zeros((D, D)), leading=1).eigenvalue == 0


def test_faults_46_and_84_what_cannot_be_done_is_refused():
    f = random_matrix(0)
    with pytest.raises(RequestError, match="leading is 0"):
        principal(f, leading=0)
    with pytest.raises(RequestError, match="on the host"):
        principal(f, leading=1, accelerator="any")
    with pytest.raises(RequestError, match="'real', 'skip' or 'modulus'"):
        principal(f, "size", leading=1)
    with pytest.raises(RequestError, match="non-finite"):
        principal(np.full((D, D), np.nan), leading=1)
    with pytest.raises(RequestError, match="expected"):
        principal(np.zeros(4), leading=1)

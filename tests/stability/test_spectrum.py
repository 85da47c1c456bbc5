"""Closed-form spectra against dense ones.

To ten digits where the matrix is symmetrisable, elsewhere by backward error, since a defective
block moves eigenvalues by a root of the rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import LocalWindow, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.stability import jacobian, spectrum
from pmt.stability.closed_form import signed_multipliers
from tests.stability.instances import MASKS, D, N, at_consensus, campaign, drawn, one
from tests.tolerance import assert_close

INSTANCES = 1000


def sorted_real(values):
    return jnp.sort(jnp.real(values))


def closed_spectrum(system, v, signs, consensus, symmetric):
    if consensus:
        return spectrum.consensus_spectrum(system, v, N, symmetric=symmetric)
    return spectrum.bipartite_spectrum(system, v, signs, symmetric=symmetric)


def restricted(system, v, signs):
    x = signs[:, None] * v[None, :]
    return jacobian.restrict(jacobian.extrinsic(system, x), x)


def cases(symmetric, consensus, count):
    batch = drawn(symmetric, count)
    return at_consensus(batch) if consensus else batch


@pytest.mark.parametrize("consensus", [True, False])
@pytest.mark.parametrize("kind", ["oja", "single"])
def test_symmetric_full_attention_to_ten_digits(kind, consensus):
    """Lemmas 3 and 14: a diagonal scaling symmetrises the tangent map, so eigenvalues are sharp."""

    def pair(system, v, signs):
        return (
            sorted_real(closed_spectrum(system, v, signs, consensus, True)),
            restricted(system, v, signs),
        )

    ((closed, dense),) = campaign(pair, kind, "full", cases(True, consensus, INSTANCES))
    values = np.linalg.eigvals(np.asarray(dense))
    assert np.abs(values.imag).max() < 1e-10
    # α up to 0.9/|V| keeps every g_i above 0.1, which bounds the scaling.
    assert np.abs(np.sort(values.real, axis=-1) - np.asarray(closed)).max() < 1e-10


@pytest.mark.parametrize("consensus", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_every_mask_by_backward_error(mask, consensus):
    """Each closed-form value makes J − μI singular to rounding, and the power sums agree.

    The power sums tr J^p = Σ μ^p check the multiplicities.
    """

    def pair(system, v, signs):
        return closed_spectrum(system, v, signs, consensus, False), restricted(system, v, signs)

    batches = [cases(symmetric, consensus, INSTANCES) for symmetric in (True, False)]
    for closed, dense in campaign(pair, "single", MASKS[mask], *batches):
        closed, dense = np.asarray(closed).astype(complex), np.asarray(dense)
        size = np.linalg.norm(dense, axis=(1, 2))
        power = np.broadcast_to(np.eye(dense.shape[-1]), dense.shape)
        for exponent in range(1, 5):
            power = power @ dense
            gap = np.abs(np.trace(power, axis1=1, axis2=2) - (closed**exponent).sum(-1))
            assert (gap / (exponent * size**exponent)).max() < 1e-12
        shifted = dense[:, None] - closed[:, :, None, None] * np.eye(dense.shape[-1])
        smallest = np.linalg.svd(shifted, compute_uv=False)[..., -1].max(axis=1)
        # Masks without a closed spectrum are solved numerically on both sides: two roundings,
        # which an ill-conditioned eigenvalue turns into more.
        bound = 1e-9 if mask in ("boolean", "two-sided") else 1e-13
        assert (smallest / size).max() < bound


def match(a, b):
    """Largest distance after pairing two spectra greedily."""
    rest, worst = list(b), 0.0
    for value in sorted(a, key=lambda z: (z.real, z.imag)):
        nearest = min(range(len(rest)), key=lambda i: abs(rest[i] - value))
        worst = max(worst, abs(rest.pop(nearest) - value))
    return worst


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("heads", [1, 2])
def test_host_multipliers_lie_within_their_radius(mask, heads):
    """The host version, with error radii, for one and for several heads."""
    for seed in range(6):
        kind = "single" if heads == 1 else "multi"
        system, v, signs = one(kind, MASKS[mask], heads == 2 or seed % 2 == 0, seed)
        for pattern in (signs, jnp.ones_like(signs)):
            host = signed_multipliers(system, v, pattern)
            x = pattern[:, None] * v[None, :]
            dense = np.linalg.eigvals(np.asarray(jacobian.intrinsic(system, x)))
            assert len(host.values) == N * (D - 1)
            # The dense values of a defective block are what is wrong here: (eps)^(1/n).
            assert match(host.values, dense) < (1e-10 if mask == "full" else 5e-3)
            assert host.radius.max() < 1e-9


def test_causal_window_closed_form_is_exact_where_lapack_is_not():
    """II.6: Jordan blocks under a window: dense eigenvalues are off by far more than rounding."""
    n, alpha = 10, 0.5
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    system = Oja(q @ np.diag([1.0, 0.9, 0.4]) @ q.T, alpha=alpha, mask=LocalWindow(3))
    v = jnp.asarray(q[:, 0])
    own = [1.0, 0.5] + [1 / 3] * (n - 2)
    exact = np.sort([(1 + alpha * lam * mu) / (1 + alpha) for mu in own for lam in (0.9, 0.4)])
    closed = np.sort(np.asarray(spectrum.consensus_spectrum(system, v, n, symmetric=True)))
    assert_close(closed, exact, size=4)
    host = signed_multipliers(system, v, jnp.ones(n))
    assert_close(np.sort(host.values.real), exact, size=4)
    x = jnp.broadcast_to(v, (n, 3))
    dense = np.linalg.eigvals(np.asarray(jacobian.intrinsic(system, x)))
    assert match(exact, dense) > 1e-4


def test_attention_spectra_at_consensus():
    assert spectrum.attention_spectrum(Oja(jnp.eye(2)).mask, 4, float).tolist() == [1, 0, 0, 0]
    causal = spectrum.attention_spectrum(Oja(jnp.eye(2), mask="causal").mask, 4, float)
    assert_close(causal, 1 / np.arange(1.0, 5.0))


def test_lemma_14_against_its_formulas_as_printed():
    """τ_l, Δ_l, p_i, γ_i from eqs. (13), (14) written with exponentials, and Schur-Cohn roots."""
    alpha, lam, others, theta, n1, n2 = 0.2, 1.3, np.array([0.7, -0.4, -1.1]), 0.6, 4, 2
    e = np.exp(theta)
    p1, p2 = n1 * e / (n1 * e + n2 / e), n2 * e / (n2 * e + n1 / e)
    g1, g2 = 1 + alpha * lam * (2 * p1 - 1), 1 + alpha * lam * (2 * p2 - 1)
    a1, a2 = 1 + alpha * others * p1, 1 + alpha * others * p2
    tau = a1 / g1 + a2 / g2
    delta = (a1 * a2 - alpha**2 * others**2 * (1 - p1) * (1 - p2)) / (g1 * g2)
    got = spectrum.bipartite_multipliers(alpha, lam, jnp.asarray(others), theta, n1, n2)
    assert_close(got.trace, tau)
    assert_close(got.determinant, delta)
    assert_close(got.concentration, np.array([p1, p2]))
    assert_close(got.factors, np.array([g1, g2]))
    root = np.sqrt(tau**2 - 4 * delta)
    assert_close(got.pair, np.stack([(tau + root) / 2, (tau - root) / 2], -1), conditioning=10.0)


@pytest.mark.parametrize("theta", [-400.0, 400.0])
def test_huge_logits_do_not_overflow(theta):
    """Fault 55: e^θ overflows at θ = 710, e^2θ at 355."""
    got = spectrum.bipartite_multipliers(0.2, 1.0, jnp.array([0.5]), theta, 3, 2)
    assert np.isfinite(np.asarray(got.pair)).all()


def test_spectra_are_differentiable_and_traced_once():
    count = []

    @jax.jit
    def radius(system, v, signs):
        count.append(1)
        return jnp.max(jnp.abs(spectrum.bipartite_spectrum(system, v, signs, symmetric=True)))

    for seed in (0, 1):
        system, v, signs = one("single", "full", True, seed)
        radius(system, v, signs)
    assert len(count) == 1
    slope = jax.grad(lambda a: radius(SingleHead(system.value, system.query_key, a), v, signs))
    h = 1e-6
    alpha = float(system.alpha)
    up, down = (
        radius(SingleHead(system.value, system.query_key, a), v, signs)
        for a in (alpha + h, alpha - h)
    )
    np.testing.assert_allclose(slope(alpha), (up - down) / (2 * h), rtol=1e-6, atol=1e-9)


def test_unsupported_requests_are_refused():
    system, v, signs = one("multi", "full")
    with pytest.raises(RequestError, match="for one head; use"):
        spectrum.bipartite_spectrum(system, v, signs)
    masks = np.stack([np.tril(np.ones((N, N), bool)), np.ones((N, N), bool)])
    apart = MultiHead.from_maps(system.head_matrices, system.query_key_matrices, mask=masks)
    with pytest.raises(RequestError, match="masks of their own"):
        spectrum.consensus_spectrum(apart, v, N)

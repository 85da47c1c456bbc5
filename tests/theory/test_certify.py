"""Certificates: what has a proof gets it, what has none does not, and no proof contradicts."""

import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt import attention, stability
from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead
from pmt.dynamics.outcome import Outcome
from pmt.equilibria import bipartite, consensus
from pmt.equilibria.search import newton
from pmt.errors import RequestError
from theory import instances, witnesses
from theory.certify import certify, verify

FLIP = np.array([[0.0, -1.0], [-1.0, 0.0]])
PAIR = np.array([[1.0, 0.0], [-1.0, 0.0]])


def remark_10():
    case = {name: jnp.asarray(value) for name, value in witnesses.REMARK_10.case.items()}
    system = instances.single_head(witnesses.REMARK_10.shape, case)
    return system, np.asarray(instances.signed_state(case))


def polygonal(beta=1.0):
    """II.9: stable for beta < 8; the multiplier 1 - beta/4 is -1 at beta = 8."""
    value = np.array([[1.0, 0.5], [0.5, -0.5]])
    return SingleHead(value, beta * FLIP, alpha=0.25), PAIR


def symmetric(rng, count, d):
    matrices = rng.standard_normal((count, d, d)) / d**0.5
    return (matrices + matrices.transpose(0, 2, 1)) / 2.0


def at_consensus(n, d, heads, index=0, seed=0, mask="full"):
    rng = np.random.default_rng(seed)
    values, forms = symmetric(rng, heads, d), rng.standard_normal((heads, d, d))
    if heads == 1:
        system = SingleHead(values[0], forms[0], alpha=0.3, mask=mask)
    else:
        system = MultiHead.from_maps(values, forms, alpha=0.3, mask=mask)
    # Only nearly an eigenvector, in floats: the proof has to find the point next to it.
    _, vectors = np.linalg.eigh(values.sum(axis=0))
    return system, np.tile(vectors[:, ::-1][:, index], (n, 1))


def two_heads():
    """II.5: a stable bipartite point of two heads, (3, 2)."""
    values = np.stack([np.diag([1, 0.3, -0.2]), np.diag([0.8, 0.1, 0.4])])
    forms = np.stack([2.0 * np.eye(3), 1.5 * np.eye(3)])
    system = MultiHead.from_maps(values, forms, alpha=0.2)
    return system, np.outer([1, 1, 1, -1, -1], np.eye(3)[0])


PROVABLE = {
    "Remark 10's bipartite point": (remark_10, "stable"),
    "Lemma 15's polygonal pair": (polygonal, "stable"),
    "bipartite, two heads": (two_heads, "stable"),
    "consensus": (lambda: at_consensus(6, 4, 1), "stable"),
    "consensus, three heads": (lambda: at_consensus(6, 4, 3), "stable"),
    "consensus, causal": (lambda: at_consensus(5, 3, 2, mask="causal"), "stable"),
    "consensus, a window with Jordan blocks": (
        lambda: at_consensus(6, 3, 1, mask=attention.LocalWindow(2)),
        "stable",
    ),
    "v_2": (lambda: at_consensus(6, 4, 1, index=1), "unstable"),
    "v_2, three heads": (lambda: at_consensus(6, 4, 3, index=1), "unstable"),
    "Oja, v_2": (
        lambda: (Oja(np.diag([1.0, 0.5]), alpha=0.2), np.tile([0.0, 1], (4, 1))),
        "unstable",
    ),
    "one token": (lambda: at_consensus(1, 3, 1), "stable"),
    "d = 1": (lambda: (Oja(np.eye(1), alpha=0.5), np.array([[1.0], [1.0]])), "stable"),
    "just below the flip": (lambda: polygonal(8.0 - 1e-14), "stable"),
    "just above the flip": (lambda: polygonal(8.0 + 1e-14), "unstable"),
    "eigenvalues one ulp apart": (
        lambda: (Oja(np.diag([1.0, 1 - 2.0**-53]), alpha=1.0), np.tile([1.0, 0], (3, 1))),
        "stable",
    ),
    "the lower one of them": (
        lambda: (Oja(np.diag([1.0, 1 - 2.0**-53]), alpha=1.0), np.tile([0.0, 1], (3, 1))),
        "unstable",
    ),
}


@pytest.mark.parametrize("name", PROVABLE)
def test_what_has_a_verdict_is_proved(name):
    build, verdict = PROVABLE[name]
    system, x = build()
    certificate = certify(system, x)
    assert (certificate.status, certificate.verdict) == ("proved", verdict), certificate.reason
    assert certificate.exists
    assert certificate.reason is None
    assert certificate.distance < 1e-13
    assert certificate.contraction < 1
    assert certificate.bound < 1 if verdict == "stable" else certificate.bound > 1
    assert verify(certificate)


def test_the_sizes_that_the_library_calls_equilibria_work_as_they_are():
    system, x = remark_10()
    point = bipartite(system, index=1, split=(3, 2))
    assert certify(system, point).verdict == "stable"
    assert certify(*polygonal()).tokens.dtype == np.float64


def triangle():
    angles = 2 * np.pi * np.arange(3) / 3
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


MARGINAL = {
    # The equilibrium exists there; only its stability is open.
    "the flip at beta = 8": (lambda: polygonal(8.0), True, "unit circle"),
    "a repeated leading eigenvalue": (
        lambda: (SingleHead(np.diag([1.0, 1, 0.5]), np.eye(3), alpha=0.3), np.eye(3)[[0, 0, 0]]),
        False,
        "no isolated equilibrium",
    ),
    "alpha = 0": (
        lambda: (Oja(np.diag([1.0, 0.5]), alpha=0.0), PAIR),
        False,
        "no isolated equilibrium",
    ),
    "the antipodal pair of the Oja system": (
        lambda: (Oja(np.diag([1.0, -0.5]), alpha=0.25), PAIR),
        False,
        "no isolated equilibrium",
    ),
    "a continuum of unstable triangles": (
        lambda: (Oja(np.diag([1.0, 0.5]), alpha=0.25), triangle()),
        False,
        "no isolated equilibrium",
    ),
    "half of a 2-cycle": (
        lambda: (Oja(np.diag([1.0, -3.0]), alpha=2.0), np.array([[0.0, 1.0]] * 2)),
        False,
        "2-cycle",
    ),
    "a token that cancels": (
        lambda: (Oja(np.diag([1.0, -1.0]), alpha=1.0), np.array([[0.0, 1.0]] * 2)),
        False,
        "side of the sphere",
    ),
    "one token that goes to the other side": (
        lambda: (
            MultiHead(
                *np.eye(2)[None, None, :, :].repeat(3, 0) * 0.0,
                np.eye(2)[None],
                output_bias=np.array([3.0, 0.0]),
            ),
            PAIR,
        ),
        False,
        "side of the sphere",
    ),
}


@pytest.mark.parametrize("name", MARGINAL)
def test_what_is_marginal_or_no_equilibrium_is_undecided(name):
    build, exists, words = MARGINAL[name]
    certificate = certify(*build())
    assert (certificate.status, certificate.verdict) == ("undecided", None)
    assert certificate.exists is exists
    assert words in certificate.reason
    assert certificate.precision == (256 if exists else 1024)
    assert certificate.bound is None
    assert not verify(certificate)


def test_random_tokens_are_no_equilibria():
    rng = np.random.default_rng(3)
    for _ in range(20):
        system, _ = at_consensus(3, 3, 2, seed=int(rng.integers(1000)))
        x = rng.standard_normal((3, 3))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        certificate = certify(system, x)
        assert (certificate.status, certificate.exists) == ("undecided", False)


def test_tokens_beside_an_equilibrium_count_within_reach():
    system, x = polygonal()
    turned = np.array([[np.cos(1e-5), np.sin(1e-5)], [-1.0, 0.0]])
    assert "farther than" in certify(system, turned, reach=9e-6).reason
    certificate = certify(system, turned, reach=2e-5)
    assert certificate.verdict == "stable"
    assert certificate.distance == pytest.approx(1e-5, rel=1e-4)
    assert verify(certificate)
    assert not verify(replace(certificate, distance=0.9e-5))


def test_a_decimal_number_is_the_float_that_stands_for_it():
    # At alpha = 0.1 exactly, 1 + 0.1 (-10) = 0; the float 0.1 is larger than that.
    system = Oja(np.diag([1.0, -10.0]), alpha=0.1)
    certificate = certify(system, np.array([[0.0, 1.0]]))
    assert (certificate.status, certificate.exists) == ("undecided", False)
    assert certificate.reason.startswith("every token goes to the other side")
    below = Oja(np.diag([1.0, -10.0]), alpha=np.nextafter(0.1, 0.0))
    assert certify(below, np.array([[0.0, 1.0]])).verdict == "unstable"


def test_no_proof_contradicts_the_closed_form():
    """II.6 at all eigenvectors: (1 + alpha mu lambda_l) / |1 + alpha lambda_k|."""
    rng = np.random.default_rng(5)
    decided = {"stable": 0, "unstable": 0}
    for each in range(60):
        (value,), form = symmetric(rng, 1, 3), rng.standard_normal((3, 3))
        index, alpha = int(rng.choice(3, p=[0.6, 0.2, 0.2])), float(rng.uniform(0.05, 0.4))
        values, vectors = np.linalg.eigh(value)
        mask, shares = ("causal", 1 / np.arange(1, 4)) if each % 2 else ("full", np.eye(3)[0])
        system = SingleHead(value, form, alpha=alpha, mask=mask)
        factor = 1 + alpha * values[-1 - index]
        others = np.delete(values, 2 - index)
        radius = np.abs(1 + alpha * np.outer(shares, others)).max() / abs(factor)
        certificate = certify(system, np.tile(vectors[:, -1 - index], (3, 1)))
        verdict = "stable" if radius < 1 else "unstable"
        assert factor > 0
        assert certificate.verdict == verdict
        decided[verdict] += 1
    assert min(decided.values()) >= 15, decided


@pytest.mark.long
def test_no_proof_contradicts_the_analysis():
    rng = np.random.default_rng(17)
    count = 100
    n, d, heads = 3, 3, 2
    decided = {"stable": 0, "unstable": 0}
    for each in range(count):
        biases = each % 2 == 1
        shapes = [(heads, 3, d), (heads, 3, d), (heads, 2, d), (heads, d, 2)]
        extra = {}
        if biases:
            names = {"query_bias": (heads, 3), "key_bias": (heads, 3), "value_bias": (heads, 2)}
            extra = {name: rng.standard_normal(shape) for name, shape in names.items()}
            extra["output_bias"] = rng.standard_normal(d)
        mask = np.eye(n, dtype=bool) | (rng.random((heads, n, n)) < 0.6)
        weights = [rng.standard_normal(shape) for shape in shapes]
        system = MultiHead(*weights, alpha=0.5, mask=mask, **extra)
        guess = rng.standard_normal((n, d))
        guess /= np.linalg.norm(guess, axis=1, keepdims=True)
        run = newton(system, guess)
        certificate = certify(system, run.x)
        if int(run.result) != Outcome.CONVERGED:
            continue
        assert certificate.exists, certificate.reason
        verdict = stability.analyze(system, run.x).verdict
        assert certificate.verdict == verdict
        decided[verdict] += 1
    assert sum(decided.values()) >= count // 3, decided
    assert min(decided.values()) >= count // 20, decided


def test_single_precision_numbers_are_exact_too():
    system, x = at_consensus(3, 3, 1)
    single = SingleHead(
        system.value.astype(jnp.float32), system.query_key.astype(jnp.float32), alpha=0.3
    )
    certificate = certify(single, jnp.asarray(x, jnp.float32))
    assert certificate.verdict == "stable"
    assert 1e-9 < certificate.distance < 1e-5


def test_a_step_size_has_the_precision_of_the_arrays():
    """JAX gives a Python number that of the arrays: 1 - 100 alpha is 2e-8 in single precision."""
    value = np.diag([1.0, -100.0])
    x = np.array([[0.0, 1.0]])
    double = certify(Oja(value, alpha=0.01), x)
    assert (double.status, double.exists) == ("undecided", False)
    single = certify(Oja(value.astype(np.float32), alpha=0.01), x.astype(np.float32))
    assert single.verdict == "unstable"


class TestRequests:
    def test_without_flint_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "flint", None)
        with pytest.raises(RequestError, match=r"pip install 'pmt\[certify\]'"):
            certify(*polygonal())

    def test_rotary_positions(self):
        system, x = two_heads()
        turned = replace(system, rotary=attention.Rotary(np.array([1.0])))
        with pytest.raises(RequestError, match="rotary"):
            certify(turned, x)

    def test_a_stack(self):
        system, x = two_heads()
        with pytest.raises(RequestError, match="LayerStack"):
            certify(LayerStack.from_layers([system]), x)

    def test_several_systems(self):
        system = Oja(np.eye(2)[None].repeat(3, axis=0), alpha=0.3)
        with pytest.raises(RequestError, match="one system"):
            certify(system, PAIR)

    @pytest.mark.parametrize(
        ("x", "words"),
        [
            (PAIR[None], "a certificate is for"),
            (2 * PAIR, "norm 2"),
            (np.eye(3), "dimension"),
            (PAIR.astype(np.float32), "float32"),
        ],
    )
    def test_points(self, x, words):
        with pytest.raises(RequestError, match=words):
            certify(polygonal()[0], x)

    @pytest.mark.parametrize("reach", [0.0, 1.0, float("nan")])
    def test_reach(self, reach):
        with pytest.raises(RequestError, match="reach"):
            certify(*polygonal(), reach=reach)

    @pytest.mark.parametrize("precisions", [(), (32,), (64, 5000)])
    def test_precisions(self, precisions):
        with pytest.raises(RequestError, match="precisions"):
            certify(*polygonal(), precisions=precisions)


@pytest.mark.long
@pytest.mark.parametrize(("n", "d"), [(10, 6), (6, 10), (30, 2)])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("index", [0, 1])
def test_sixty_numbers_take_less_than_a_minute(n, d, heads, index):
    from time import perf_counter

    system, x = at_consensus(n, d, heads, index)
    start = perf_counter()
    certificate = certify(system, x)
    assert perf_counter() - start < 60
    assert certificate.status == "proved"
    assert verify(certificate)
    assert certificate.verdict == stability.analyze(system, consensus(system, index, n)).verdict

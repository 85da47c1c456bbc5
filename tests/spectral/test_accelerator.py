"""Eigenpairs from an accelerator: the host's, or LAPACK's where the host's check refuses them."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pmt.spectral import accelerator, principal

FAKE = SimpleNamespace(platform="gpu")


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((12, 12))


def test_the_solver_of_jax_gives_what_lapack_gives(matrix):
    """With the CPU in the accelerator's place, also where the run itself is in float32."""
    device = jax.devices("cpu")[0]
    whole = principal(matrix)
    with jax.enable_x64(False):
        found = principal(matrix, accelerator=device)
    assert (found.method, found.fallback) == ("accelerator", None)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-12)
    np.testing.assert_allclose(found.pairs.vectors, whole.pairs.vectors, atol=1e-11)
    np.testing.assert_allclose(found.conditions, whole.conditions, rtol=1e-9)
    assert np.all(found.residuals <= accelerator.RESIDUAL)
    assert (whole.method, whole.fallback) == ("lapack", None)


def test_a_symmetric_matrix_stays_on_the_host(matrix, monkeypatch):
    monkeypatch.setattr(accelerator, "device_eig", None)
    found = principal(matrix + matrix.T, accelerator=FAKE)
    np.testing.assert_array_equal(found.values, principal(matrix + matrix.T).values)


def nan(values, vectors):
    return values * np.nan, vectors


def one_nan(values, vectors):
    vectors[3, 4] = np.nan
    return values, vectors


def perturbed(values, vectors):
    return values, vectors + 1e-7


def single(values, vectors):
    return values.astype(np.complex64).astype(complex), vectors.astype(np.complex64).astype(complex)


def shuffled(values, vectors):
    first = np.flatnonzero(values.imag > 0)
    order = np.arange(len(values))
    order[[first[0], first[0] + 1]] = order[[first[0] + 1, first[0]]]
    return values[order], vectors[:, order]


def twice(values, vectors):
    real = np.flatnonzero(values.imag == 0)
    values[real[0]], vectors[:, real[0]] = values[real[1]], vectors[:, real[1]]
    return values, vectors


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (nan, "gpu answered with NaN"),
        (one_nan, "gpu answered with NaN"),
        (perturbed, "the residual from gpu is"),
        (single, "the residual from gpu is"),
        (shuffled, "not conjugate pairs"),
        (twice, "nearly dependent"),
    ],
)
def test_fault_59_a_wrong_answer_is_refused_and_lapack_answers(matrix, monkeypatch, wrong, words):
    def device_eig(f, device):
        assert device is FAKE
        return wrong(*(each.astype(complex) for each in np.linalg.eig(f)))

    monkeypatch.setattr(accelerator, "device_eig", device_eig)
    found, whole = principal(matrix, accelerator=FAKE), principal(matrix)
    assert found.method == "lapack" and words in found.fallback
    np.testing.assert_array_equal(found.values, whole.values)
    np.testing.assert_array_equal(found.pairs.vectors, whole.pairs.vectors)


def test_fault_63_no_phase_order_or_length_depends_on_the_device(matrix, monkeypatch):
    def device_eig(f, device):
        values, vectors = np.linalg.eig(f)
        leaders = np.flatnonzero(values.imag >= 0)[::-1]
        order = [k for i in leaders for k in ((i,) if values[i].imag == 0 else (i, i + 1))]
        turns = np.exp(1j * np.arange(12)) * np.arange(1, 13)
        turns = np.where(values.imag == 0, turns.real / np.abs(turns.real) * 7, turns)
        return values[order].astype(complex), (vectors * turns)[:, order]

    monkeypatch.setattr(accelerator, "device_eig", device_eig)
    found, whole = principal(matrix, accelerator=FAKE), principal(matrix)
    assert found.method == "accelerator"
    np.testing.assert_allclose(found.values, whole.values, atol=1e-13)
    np.testing.assert_allclose(found.pairs.vectors, whole.pairs.vectors, atol=1e-13)


@pytest.mark.parametrize(
    "error", [NotImplementedError("no rule for 'eig'"), RuntimeError("RESOURCE_EXHAUSTED: 1 GiB")]
)
def test_a_device_without_a_solver_or_without_memory_is_said(matrix, monkeypatch, error):
    def device_eig(f, device):
        raise error

    monkeypatch.setattr(accelerator, "device_eig", device_eig)
    found = principal(np.stack([matrix, matrix.T]), accelerator=FAKE)
    for each in found:
        assert each.method == "lapack"
        assert each.fallback == f"gpu has no answer ({error})"

"""rho, its statistics and chance levels against loops over directions in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.spectral import (
    alignment,
    all_directions,
    as_directions,
    average_over_directions,
    chance,
    eigenpairs,
    principal,
    rho,
    rho_on_host,
    standard_error,
    summarize,
)


def tokens(seed, *shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rho_of(x, pairs, index):
    """|P x| / |x| by the formula of eq. (6), P = B (BᵀB)⁻¹ Bᵀ."""
    v = pairs.vectors[:, index]
    b = np.stack([v.real, v.imag], 1) if pairs.values[index].imag else v.real[:, None]
    projection = b @ np.linalg.solve(b.T @ b, b.T)
    return np.linalg.norm(x @ projection, axis=-1) / np.linalg.norm(x, axis=-1)


def test_rho_of_all_directions_is_that_of_each():
    pairs = eigenpairs(np.random.default_rng(1).normal(size=(9, 9)))
    assert 0 < pairs.is_real.sum() < 9
    x = tokens(0, 4, 5, 9)
    values = rho(jnp.asarray(3.0 * x), all_directions(pairs, jnp.float64))
    for index in range(9):
        np.testing.assert_allclose(values[..., index], rho_of(x, pairs, index), atol=1e-14)


def test_rho_of_line_plane_and_zero_token():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    x = jnp.asarray(np.stack([basis[:, 0], basis @ [0.6, -0.8], np.zeros(5)]))
    line, plane = (as_directions(basis[:, :m], jnp.float64) for m in (1, 2))
    np.testing.assert_allclose(rho(x, line)[:, 0], [1, 0.6, 0], atol=1e-15)
    np.testing.assert_allclose(rho(x, plane), [[1, 1], [1, 1], [0, 0]], atol=1e-15)


def test_averages_over_all_directions_equal_the_loop_with_pairs_counted_twice():
    pairs = eigenpairs(np.random.default_rng(2).normal(size=(8, 8)))
    before, after = tokens(1, 6, 3, 8), tokens(2, 6, 3, 8)
    low = np.stack([rho_of(before, pairs, k) for k in range(8)])
    high = np.stack([rho_of(after, pairs, k) for k in range(8)])
    mean = average_over_directions(
        jnp.asarray(before), jnp.asarray(after), all_directions(pairs, jnp.float64)
    )
    np.testing.assert_allclose(
        [mean.rho_before, mean.rho_after, mean.delta_rho, mean.p_increase],
        [low.mean(), high.mean(), (high - low).mean(), (high > low).mean()],
        rtol=1e-12,
    )


def test_averages_do_not_depend_on_the_chunks(monkeypatch):
    directions = all_directions(
        eigenpairs(np.random.default_rng(2).normal(size=(8, 8))), jnp.float64
    )
    before, after = jnp.asarray(tokens(1, 7, 3, 8)), jnp.asarray(tokens(2, 7, 3, 8))
    whole = average_over_directions(before, after, directions)
    monkeypatch.setattr("pmt.spectral.alignment._HELD", 200)
    jax.clear_caches()
    chunked = average_over_directions(before, after, directions)
    jax.clear_caches()
    np.testing.assert_allclose(chunked.delta_rho, whole.delta_rho, rtol=1e-13)
    assert chunked.p_increase == whole.p_increase


@pytest.mark.parametrize("d", [1, 2, 3, 10, 384])
def test_chance_level_of_a_line_by_quadrature(d):
    # |c| has density proportional to (1 - c^2)^((d-3)/2), that is sin^(d-2) of the polar angle.
    if d == 1:
        assert chance(1) == pytest.approx(1)
        return
    angle = (np.arange(100_000) + 0.5) * (np.pi / 2) / 100_000
    weight = np.sin(angle) ** (d - 2)
    expected = np.sum(np.cos(angle) * weight) / np.sum(weight)
    assert chance(d) == pytest.approx(expected, rel=1e-7)


def test_chance_levels_of_theory_and_of_planes():
    assert (round(chance(768), 5), round(chance(768, 2), 5)) == (0.02880, 0.04524)
    assert chance(2, 2) == pytest.approx(1)
    # A plane against random tokens: the Monte-Carlo error is 1e-3 of the value.
    x = tokens(0, 200_000, 12)
    sampled = np.linalg.norm(x[:, :2], axis=1)
    error = sampled.std() / np.sqrt(len(sampled))
    assert abs(sampled.mean() - chance(12, 2)) < 5 * error


def test_chance_stays_finite_for_large_d():
    assert chance(100_000) == pytest.approx(np.sqrt(2 / (np.pi * 100_000)), rel=1e-5)


@pytest.mark.parametrize(("d", "dimension"), [(1, 2), (5, 3), (0, 1)])
def test_chance_refuses_what_there_is_not(d, dimension):
    with pytest.raises(RequestError, match="must be 1 or 2, and at most d"):
        chance(d, dimension)


def test_summary_is_the_formulas():
    rng = np.random.default_rng(0)
    low, high = rng.random((4, 3)), rng.random((4, 3))
    low[0, 0] = high[0, 0]  # a tie is no increase
    s = summarize(low, high)
    delta = high - low
    assert s.rho_before == pytest.approx(low.mean()) and s.rho_after == pytest.approx(high.mean())
    assert s.delta_rho == pytest.approx(delta.mean())
    assert s.rho_after_std == pytest.approx(np.sqrt(np.mean((high - high.mean()) ** 2)))
    assert s.delta_rho_std == pytest.approx(np.sqrt(np.mean((delta - delta.mean()) ** 2)))
    means = delta.mean(axis=1)
    spread = np.sqrt(np.sum((means - means.mean()) ** 2) / 3)
    assert s.delta_rho_se == pytest.approx(spread / 2)
    assert s.p_increase == np.sum(high > low) / 12


def test_one_prompt_has_no_standard_error():
    s = summarize(np.full((1, 5), 0.1), np.full((1, 5), 0.2))
    assert s.rho_after_se is None and s.delta_rho_se is None and s.p_increase == 1


def test_increments_of_a_uniform_layer_follow_the_first_order_law():
    """II.8: under uniform attention, to first order in alpha, for an arbitrary F."""
    d, n, prompts, alpha = 6, 4, 20_000, 1e-3
    f = np.random.default_rng(7).normal(size=(d, d))
    answer = principal(f + 2 * np.eye(d))
    x = tokens(3, prompts, n, d)
    y = x + alpha * x.mean(axis=1, keepdims=True) @ (f + 2 * np.eye(d)).T
    directions = as_directions(answer.basis, jnp.float64)
    low, high = (rho(jnp.asarray(z), directions)[..., 0] for z in (x, y))
    s = summarize(low, high)
    trace, value = np.trace(f) + 2 * d, answer.eigenvalue
    kappa = chance(d) * (d - 1) / (d + 1)
    if answer.dimension == 1:
        law = value.real - (trace - value.real) / (d - 1)
    else:
        law = value.real - (trace - 2 * value.real) / (d - 2)
        # E rho (1 - rho^2) of a plane: rho^2 is Beta(1, (d-2)/2).
        kappa = chance(d, 2) * (d - 2) / (d + 1)
    assert abs(s.delta_rho / alpha - kappa * law / n) < 5 * s.delta_rho_se / alpha


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_numpy_measures_on_a_cpu_is_what_a_device_measures(dtype):
    rng, tight = np.random.default_rng(0), 1e-5 if dtype is np.float32 else 1e-12
    pairs = eigenpairs(rng.normal(size=(9, 9)))
    assert 0 < np.sum(pairs.is_real) < 9
    before, after = rng.normal(size=(2, 5, 4, 9)).astype(dtype)
    # No direction, and lengths whose squares overflow or vanish.
    before[0, 0] = 0
    after[1] *= dtype(1e30 if dtype is np.float32 else 1e200)
    after[2] *= dtype(1e-30 if dtype is np.float32 else 1e-200)
    for basis in (np.eye(9)[:, :1], np.linalg.qr(rng.normal(size=(9, 2)))[0]):
        for x in (before, after):
            expected = rho(jnp.asarray(x), as_directions(basis, dtype))[..., 0]
            found = rho_on_host(x, basis)
            assert found.dtype == np.float64 and found[0, 0] <= 1
            np.testing.assert_allclose(found, expected, rtol=tight, atol=tight)
    directions = all_directions(pairs, dtype)
    expected = alignment._average(jnp.asarray(before), jnp.asarray(after), directions)
    found = alignment._average_on_host(before, after, directions)
    np.testing.assert_allclose(found.reshape(5, 4, 4), expected, rtol=tight, atol=tight)


def test_an_average_in_chunks_is_that_of_all(monkeypatch):
    rng = np.random.default_rng(1)
    directions = all_directions(eigenpairs(rng.normal(size=(7, 7))), np.float64)
    x, y = rng.normal(size=(2, 6, 3, 7))
    whole = alignment._average_on_host(x, y, directions)
    monkeypatch.setattr(alignment, "_HELD", 4 * 7 * 4)
    np.testing.assert_allclose(alignment._average_on_host(x, y, directions), whole, rtol=1e-13)


def test_the_error_of_a_mean_over_texts_of_unequal_length_is_that_of_many_repetitions():
    """Texts of 1 to 40 tokens, most of them short, 2,000 times 60 of them."""
    rng = np.random.default_rng(0)
    means, errors, plain = [], [], []
    for _ in range(2000):
        lengths = np.ceil(40 ** rng.random(60))
        values = rng.normal(size=(60, 1)) + np.zeros((60, 40))
        masked = np.ma.MaskedArray(values, np.arange(40) >= lengths[:, None])
        means.append(masked.mean())
        errors.append(standard_error(masked))
        plain.append(standard_error(masked.mean(axis=1)[:, None]))
    spread = np.std(means, ddof=1)
    # A standard deviation of 2,000 is known to 1.6 %; Taylor's formula is low by some percent.
    assert abs(np.sqrt(np.mean(np.square(errors))) / spread - 1) < 0.08
    # The error of the mean of the texts' means is that of another mean.
    assert abs(np.sqrt(np.mean(np.square(plain))) / spread - 1) > 0.2
    # Where all have the same length it is the usual one, bit for bit.
    assert standard_error(np.ma.MaskedArray(values)) == standard_error(values)

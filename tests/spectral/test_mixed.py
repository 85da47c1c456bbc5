"""Eigenpairs in single precision, refined: as good as those in double precision, or none."""

import numpy as np
import pytest

from pmt.linalg import by_lapack, eigenpairs
from pmt.spectral import mixed, principal
from pmt.spectral.lapack import eigenpairs_in_single
from pmt.spectral.mixed import SMALLEST, solve_mixed

EPS = np.finfo(float).eps


def gaussian(d: int, seed: int = 0) -> np.ndarray:
    f = np.random.default_rng(seed).standard_normal((d, d))
    return f / np.abs(f).max()


def with_blocks(blocks: list[np.ndarray], d: int, seed: int = 0) -> np.ndarray:
    """A non-normal matrix whose eigenvalues are those of the blocks, for a well-conditioned X."""
    rng = np.random.default_rng(seed)
    x = np.eye(d) + 0.3 / np.sqrt(d) * rng.standard_normal((d, d))
    middle, at = np.zeros((d, d)), 0
    for block in blocks:
        middle[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    f = x @ middle @ np.linalg.inv(x)
    return f / (1.01 * np.abs(f).max())


def spread(count: int) -> list[np.ndarray]:
    """Blocks of eigenvalues that are well apart from each other."""
    return [np.array([[value]]) for value in np.linspace(-1, 1, count)]


@pytest.mark.parametrize(
    "f",
    [
        gaussian(SMALLEST),
        gaussian(301, 1),
        gaussian(256, 2) @ gaussian(256, 3) / 50,
        with_blocks(
            [*spread(100), *(np.array([[a, 1], [-1, a]]) for a in np.linspace(1, 2, 60))], 220
        ),
        # Real ones only, and pairs only.
        with_blocks(spread(200), 200),
        with_blocks([np.array([[a, 2], [-1, a]]) for a in np.linspace(-1, 1, 100)], 200),
    ],
    ids=["gaussian", "odd", "product", "both", "real", "pairs"],
)
def test_pairs_are_those_of_double_precision(f):
    got, expected = eigenpairs(f, solve=solve_mixed), eigenpairs(f)
    size = np.linalg.norm(f)
    # The residuals, from the definition, with the matrix that is asked for.
    off = np.linalg.norm(f @ got.vectors - got.vectors * got.values, axis=0) / size
    assert np.max(off) <= 1.5e-15
    np.testing.assert_allclose(got.residuals, off, rtol=0.5, atol=2e-16)
    # Both are off by some roundings of F, which the condition makes larger.
    allowed = 20 * EPS * size * expected.conditions
    assert np.all(np.abs(got.values - expected.values) <= allowed)
    assert np.array_equal(got.is_real, expected.is_real)
    gaps = np.abs(expected.values[:, None] - expected.values) + np.diag(np.full(len(f), np.inf))
    turned = np.linalg.norm(got.vectors - expected.vectors, axis=0)
    assert np.all(turned <= 20 * len(f) * allowed / gaps.min(axis=0) + 20 * EPS)
    np.testing.assert_allclose(got.conditions, expected.conditions, rtol=1e-3)


def test_conditions_have_three_digits_also_after_large_corrections(monkeypatch):
    rng, reached = np.random.default_rng(0), 0
    for _ in range(8):
        f = np.kron(np.eye(2), rng.standard_normal((100, 100)))
        f = (f + 1e-4 * rng.standard_normal((200, 200))) / 10
        found = solve_mixed(f)
        if found is None:
            continue
        expected = by_lapack(f)
        nearest = np.abs(found.values[:, None] - expected.values).argmin(axis=1)
        np.testing.assert_allclose(found.conditions, expected.conditions[nearest], rtol=2e-3)
        monkeypatch.setattr(mixed, "_NEAR", np.inf)
        rough = solve_mixed(f)
        monkeypatch.undo()
        reached += np.max(np.abs(rough.conditions / found.conditions - 1)) > 2e-3
    assert reached


def test_the_library_takes_them(monkeypatch):
    f, asked = gaussian(200), []
    monkeypatch.setattr("pmt.spectral.eigen.by_lapack", lambda f: asked.append(1) or by_lapack(f))
    found = principal(f)
    assert not asked and (found.method, found.fallback) == ("lapack", None)
    monkeypatch.setattr("pmt.spectral.eigen.solve_mixed", lambda f: None)
    other = principal(f)
    assert asked and other.method == "lapack"
    np.testing.assert_allclose(found.values, other.values, atol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        gaussian(SMALLEST - 1),
        gaussian(300)[:, :200] @ gaussian(300)[:200],
        with_blocks([np.eye(2), *spread(198)], 200),
        with_blocks([np.array([[0.5, 1], [0, 0.5]]), *spread(198)], 200),
        # Single precision cannot tell these two apart.
        with_blocks([np.diag([1.5, 1.5 + 1e-8]), *spread(198)], 200),
        with_blocks([np.array([[1.5, 1e-8], [-1e-8, 1.5]]), *spread(198)], 200),
        np.triu(gaussian(200)),
        np.zeros((200, 200)) + np.eye(200, k=1),
    ],
    ids=[
        "small",
        "null space",
        "repeated",
        "defective",
        "close",
        "close pair",
        "triangular",
        "shift",
    ],
)
def test_where_it_is_not_as_good_there_is_no_answer(f):
    assert solve_mixed(f) is None
    # And the library has LAPACK's.
    assert np.array_equal(principal(f).values, eigenpairs(f).values)


def test_one_step_is_newtons(monkeypatch):
    """Each correction nearly squares the error, down to the factor that single precision leaves."""
    f, seen = gaussian(256), []
    true = mixed._Pairs.lengths

    def lengths(self, rows, chosen):
        found = true(self, rows, chosen)
        seen.append(np.median(found) / np.linalg.norm(f))
        return found

    monkeypatch.setattr(mixed._Pairs, "lengths", lengths)
    assert solve_mixed(f) is not None
    assert 1e-9 < seen[0] < 1e-6 and seen[1] < 1e-4 * seen[0]


def test_a_solver_that_fails_leaves_it_to_lapack(monkeypatch):
    f = gaussian(200)
    for name in ("eigenpairs_in_single", "inverse"):
        with monkeypatch.context() as patch:
            patch.setattr(mixed, name, lambda f: None)
            assert solve_mixed(f) is None
    # One that answers with the same vector twice, and one that is far off, too.
    values, rows = eigenpairs_in_single(f)
    twice = np.concatenate([rows[:2], rows[:2], rows[4:]])
    far = rows.copy()
    far[0] += 0.5 * far[9]
    for wrong in (twice, far):
        monkeypatch.setattr(mixed, "eigenpairs_in_single", lambda f, rows=wrong: (values, rows))
        assert solve_mixed(f) is None

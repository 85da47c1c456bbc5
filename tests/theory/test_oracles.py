"""The ingredients of the statements against plain NumPy that shares no code with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import MultiHead, Oja, SingleHead
from pmt.stability import conditions, jacobian, spectrum
from tests.known_statements import STATEMENTS
from tests.tolerance import assert_close
from theory import conclusions, instances, noise, oracles
from theory.statement import Shape

RNG = np.random.default_rng(7)
SHAPES = [Shape(2, 2), Shape(3, 3, 1, "causal"), Shape(4, 3, 1, "window"), Shape(3, 2, 1, "others")]


def tokens(n, d):
    x = RNG.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def drawn(statement, form, clause, count):
    """A few instances of a clause, largest shape, as NumPy."""
    forms = STATEMENTS[statement].forms
    (found,) = [c for c in forms[form].clauses if c.name == clause]
    shape = found.hypotheses.shapes[-1]
    source = noise.raw(11, count)
    batch = jax.jit(jax.vmap(lambda s, k: instances.draw(found.hypotheses, s, k, shape)))
    cases = jax.tree.map(np.asarray, batch(source, instances.kinds(count)))
    return shape, [{name: value[i] for name, value in cases.items()} for i in range(count)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_softmax_map_and_its_jacobian(shape):
    value, logits = RNG.normal(size=(2, shape.d, shape.d))
    x = tokens(shape.n, shape.d)
    system = SingleHead(value, logits, 0.3, mask=instances.mask_of(shape))
    step = oracles.single_head(value, logits, 0.3, shape.mask)
    assert_close(system(jnp.asarray(x)), step(x))
    exact = oracles.jacobian(step, x)
    for found in (jacobian.extrinsic, jacobian.extrinsic_formula):
        assert_close(found(system, jnp.asarray(x)), exact, size=x.size, conditioning=50.0)


def test_the_oja_map_and_its_jacobian():
    value, x = RNG.normal(size=(3, 3)), tokens(4, 3)
    system, step = Oja(value, 0.4), oracles.oja(value, 0.4)
    assert_close(system(jnp.asarray(x)), step(x))
    exact = oracles.jacobian(step, x)
    for found in (jacobian.extrinsic, jacobian.extrinsic_formula):
        assert_close(found(system, jnp.asarray(x)), exact, size=x.size, conditioning=50.0)


def test_the_multi_head_map():
    values, logits = RNG.normal(size=(2, 3, 4, 4))
    x = tokens(5, 4)
    system = MultiHead.from_maps(jnp.asarray(values), jnp.asarray(logits), 0.2, mask="causal")
    assert_close(system(jnp.asarray(x)), oracles.multi_head(values, logits, 0.2, "causal")(x))


def test_the_complex_step_is_the_derivative():
    """The oracle itself, against central differences."""
    value, logits = RNG.normal(size=(2, 3, 3))
    x, step = tokens(3, 3), oracles.single_head(*RNG.normal(size=(2, 3, 3)), 0.3)
    del value, logits
    exact, size = oracles.jacobian(step, x), 1e-5
    for index in range(x.size):
        moved = np.zeros(x.size)
        moved[index] = size
        moved = moved.reshape(x.shape)
        difference = (step(x + moved) - step(x - moved)).reshape(-1) / (2 * size)
        np.testing.assert_allclose(exact[:, index], difference, atol=1e-8)


@pytest.mark.parametrize("mask", ["full", "causal", "window", "others"])
def test_consensus_multipliers_by_dense_eigenvalues(mask):
    shape = Shape(4, 3, 1, mask)
    eigenvalues = np.array([1.3, 0.4, -0.9])
    for k in range(3):
        step = oracles.single_head(np.diag(eigenvalues), RNG.normal(size=(3, 3)), 0.35, mask)
        x = np.tile(np.eye(3)[k], (4, 1))
        dense = np.sort(oracles.intrinsic_spectrum(step, x).real)
        claimed = oracles.consensus_multipliers(eigenvalues, k, 0.35, 4, mask)
        # A causal window has Jordan blocks, which dense eigenvalues see to the root of eps.
        np.testing.assert_allclose(dense, claimed, atol=3e-4 if mask == "window" else 1e-8)
        case = {"eigenvalues": jnp.asarray(eigenvalues), "index": jnp.int32(k), "alpha": 0.35}
        assert_close(
            np.sort(conclusions.consensus_classes(shape, case)), np.array(claimed), conditioning=4.0
        )


def test_bipartite_multipliers_by_dense_eigenvalues():
    shape, cases = drawn("lemma-14", "paper", "three classes", 12)
    for case in cases:
        n1, n2 = int(np.sum(case["signs"] > 0)), int(np.sum(case["signs"] < 0))
        k, alpha = int(case["index"]), float(case["alpha"])
        v, logits = case["direction"], case["query_key"]
        value = case["frame"] @ np.diag(case["eigenvalues"]) @ case["frame"].T
        claimed = oracles.bipartite_multipliers(
            case["eigenvalues"], k, alpha, v @ logits @ v, n1, n2
        )
        step = oracles.single_head(value, logits, alpha)
        dense = np.sort(oracles.intrinsic_spectrum(step, case["signs"][:, None] * v[None]).real)
        size = 1 + np.max(np.abs(claimed))
        np.testing.assert_allclose(dense, claimed, atol=1e-6 * size)
        table = conclusions.bipartite_table({name: jnp.asarray(a) for name, a in case.items()})
        np.testing.assert_allclose(np.sort(table), claimed, atol=1e-11 * size)
    assert shape.n == 5


def test_the_exact_criterion():
    rng = np.random.default_rng(3)
    stable = 0
    for _ in range(400):
        eigenvalues = np.sort(rng.normal(size=3) + 0.3)[::-1]
        if eigenvalues[0] <= 0.05:
            eigenvalues = eigenvalues + 0.05 - eigenvalues[0]
        k, theta = int(rng.integers(3)), 1.5 * rng.normal()
        n1, n2 = (int(n) for n in rng.integers(1, 4, size=2))
        claimed = oracles.bipartite_stable(eigenvalues, k, theta, n1, n2)
        others = jnp.asarray(np.delete(eigenvalues, k))
        found = conditions.exact_bipartite_margin(eigenvalues[k], others, theta, n1, n2)
        assert (float(found) > 0) == claimed
        alpha = 0.9 / np.max(np.abs(eigenvalues))
        radius = np.max(np.abs(oracles.bipartite_multipliers(eigenvalues, k, alpha, theta, n1, n2)))
        assert (radius < 1) == claimed
        stable += claimed
    assert 20 < stable < 380


def test_the_attention_spectrum_of_every_mask():
    for shape in SHAPES:
        weights = oracles.visible(shape.n, shape.mask).astype(float)
        weights = weights / weights.sum(axis=1, keepdims=True)
        mu = np.asarray(instances.attention_eigenvalues(shape))
        for power in range(1, shape.n + 1):
            trace = np.trace(np.linalg.matrix_power(weights, power))
            assert np.sum(mu**power) == pytest.approx(trace, abs=1e-12)
    assert spectrum.attention_spectrum(instances.mask_of(Shape(4, 2)), 4, jnp.float64)[0] == 1

"""The main text: layers, the order of eigenvalues, steering, the feed-forward block, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from pmt.spectral import chance
from theory import (
    draws,
    evidence,
    feed_forward,
    increments,
    layer,
    oracles,
    oracles_layers,
    ordering,
    products,
    rank_one,
)

RNG = np.random.default_rng(11)


def unit(x):
    return oracles_layers.unit(x)


def numbers(explicit):
    case = {name: jnp.asarray(value) for name, value in explicit.case.items()}
    return explicit.numbers(explicit.shape, case)


def test_the_layer_by_loops():
    h, k, d, n = 2, 3, 6, 4
    query, key, value = RNG.normal(size=(3, h, k, d))
    output, x = RNG.normal(size=(h, d, k)), unit(RNG.normal(size=(n, d)))
    case = {
        "query": query,
        "key": key,
        "value_weights": value,
        "output_weights": output,
        "alpha": 0.8,
        "scale": 1 / np.sqrt(k),
        "x": x,
    }
    case = {name: jnp.asarray(array) for name, array in case.items()}
    expected = oracles_layers.multi_head_layer(query, key, value, output, 0.8, x)
    moved = unit(x + 0.8 * np.asarray(jax.jit(layer.attention_block)(case)).T)
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    package = jax.jit(lambda case: layer._system(case)(case["x"]))(case)
    np.testing.assert_allclose(package, expected, atol=1e-12)


def test_the_principal_direction_by_real_part_does_not_attract():
    explicit = ordering.ROTOR
    found = numbers(explicit)
    assert found["step bound"] == pytest.approx(0.2 / 3.81)
    assert found["step bound"] == pytest.approx(0.0525, abs=5e-5)
    text = f"min and max |x'v_1| after {ordering._STEPS} steps, alpha = "
    assert found[text + "0.05"][0] > 0.999
    for alpha in ("0.06", "0.07", "0.2", "1.0"):
        assert found[text + alpha][1] < 1e-3
    value = explicit.case["value"]
    measured = jax.jit(lambda case: ordering.consensus_radius(explicit.shape, case)[0])
    for alpha in (0.05, 0.06):
        dense = oracles.intrinsic_spectrum(oracles.oja(value, alpha), np.eye(3)[[0, 0]])
        case = {name: jnp.asarray(array) for name, array in explicit.case.items()}
        radius = measured(case | {"alpha": jnp.asarray(alpha)})
        assert float(radius) == pytest.approx(np.max(np.abs(dense)), abs=1e-12)


def test_no_logit_makes_an_inner_bipartite_point_stable():
    explicit = ordering.INNER_PAIR
    radii = [
        np.max(np.abs(oracles.bipartite_multipliers(np.array([1, 0.5, -0.3]), 1, 0.5, t, 2, 1)))
        for t in ordering._THETAS
    ]
    assert numbers(explicit)["smallest spectral radius"] == pytest.approx(min(radii), abs=1e-9)
    assert min(radii) > 1.1


def test_a_gap_of_twenty_is_not_enough():
    found = numbers(rank_one.PULLED_AWAY)
    np.testing.assert_allclose(found["eigenvalues"], [11.0, 0.5])
    assert found["gap"] == pytest.approx(22.0)
    assert found["cos(v_1', w)"] == pytest.approx(0.104, abs=5e-4)


@pytest.mark.parametrize("beta", [10.0, 100.0])
def test_the_angle_of_the_steered_eigenvector(beta):
    """Theory: for a Gaussian F the leading term predicts .0971 at 10 and .0097 at 100."""
    d = 64
    f, w = RNG.normal(size=(d, d)) / np.sqrt(d), unit(RNG.normal(size=d))
    c = beta * np.max(np.linalg.eigvals(f).real)
    values, vectors = np.linalg.eig(f + c * np.outer(w, w))
    v = vectors[:, np.argmax(values.real)].real
    tangent = np.linalg.norm(v - w * (w @ v)) / abs(w @ v)
    predicted = np.linalg.norm(f @ w - w * (w @ f @ w)) / c
    assert tangent == pytest.approx(predicted, rel=3 / beta)
    assert predicted == pytest.approx(0.97 / beta, rel=0.25)
    case = {"value": f, "target": w, "probe": w, "strength": c}
    case = {name: jnp.asarray(array) for name, array in case.items()}
    steered = jax.jit(lambda case: rank_one.principal(rank_one.edited(case), case["target"]))
    value, found = steered(case)
    assert abs(float(found @ v)) == pytest.approx(1.0, abs=1e-9)
    assert float(value) == pytest.approx(np.max(values.real), rel=1e-9)


@pytest.mark.parametrize(
    ("spread", "expected"), [(None, (0.04, 0.25, 0.78, 0.97)), (0.01, (0.23, 0.78, 0.98, 1.0))]
)
def test_how_strong_an_edit_must_be(spread, expected):
    """d = 768, n = 128, uniform attention, averaged over draws of w and the tokens."""
    rng, d, n = np.random.default_rng(0), 768, 128
    f = rng.normal(size=(d, d)) / np.sqrt(d)
    found = np.zeros((30, 4))
    for draw in found:
        w, x = unit(rng.normal(size=d)), unit(rng.normal(size=(n, d)))
        if spread is not None:
            x = unit(unit(rng.normal(size=d)) + spread * x)
        mean = x.mean(axis=0)
        y = x + f @ mean
        for index, c in enumerate((10, 100, 1000, 10_000)):
            draw[index] = np.mean(np.abs(unit(y + c * w * (w @ mean)) @ w))
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.1)


def test_the_feed_forward_block_that_folds():
    found = numbers(feed_forward.FOLDED)
    assert found["hidden width, d"] == [8, 2]
    assert found["smallest coordinate of the image"] >= 0.0
    assert found["distance of the target from the image"] == pytest.approx(np.sqrt(2.0))


@pytest.mark.long
@pytest.mark.parametrize(("scale", "reached"), [(0.73, (20, 20)), (2.44, (1, 19)), (7.32, (0, 0))])
def test_preimages_of_a_wide_block(scale, reached):
    """GELU, d = 16, hidden 64, 20 targets: all for max |FFN| = .73, some for 2.44, none for 7.32.

    In theory.md none for 2.44 either, with weights that are not given.
    """
    rng, d = np.random.default_rng(2), 16
    first, second = rng.normal(size=(64, d)), rng.normal(size=(d, 64))

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    sphere = unit(rng.normal(size=(20_000, d)))
    second = second * scale / np.max(np.linalg.norm(gelu(sphere @ first.T) @ second.T, axis=1))

    @jax.jit
    def away(x, w):
        v = x / jnp.linalg.norm(x)
        y = v + second @ jax.nn.gelu(first @ v)
        return 1.0 - jnp.dot(y, w) / jnp.linalg.norm(y)

    slope = jax.jit(jax.value_and_grad(away))
    hits = 0
    for target in unit(rng.normal(size=(20, d))):
        ends = [
            minimize(lambda x, w=target: tuple(map(np.asarray, slope(x, w))), start, jac=True).fun
            for start in (target, *unit(rng.normal(size=(5, d))))
        ]
        hits += min(ends) < 1e-8
    assert reached[0] <= hits <= reached[1]


@pytest.mark.parametrize("n", [1, 3])
def test_the_first_order_law_by_sampling(n):
    f = RNG.normal(size=(4, 4))
    values, vectors = np.linalg.eig(f)
    index = int(np.argmin(np.abs(values.imag)))
    f, v = (f, vectors[:, index].real) if values[index].imag == 0 else (f + f.T, None)
    v = np.linalg.eigh(f)[1][:, 0] if v is None else v
    claimed = oracles_layers.increment_law(f, v) / n
    found, error = oracles_layers.sampled_slope(f, v, n, samples=200_000, seed=n)
    assert abs(found - claimed) < 5 * error
    package = float(jax.jit(increments.law)(jnp.asarray(f), jnp.asarray(v)))
    assert package / n == pytest.approx(claimed)


def test_chance_levels():
    # theory.md, d = 768.
    assert chance(768) == pytest.approx(0.02880, abs=5e-6)
    assert chance(768, 2) == pytest.approx(0.04524, abs=5e-6)


@pytest.mark.parametrize(
    ("size", "first", "mean", "rises"),
    [(0.3, 0.035, 0.002, 0.83), (1.0, 0.068, 0.014, 0.80), (2.0, 0.075, 0.025, 0.78)],
)
def test_gaussian_matrices_show_the_increments(size, first, mean, rises):
    """d = 64, alpha = 1, each token attending to itself; F = g N(0, 1/d), nothing trained."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(8):
        x = unit(rng.normal(size=(10, 10, 64)))
        weights = np.broadcast_to(np.eye(10), (10, 10, 10))
        f = size * rng.normal(size=(64, 64)) / 8.0
        found.append(oracles_layers.statistics(f, weights, x))
    delta, average, p = np.mean(found, axis=0)
    assert min(one[0] for one in found) > 0
    assert delta == pytest.approx(first, abs=0.012)
    assert average == pytest.approx(mean, abs=0.004)
    assert p == pytest.approx(rises, abs=0.05)


def test_the_witness_of_section_3():
    found = numbers(evidence.section_3().paper.clauses[0].explicit[0])
    assert found["Delta_1"] - found["mean Delta"] > 10 * found["standard error"]
    assert found["P_1"] > 0.6


@pytest.mark.long
def test_products_with_and_without_the_skip_connection():
    """Theory, d = 48, 24 layers, 40 stacks: .178, .684 and .717 after the last, chance .115."""
    rng, d = np.random.default_rng(4), 48
    found = []
    for _ in range(40):
        matrices, logits = rng.normal(size=(2, 24, d, d)) / np.sqrt(d)
        found.append(
            oracles_layers.principal_alignment(matrices, logits, unit(rng.normal(size=(10, d))))
        )
    plain, skipped, left = np.mean(found, axis=0)
    assert plain < 2 * chance(d)
    assert skipped > 3 * chance(d) and left > 3 * chance(d)


def test_products_turn_on_the_output_side():
    turns = jax.jit(products.turns)
    for seed in range(5):
        case = {"seed": jnp.int32(seed), "alpha": jnp.asarray(0.6)}
        right, left = turns(case)
        assert 2 * float(right) < float(left)


def test_the_skip_connection_decides():
    found = numbers(products.SKIPPED)
    np.testing.assert_allclose(found["eigenvalues of the product of F"], [0.0625, 0.6561])
    np.testing.assert_allclose(found["eigenvalues of the product of I + F"], [5.0625, 1e-4])
    assert found["|x'v_k| after the layers"][0] > 0.999


def test_random_numbers_from_a_counter():
    normal = np.asarray(jax.jit(lambda seed: draws.normals(seed, 200, 500))(jnp.int32(3)))
    assert abs(normal.mean()) < 0.02 and normal.std() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]) < 0.02
    uniform, other = jax.jit(jax.vmap(lambda seed: draws.uniforms(seed, 100_000)))(
        jnp.array([4, 5], jnp.int32)
    )
    np.testing.assert_allclose(np.histogram(uniform, 10, (0, 1))[0], 10_000, atol=500)
    assert abs(np.corrcoef(uniform, other)[0, 1]) < 0.02

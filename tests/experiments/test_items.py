"""The items on tiny checkpoints and made-up layers, against NumPy and against each other."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import LayerStack, MultiHead
from pmt.errors import RequestError
from pmt.experiments import AnalysisConfig, analyze, describe
from pmt.experiments.contrast import contrast
from pmt.experiments.cumulative_products import ProductConfig
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.items import ITEMS, Given, find_items
from pmt.experiments.nulls import gaussian_maps, random_rotation
from pmt.experiments.shared_layer import contrasts
from pmt.experiments.sphere_runs import BipartiteConfig
from pmt.models import from_pretrained
from pmt.spectral import chance
from tests.experiments.systems import random_stack, stack_of
from tests.models.conftest import DATA

SMALL = {"prompts": 4, "tokens": 3}


def item(name):
    (found,) = find_items([name])
    return found


def small(name, **settings):
    return replace(item(name).quick, **settings)


def test_every_item_has_its_own_name_and_alias():
    names = [name for each in ITEMS for name in (each.name, each.alias)]
    assert len(set(names)) == len(names)
    assert item("figure-7") is item("alignment") is item("figure-2b")
    assert [each.name for each in find_items(["sphere", "figure-2a", "final-alignment"])] == [
        "figure-2a",
        "figure-13a",
    ]
    with pytest.raises(RequestError, match=r"no item 'figure-99'; there are table-1, figure-2a"):
        find_items(["figure-99"])


def test_table_1_has_the_thirteen_models_of_the_paper():
    each = item("table-1")
    rows = each.tables(each.run(each.config, Given()))["table-1"]
    assert len(rows) == 13 and sum(row["shared"] for row in rows) == 4
    assert all(row["d"] == row["h"] * row["head_width"] for row in rows)
    assert {row["attention"] for row in rows if row["architecture"] == "decoder"} == {"causal"}
    layers = {row["model"]: (row["d"], row["h"], row["layers"]) for row in rows}
    assert layers["ALBERT-xxlarge"] == (4096, 64, 12)
    assert layers["GPT2 xlarge"] == (1600, 25, 48)


def test_two_runs_on_the_sphere_reach_consensus_on_the_principal_eigenvector():
    each = item("figure-13a")
    runs = each.run(each.config, Given()).runs
    assert [run.name for run in runs] == ["single head", "5 heads"]
    for run in runs:
        assert run.path.shape == (201, 10, 3) and run.end == "consensus"
        np.testing.assert_allclose(np.linalg.norm(run.path, axis=2), 1, atol=1e-12)
        assert run.distance[-1] < 1e-3 < 1 < run.distance[0]
        np.testing.assert_allclose(run.alignment, run.path @ run.axes[:, 0], atol=1e-12)
    assert not np.array_equal(*(run.path for run in runs))


def test_a_stable_bipartite_point_takes_a_small_disturbance_and_not_a_large_one():
    each = item("figure-13b")
    config = BipartiteConfig(spacing=0.3, steps=400)
    result = each.run(config, Given())
    little, much = result.runs
    assert (little.verdict, little.end, little.positive) == ("stable", "bipartite", 5)
    assert (much.verdict, much.end) == ("stable", "consensus")
    # Theorem 3 by hand: at gamma = tanh(theta), the slowest multiplier of antisymmetric moves.
    gamma = np.tanh(config.logit)
    slowest = (1 + config.alpha * 0.5) / (1 + config.alpha * gamma)
    assert abs(little.spectral_radius - slowest) < 1e-9


def step(layer, x, maps=None):
    """Eq. (1) in NumPy, for all prompts; ``maps`` are the heads' value-output ones, (h, d, d)."""
    q, k, v, o = (np.asarray(a) for a in (layer.query, layer.key, layer.value, layer.output))
    logits = layer.scale * np.einsum("hkd,bid,hke,bje->bhij", q, x, k, x)
    a = np.exp(logits - logits.max(axis=-1, keepdims=True))
    a /= a.sum(axis=-1, keepdims=True)
    y = x + np.einsum("hde,bhij,bje->bid", o @ v if maps is None else maps, a, x)
    return y / np.linalg.norm(y, axis=-1, keepdims=True)


def null_maps(name, layer, *key):
    """(h, d, d), the value-output maps of a draw of a null model."""
    if name == "gaussian":
        return np.stack(list(gaussian_maps(layer, *key)))
    r = random_rotation(layer.query.shape[-1], *key)
    return r @ np.asarray(layer.output) @ np.asarray(layer.value) @ r.T


def start(d):
    x = np.random.default_rng(0).standard_normal((4, 3, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_repeated_layer_against_numpy():
    stack = random_stack(d=6)
    each = item("figure-6b")
    config = small("figure-6b", **SMALL, times=2, null_prompts=3)
    result = each.run(config, Given(layers=stack, layer=2))
    values, vectors = np.linalg.eig(np.asarray(stack.layer_matrix)[1])
    first = vectors[:, np.argmax(values.real)]
    x, rows = start(6), each.tables(result)["steps"]
    for t, row in enumerate(rows):
        x = step(stack.layer(1), x) if t else x
        np.testing.assert_allclose(result.principal[t], _rho(x, first), atol=1e-9)
        distances = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
        assert abs(row["intertoken_distance"] - distances.sum() / (4 * 3 * 2)) < 1e-9
        every = np.mean([_rho(x, vectors[:, k]) for k in range(6)])
        # Before the first step, and after each.
        assert abs(row["mean_rho_all_directions"] - every) < 1e-9
    assert len(rows) == 7 and result.steps == 6 and result.depth == 3
    table = each.tables(result)
    assert len(table["final-tokens"]) == 12 and len(table["eigenvalues"]) == 6
    for name in ("gaussian", "rotated"):
        _check_null(name, stack.layer(1), result, rows[-1])


def _check_null(name, layer, result, last):
    """Both draws of a null model of layer 2, six steps from the first three prompts."""
    rhos, ratios = [], []
    for draw in range(2):
        maps, x = null_maps(name, layer, 0, draw, 1), start(6)[:3]
        for _ in range(6):
            x = step(layer, x, maps)
        values, vectors = np.linalg.eig(maps.sum(axis=0))
        first = np.argmax(values.real)
        rhos.append(_rho(x, vectors[:, first]))
        ratios.append(rhos[-1] / chance(6, 2 if values[first].imag else 1))
    prompts = np.mean(ratios, axis=(0, 2))
    error = np.hypot(prompts.std(ddof=1) / 3**0.5, np.std(np.mean(ratios, (1, 2)), ddof=1) / 2**0.5)
    assert abs(last[f"{name}_rho"] - np.mean(rhos)) < 1e-9
    assert abs(last[f"{name}_ratio"] - np.mean(ratios)) < 1e-9
    assert abs(last[f"{name}_ratio_se"] - error) < 1e-9
    (found,) = (each for each in contrasts(result) if each.null == name)
    own, level = result.principal[-1], result.chances[2]
    assert max(own.mean(), np.mean(rhos)) > 0.5
    assert found.unit == "rho" and abs(found.margin - (own.mean() - np.mean(rhos))) < 1e-9
    expected = replace(result.under(name, 6), rho=0.1)
    low = contrast(name, 0.2, 0.01, level, expected)
    assert low.unit == "rho / chance" and abs(low.margin - (0.2 / level - np.mean(ratios))) < 1e-9
    # The trained layer as one more draw: of two, at one degree of freedom.
    spread = np.std(np.mean(ratios, (1, 2)), ddof=1)
    more = np.linalg.norm([0.01 / level, prompts.std(ddof=1) / 3**0.5, spread * 1.5**0.5])
    assert abs(low.error - more) < 1e-9 and low.draws == 2
    assert low.stands_out == np.sign(low.margin) * (abs(low.margin) > 12.7062 * low.error)


def test_the_plane_of_two_real_eigenvectors_and_its_lines():
    """Known by hand: a diagonal layer that no logits turn, and so F x_mean is added to each."""
    stack = stack_of(np.diag([0.9, 0.895, -0.2, 0.1]))
    result = item("figure-2a").run(small("figure-2a", **SMALL), Given(layers=stack, layer=1))
    x = start(4)
    y = x + x.mean(axis=1, keepdims=True) * [0.9, 0.895, -0.2, 0.1]
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    assert result.spectrum.case == 3 and result.steps == 1
    np.testing.assert_allclose(result.signed, y[..., 0], atol=1e-12)
    np.testing.assert_allclose(result.first, np.abs([x[..., 0], y[..., 0]]), atol=1e-12)
    np.testing.assert_allclose(result.second, np.abs([x[..., 1], y[..., 1]]), atol=1e-12)
    plane = np.linalg.norm([x[..., :2], y[..., :2]], axis=-1)
    np.testing.assert_allclose(result.plane, plane, atol=1e-12)
    np.testing.assert_allclose(result.average, np.abs([x, y]).mean(axis=(1, 2, 3)), atol=1e-12)


def test_faults_50_53_a_defective_layer_and_a_complex_pair():
    jordan = np.array([[0.5, 1.0, 0], [0, 0.5, 0], [0, 0, -0.1]])
    turning = np.array([[0.5, -0.4, 0], [0.4, 0.5, 0], [0, 0, -0.1]])
    stack = stack_of(jordan, turning)
    config = small("figure-6b", **SMALL)
    defective, rotating = (
        item("figure-6b").run(config, Given(layers=stack, layer=layer)) for layer in (1, 2)
    )
    assert defective.spectrum.case == 3 and defective.spectrum.collinearity > 1 - 1e-6
    assert np.all(defective.plane >= defective.first - 1e-12)
    assert rotating.spectrum.case == 2
    assert rotating.chances[2] == pytest.approx(0.785398, abs=1e-6)
    # Two of three eigenvalues stand for the plane, one for a line with chance 1/2.
    assert rotating.chances[3] == pytest.approx((2 * 0.785398 + 0.5) / 3, abs=1e-6)
    squares = rotating.first**2 + rotating.second**2
    np.testing.assert_allclose(squares, rotating.plane**2, atol=1e-12)
    assert item("figure-6b").sentences(rotating)[0].startswith("layer 2 applied 2 times: Case 2")


def test_the_products_against_numpy():
    stack = random_stack(d=6, layers=3)
    config = ProductConfig(**SMALL, draws=2)
    result = item("figure-8").run(config, Given(layers=stack))
    f = np.asarray(stack.layer_matrix)
    x = start(6)
    plain, skip = np.eye(6), np.eye(6)
    for index, layer in enumerate(result.layers):
        x = step(stack.layer(index), x)
        plain, skip = f[index] @ plain, (np.eye(6) + f[index]) @ skip
        for product, found in ((plain, layer.plain), (skip, layer.skip)):
            values, vectors = np.linalg.eig(product)
            first = np.argmax(values.real)
            rho = np.mean([_rho(x, vectors[:, k])[None] for k in range(6)], axis=1)
            assert found.dimension == 1 + (values[first].imag != 0)
            assert abs(found.rho - rho[first].mean()) < 1e-9
            assert abs(found.average - rho.mean()) < 1e-9
            levels = [chance(6, 2 if value.imag else 1) for value in values]
            assert abs(found.average_chance - np.mean(levels)) < 1e-12
            assert found.se > 0
        for product, found in ((plain, layer.plain_singular), (skip, layer.skip_singular)):
            u = np.linalg.svd(product)[0][:, 0]
            assert abs(found.rho - np.abs(x @ u).mean()) < 1e-9
            assert found.average is None
    for name in ("gaussian", "rotated"):
        streams = [_product_null(name, stack, draw) for draw in range(2)]
        last = result.layers[-1]
        for key, column in (("plain", 0), ("skip", 1), ("skip_singular", 2)):
            expected = np.mean([each[column] for each in streams])
            assert abs(getattr(last, key).null[name].rho - expected) < 1e-9, (name, key)
    sentences = item("figure-8").sentences(result)
    assert len(sentences) == 8 and all("one more draw of the null" in each for each in sentences)
    with pytest.raises(RequestError, match="product of the layers' F up to layer 2 is zero"):
        item("figure-8").run(config, Given(layers=stack_of(_NILPOTENT, _NILPOTENT)))


def _product_null(name, stack, draw):
    """rho with the directions of the products of a null model's own maps, after all layers."""
    x, plain, skip = start(6), np.eye(6), np.eye(6)
    for index in range(3):
        maps = null_maps(name, stack.layer(index), 0, draw, index)
        x, f = step(stack.layer(index), x, maps), maps.sum(axis=0)
        plain, skip = f @ plain, (np.eye(6) + f) @ skip
    found = []
    for product in (plain, skip):
        values, vectors = np.linalg.eig(product)
        found.append(_rho(x, vectors[:, np.argmax(values.real)]).mean())
    return [*found, np.abs(x @ np.linalg.svd(skip)[0][:, 0]).mean()]


@pytest.mark.parametrize(("order", "first"), [("real", 1), ("skip", 0), ("modulus", 0)])
def test_the_order_of_a_product_counts_its_true_size(order, first):
    """What leads by |1 + lam| and by modulus is not what leads by real part."""
    config = ProductConfig(**SMALL, order=order, draws=1)
    stack = stack_of(np.diag([-2.4, 0.3, 0.1]), np.diag([0.1, 0.1, 3.0]))
    one, two = item("figure-8").run(config, Given(layers=stack)).layers
    x = start(3)
    x = step(stack.layer(0), x)
    # |1 - 2.4| = 1.4 > 1.3, and -2.4 by modulus, but 0.3 by real part; of I + F likewise.
    for found in (one.plain, one.skip):
        assert abs(found.rho - np.abs(x[..., first]).mean()) < 1e-12
    x = step(stack.layer(1), x)
    # The products are diag(-0.24, 0.03, 0.3) and diag(-1.54, 1.43, 4.4).
    for found in (two.plain, two.skip):
        assert abs(found.rho - np.abs(x[..., 2]).mean()) < 1e-12


def test_the_rotated_null_of_shared_weights_keeps_how_layers_lie_to_each_other():
    """One R for all layers: the product is R F F Rᵀ, and its singular vector that of F F turned."""
    stack = stack_of(np.random.default_rng(3).standard_normal((3, 3)))

    class Shared:
        depth = 2
        layer = staticmethod(lambda index: stack.layer(0))
        block = staticmethod(lambda index: 0)

    each, config = item("figure-8"), ProductConfig(**SMALL, draws=1)
    result = each.run(config, Given(layers=Shared()))
    f, r, x = np.asarray(stack.layer_matrix)[0], random_rotation(3, 0, 0, 0), start(3)
    for _ in range(2):
        x = step(stack.layer(0), x, (r @ f @ r.T)[None])
    expected = np.abs(x @ r @ np.linalg.svd(f @ f)[0][:, 0]).mean()
    null = result.layers[1].plain_singular.null["rotated"]
    assert abs(null.rho - expected) < 1e-9
    assert result.shared and "is R P Rᵀ" in each.sentences(result)[-1]


_NILPOTENT = np.array([[0.0, 1.0], [0.0, 0.0]])


def _rho(x, v):
    basis = np.linalg.qr(np.stack([v.real, v.imag], axis=1))[0] if np.any(v.imag) else v[:, None]
    return np.linalg.norm(x @ basis.real, axis=-1)


def test_layers_of_the_alignment_are_kept_as_they_come():
    stack, kept = random_stack(d=6), {}
    each = item("figure-2b")
    config = small("figure-2b", **SMALL)
    result = each.run(config, Given(layers=stack, seed=3, keep=kept.__setitem__))
    expected = analyze(stack, AnalysisConfig(**SMALL, seed=3, draws=config.draws))
    assert each.record(result) == each.record(expected)
    assert [kept[index] for index in (1, 2, 3)] == each.record(result)["layers"]
    rows = each.tables(result)["layers"]
    assert rows[1]["delta_rho"] == expected.layers[1].alignment.delta_rho
    assert rows[1]["rotated_delta_rho"] == expected.layers[1].null["rotated"].delta_rho
    said = each.sentences(result)
    own, null = (layer for layer in (result.layers[0].alignment, result.layers[0].null["rotated"]))
    margins = [a.alignment.delta_rho - a.null["rotated"].delta_rho for a in result.layers]
    assert len(said) == 5 and f"{np.mean(margins):+.4f} on average over layers" in said[3]
    assert own.delta_rho_se and null.se
    assert (
        "above what one more draw of the null would show (95 % in each layer, 2 draws)" in said[3]
    )
    verdicts = [layer["null"]["rotated"]["stands_out"] for layer in each.record(result)["layers"]]
    assert f"in {verdicts.count(1)} of 3 layers, below it in {verdicts.count(-1)}" in said[3]
    after = [layer["null"]["rotated"]["after"] for layer in each.record(result)["layers"]]
    verdicts = [one["contrast"]["stands_out"] for one in after]
    assert f"{verdicts.count(1)} of 3 layers, below it in {verdicts.count(-1)}" in said[4]
    for row, one, layer in zip(rows, after, result.layers, strict=True):
        assert row["rotated_after_rho"] == one["rho"] > 0
        # Of the same dimension as the layer's own direction, and so with its level of chance.
        assert one["ratio"] == pytest.approx(one["rho"] / layer.chance, rel=1e-14)


@pytest.mark.parametrize(("zeros", "said"), [(3, True), (1, False), (0, False)])
def test_a_kernel_whose_basis_nobody_knows_is_named(zeros, said):
    values = np.concatenate([np.linspace(1, 0.2, 6 - zeros), np.zeros(zeros)])
    frame = np.random.default_rng(2).normal(size=(6, 6))
    stack = stack_of(frame @ np.diag(values) @ np.linalg.inv(frame))
    each = item("figure-2b")
    sentences = each.sentences(each.run(small("figure-2b", **SMALL), Given(layers=stack)))
    named = [one for one in sentences if one.startswith(f"in layer 1 {zeros} of 6 eigenvalues")]
    assert len(named) == said and said == any("kernel" in one for one in sentences)


def test_the_three_orders_side_by_side():
    """F = diag(0.3, -2.5): by real part 0.3 leads, by |1 + lam| = 1.5 and by modulus the other."""
    each = item("orders")
    given = Given(layers=stack_of(np.diag([0.3, -2.5, 0.1])))
    result = each.run(small("orders", **SMALL), given)
    (row,) = each.tables(result)["orders"]
    assert [row[f"{order}_re"] for order in ("real", "skip", "modulus")] == [0.3, -2.5, -2.5]
    x = start(3)
    y = x + x.mean(axis=1, keepdims=True) * [0.3, -2.5, 0.1]
    change = np.abs(y / np.linalg.norm(y, axis=-1, keepdims=True)) - np.abs(x)
    assert abs(row["real_delta_rho"] - change[..., 0].mean()) < 1e-12
    assert abs(row["skip_delta_rho"] - change[..., 1].mean()) < 1e-12
    assert abs(row["mean_delta_rho"] - change.mean()) < 1e-12
    assert "|1 + αλ| in 0 and by modulus in 0 of 1 layers" in each.sentences(result)[0]
    # Every order has the null models that an analysis in that order has.
    for order, found in result.analyses.items():
        config = AnalysisConfig(**SMALL, order=order, draws=2)
        (alone,) = analyze(given.layers, config).layers
        assert found.layers[0].null == alone.null and set(alone.null) == {"gaussian", "rotated"}
        assert row[f"{order}_gaussian_after_rho"] == alone.null["gaussian"].after.rho
    assert row["real_rotated_delta_rho"] != row["modulus_rotated_delta_rho"]


def test_the_last_layer_steered_reaches_what_is_asked_for():
    model = from_pretrained(DATA / "bert-tanh")
    each = item("figure-9")
    given = Given(layers=model.layer_stack(), model=describe(model), open_model=lambda: model)
    result = each.run(small("figure-9", **SMALL), given)
    found = result.steering
    assert abs(found.after - 0.99) < 0.005 and found.before < 0.5
    rows = each.tables(result)["layers"]
    assert [row["edit"] for row in rows] == ["unedited"] * 3 + ["steered"] * 3
    assert abs(rows[-1]["target_rho_after"] - found.after) < 1e-6
    assert each.record(result)["settings"]["asked"] == {"alignment": 0.99}


def test_leading_eigenvalues_of_shared_weights_are_solved_once():
    stack = random_stack(d=6, layers=3)

    class Shared:
        depth = 4
        layer = staticmethod(lambda index: stack.layer(index // 2))
        block = staticmethod(lambda index: index // 2)

    done, solver = [], Solver()
    each = item("figure-6-eigenvalues")
    given = Given(layers=Shared(), solver=solver, progress=done.append)
    result = each.run(each.config, given)
    assert solver.solved == 2 and sum(done) == each.pieces(each.config, given) == 4
    assert result.shared and result.layers[0] is result.layers[1]
    for layer, own in enumerate(result.layers):
        values = np.linalg.eigvals(np.asarray(stack.layer_matrix)[layer // 2])
        np.testing.assert_allclose(np.sort(own.values.real), np.sort(values.real), atol=1e-12)
    assert len(each.tables(result)["eigenvalues"]) == 24


def test_fault_46_weights_that_are_not_finite():
    good = random_stack(d=4, layers=1).layer(0)
    bad = replace(good, value=good.value.at[0, 0, 0].set(jnp.nan))
    assert isinstance(bad, MultiHead)
    stack = LayerStack.from_layers([good, bad])
    for name in ("figure-2a", "figure-6-eigenvalues"):
        with pytest.raises(RequestError, match="layer matrix F of layer 2"):
            item(name).run(item(name).quick, Given(layers=stack, layer=2))

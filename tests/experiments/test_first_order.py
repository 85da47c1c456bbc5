"""The first-order law of the increments, where it applies and where it does not."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import LayerStack, MultiHead
from pmt.experiments import AnalysisConfig, analyze
from pmt.experiments.items import Given, find_items
from pmt.experiments.layer_alignment import AlignmentConfig, record, run, sentences, tables
from pmt.parallel.store import UnitStore
from pmt.parallel.workers import Workers
from tests.experiments.systems import random_stack, stack_of

SMALL = AlignmentConfig(prompts=4, tokens=3, draws=2)


def layer(outputs, mask="full", logits=0.0):
    """Heads with the given value-output maps, whose logits are ``logits`` times x_i . x_j."""
    h, d = outputs.shape[:2]
    eye = np.broadcast_to(np.eye(d), (h, d, d))
    return MultiHead(
        query=jnp.asarray(logits * eye),
        key=jnp.asarray(eye),
        value=jnp.asarray(outputs),
        output=jnp.asarray(eye),
        scale=1.0,
        mask=mask,
    )


def sampled(heads, weights, basis, alpha, prompts=200_000):
    """The mean increment of rho over uniform tokens, and its standard error, by NumPy."""
    n, d = weights.shape[-1], heads.shape[-1]
    x = np.random.default_rng(5).normal(size=(prompts, n, d))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    y = x + alpha * np.einsum("hde,hij,bje->bid", heads, weights, x, optimize=True)
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    delta = np.linalg.norm(y @ basis, axis=-1) - np.linalg.norm(x @ basis, axis=-1)
    means = delta.mean(axis=1)
    return means.mean(), means.std() / np.sqrt(prompts)


@pytest.mark.parametrize("dimension", [1, 2])
def test_uniform_attention_and_a_gaussian_matrix_follow_the_law(dimension):
    """Monte Carlo at a small alpha, under a causal mask: a_ii is 1, 1/2 and 1/3."""
    alpha = 1e-3
    for seed in range(50):
        heads = np.random.default_rng(seed).normal(size=(2, 5, 5))
        stack = LayerStack.from_layers([layer(heads, "causal")])
        result = run(replace(SMALL, alpha=alpha), Given(layers=stack))
        if result.layers[0].principal.dimension == dimension:
            break
    law = result.first_order.delta_rho
    weights = np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None]
    basis = result.layers[0].principal.basis
    found, error = sampled(heads, np.stack([weights] * 2), basis, alpha)
    assert abs(found - law) < 4 * error + alpha**2 * np.sum(heads**2)
    assert abs(law) > 20 * error
    shown = record(result)["first_order_law"]
    assert shown["applies"] and shown["delta_rho"] == law and shown["reason"] is None
    assert shown["measured_delta_rho"] == result.layers[0].alignment.delta_rho
    assert f"gives layer 1 the increment {law:+.3g} at alpha = 0.001" in sentences(result)[0]
    assert tables(result)["layers"][0]["first_order_delta_rho"] == law


def test_heads_with_masks_of_their_own_add_up():
    """One head looks at itself only, a_ii = 1, the other at all, a_ii = 1/3; by hand for diag."""
    heads = np.stack([np.diag([1.0, 0.2, 0.0]), np.diag([0.9, 0.0, -0.6])])
    mask = np.stack([np.eye(3, dtype=bool), np.ones((3, 3), bool)])
    stack = LayerStack.from_layers([layer(heads, jnp.asarray(mask))])
    law = run(SMALL, Given(layers=stack)).first_order.delta_rho
    # E|c| = 1/2 in three dimensions, (d - 1)/(d + 1) = 1/2; v = e_1.
    own, trace = 1.0 + 0.9 / 3, 1.2 + 0.3 / 3
    assert law == pytest.approx(0.25 * (own - (trace - own) / 2))


def test_attention_that_depends_on_the_tokens_has_no_law():
    """The negative twin."""
    f = np.diag([1.0, -0.5, -0.25])
    for logits in (1e-6, 3.0):
        stack = LayerStack.from_layers([layer(f[None], logits=logits)] * 2)
        result = run(SMALL, Given(layers=stack))
        law = result.first_order
        assert law.delta_rho is None and 0 < law.spread <= 1
        said = sentences(result)[0]
        assert "the first-order law does not apply: the attention of layer 1 depends on" in said
        assert f"its weights differ by up to {law.spread:.2g} between tokens" in said
        assert "the tokens that enter later layers are not uniform on the sphere" in said
        shown = record(result)["first_order_law"]
        assert not shown["applies"] and shown["reason"] == law.reason
        assert shown["delta_rho"] is None and shown["attention_spread"] == law.spread
        first, second = tables(result)["layers"]
        assert first["first_order_delta_rho"] == second["first_order_delta_rho"] == ""
        assert first["first_order_reason"] == law.reason
        assert second["first_order_reason"].startswith("the tokens that enter later layers")


def test_one_prompt_shows_the_dependence_too():
    """The range over a single prompt would be zero."""
    config = replace(SMALL, prompts=1)
    assert run(config, Given(layers=random_stack(layers=1))).first_order.reason is not None


def test_given_tokens_have_no_law_and_one_token_always_has():
    x = np.random.default_rng(0).normal(size=(4, 3, 3))
    stack = LayerStack.from_layers([layer(np.diag([1.0, -0.5, -0.25])[None], logits=3.0)])
    given = run(SMALL, Given(layers=stack, tokens=x)).first_order
    assert given.delta_rho is None and "the tokens were given" in given.reason
    alone = run(replace(SMALL, tokens=1), Given(layers=stack)).first_order
    assert alone.delta_rho == pytest.approx(0.25 * (1 + 0.75 / 2))


def test_in_as_many_dimensions_as_the_direction_nothing_increases():
    turning = np.array([[0.5, -0.4], [0.4, 0.5]])
    for matrix in (turning, [[0.5]]):
        law = run(SMALL, Given(layers=stack_of(matrix))).first_order
        assert law.delta_rho == 0 and law.reason is None


def test_the_first_layer_is_read_once_and_the_law_is_kept_with_what_is_finished(tmp_path):
    """By a run that stops after it, and in the same bits by the one that goes on."""
    stack = random_stack(layers=2)

    class Read:
        depth, read = 2, []

        def layer(self, index):
            self.read.append(index)
            return stack.layer(index)

    def found(store=None):
        return analyze(Read(), config, workers=Workers(store=store))

    config = AnalysisConfig(prompts=4, tokens=3, nulls=())
    expected = found()
    assert Read.read == [0, 1]
    store = UnitStore(tmp_path / "units", {})
    assert found(store).first_order == found(store).first_order == expected.first_order
    # The second has the layers from the store.
    assert Read.read == [0, 1] * 2


def test_an_analysis_made_elsewhere_may_have_no_law():
    found = analyze(stack_of(np.diag([0.5, 0.1])), AnalysisConfig(prompts=4, tokens=3))
    found = replace(found, first_order=None)
    assert "law" not in " ".join(sentences(found)) and "first_order_law" not in record(found)
    assert "first_order_reason" not in tables(found)["layers"][0]


def test_zero_layers_equal_their_mean():
    """Increments that are rounding noise exceed nothing."""
    (item,) = find_items(["figure-2b"])
    zero = stack_of(np.zeros((5, 5)), np.zeros((5, 5)))
    said, *_, still, kernel = item.sentences(item.run(SMALL, Given(layers=zero)))
    assert "in layers 1, 2 tokens keep their alignment" in still and "decides P" in still
    assert kernel.startswith("in 2 of 2 layers 5 of 5 eigenvalues of F are zero to rounding")
    assert "in 0 of 2 layers and equals it to rounding in 2" in said
    assert "gives layer 1 the increment +0 at alpha = 1, against" in said
    assert "it does not apply to layer 2: " in said

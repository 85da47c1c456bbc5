"""The maps: against loops, equivariances, pytree behaviour, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere
from pmt.attention import Boolean, LocalWindow
from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead, head_attention, head_maps
from pmt.dynamics.systems import check_system
from pmt.errors import RequestError
from tests.dynamics.conftest import D, N, make
from tests.tolerance import assert_close


def tokens(seed=0, n=N, d=D):
    return sphere.uniform(jax.random.key(100 + seed), (n, d))


@pytest.mark.float32
def test_map_equals_the_loops(case):
    x = tokens()
    # Cancellation in y = x + update magnifies the error by (|x| + |update|) / |y|.
    update = case.system.alpha * case.system.update(x)
    worst = jnp.max((1 + sphere.norm(update)) / sphere.norm(x + update))
    assert_close(case.system(x), case.loops(x), size=N * D, conditioning=float(worst))


@pytest.mark.float32
def test_jit_equals_eager_and_traces_once(case):
    count = []

    @jax.jit
    def run(system, x):
        count.append(1)
        return system(x)

    for seed in (0, 1):
        assert_close(run(case.system, tokens(seed)), case.system(tokens(seed)), size=4 * N * D)
    assert len(count) == 1


def test_image_is_on_the_sphere(case):
    assert_close(sphere.norm(case.system(tokens())), jnp.ones(N), size=D)


def test_attention_is_row_stochastic_and_respects_the_mask(case):
    weights = head_attention(case.system, tokens())
    assert_close(weights.sum(-1), jnp.ones(weights.shape[:-1]), size=N)
    allowed = case.system.mask.allowed(N)
    if allowed is not None:
        assert not np.asarray(weights)[:, ~np.asarray(allowed)].any()


def test_permuting_tokens_commutes_with_full_attention(full_case):
    x, order = tokens(), np.array([3, 0, 5, 1, 4, 2])
    assert_close(full_case.system(x[order]), full_case.system(x)[order], size=8 * N * D)


def test_permuting_tokens_does_not_commute_with_causal_attention():
    system, x, order = make("single", "causal").system, tokens(), np.array([3, 0, 5, 1, 4, 2])
    assert np.abs(system(x[order]) - system(x)[order]).max() > 0.01


@pytest.mark.parametrize("unbiased", ["oja", "single", "multi"])
def test_the_map_is_odd_without_biases(unbiased):
    """Remark 7: f(−X) = −f(X); a bias destroys it."""
    x = tokens()
    system = make(unbiased, "full").system
    np.testing.assert_array_equal(system(-x), -system(x))
    biased = make("biased", "full").system
    assert np.abs(biased(-x) + biased(x)).max() > 0.01


def test_rotating_tokens_and_weights_together_changes_nothing():
    case, x = make("single", "full"), tokens()
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    turned = dataclasses.replace(
        case.system,
        value=q @ case.system.value @ q.T,
        query_key=q @ case.system.query_key @ q.T,
    )
    assert_close(turned(x @ q.T), case.system(x) @ q.T, size=8 * N * D)


def test_equal_tokens_see_the_layer_matrix(full_case):
    """With all tokens equal the update is F x, whatever the attention (Supplementary A)."""
    if getattr(full_case.system, "has_biases", False):
        return
    x = jnp.broadcast_to(tokens(n=1), (N, D))
    assert_close(full_case.system.update(x), x @ full_case.system.layer_matrix.T, size=8 * N * D)


def test_head_maps_reproduce_any_map_as_full_heads(case):
    """from_maps(F_h, B_h) is the same map as the factored heads."""
    if getattr(case.system, "has_biases", False):
        return
    value, query_key = head_maps(case.system)
    same = MultiHead.from_maps(value, query_key, alpha=0.7, mask=case.system.mask)
    assert_close(same(tokens()), case.system(tokens()), size=8 * N * D)
    assert_close(same.layer_matrix, case.system.layer_matrix, size=8 * N * D)


def test_vmap_over_systems_equals_the_loop(kind):
    systems = [make(kind, "full", seed).system for seed in range(3)]
    family = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(a) for a in leaves]), *systems)
    batched = jax.vmap(lambda s: s(tokens()))(family)
    for got, system in zip(batched, systems, strict=True):
        assert_close(got, system(tokens()), size=8 * N * D)


def test_heads_may_have_masks_of_their_own():
    masks = np.stack([np.tril(np.ones((N, N), bool)), np.ones((N, N), bool), np.eye(N, dtype=bool)])
    system = dataclasses.replace(make("multi", "full").system, mask=Boolean(jnp.asarray(masks)))
    weights = np.asarray(system.attention(tokens()))
    assert not weights[0][~masks[0]].any()
    assert_close(weights[2], np.eye(N))


def test_numpy_weights_are_accepted():
    system = SingleHead(np.eye(3), np.eye(3), alpha=np.float64(0.5))
    assert isinstance(system.value, jax.Array)
    assert system.alpha == 0.5


def stack_of(masks):
    return LayerStack.from_layers(
        [dataclasses.replace(make("multi", "full", s).system, mask=m) for s, m in enumerate(masks)]
    )


def test_stack_applies_its_layers_in_order():
    masks = ["causal", LocalWindow(2), "causal"]
    stack, x = stack_of(masks), tokens()
    expected = x
    for seed, mask in enumerate(masks):
        layer = dataclasses.replace(make("multi", "full", seed).system, mask=mask)
        assert_close(stack.layer(seed)(expected), layer(expected), size=8 * N * D)
        expected = layer(expected)
    assert stack.depth == 3
    assert_close(stack(x), expected, size=32 * N * D)
    assert_close(stack.layer_matrix[2], stack.layer(-1).layer_matrix)


def test_stack_refuses_what_cannot_be_stacked():
    with pytest.raises(RequestError, match="at least one layer"):
        LayerStack.from_layers([])
    with pytest.raises(RequestError, match="cannot be stacked"):
        stack_of(["causal", "full"])
    with pytest.raises(RequestError, match="differ in shape or in which biases"):
        LayerStack.from_layers([make("multi", "full").system, make("biased", "full").system])
    with pytest.raises(RequestError, match=r"layer index 3 is outside 0\.\.2"):
        stack_of(["full"] * 3).layer(3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Oja(jnp.ones((2, 3))), "value has shape (2, 3); it must be square"),
        (lambda: SingleHead(jnp.eye(2), jnp.eye(3)), "value is for d = 2 but query_key is for"),
        (
            lambda: MultiHead(*[jnp.ones((2, 2, 4))] * 3, jnp.ones((2, 2, 4))),
            "do not fit together",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(build, message):
    from jaxtyping import TypeCheckError

    # Under the test suite's annotation hook the annotation may speak first.
    with pytest.raises((RequestError, TypeCheckError)) as caught:
        build()
    if isinstance(caught.value, RequestError):
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (lambda: Oja(jnp.array([[1.0, jnp.nan], [0, 1]])), "value holds nan at index (0, 1)"),
        (lambda: Oja(jnp.eye(2), alpha=float("nan")), "alpha holds nan"),
        (lambda: Oja(jnp.eye(2), alpha=float("inf")), "alpha holds inf"),
        (lambda: SingleHead(jnp.eye(2), jnp.eye(2, dtype=jnp.float16)), "value is float64 but"),
        (lambda: jnp.eye(2), "expected Oja, SingleHead, MultiHead or LayerStack"),
    ],
)
def test_unusable_numbers_are_refused(system, message):
    """Faults 46, 64 and mixed precision."""
    with pytest.raises(RequestError) as caught:
        check_system(system())
    assert message in str(caught.value)

"""Fault 58: no matrix product of ours is left to an accelerator's own, reduced precision."""

import ast
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from pmt import MultiHead, Oja, SingleHead, attention
from pmt.dynamics import LayerStack, batched, chunked, tangent_jacobian
from pmt.dynamics.simulate import _simulate
from pmt.equilibria.classify import measure_defects
from pmt.equilibria.search import _newton
from pmt.experiments import null_draws, nulls, states, stripped
from pmt.looped import training
from pmt.models import from_pretrained
from pmt.models.partial import run_layers
from pmt.spectral import alignment, as_directions
from pmt.stability import closed_form, ending, family, jacobian, matrix_free

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "parity" / "data"
H, N, D = 2, 3, 4


def products(jaxpr):
    """Every equation that multiplies matrices or convolves, in loops and inner functions too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated", "ragged_dot_general"):
            yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


def precisions(function, *arguments):
    found = [each.params["precision"] for each in products(traced(function, *arguments))]
    return [each if isinstance(each, tuple) else (each, each) for each in found]


def traced(function, *arguments):
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    assert isinstance(jaxpr, core.Jaxpr)
    return jaxpr


def array(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype) / 2


def heads(**more):
    return MultiHead(array(H, 2, D), array(H, 2, D), array(H, 2, D), array(H, D, 2), **more)


SYSTEMS = {
    "oja, causal": Oja(array(D, D), mask="causal"),
    "single-head": SingleHead(array(D, D), array(D, D)),
    "multi-head, window": heads(mask=attention.LocalWindow(2)),
    "multi-head, biases": heads(
        **{f"{name}_bias": array(H, 2) for name in ("query", "key", "value")},
        output_bias=array(D),
    ),
}
X, MANY = array(N, D), array(5, N, D)
V, SIGNS, AXES, BOUND = array(D), jnp.asarray([1.0, 1, -1], jnp.float32), array(D, D), array()


def stability(system):
    yield measure_defects, system, X
    yield ending.measure, system, MANY, AXES, BOUND
    yield partial(_newton, max_iterations=2), system, X, BOUND
    yield matrix_free._motion, system, X
    yield matrix_free._product, system, X, X
    yield matrix_free._transposed, system, X, X
    yield tangent_jacobian, system, X
    yield jacobian.intrinsic, system, X
    yield jacobian.extrinsic, system, X


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_maps_their_derivatives_and_how_they_are_run(name):
    system = SYSTEMS[name]
    stack = LayerStack.from_layers([system, system]) if isinstance(system, MultiHead) else None
    calls = [
        (system, X),
        (jax.grad(lambda s, x: jnp.sum(s(x)), allow_int=True, argnums=1), system, X),
        (partial(_simulate, steps=2, keep="path", observables=()), system, MANY),
        *stability(system),
    ]
    if stack is not None:
        calls.append((partial(_simulate, steps=2, keep="last", observables=()), stack, MANY))
    for call in calls:
        found = precisions(*call)
        assert found and set(found) == {(jax.lax.Precision.HIGHEST,) * 2}, call[0]


def test_the_walk_finds_a_product_that_is_not_pinned():
    """In a loop within a compiled function, and none where there is none."""

    def step(_, x):
        return x @ x

    loose = precisions(jax.jit(lambda x: jax.lax.fori_loop(0, 3, step, x)), AXES)
    assert loose == [(None, None)]
    assert precisions(lambda x: x + 1, AXES) == []


def test_what_the_analysis_compiles():
    layer = heads(rotary=None)
    weights, states_ = array(5, H, N, N), MANY
    line = as_directions(np.ones((D, 1)) / 2, jnp.float32)
    calls = [
        (nulls.attention_weights, layer, states_, None),
        (nulls.attention_weights, layer, states_, jnp.ones((5, N), bool)),
        (nulls._add_head, states_, weights[:, 0], states_, AXES),
        (nulls._rotated, layer.output, layer.value, AXES, weights, states_),
        (nulls.turned_update, layer.output, layer.value, weights, states_),
        (stripped._padded_step, layer, states_, jnp.ones((5, N), bool)),
        (null_draws.turn, states_, AXES),
        (states._rho, states_, line),
        (alignment._average, states_, states_, line),
    ]
    for call in calls:
        found = precisions(*call)
        assert found and set(found) == {(jax.lax.Precision.HIGHEST,) * 2}, call[0]


@pytest.mark.parametrize("name", ["oja, causal", "single-head", "multi-head, biases"])
def test_the_kernels_for_many_starts(name):
    system = SYSTEMS[name]
    many = array(8, 5, D)
    for formulation in (batched.MATRIX, batched.ELEMENTWISE):
        run = partial(chunked._last.__wrapped__, formulation=formulation)
        found = precisions(run, system, many, jnp.int32(2))
        assert set(found) <= {(jax.lax.Precision.HIGHEST,) * 2}
        assert found or formulation.elementwise
        run = partial(chunked._equilibrium.__wrapped__, formulation=formulation)
        found = precisions(run, system, many, BOUND, jnp.int32(2))
        assert set(found) <= {(jax.lax.Precision.HIGHEST,) * 2}


@pytest.mark.parametrize("name", ["bert-tanh", "gpt2-inverse", "llama-llama3"])
def test_the_real_models_and_their_layers(name):
    graph, weights = nnx.split(from_pretrained(DATA / name))

    def layers(held, x):
        return run_layers(nnx.merge(graph, held), x, np.ones((2, 3), bool), 0, 2)

    def whole(held, tokens):
        return nnx.merge(graph, held)(tokens)

    d = nnx.merge(graph, weights).dimensions.d
    for call in ((layers, weights, array(2, 3, d)), (whole, weights, jnp.zeros((1, 3), jnp.int32))):
        found = precisions(*call)
        assert len(found) >= 8 and set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_the_looped_transformer_and_its_gradient():
    config = training.TrainConfig(d=3, n=4, loops=2, batch=4, train=8, test=4)
    sets = jax.eval_shape(lambda: training._sets(config))
    state = jax.eval_shape(lambda keys: training._initial(config, keys), training._keys(config))
    found = precisions(partial(training._epoch, config), state, sets, jnp.int32(0), array())
    assert len(found) >= 4 and set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_the_closed_forms_of_many_systems():
    system = Oja(array(D, D))
    many = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf, jnp.float32)] * 2), system)
    run = partial(family._spectra, equal=False, symmetric=True, keep=True, chunk=2)
    calls = [
        (run, many, array(2, D), SIGNS),
        (closed_form._parts, SYSTEMS["single-head"], V, SIGNS),
    ]
    for call in calls:
        found = precisions(*call)
        assert found and set(found) == {(jax.lax.Precision.HIGHEST,) * 2}, call[0]


PRODUCTS = {"einsum", "dot", "matmul", "tensordot", "vdot", "inner", "dot_general", "ragged_dot"}


def test_every_product_in_the_source_names_its_precision():
    """What no trace above reaches: calls on jnp, lax and nnx that leave the precision open."""
    seen = 0
    for path in (ROOT / "pmt").rglob("*.py"):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)) if "jax" in source else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, name = ast.unparse(node.func.value), node.func.attr
            product = owner in ("jnp", "lax", "jax.lax", "jax.numpy") and name in PRODUCTS
            layer = owner in ("nnx", "flax.nnx") and name in ("Linear", "LinearGeneral", "Einsum")
            if product or layer:
                seen += 1
                given = {keyword.arg for keyword in node.keywords}
                assert "precision" in given, f"{path.name}:{node.lineno}: {owner}.{name}"
    assert seen >= 5

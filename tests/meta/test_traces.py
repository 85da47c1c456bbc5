"""Nothing is traced or compiled again for shapes that were there before: JAX's own events, counted.

Each case makes a function of a seed; its answers for two seeds have the same shapes but other
numbers, so the second call must find everything compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pmt
from pmt import attention, sphere
from pmt.dynamics import LayerStack, MultiHead, SingleHead
from pmt.equilibria import classify, newton
from pmt.experiments import AnalysisConfig, analyze
from pmt.stability.basin import basin_fractions
from pmt.stability.matrix_free import leading_multipliers
from pmt.stability.spectrum import bipartite_spectrum, consensus_spectrum
from tests.traces import counted


def system(seed: int, mask: object = None) -> SingleHead:
    """Symmetric V with eigenvalues 1, 0.4, −0.2, in a frame that depends on the seed."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    value = (frame * np.array([1.0, 0.4, -0.2])) @ frame.T
    value = (value + value.T) / 2
    query_key = 0.2 * rng.normal(size=(3, 3))
    chosen = attention.Full() if mask is None else mask
    return SingleHead(jnp.asarray(value), jnp.asarray(query_key), alpha=0.3, mask=chosen)


def starts(seed: int, *shape: int) -> jax.Array:
    return sphere.uniform(jax.random.key(seed), shape, jnp.float64)


def stack(seed: int) -> LayerStack:
    rng = np.random.default_rng(seed)
    maps = [jnp.asarray(rng.normal(size=(2, 2, 2, 4)) / 2) for _ in range(3)]
    out = jnp.asarray(rng.normal(size=(2, 2, 4, 2)) / 2)
    return LayerStack(MultiHead(*maps, out, alpha=jnp.full(2, 0.5), scale=jnp.full(2, 0.7)))


def simulate(seed):
    return pmt.simulate(system(seed), starts(seed, 4, 3), 3, keep="last")


def simulate_path(seed):
    return pmt.simulate(system(seed), starts(seed, 4, 3), 3)


def simulate_some(seed):
    return pmt.simulate(system(seed), starts(seed, 5, 4, 3), 3)


def simulate_many(seed):
    """Another number of steps is nothing new."""
    return pmt.simulate(system(seed), starts(seed, 40, 4, 3), 3 + seed, keep="last", observables={})


def simulate_layers(seed):
    return pmt.simulate(stack(seed), starts(seed, 3, 4))


def run_to_equilibrium(seed):
    return pmt.run_to_equilibrium(system(seed), starts(seed, 4, 3), max_steps=20 + seed)


def run_many_to_equilibrium(seed):
    return pmt.run_to_equilibrium(system(seed), starts(seed, 40, 4, 3), max_steps=20 + seed)


def point(seed, mask=None):
    given = system(seed, mask)
    return given, pmt.equilibria.bipartite(given, index=0, split=(2, 2))


def analyze_closed_form(seed):
    return pmt.stability.analyze(*point(seed))


def analyze_masked(seed):
    seen = np.tri(4, dtype=bool)
    seen[0, 3] = True
    return pmt.stability.analyze(*point(seed, attention.Boolean(jnp.asarray(seen))))


def analyze_state(seed):
    given, at = point(seed)
    return pmt.stability.analyze(given, np.asarray(at.x))


def analyze_dense(seed):
    given = system(seed)
    rough = pmt.run_to_equilibrium(given, starts(seed, 1, 3), max_steps=200).x
    return classify(given, newton(given, rough).x)


def spectrum_consensus(seed):
    given, at = point(seed)
    return consensus_spectrum(given, at.eigenvector, 4)


def spectrum_bipartite(seed):
    given, at = point(seed)
    return bipartite_spectrum(given, at.eigenvector, at.signs)


def multipliers_without_jacobian(seed):
    given, at = point(seed)
    return leading_multipliers(given, at.x, 1)


def basins(seed):
    return basin_fractions(system(seed), 4, samples=48, max_steps=128, seed=seed, verdicts=False)


def analysis(seed):
    config = AnalysisConfig(prompts=2, tokens=3, draws=1, seed=seed)
    return analyze(stack(seed), config)


CASES = (
    simulate,
    simulate_path,
    simulate_some,
    simulate_many,
    simulate_layers,
    run_to_equilibrium,
    run_many_to_equilibrium,
    analyze_closed_form,
    analyze_masked,
    analyze_state,
    analyze_dense,
    spectrum_consensus,
    spectrum_bipartite,
    multipliers_without_jacobian,
    basins,
    analysis,
)


@pytest.mark.parametrize("call", CASES, ids=lambda call: call.__name__)
def test_nothing_is_traced_again_for_the_same_shapes(call):
    jax.block_until_ready(call(0))
    with counted() as found:
        jax.block_until_ready(call(1))
    assert found == []


def test_a_function_that_is_made_anew_is_found_out():
    with counted() as found:
        for _ in range(2):
            jax.jit(lambda x: x + 1)(1.0)
    assert (
        found
        == [
            "jaxpr_trace_duration of <lambda>",
            "backend_compile_duration of jit(<lambda>)",
        ]
        * 2
    )

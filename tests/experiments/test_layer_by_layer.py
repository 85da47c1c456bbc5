"""Layer by layer: the numbers of the whole stack, one layer's tensors at a time, little kept."""

import dataclasses
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import (
    AnalysisConfig,
    RepeatConfig,
    analysis_json,
    analyze,
    count_of_steps,
    describe,
    layer_by_layer,
    repeat_layer,
)
from pmt.experiments.ahead import Ahead
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.nulls import apply_gaussian, gaussian_maps
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.models import from_pretrained, open_layers
from pmt.spectral import principal
from tests.experiments.systems import random_stack

DATA = Path(__file__).parents[1] / "parity" / "data"
SMALL = AnalysisConfig(prompts=6, tokens=4)


class Watched:
    """Layers that note which of them were read, and refuse while another's tensors are alive."""

    def __init__(self, layers):
        self.layers, self.depth = layers, layers.depth
        self.block = getattr(layers, "block", int)
        self.read, self.tensors = [], []

    def layer(self, index):
        assert not any(tensor() is not None for tensor in self.tensors)
        layer = self.layers.layer(index)
        self.read.append(index)
        self.tensors = [weakref.ref(leaf) for leaf in jax.tree.leaves(layer) if np.ndim(leaf)]
        assert len(self.tensors) >= 4
        return layer


class Shared(Watched):
    """Layers of which some have the weights of earlier ones."""

    def __init__(self, stack, schedule):
        super().__init__(stack)
        self.schedule, self.depth = schedule, len(schedule)
        self.block = schedule.__getitem__

    def layer(self, index):
        return super().layer(self.schedule[index])


@pytest.fixture(scope="module")
def both():
    """A checkpoint analysed as a stack and layer by layer.

    It has heads that share keys and values, a window in one layer, biases and rotary positions.
    """
    jax.config.update("jax_enable_x64", True)
    kept = {"biases": True, "rotary": True}
    model = from_pretrained(DATA / "qwen2-mixed", dtype="float64")
    stacked = analyze(model.layer_stack(**kept), SMALL, model=describe(model))
    with open_layers(DATA / "qwen2-mixed", dtype="float64", **kept) as layers:
        watched = Watched(layers)
        lazy = analyze(watched, SMALL, model=describe(layers))
    return stacked, lazy, watched


def test_the_numbers_are_those_of_the_stack_to_the_last_bit(both):
    stacked, lazy = (analysis_json(each) for each in both[:2])
    # A stack turns masks of two kinds into windows of one kind.
    masks = [[layer.pop("mask") for layer in record["layers"]] for record in (stacked, lazy)]
    assert stacked == lazy
    assert stacked["settings"]["biases"] and stacked["settings"]["rotary"]
    assert masks[1] == ["causal window 2", "causal"]


def test_every_layer_is_read_once_and_no_two_are_held(both):
    stacked, _, watched = both
    assert watched.read == list(range(len(stacked.layers)))


def arrays(value):
    if dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from arrays(getattr(value, each.name))
    elif isinstance(value, dict | tuple | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from arrays(each)
    elif isinstance(value, np.ndarray | jax.Array):
        yield value
        yield from arrays(getattr(value, "base", None))


def test_the_result_holds_no_d_x_d_array():
    result = analyze(random_stack(), replace(SMALL, nulls=()))
    sizes = [array.size for array in arrays(result)]
    assert len(sizes) >= 3 * len(result.layers)
    assert max(sizes) <= 2 * result.model.d


@pytest.mark.parametrize("last", [0.2, 0.9999])
def test_a_spectrum_holds_no_d_x_d_array(last):
    """Nor a view of one: the plane of a defective F comes out of a larger array."""
    f = np.eye(9) * [1, 1, *[last] * 7] + np.diag([1.0] + [0.0] * 7, 1)
    spectrum = principal(f).spectrum
    assert spectrum.case == 3 and max(array.size for array in arrays(spectrum)) <= 2 * 9


def test_layers_with_the_same_weights_are_solved_once():
    solver, calls, config = Solver(), [], replace(SMALL, draws=2)
    stack = random_stack(layers=2)
    result = analyze(Shared(stack, (0, 1, 0, 0, 1)), config, progress=calls.append, solver=solver)
    # Of either block its own and two draws of the null.
    assert solver.solved == 2 * 3
    assert sum(calls) == count_of_steps(5, config)
    assert result.model.shared and result.model.layers == 5
    spectra = [layer.principal.values for layer in result.layers]
    for index, first in ((2, 0), (3, 0), (4, 1)):
        np.testing.assert_array_equal(spectra[index], spectra[first])
    # What is not shared is what happens to the tokens: as in a stack with the weights repeated.
    layers = Shared(stack, (0, 1, 0, 0, 1))
    unshared = analyze(
        SimpleNamespace(depth=layers.depth, layer=layers.layer), config, solver=solver
    )
    assert solver.solved == 2 * 3 + 5 * 3
    for one, other in zip(result.layers, unshared.layers, strict=True):
        assert one.alignment == other.alignment and one.average == other.average
        assert (one.null == other.null) == (one.index <= 2)


def test_layers_with_the_same_weights_have_the_same_null_model():
    """The third layer's Gaussian null is that of the first one's block, on its own tokens."""
    stack, config = random_stack(layers=2), replace(SMALL, draws=1, nulls=("gaussian",))
    result = analyze(Shared(stack, (0, 1, 0)), config)
    x = prepare_tokens(random_tokens(6, 4, 6, 0), 6, jnp.float64)
    first, second = (layer_by_layer.prepare_layer(stack.layer(i), 1.0) for i in (0, 1))
    for layer in (first, second):
        x = layer_by_layer.advance(layer, x, "here")
    matrix = sum(gaussian_maps(first, 0, 0, 0))
    basis = principal(matrix).basis
    after = np.asarray(apply_gaussian(first, gaussian_maps(first, 0, 0, 0), x))
    rho = [np.linalg.norm(np.asarray(state) @ basis, axis=-1) for state in (x, after)]
    expected = (rho[1] - rho[0]).mean()
    assert result.layers[2].null["gaussian"].delta_rho == pytest.approx(expected, rel=1e-9)


def test_a_checkpoint_with_shared_blocks():
    """ALBERT with two groups of two blocks: eight layers, four distinct ones."""
    with open_layers(DATA / "albert-groups", dtype="float64") as layers:
        info = describe(layers)
        result = analyze(Watched(layers), replace(SMALL, nulls=()), model=info)
    assert info == describe(from_pretrained(DATA / "albert-groups"))
    assert info.shared and (info.layers, info.d, info.h) == (8, 8, 2)
    values = [layer.principal.eigenvalue for layer in result.layers]
    assert values == [values[i] for i in (0, 1, 0, 1, 4, 5, 4, 5)] and len(set(values)) == 4


def test_what_layers_say_of_themselves_is_in_the_record_without_being_asked_for():
    with open_layers(DATA / "bert-tanh", dtype="float64") as layers:
        result = analyze(layers, AnalysisConfig(prompts=6, tokens=4, nulls=()))
        assert result.model == describe(layers)
    assert result.model.family == "bert" and len(result.model.sha256) == 64


def test_only_the_repeated_layer_is_read():
    watched = Watched(random_stack())
    result = repeat_layer(watched, RepeatConfig(layer=2, steps=3, prompts=6, tokens=4))
    assert watched.read == [1]
    assert max(array.size for array in arrays(result.principal)) <= 2 * 6


def test_fault_46_the_layer_with_a_nan_is_named():
    stack = random_stack()
    bad = replace(
        stack, layers=replace(stack.layers, value=stack.layers.value.at[1, 0, 0, 0].set(jnp.nan))
    )
    with pytest.raises(RequestError, match="layer matrix F of layer 2 holds nan"):
        analyze(bad, replace(SMALL, nulls=()))


def test_no_more_pieces_are_begun_than_allowed_and_answers_come_in_order():
    begun, answered, lock, here = [], [], threading.Lock(), threading.get_ident()

    def piece(number):
        def work():
            assert threading.get_ident() != here
            with lock:
                begun.append(number)
                # Neither at work nor waiting with their answers are there more than three.
                assert len(begun) - len(answered) <= 3
            return number

        return work

    def then(number):
        assert threading.get_ident() == here
        answered.append(number)

    with Ahead(3) as ahead:
        for number in range(12):
            ahead.add(piece(number), then)
            ahead.after(lambda number=number: answered.append(-number))
        ahead.finish()
        ahead.after(lambda: answered.append("at once"))
    assert sorted(begun) == list(range(12))
    assert answered == [sign * n for n in range(12) for sign in (1, -1)] + ["at once"]


def test_a_piece_that_fails_ends_the_rest():
    started = []

    def fail():
        raise RequestError("this one")

    with pytest.raises(RequestError, match="this one"), Ahead(1) as ahead:
        ahead.add(fail, started.append)
        ahead.add(lambda: started.append("second"), started.append)
    assert started == []


def test_answers_are_let_go():
    class Large:
        pass

    seen = []
    with Ahead(2) as ahead:
        for _ in range(4):
            ahead.add(Large, lambda answer: seen.append(weakref.ref(answer)))
        ahead.finish()
        # The thread that worked on it may take a moment to let go.
        for _ in range(100):
            if not any(each() is not None for each in seen):
                break
            threading.Event().wait(0.01)
        assert len(seen) == 4 and not any(each() is not None for each in seen)

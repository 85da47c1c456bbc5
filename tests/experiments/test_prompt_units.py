"""Prompts divided among devices and processes: nobody's number depends on whose prompt it was."""

import json
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import (
    AnalysisConfig,
    analysis_json,
    analyze,
    count_of_steps,
    full_mode,
    prompt_units,
)
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.full_mode import analyze_full
from pmt.experiments.prompt_units import OwnWay, blocks_of_layers, prompt_chunks
from pmt.experiments.stripped import Stripped
from pmt.models import from_pretrained
from pmt.parallel import workers as workers_module
from pmt.parallel.store import UnitStore
from pmt.parallel.workers import Workers
from tests.cli.two_processes import stopped_after
from tests.experiments.systems import random_stack, stack_of
from tests.experiments.test_full_mode import text_of
from tests.experiments.test_layer_units import on_two_processes
from tests.models.conftest import DATA
from tests.parallel.tools import ignore, twice
from tests.test_memory import OUT_OF_MEMORY

LAYERS, D = 4, 6
# Two chunks of two prompts and one of a single one.
CONFIG = AnalysisConfig(prompts=5, tokens=2, nulls=())
CHUNKS = [(0, 2), (2, 4), (4, 5)]
ALL = sorted((index, *chunk) for index in range(LAYERS) for chunk in CHUNKS)
# Bytes of the states of all prompts.
BYTES = 8 * 5 * 2 * D


@pytest.fixture(autouse=True, scope="module")
def usual():
    """How many tokens a chunk has that is not made smaller here."""
    with pytest.MonkeyPatch.context() as patch:
        found = prompt_units.CHUNK_TOKENS
        patch.setattr(prompt_units, "CHUNK_TOKENS", 4)
        yield found


@pytest.fixture(scope="module")
def stack():
    return random_stack(layers=LAYERS, d=D)


@pytest.fixture(scope="module")
def alone(stack):
    """What one device says."""
    return text(analyze(stack, CONFIG, workers=Workers()))


@pytest.fixture
def gone(monkeypatch):
    """The layers and prompts that were gone through, and by which thread."""
    found, real = [], Stripped.advance

    def advance(self, index, layer, x, first):
        found.append((threading.get_ident(), (index, first, first + len(x))))
        return real(self, index, layer, x, first)

    monkeypatch.setattr(Stripped, "advance", advance)
    return found


def text(found):
    return json.dumps(analysis_json(found))


def test_a_chunk_is_what_the_shape_says(monkeypatch, usual):
    assert prompt_chunks(5, 2) == CHUNKS
    assert prompt_chunks(3, 9) == [(0, 1), (1, 2), (2, 3)]
    monkeypatch.setattr(prompt_units, "CHUNK_TOKENS", usual)
    assert prompt_chunks(100, 10) == [(0, 100)]
    assert prompt_chunks(2000, 10) == [(start, start + 400) for start in range(0, 2000, 400)]
    assert len({chunk.size for chunk in prompt_chunks(1237, 64)}) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_chunk_goes_once_through_every_layer_whoever_takes_it(
    stack, alone, gone, count, monkeypatch
):
    barrier, here, counted = threading.Barrier(count), threading.local(), Stripped.advance

    def met(self, *given):
        # As many devices as there are have claimed a chunk before one is through a layer.
        if not hasattr(here, "met"):
            here.met = barrier.wait(60)
        return counted(self, *given)

    monkeypatch.setattr(Stripped, "advance", met)
    calls = []
    workers = Workers(count * jax.local_devices()[:1])
    found = analyze(stack, CONFIG, workers=workers, progress=calls.append)
    assert text(found) == alone
    assert sorted(each for _, each in gone) == ALL
    assert len({thread for thread, _ in gone}) == count
    assert sum(calls) == count_of_steps(LAYERS, CONFIG)


def test_two_processes_divide_the_prompts_too(stack, alone, gone):
    for answer in on_two_processes(stack, CONFIG):
        assert text(answer) == alone
    assert sorted(each for _, each in gone) == ALL


def test_null_models_and_padded_texts():
    x = np.random.default_rng(1).normal(size=(4, 3, D))
    present = np.arange(3) < np.array([3, 1, 2, 3])[:, None]
    config = AnalysisConfig(draws=1)
    given = {"tokens": x, "present": present}
    assert len(prompt_chunks(4, 3)) == 2
    stack = random_stack(layers=2, d=D)
    one, two = (analyze(stack, config, workers=w, **given) for w in (Workers(), Workers(twice())))
    assert text(one) == text(two)


def test_the_real_model(monkeypatch):
    calls, real = [], full_mode.run_layers

    def run_layers(model, x, present, start, stop):
        calls.append((start, np.asarray(x).tobytes()))
        return real(model, x, present, start, stop)

    monkeypatch.setattr(full_mode, "run_layers", run_layers)
    model = from_pretrained(DATA / "bert-tanh", dtype="float64")
    read = text_of(model, (5, 3, 1), 5)
    assert len(prompt_chunks(3, 5)) == 3
    one = analyze_full(model, read, CONFIG, workers=Workers())
    gone, calls[:] = sorted(calls), []
    two = analyze_full(model, read, CONFIG, workers=Workers(twice()))
    assert text(one) == text(two)
    # Every text through every layer, once, and the same bits of it.
    assert gone == sorted(calls) and len(set(gone)) == 3 * len(one.layers)


def test_where_memory_is_short_a_chunk_passes_in_parts(stack, monkeypatch):
    real = Stripped.advance

    def short(self, index, layer, x, first):
        if len(x) > 1:
            raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)
        return real(self, index, layer, x, first)

    monkeypatch.setattr(Stripped, "advance", short)
    one, two = (analyze(stack, CONFIG, workers=each) for each in (Workers(), Workers(twice())))
    assert text(one) == text(two) and one.prompts_at_once == 1


def test_one_chunk_is_not_divided_and_one_device_divides_nothing(stack, monkeypatch):
    def way_of(config, workers):
        stage = Stripped(stack, config, None, None)
        ((layers, way),) = blocks_of_layers(stage, config, workers, ignore)
        assert layers == range(LAYERS)
        return type(way(stage, ignore))

    few = replace(CONFIG, prompts=2)
    assert way_of(few, Workers(twice())) is OwnWay
    assert way_of(CONFIG, Workers()) is OwnWay
    assert way_of(CONFIG, Workers(twice())) is not OwnWay


def test_blocks_of_layers_give_the_same_and_leave_no_states(
    stack, alone, gone, monkeypatch, tmp_path
):
    """Three layers and then one, which has the weights of the first."""
    monkeypatch.setattr(prompt_units, "STATES", 4 * BYTES - 1)
    names, real = [], UnitStore.put

    def put(self, name, unit, payload):
        real(self, name, unit, payload)
        names.append(name)
        # The states of one block of layers at a time.
        assert len({path.name[:10] for path in tmp_path.glob("states-*")}) <= 1

    monkeypatch.setattr(UnitStore, "put", put)
    store = UnitStore(tmp_path, {"seed": 0})
    assert text(analyze(stack, CONFIG, workers=Workers(twice(), store))) == alone
    expected = ["states-0-3"] * 3 + ["layers"] * 3 + ["states-3-4"] * 3 + ["layers"]
    assert names == expected and sorted(each for _, each in gone) == ALL
    assert not list(tmp_path.glob("states-*"))
    # All layers are known: no token goes any way.
    gone.clear()
    assert text(analyze(stack, CONFIG, workers=Workers(twice(), store))) == alone
    assert not gone
    # Of three layers in the first block one is not.
    (tmp_path / "layers-1-2.npz").unlink()
    assert text(analyze(stack, CONFIG, workers=Workers(twice(), store))) == alone
    assert sorted(each for _, each in gone) == [each for each in ALL if each[0] < 2]


def test_what_layers_share_is_solved_once_in_all_blocks(stack, monkeypatch):
    monkeypatch.setattr(prompt_units, "STATES", 1)

    class Repeated:
        depth, block = 3, staticmethod(lambda index: 0)

        def layer(self, index):
            del index
            return stack.layer(0)

    def local():
        """As if there were two; in a thread of one of them only that one is seen."""
        chosen = jax.config.jax_default_device
        return tuple(twice()) if chosen is None else (chosen,)

    monkeypatch.setattr(workers_module, "local_devices", local)
    solver = Solver()
    analyze(Repeated(), CONFIG, solver=solver)
    assert solver.solved == 1


def test_a_run_that_was_stopped_on_the_prompts_way_goes_on(stack, alone, gone, tmp_path):
    store = UnitStore(tmp_path, {"seed": 0})
    with stopped_after(1) as kept, pytest.raises(KeyboardInterrupt):
        analyze(stack, CONFIG, workers=Workers(twice(), store))
    assert kept[0][0] == "states" and not list(tmp_path.glob("layers-*"))
    known = [unit for _, unit in kept]
    gone.clear()
    calls, workers = [], Workers(3 * jax.local_devices()[:1], store)
    again = analyze(stack, CONFIG, workers=workers, progress=calls.append)
    assert text(again) == alone and sum(calls) == count_of_steps(LAYERS, CONFIG)
    assert sorted(each for _, each in gone) == [each for each in ALL if each[1:] not in known]


def failing(kind):
    """Layers and tokens, one a prompt, and what is to be said of them."""
    one = np.eye(D)

    def without(*places):
        """Tokens along these axes cancel."""
        f = 0.1 * one
        f[places, places] = -1.0
        return f

    tokens = one[[1, 1, 1, 2, 0], None]
    # The first chunk fails in the third layer only.
    stack = stack_of(0.1 * one, without(0), without(1))
    if kind == "tokens":
        return stack, tokens, r"^in layer 2, prompt 4 \(counted from 0\).*\(1 of prompts 3 to 4\)"
    value, output = stack.layers.value, stack.layers.output
    if kind == "matrix":
        value = value.at[1, 0, 0, 0].set(jnp.nan)
    else:
        # No token sees that the product overflows.
        stack = stack_of(0.1 * one, 0.1 * one, without(1))
        value, output = (each.at[1, 0, 5, 5].set(1e200) for each in (value, output))
        value = value.at[1, 0, 0, 0].set(0.1)
    layers = replace(stack.layers, value=value, output=output)
    return replace(stack, layers=layers), tokens, "^the layer matrix F of layer 2 holds"


@pytest.mark.filterwarnings("ignore:overflow encountered in matmul")
@pytest.mark.parametrize("kind", ["tokens", "matrix", "product"])
def test_what_fails_is_said_in_the_same_sentence_for_any_division(kind):
    stack, tokens, words = failing(kind)
    said = set()
    for devices in (None, twice(), 3 * jax.local_devices()[:1]):
        with pytest.raises(RequestError, match=words) as caught:
            analyze(stack, CONFIG, tokens=tokens, workers=Workers(devices))
        said.add(str(caught.value))
    said |= {str(each) for each in on_two_processes(stack, CONFIG, tokens=tokens)}
    assert len(said) == 1

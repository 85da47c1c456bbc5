"""Layers divided among devices and processes: nobody's number depends on whose layer it was."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import IncompleteError, RequestError
from pmt.experiments import AnalysisConfig, analysis_json, analyze, count_of_steps
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.full_mode import analyze_full
from pmt.experiments.layer_units import Facts, as_payload, read_layers
from pmt.models import from_pretrained
from pmt.parallel.hosts import Hosts
from pmt.parallel.store import UnitStore
from pmt.parallel.units import from_bytes, to_bytes, union
from pmt.parallel.workers import Workers
from tests.experiments.systems import random_stack, stack_of
from tests.experiments.test_full_mode import text_of
from tests.models.conftest import DATA
from tests.parallel.tools import Keys, twice

SMALL = AnalysisConfig(prompts=4, tokens=3, draws=2)
# Of the five layers the first, third and last have the same weights.
SCHEDULE = (0, 1, 0, 2, 0)


@pytest.fixture(scope="module")
def shared():
    stack = random_stack(layers=3, biases=True, d=8)
    return SimpleNamespace(
        depth=len(SCHEDULE),
        block=SCHEDULE.__getitem__,
        layer=lambda index: stack.layer(SCHEDULE[index]),
    )


@pytest.fixture(scope="module")
def alone(shared):
    """What one device says of them."""
    return analysis_json(analyze(shared, SMALL, workers=Workers()))


def test_what_a_layer_gives_reads_back_to_the_last_bit():
    f = np.diag([2.0, 2.0 - 1e-12, *np.linspace(1, -1, 6)]) + np.eye(8, k=1)
    for config in (SMALL, replace(SMALL, nulls=(), leading=3, prompts=1)):
        found = analyze(stack_of(f, -f), config)
        first, second = found.layers
        assert first.principal.plane is not None
        facts = Facts(found.shape, "float64", "cpu", 1, False, True, 1 / 3, None)
        total = union(
            from_bytes(to_bytes(as_payload(second, replace(facts, biases=True)))),
            from_bytes(to_bytes(as_payload(first, replace(facts, prompts_at_once=2)))),
        )
        layers, known = read_layers(total)
        assert known == replace(facts, biases=True, prompts_at_once=2)
        for layer, again in zip(found.layers, layers, strict=True):
            said = [
                {name: value for name, value in vars(each).items() if name != "principal"}
                for each in (again, layer)
            ]
            assert said[0] == said[1]
            for name, value in vars(layer.principal).items():
                got = vars(again.principal)[name]
                assert type(got) is type(value)
                if isinstance(value, np.ndarray):
                    assert got.dtype == value.dtype and got.tobytes() == value.tobytes()
                    assert got.shape == value.shape
                else:
                    assert got == value


def of_all(layers, count):
    """The same layers, of which so many devices have claimed one before any is read."""
    barrier, here = threading.Barrier(count), threading.local()

    def layer(index):
        if not hasattr(here, "met"):
            here.met = barrier.wait(60)
        return layers.layer(index)

    return SimpleNamespace(depth=layers.depth, block=layers.block, layer=layer)


def test_three_devices_give_the_numbers_of_one_and_solve_nothing_twice(shared, alone):
    """The first and the third begin with the same weights."""
    solver, calls, seen = Solver(), [], []
    found = analyze(
        of_all(shared, 3),
        SMALL,
        workers=Workers(3 * jax.local_devices()[:1]),
        solver=solver,
        progress=calls.append,
        seen=lambda layer: seen.append(layer.index),
    )
    assert json.dumps(analysis_json(found)) == json.dumps(alone)
    # Of each of three blocks its own problem and those of two draws.
    assert solver.solved == 3 * 3
    assert sum(calls) == count_of_steps(5, SMALL) and sorted(seen) == [1, 2, 3, 4, 5]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pmt ")]


def test_leading_pairs_and_padded_texts_on_two_devices(shared):
    x = np.random.default_rng(1).normal(size=(4, 3, 8))
    present = np.arange(3) < np.array([3, 1, 2, 3])[:, None]
    config, given = replace(SMALL, leading=2), {"tokens": x, "present": present}
    one, two = (analyze(shared, config, workers=w, **given) for w in (None, Workers(twice())))
    assert json.dumps(analysis_json(one)) == json.dumps(analysis_json(two))
    assert two.layers[4].null["gaussian"].draws == 2


def test_the_real_model_on_two_devices():
    model = from_pretrained(DATA / "bert-tanh", dtype="float64")
    text = text_of(model, (5, 3, 1), 5)
    config = replace(SMALL, draws=1)
    one, two = (analyze_full(model, text, config, workers=w) for w in (None, Workers(twice())))
    assert json.dumps(analysis_json(one)) == json.dumps(analysis_json(two))


def on_two_processes(layers, config, stores=(None, None), **given):
    """What each process gets; an exception where one was raised."""
    keys, answers = Keys(), [None, None]

    def process(index):
        workers = Workers(store=stores[index], hosts=Hosts(index, 2, keys))
        try:
            answers[index] = analyze(layers, config, workers=workers, **given)
        except BaseException as error:
            answers[index] = error

    threads = [threading.Thread(target=process, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


def test_two_processes_and_a_run_that_was_stopped_give_the_same(shared, alone, tmp_path):
    store = UnitStore(tmp_path, {"seed": 0})
    for answer in on_two_processes(shared, SMALL, (store, None)):
        assert json.dumps(analysis_json(answer)) == json.dumps(alone)
    # As if it had been stopped before the second and the fourth layer were finished.
    for index in (1, 3):
        (tmp_path / f"layers-{index}-{index + 1}.npz").unlink()
    solver, calls = Solver(), []
    again = analyze(
        shared, SMALL, workers=Workers(store=store), solver=solver, progress=calls.append
    )
    assert json.dumps(analysis_json(again)) == json.dumps(alone)
    assert solver.solved == 2 * 3 and sum(calls) == count_of_steps(5, SMALL)


@pytest.mark.parametrize("failing", ["a token that cancels", "a matrix that is not finite"])
def test_a_layer_that_fails_is_named_as_on_one_device(failing):
    one = np.eye(8)
    stack, config = stack_of(0.5 * one, -1.0 * one, 0.3 * one), replace(SMALL, tokens=1, nulls=())
    words = "in layer 2, prompt 0 "
    if failing != "a token that cancels":
        value = stack.layers.value.at[1, 0, 0, 0].set(jnp.nan)
        stack, words = replace(stack, layers=replace(stack.layers, value=value)), "F of layer 2"
    said = set()
    for devices in (None, twice(), 3 * jax.local_devices()[:1]):
        with pytest.raises(RequestError, match=words) as caught:
            analyze(stack, config, workers=Workers(devices))
        said.add(str(caught.value))
    assert len(said) == 1
    answers = on_two_processes(stack, config)
    assert any(str(each) in said for each in answers)
    assert all(isinstance(each, RequestError | IncompleteError) for each in answers)

"""A run of `pmt reproduce` that is killed ends as one that is not (faults 74, 75)."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pmt.errors import RequestError
from pmt.experiments import describe, shared_layer, shared_steps
from pmt.experiments.chunks import Chunks
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.items import Given, find_items
from pmt.experiments.reproduce import open_folder, request, run_item, settings
from pmt.models import from_pretrained, open_layers
from pmt.parallel.units import Unit
from tests.experiments.systems import random_stack

ROOT = Path(__file__).parents[2]
# The folder of an item's units of work until it is complete.
KEPT = "unfinished"
MODEL = ROOT / "tests" / "parity" / "data" / "bert-tanh"
# Layers as they come, solved eigenproblems, tables and figures; the second compiles for longer.
SHORT = ("table-1", "figure-6-eigenvalues")
LONG = (*SHORT, "figure-2b", "figure-6c", "figure-8", "figure-9")


def start(out, items):
    command = [sys.executable, "-m", "pmt", "reproduce", *items, "--quick", "--model", str(MODEL)]
    return subprocess.Popen(
        # Its own, since what is solved already would not be written again.
        [*command, "--out", str(out), "--eigen-cache", str(out / "eigen")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out, items):
    process = start(out, items)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


def files(out):
    """Name -> content of all that a run has written, whole, and that stays."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if path.is_file() and not path.name.startswith(".pmt-tmp-") and KEPT not in name.parts:
            found[str(name)] = path.read_bytes()
    return found


def unfinished(out):
    """What a run has written that goes when its item is complete."""
    return [path for path in out.rglob(f"{KEPT}/**/*") if path.is_file()]


def kill_when(out, items, count, delay):
    """Start a run, and kill it some time after that many files are there."""
    process = start(out, items)
    try:
        # Folders may go while one looks at them.
        while process.poll() is None and sum(len(names) for *_, names in os.walk(out)) < count:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    finally:
        process.communicate()


def campaign(tmp_path, items, kills, seed):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(whole, items)
    expected = files(whole)
    rng, left = np.random.default_rng(seed), kills
    while left:
        # Some within one run after the other, then again from an empty folder.
        for child in sorted(broken.rglob("*"), reverse=True) if broken.exists() else []:
            child.rmdir() if child.is_dir() else child.unlink()
        broken.mkdir(exist_ok=True)
        several = min(left, int(rng.integers(2, 7)))
        for number in range(several):
            # Never at once, when Python would still be starting, but after at least one more file.
            missing = len(expected) - len(files(broken))
            if missing == 0:
                break
            ahead = int(rng.integers(1, 1 + max(1, 2 * missing // (several - number + 1))))
            count = len(expected) - missing + ahead
            kill_when(broken, items, count, float(rng.uniform(0, 0.05)))
            found = files(broken)
            # Whatever is there is whole, and what it will be in the end.
            assert all(expected[name] == content for name, content in found.items())
            left -= 1
        finish(broken, items)
        assert files(broken) == expected and not list(broken.rglob(KEPT))


def test_a_run_killed_three_times_ends_as_if_it_had_not_been(tmp_path):
    campaign(tmp_path, SHORT, 3, seed=1)


@pytest.mark.long
def test_fifty_runs_that_are_killed(tmp_path):
    campaign(tmp_path, LONG, 50, seed=2)


class _Stop(BaseException):
    """Ends a run where no code expects it."""


def given_for(name, solver=None):
    """Something small to run an item on, and its config."""
    (item,) = find_items([name])
    solver = Solver() if solver is None else solver
    config = item.quick
    if hasattr(config, "draws"):
        config = dataclasses.replace(config, draws=1)
    if name == "figure-9":
        model = from_pretrained(MODEL)
        given = Given(
            layers=model.layer_stack(),
            model=describe(model),
            open_model=lambda: model,
            solver=solver,
        )
        return item, config, given
    return item, config, Given(layers=random_stack(d=5, layers=2), layer=1, solver=solver)


@pytest.mark.parametrize(
    "name", ["figure-8", "figure-6-eigenvalues", "figure-2b", "figure-2b-orders", "figure-6a"]
)
def test_a_run_that_stops_after_any_of_its_files_goes_on_to_the_same(name, tmp_path, monkeypatch):
    """The same in this process, where every single moment between two files can be had."""
    item, config, given = given_for(name)
    # After every step, however little time it took.
    monkeypatch.setattr(shared_steps, "_PAUSE", -1.0)

    def run(out, most):
        left = [most]

        def counted(source, target):
            if left[0] == 0:
                raise _Stop
            left[0] -= 1
            replace(source, target)

        replace = os.replace
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted)
            fresh = dataclasses.replace(given, memo={})
            chunks = open_folder(item, config, fresh, "float64", out, overwrite=False)
            done = run_item(item, config, fresh, "float64", chunks, lambda *_: {"a.png": b"drawn"})
        return done, most - left[0]

    done, count = run(tmp_path / "whole", 1000)
    expected = files(tmp_path / "whole")
    # The others were units of work, which are kept in between.
    units = count - len(expected)
    assert not done.before and not list((tmp_path / "whole").rglob(KEPT))
    assert (units > 0) == (name in ("figure-2b", "figure-2b-orders", "figure-6a"))
    for most in range(count):
        out = tmp_path / str(most)
        with pytest.raises(_Stop):
            run(out, most)
        assert len(files(out)) + len(unfinished(out)) == most or units
        again, written = run(out, 1000)
        assert files(out) == expected and not again.before and not list(out.rglob(KEPT))
        assert again.found == done.found
        # Nothing of what is complete is written again.
        third, none = run(out, 1000)
        assert third.before and none == 0 and third.found == done.found
        assert written <= count


def test_layers_that_were_measured_are_not_measured_again(tmp_path):
    (item,) = find_items(["figure-8"])
    solver, config = Solver(), dataclasses.replace(item.quick, draws=1)
    given = Given(layers=random_stack(d=5, layers=2), solver=solver)

    def run():
        chunks = open_folder(item, config, given, "float64", tmp_path, overwrite=False)
        run_item(item, config, given, "float64", chunks, lambda *_: {})

    run()
    # Of every layer four directions, of its own maps and of one draw of both null models.
    assert solver.solved == 2 * 4 * 3
    (tmp_path / "figure-8" / "result.json").unlink()
    (tmp_path / "figure-8" / "layers" / "layer-002.json").unlink()
    run()
    assert solver.solved == 3 * 4 * 3


@pytest.mark.parametrize(
    ("name", "solved"),
    # A layer's own problem and one draw of the Gaussian null; in three orders; of an edited layer.
    [("figure-2b", 2 * 2), ("figure-2b-orders", 3 * 2 * 2), ("figure-9", 4 * 2)],
)
def test_layers_that_were_analysed_are_not_analysed_again(name, solved, tmp_path):
    solver = Solver()
    item, config, given = given_for(name, solver)

    def run(stop):
        def ended(*_):
            if stop:
                raise _Stop
            return {}

        chunks = open_folder(item, config, given, "float64", tmp_path, overwrite=False)
        return run_item(item, config, given, "float64", chunks, ended)

    with pytest.raises(_Stop):
        run(stop=True)
    assert solver.solved == solved
    # All layers are there: what is left is to draw them.
    assert not run(stop=False).before
    assert solver.solved == solved


def test_a_repeated_layer_goes_on_at_the_step_that_was_kept(tmp_path, monkeypatch):
    item, config, given = given_for("figure-6c")
    monkeypatch.setattr(shared_steps, "_PAUSE", -1.0)
    steps = []

    def advance(layer, x, where, **more):
        steps.append(where)
        if stop and len(steps) == 4:
            raise _Stop
        return real(layer, x, where, **more)

    real = shared_layer.advance
    monkeypatch.setattr(shared_layer, "advance", advance)

    def run():
        fresh = dataclasses.replace(given, memo={})
        chunks = open_folder(item, config, fresh, "float64", tmp_path, overwrite=False)
        return run_item(item, config, fresh, "float64", chunks, lambda *_: {})

    stop = True
    with pytest.raises(_Stop):
        run()
    stop = False
    steps.clear()
    run()
    assert steps == [f"step {step} of layer 1" for step in range(4, 9)]


def test_what_failed_keeps_nothing_and_what_may_succeed_keeps_its_layers(tmp_path):
    """And what another run keeps in a folder that it took meanwhile is left alone."""
    (item,) = find_items(["figure-8"])

    def run(cause, taken=False):
        def fails(config, given):
            given.keep(1, {"rho": 0.1})
            if taken:
                Chunks(out / item.name, {}, overwrite=True).put(2, {"rho": 0.2})
            raise cause

        failing = dataclasses.replace(item, run=fails)
        chunks = open_folder(failing, item.quick, Given(), "float64", out, overwrite=False)
        with pytest.raises(type(cause)):
            run_item(failing, item.quick, Given(), "float64", chunks, lambda *_: {})
        return sorted(path.name for path in chunks.folder.rglob("*") if path.is_file())

    wrong = RequestError("the layer matrix F of layer 2 holds nan")
    stopped = RequestError("cannot read the disk")
    stopped.__cause__ = OSError(5, "failed")
    out = tmp_path / "a"
    for cause in (KeyboardInterrupt(), stopped, wrong):
        kept = [] if cause is wrong else ["layer-001.json"]
        assert run(cause) == [*kept, "request.json"]
    out = tmp_path / "b"
    assert run(wrong, taken=True) == ["layer-002.json", "request.json"]


def test_fault_75_a_folder_answers_one_request(tmp_path):
    first = {"seed": 0, "versions": {"numpy": "1"}}
    chunks = Chunks(tmp_path / "a", first)
    chunks.put(1, {"rho": 0.1})
    chunks.write("checkpoint-l2.npz", b"of a training")
    chunks.close({"rho": [0.1]})
    assert Chunks(tmp_path / "a", first).result == {"rho": [0.1]}
    with pytest.raises(RequestError, match=r"holds results for seed = 0 and not 1; choose"):
        Chunks(tmp_path / "a", first | {"seed": 1})
    with pytest.raises(RequestError, match=r'for versions.numpy = "1" and not "2"'):
        Chunks(tmp_path / "a", {"seed": 0, "versions": {"numpy": "2"}})
    taken = Chunks(tmp_path / "a", first | {"seed": 1}, overwrite=True)
    assert taken.result is None and taken.get(1) is None
    assert [path.name for path in taken.folder.iterdir() if path.is_file()] == ["request.json"]
    # A file that is no JSON is not ours, and counts as none.
    (tmp_path / "a" / "result.json").write_text("{")
    assert Chunks(tmp_path / "a", first | {"seed": 1}).result is None
    assert json.loads((tmp_path / "a" / "request.json").read_text())["seed"] == 1


def test_units_of_two_requests_are_never_mixed(tmp_path):
    unit, payload = Unit(0, 1), {"rho": np.ones(2)}
    first = Chunks(tmp_path / "a", {"seed": 0})
    lost = first.units("layers")
    lost.put("layers", unit, payload)
    assert Chunks(tmp_path / "a", {"seed": 0}).units("layers").get("layers", unit) is not None
    taken = Chunks(tmp_path / "a", {"seed": 1}, overwrite=True).units("layers")
    # Of a process that still runs, and does not know that the folder is another one's.
    lost.folder.mkdir(parents=True, exist_ok=True)
    lost.put("layers", unit, payload)
    assert taken.get("layers", unit) is None
    assert first.units("steps").get("layers", unit) is None


def test_a_folder_that_holds_a_request_alone_is_free_for_another(tmp_path):
    refused = Chunks(tmp_path / "a", {"tokens": "wrong"})
    taken = Chunks(tmp_path / "a", {"tokens": "right"})
    # Of a process that still runs, and would be wrong about whose results these are.
    for late in (
        lambda: refused.put(1, 0),
        lambda: refused.write("a", ""),
        lambda: refused.close(0),
    ):
        with pytest.raises(RequestError, match=r"another run took .*a for another request"):
            late()
    assert [path.name for path in taken.folder.iterdir()] == ["request.json"]


@pytest.mark.parametrize("kept", ["layers/layer-001.json", "checkpoint.npz", "layers.csv"])
def test_fault_75_a_folder_with_anything_of_another_request_is_refused(kept, tmp_path):
    first = Chunks(tmp_path / "a", {"seed": 0})
    if kept.startswith("layers/"):
        first.put(1, {"rho": 0.1})
    else:
        first.write(kept, "kept")
    with pytest.raises(RequestError, match=r"holds results for seed = 0 and not 1; choose"):
        Chunks(tmp_path / "a", {"seed": 1})
    assert (tmp_path / "a" / kept).exists()


def test_fault_75_another_config_or_tokenizer_is_another_request(tmp_path):
    folder, items = tmp_path / "model", find_items(["table-1", "figure-2b", "figure-11"])
    shutil.copytree(MODEL, folder)

    def asked():
        with open_layers(folder) as layers:
            given = Given(layers=layers, model=describe(layers))
            return [request(item, item.quick, given, "float32") for item in items]

    def same(first, second):
        return [one == other for one, other in zip(first, second, strict=True)]

    first = asked()
    (folder / "vocab.txt").write_text("a")
    second = asked()
    assert same(first, second) == [True, True, False]
    # With it the vocabulary is not read.
    (folder / "tokenizer.json").write_text("{}")
    third = asked()
    assert same(second, third) == [True, True, False]
    (folder / "vocab.txt").write_text("b")
    assert same(third, asked()) == [True, True, True]
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert same(third, asked()) == [False, False, False]
    assert {tuple(each["model_files"]) for each in third} == {
        ("config.json",),
        ("config.json", "tokenizer.json"),
    }


@pytest.mark.parametrize("name", ["loop-figure-1", "loop-figure-2"])
def test_what_trains_does_so_in_the_dtype_that_was_asked_for_and_says_so(name):
    (item,) = find_items([name])
    for dtype in ("float32", "float64"):
        config = settings(item, quick=True, dtype=dtype)
        assert getattr(config, "training", config).dtype == dtype
        assert request(item, config, Given(), dtype)["dtype"] == dtype

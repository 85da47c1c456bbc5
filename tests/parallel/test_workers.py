"""Units of work on devices and in a store: nobody's number depends on whom."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import Interrupted, RequestError
from pmt.parallel.store import UnitStore
from pmt.parallel.units import Unit, from_bytes, split_units, to_bytes
from pmt.parallel.workers import Workers
from tests.known_statements import STATEMENTS
from tests.parallel.tools import UNITS, add, ignore, squares, twice
from theory import verify

ROOT = Path(__file__).parents[2]


def test_ranges_are_cut_at_multiples_wherever_they_begin():
    assert UNITS == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 20)]
    assert split_units(7, 20, 3) == [(7, 9), *UNITS[3:]]
    assert split_units(4, 5, 3) == [(4, 5)]
    assert split_units(5, 5, 3) == []
    with pytest.raises(RequestError, match="size of a unit is 0"):
        split_units(0, 5, 0)


def test_bytes_read_back_as_they_were():
    payload = {"x": np.array([[np.nan, -0.0, 1e-310]]), "kind": np.array(["α", "cycle"])}
    again = from_bytes(to_bytes(payload))
    assert (
        again["x"].tobytes() == payload["x"].tobytes() and (again["kind"] == ["α", "cycle"]).all()
    )


@pytest.mark.parametrize("devices", [None, twice()])
def test_units_come_in_their_order_with_the_callers_precision(devices):
    seen = []
    with jax.enable_x64(False):
        shared = jnp.arange(20.0)
        found = Workers(devices).collect(squares, shared, UNITS, seen.append)
    assert [float(each["sum"]) for each in found][:2] == [5.0, 50.0]
    assert all(each["sum"].dtype == np.float32 for each in found)
    assert sum(seen) == 20


@pytest.mark.parametrize("devices", [None, twice()])
def test_a_failure_ends_all_units_and_is_raised_here(devices):
    def work(_shared, unit, report):
        if unit.first == 6:
            raise RequestError("no")
        report(1)
        return {"x": np.zeros(1)}

    with pytest.raises(RequestError, match="^no$"):
        Workers(devices).collect(work, None, UNITS, ignore)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pmt ")]


def test_what_another_device_has_finished_by_then_is_kept(tmp_path):
    failing = threading.Event()

    def work(_shared, unit, report):
        del report
        if unit == UNITS[0]:
            assert failing.wait(10)
            # So that the error is there first.
            time.sleep(0.1)
            return {"sum": np.zeros(1)}
        failing.set()
        raise RequestError("no")

    store = UnitStore(tmp_path, {"seed": 1})
    with pytest.raises(RequestError, match="^no$"):
        Workers(twice(), store=store).reduce("a", work, None, UNITS, add, ignore)
    assert store.get("a", UNITS[0]) is not None and store.get("a", UNITS[1]) is None


@pytest.mark.parametrize("devices", [None, twice()])
def test_a_request_to_end_is_heard_while_units_are_at_work(devices):
    begun = []

    def work(_shared, unit, report):
        begun.append(unit)
        while True:
            time.sleep(0.01)
            report(0)

    def heed(_done):
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        Workers(devices).collect(work, None, UNITS, heed)
    assert len(begun) <= 2


def test_a_stopped_run_is_gone_on_with_and_never_with_other_settings(tmp_path):
    """Faults 74 and 75."""
    shared, computed = jnp.arange(20.0), []

    def work(shared, unit, report):
        if len(computed) == 3:
            raise Interrupted("killed")
        computed.append(unit)
        return squares(shared, unit, report)

    request = {"seed": 1, "versions": {"jax": "1"}}
    expected = Workers().reduce("a", squares, shared, UNITS, add, ignore)
    with pytest.raises(Interrupted):
        Workers(store=UnitStore(tmp_path, request)).reduce("a", work, shared, UNITS, add, ignore)
    # What a killed writer leaves, and a file that is not ours.
    (tmp_path / "a-18-20.npz").write_bytes(b"PK\x03\x04 not a unit")
    for other, words in (
        ({"seed": 2, "versions": {"jax": "1"}}, "seed = 1 and not 2"),
        ({"seed": 1, "versions": {"jax": "2"}}, 'versions.jax = "1" and not "2"'),
    ):
        with pytest.raises(RequestError, match=f"unfinished run with {words}"):
            UnitStore(tmp_path, other)
    done, before = [], list(computed)
    computed[:] = [None]
    store = UnitStore(tmp_path, request)
    found = Workers(store=store).reduce("a", squares, shared, UNITS, add, done.append)
    assert found["sum"] == expected["sum"] and sum(done) == 20
    assert all(store.get("a", unit)["sum"].shape == () for unit in UNITS)
    assert store.get("b", UNITS[0]) is None and before == UNITS[:3]
    # Only under --overwrite, and then nothing of the old request is taken for the new one.
    assert UnitStore(tmp_path, {"seed": 2}, overwrite=True).get("a", UNITS[0]) is None
    store.discard()
    assert not tmp_path.exists()


@pytest.mark.parametrize("request_file", [None, "[]", "not JSON"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_somebody_elses_is_refused_and_left_as_it_is(
    tmp_path, request_file, overwrite
):
    (tmp_path / "measured-1-2.npz").write_bytes(b"mine")
    if request_file is not None:
        (tmp_path / "request.json").write_text(request_file, encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RequestError, match="it holds something else") as caught:
        UnitStore(tmp_path, {"seed": 1}, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_what_we_wrote_is_removed(tmp_path):
    folder = tmp_path / "unfinished"
    store = UnitStore(folder, {"seed": 1})
    kept = [folder / "thesis.tex", folder / "data.npz", folder / "sub" / "runs-0-64.npz"]
    (folder / "sub").mkdir()
    for path in kept:
        path.write_text("mine", encoding="utf-8")
    for name in ("runs", "rest-0-640"):
        store.put(name, Unit(0, 64), {"x": np.zeros(1)})
    UnitStore(folder, {"seed": 2}, overwrite=True).put("runs", Unit(64, 128), {"x": np.zeros(1)})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["data.npz", "request.json", "runs-64-128.npz", "sub", "thesis.tex"]
    store.discard()
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "sub", "thesis.tex"]
    assert all(path.read_text(encoding="utf-8") == "mine" for path in kept)


@pytest.mark.parametrize("devices", [None, twice(), 5 * twice()])
def test_a_device_may_begin_the_next_unit_before_it_yields_one(devices, tmp_path):
    """And those that are known already are claimed by nobody."""
    ways, found = [], []

    def walk(shared, claim, report):
        begun = []
        while (unit := claim()) is not None:
            begun.append(unit)
            time.sleep(0.002)
            report(unit.size)
            if len(begun) > 1:
                yield begun[-2], squares(shared, begun[-2], ignore)
        if begun:
            yield begun[-1], squares(shared, begun[-1], ignore)
        ways.append(begun)

    store = UnitStore(tmp_path, {"seed": 1})
    store.put("a", UNITS[3], {"sum": np.array(0.0)})
    seen = []
    total = Workers(devices, store).walk(
        "a", walk, jnp.arange(20.0), UNITS, add, seen.append, found=found.append
    )
    assert float(total["sum"]) == sum(i**2 for i in range(20) if i not in (9, 10, 11))
    assert sum(seen) == 20 and len(found) == len(UNITS)
    # Each goes forward only.
    assert all(way == sorted(way) for way in ways)
    assert sorted(sum(ways, [])) == [unit for unit in UNITS if unit != UNITS[3]]


@pytest.mark.parametrize("devices", [None, twice()])
def test_what_a_unit_leaves_to_others_is_not_reported_as_ended(devices, tmp_path):
    def work(shared, unit, report):
        report(unit.size - 1)
        return {"sum": np.array(unit.size - 1.0)}

    for _ in range(2):
        done, store = [], UnitStore(tmp_path, {"seed": 1})
        Workers(devices, store).reduce(
            "a", work, None, UNITS, add, done.append, lambda payload: int(payload["sum"])
        )
        assert sum(done) == 20 - len(UNITS)


@pytest.mark.parametrize("setting", ["threefry_partitionable", "default_prng_impl"])
@pytest.mark.parametrize("devices", [None, twice()])
def test_random_numbers_are_those_of_the_callers_settings(devices, setting):
    """Fault 80."""
    value = {"threefry_partitionable": False, "default_prng_impl": "rbg"}[setting]
    with getattr(jax, setting)(value):
        key = jax.random.key(3)
        expected = np.asarray(jax.random.bits(key, (5,)))

        def work(_shared, unit, report):
            return {"x": np.asarray(jax.random.bits(jax.random.key(3), (5,)))}

        found = Workers(devices).collect(work, None, UNITS[:2], ignore)
    assert all(np.array_equal(each["x"], expected) for each in found)
    assert not np.array_equal(expected, np.asarray(jax.random.bits(jax.random.key(3), (5,))))


def test_batches_of_instances_on_two_devices_are_those_on_one(monkeypatch):
    """Fault 80."""
    monkeypatch.setattr(verify, "_SHARE", 1)
    (clause,) = STATEMENTS["remark-10"].paper.clauses
    runner = verify.Runner(16)
    one = runner.clause(clause, 90, 5)
    runner._devices = twice()
    two = runner.clause(clause, 90, 5)
    assert (two.instances, two.undecided, two.worst) == (one.instances, one.undecided, one.worst)
    assert len(two.violations) == len(one.violations) > 0
    for a, b in zip(one.violations, two.violations, strict=True):
        assert (a.value, a.tolerance, a.case.keys()) == (b.value, b.tolerance, b.case.keys())
        assert all(np.array_equal(a.case[name], b.case[name]) for name in a.case)


def test_eight_devices_give_the_numbers_of_one():
    """Faults 67 and 80."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.eight_devices"],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"differing": [], "at work": 8}

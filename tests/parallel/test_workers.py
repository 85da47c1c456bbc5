"""Units of work on devices, in a store, and between processes: nobody's number depends on whom."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt.errors import IncompleteError, Interrupted, RequestError
from pmt.parallel import hosts as hosts_module
from pmt.parallel.hosts import Hosts, join_hosts
from pmt.parallel.runtime import require_methods, uncompressed
from pmt.parallel.store import UnitStore
from pmt.parallel.units import Unit, from_bytes, split_units, to_bytes
from pmt.parallel.workers import Workers
from tests.known_statements import STATEMENTS
from theory import verify

ROOT = Path(__file__).parents[2]
UNITS = split_units(0, 20, 3)


def ignore(_done):
    pass


def squares(shared, unit, report):
    report(unit.size)
    # A new number has the default precision.
    weight = jnp.asarray(np.ones(unit.size))
    return {"sum": np.asarray(jnp.sum(weight * shared[unit.first : unit.last] ** 2))}


def add(one, other):
    return {"sum": np.asarray(one["sum"] + other["sum"])}


def twice():
    """Two threads, as for two devices."""
    return jax.local_devices()[:1] * 2


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


class Keys:
    """The runtime's store of keys, for processes that are threads of this one."""

    def __init__(self):
        self.held, self.lock = {}, threading.Lock()

    def key_value_set_bytes(self, key, value):
        with self.lock:
            if key in self.held:
                raise jax.errors.JaxRuntimeError(f"ALREADY_EXISTS: key {key} already exists.")
            self.held[key] = value

    def key_value_set(self, key, value):
        self.key_value_set_bytes(key, value.encode())

    def key_value_try_get_bytes(self, key):
        with self.lock:
            if key not in self.held:
                raise jax.errors.JaxRuntimeError(f"NOT_FOUND: Config key {key} not found.")
            return self.held[key]

    def key_value_increment(self, key, by):
        with self.lock:
            self.held[key] = str(int(self.held.get(key, b"0")) + by).encode()
            return int(self.held[key])

    def key_value_dir_get_bytes(self, prefix):
        with self.lock:
            return [(key, value) for key, value in self.held.items() if key.startswith(prefix)]

    def key_value_delete(self, key):
        """Of a folder all that is in it."""
        with self.lock:
            for each in [name for name in self.held if f"{name}/".startswith(f"{key}/")]:
                del self.held[each]


def processes(work, count=3, report=ignore, keys=None, ended=None):
    """What `count` processes get; an exception where one was raised."""
    keys, answers = keys or Keys(), [None] * count

    def process(index):
        workers = Workers(hosts=Hosts(index, count, keys))
        try:
            for _ in range(2):
                answers[index] = workers.reduce(
                    "a", work, jnp.arange(20.0), UNITS, add, report, ended
                )
        except BaseException as error:
            answers[index] = error

    threads = [
        threading.Thread(target=process, args=(index,), daemon=True) for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return answers


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


def test_every_process_gets_the_total_of_what_all_have_run():
    ran, lock = [], threading.Lock()

    def work(shared, unit, report):
        with lock:
            ran.append(unit)
        time.sleep(0.01)
        return squares(shared, unit, report)

    keys = Keys()
    with jax.enable_x64(True):
        answers = processes(work, keys=keys)
    assert [float(each["sum"]) for each in answers] == [sum(i**2 for i in range(20))] * 3
    assert sorted(ran) == sorted(2 * UNITS)
    # Of a round that all have read nothing is kept.
    rounds = {key.split("/")[1] for key in keys.held}
    assert "2" in rounds
    Hosts(0, 3, keys, round=2, unread=[1, 2] if "1" in rounds else [2]).begin([])
    assert {key for key in keys.held} == {"pmt/3/units"}


def test_the_runtime_is_not_asked_to_compress_what_it_sends():
    """States of tokens do not shrink, and take ten times as long."""
    asked = []

    def make(*arguments, **options):
        asked.append((arguments, options))

    library = SimpleNamespace(get_distributed_runtime_client=make)
    with uncompressed(SimpleNamespace(_jax=library)):
        library.get_distributed_runtime_client("here", use_compression=True, init_timeout=3)
        library.get_distributed_runtime_client("there")
    assert library.get_distributed_runtime_client is make
    assert asked == [(("here",), {"use_compression": False, "init_timeout": 3}), (("there",), {})]
    with uncompressed(SimpleNamespace()):
        pass


def test_what_is_large_goes_in_pieces_and_is_not_kept_once_all_have_it(monkeypatch):
    monkeypatch.setattr(hosts_module, "_PIECE", 64)
    keys, payload = Keys(), {"x": np.arange(50.0), "kind": np.array(["α"])}
    first, second = (Hosts(index, 2, keys) for index in range(2))
    units = [Unit(3, 7), Unit(7, 9)]
    assert first.begin(units) == second.begin(units)
    second.publish(units[0], payload)
    assert max(len(value) for value in keys.held.values()) == 64
    ((unit, found),) = first.published()
    assert unit == units[0] and to_bytes(found) == to_bytes(payload) and not first.published()
    assert set(keys.held) == {"pmt/1/units"} and second.total() is None
    first.end(payload)
    assert max(len(value) for value in keys.held.values()) == 64
    first.begin([])
    first.published()
    assert "pmt/1/total" in keys.held
    assert to_bytes(second.total()) == to_bytes(payload)
    # In the middle of the next round, which may be long.
    first.published()
    assert set(keys.held) == {"pmt/2/units"}


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


@pytest.mark.parametrize("wrong", [RequestError, ValueError])
def test_a_process_that_fails_ends_the_others(wrong):
    """Fault 79; what a user has to mend is said by all, what is a fault here by this one alone."""
    once = threading.Event()

    def work(shared, unit, report):
        if not once.is_set():
            once.set()
            raise wrong("token 3 cancels")
        time.sleep(0.05)
        return squares(shared, unit, report)

    answers = processes(work)
    own = [each for each in answers if type(each) is wrong and str(each) == "token 3 cancels"]
    assert len(own) == (3 if wrong is RequestError else 1)
    for each in answers:
        stopped = r"process \d stopped \(token 3 cancels\); [^\n]*"
        assert each in own or (type(each) is IncompleteError and re.fullmatch(stopped, str(each)))


def test_of_two_that_are_found_at_once_all_say_the_first():
    keys, heard = Keys(), [[], [], []]
    first, second, third = (Hosts(i, 3, keys, refused=heard[i].append) for i in range(3))
    one, other, fault = RequestError("one"), RequestError("other"), ValueError("a fault")
    assert first.stop(one) is one and first.stop(one) is one
    said = second.stop(other)
    assert type(said) is RequestError and str(said) == "one" and said.__cause__ is None
    # What is no mistake of the user's is not made one by another process.
    assert third.stop(fault) is fault and heard[2] == []
    with pytest.raises(RequestError, match="^one$") as caught:
        third.heed()
    # That it was heard is said again on the way out, and changes nothing.
    assert third.stop(caught.value) is caught.value
    assert heard == [["one", "one"], ["one"], ["one", "one"]]
    keys = Keys()
    Hosts(0, 2, keys).stop(KeyboardInterrupt())
    assert Hosts(1, 2, keys).stop(other) is other
    with pytest.raises(IncompleteError, match=r"^process 0 stopped \(KeyboardInterrupt\); "):
        Hosts(1, 2, keys).heed()


def test_a_request_that_may_be_right_elsewhere_is_told_from_one_that_is_wrong():
    """What process 0 has finished is kept then."""
    causes = (None, FileNotFoundError(2, "no such file"), ValueError("no number"))
    for cause, kept in zip(causes, (False, True, False), strict=True):
        keys, error = Keys(), RequestError("cannot use it")
        error.__cause__ = cause
        Hosts(1, 2, keys).stop(error)
        with pytest.raises(RequestError, match="^cannot use it$") as caught:
            Hosts(0, 2, keys).heed()
        assert caught.value.may_succeed == kept


def test_processes_that_were_asked_for_different_things_do_not_work_together():
    keys = Keys()
    Hosts(0, 2, keys).require_same({"seed": 1})
    Hosts(1, 2, keys).require_same({"seed": 1})
    with pytest.raises(RequestError, match="process 1 was given another command") as caught:
        Hosts(1, 2, keys).require_same({"seed": 2})
    Hosts(1, 2, keys).stop(caught.value)
    with pytest.raises(RequestError, match="process 1 was given another command") as caught:
        Hosts(0, 2, keys).wait_for_writing(ignore)
    assert caught.value.may_succeed


def test_a_runtime_that_cannot_be_reached_is_no_fault_of_ours():
    class Gone:
        def key_value_increment(self, *_):
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect\nmore")

    with pytest.raises(IncompleteError, match=r"process 0 cannot be reached \(UNAVAILABLE: failed"):
        Hosts(1, 2, Gone()).claim([Unit(0, 1)])


@pytest.mark.parametrize("others", [0, 1])
def test_the_runtime_is_left_only_together(monkeypatch, others):
    """Fault 79: it aborts who leaves it alone."""
    left = []
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: left.append(True))
    monkeypatch.setattr(hosts_module, "_LEAVE", 0.3)
    keys = Keys()
    for index in range(1, 1 + others):
        keys.key_value_set(f"pmt/bye/{index}", "")
    Hosts(0, 2, keys).leave()
    assert len(left) == others


def test_a_process_waits_until_the_result_is_written():
    keys, seen = Keys(), []

    def report(done):
        seen.append(done)
        Hosts(0, 2, keys).end_writing()

    Hosts(1, 2, keys).wait_for_writing(report)
    assert seen == [0]
    keys = Keys()
    Hosts(0, 2, keys).stop(ValueError("out of memory\nmany lines"))
    with pytest.raises(IncompleteError, match=r"^process 0 stopped \(out of memory\); [^\n]*$"):
        Hosts(1, 2, keys).wait_for_writing(ignore)


def test_a_jax_with_another_runtime_is_refused_by_name():
    require_methods(Keys())
    with pytest.raises(RequestError, match=r"no key_value_set, .* tested with JAX 0\.10\.2"):
        require_methods(object())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("localhost", 2, 0), "the coordinator is 'localhost'; expected HOST:PORT"),
        (("localhost:99999", 2, 0), "expected HOST:PORT"),
        (("localhost:9999", 2, 2), "process 2 of 2: the processes are numbered from 0 to 1"),
    ],
)
def test_places_that_make_no_sense_are_refused(arguments, words):
    """Fault 84."""
    with pytest.raises(RequestError, match=words):
        join_hosts(*arguments)


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

"""Several processes of one run: what each gets, what it says to the others, and how it ends."""

import re
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pmt.errors import IncompleteError, RequestError
from pmt.parallel import hosts as hosts_module
from pmt.parallel.hosts import Hosts, join_hosts
from pmt.parallel.runtime import require_methods, uncompressed
from pmt.parallel.units import Unit, to_bytes
from tests.parallel.tools import UNITS, Keys, ignore, processes, squares


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

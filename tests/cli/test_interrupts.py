"""Requests to end wait for the end of a piece of work (fault 74)."""

import gc
import signal
import sys
import threading
import time

import pytest

from pmt.cli.interrupts import between_pieces


def test_a_request_waits_until_it_is_listened_for():
    with pytest.raises(KeyboardInterrupt):
        with between_pieces() as listen:
            signal.raise_signal(signal.SIGINT)
            finished = True
            listen()
            finished = False
    assert finished


def test_a_request_in_the_last_piece_is_heard_at_the_end():
    finished = False
    with pytest.raises(KeyboardInterrupt):
        with between_pieces():
            signal.raise_signal(signal.SIGINT)
            finished = True
    assert finished


def test_a_second_request_is_obeyed_at_once():
    with pytest.raises(KeyboardInterrupt):
        with between_pieces():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second request was held back too")


def test_handlers_are_as_before_whatever_happens():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with between_pieces() as listen:
        listen()
        assert signal.getsignal(signal.SIGINT) is not before[0]
        assert signal.getsignal(signal.SIGTERM) is before[1]
    with pytest.raises(ValueError, match="made for this test"):
        with between_pieces():
            raise ValueError("made for this test")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_have_no_handlers_to_hold():
    heard = []

    def work():
        with between_pieces() as listen:
            listen()
            heard.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [True]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_request_that_python_ignores_is_heard_again(pmt_with, one_sentence, name):
    """In a callback of the garbage collector no exception ends the program; JAX has such a one."""
    asked = []

    def callback(phase, info):
        if not asked:
            asked.append(phase)
            signal.raise_signal(getattr(signal, name))

    def probe():
        """Collect, and work on."""
        gc.collect()
        time.sleep(5)
        pytest.fail("the request was lost")

    before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    gc.callbacks.append(callback)
    try:
        assert pmt_with(probe)() == 3
    finally:
        gc.callbacks.remove(callback)
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert one_sentence() == f"{said}; no file was left half-written"
    assert asked
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == before


def test_other_ignored_errors_are_told_as_before(pmt_with, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Failing:
        def __del__(self):
            raise OSError("made for this test")

    def probe():
        """Drop it."""
        Failing()

    assert pmt_with(probe)() == 0
    assert [str(each.exc_value) for each in told] == ["made for this test"]

"""Requests to end wait for the end of a piece of work (fault 74)."""

import signal
import threading

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

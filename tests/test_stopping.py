"""Proves what the first and the second signal do, and that handlers are back afterwards.

Run: pytest tests/test_stopping.py
"""

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from minibert.commands.interrupts import DeferredInterrupt, Interrupted

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def handlers():
    """As a terminal starts a process; Python's own handlers, and the same after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@BOTH
def test_the_first_signal_raises_and_is_named(number):
    with pytest.raises(Interrupted) as stopped, DeferredInterrupt():
        send(number)
    assert stopped.value.number == number
    assert str(stopped.value) == f"stopped by {number.name}"
    assert str(Interrupted(number, "go on")) == f"stopped by {number.name}; go on"


@BOTH
def test_a_patient_one_only_keeps_it_but_for_what_may_be_cut_short(number):
    done = []

    def cut_short() -> str:
        send(number)
        done.append("never")
        return "never"

    with DeferredInterrupt(patient=True) as stop:
        assert stop.number is None
        assert stop.at_once(lambda: "whole") == "whole"
        send(number)
        done.append("patient")
        assert stop.number == number
    with DeferredInterrupt(patient=True) as stop:
        assert stop.at_once(cut_short) is None
        assert stop.number == number and stop.patient
    assert done == ["patient"]


def test_an_error_of_its_own_is_not_taken_for_a_signal():
    with pytest.raises(KeyError), DeferredInterrupt(patient=True) as stop:
        stop.at_once(lambda: {}["absent"])


def test_one_within_another_is_the_first_to_it_too():
    with DeferredInterrupt() as outer:
        with DeferredInterrupt(patient=True):
            send(signal.SIGTERM)
        assert outer.number == signal.SIGTERM  # the next ends the process


@BOTH
@pytest.mark.parametrize("patient", [False, True])
def test_the_second_ends_the_process_at_once(number, patient):
    script = f"""
import os, signal
from minibert.commands.interrupts import DeferredInterrupt, Interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
with DeferredInterrupt(patient={patient}):
    try:
        os.kill(os.getpid(), {int(number)})
        print("patient", flush=True)
    except Interrupted:
        print("raised", flush=True)
    finally:
        os.kill(os.getpid(), {int(number)})
        print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + number, "")
    assert done.stdout == ("patient\n" if patient else "raised\n")


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with DeferredInterrupt() as stop:
            send(signal.SIGTERM)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_in_a_thread_there_are_no_handlers():
    seen = []

    def work() -> None:
        with DeferredInterrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]

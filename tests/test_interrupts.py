"""What the first and the second signal do, and that the handlers are restored.

Run: pytest tests/test_interrupts.py
"""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from helpers import ROOT, start_script

from minibert.commands.interrupts import SignalHandler
from minibert.errors import Interrupted

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own handlers, also if pytest is a background job; the same after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@BOTH
def test_the_first_signal_raises_and_is_named(number):
    with pytest.raises(Interrupted) as interrupted, SignalHandler():
        send(number)
    assert interrupted.value.number == number
    assert str(interrupted.value) == f"stopped by {number.name}"
    hint = Interrupted(number, "resume with: train.py")
    assert str(hint) == f"stopped by {number.name}; resume with: train.py"


@BOTH
def test_a_deferred_signal_is_recorded_and_raised_when_asked(number):
    with SignalHandler(deferred=True) as signals:
        signals.raise_if_interrupted()
        assert signals.number is None
        send(number)
        assert signals.number == number
        with pytest.raises(Interrupted):
            signals.raise_if_interrupted()


@BOTH
def test_later_signals_are_ignored_on_request(number):
    """torchrun sends each process two."""
    with SignalHandler(deferred=True, once=True) as signals:
        send(number)
        send(signal.SIGTERM)
        assert signals.number == number


@BOTH
def test_an_interruptible_context_is_left_at_once(number):
    reached = []
    with SignalHandler(deferred=True) as signals:
        with pytest.raises(Interrupted), signals.interruptible():
            reached.append("inside")
            send(number)
            reached.append("never")
        assert signals.number == number and signals.deferred
    assert reached == ["inside"]


def test_an_interruptible_context_is_not_entered_after_a_signal():
    with SignalHandler(deferred=True) as signals:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted), signals.interruptible():
            pytest.fail("entered")


def test_signals_are_deferred_again_after_an_interruptible_context():
    with SignalHandler(deferred=True) as signals:
        with pytest.raises(KeyError), signals.interruptible():
            raise KeyError
        with signals.interruptible():
            pass
        send(signal.SIGTERM)
        assert signals.number == signal.SIGTERM


def test_a_signal_inside_an_inner_handler_counts_for_the_outer_one():
    with SignalHandler() as outer:
        with SignalHandler(deferred=True):
            send(signal.SIGTERM)
        assert outer.number == signal.SIGTERM  # the next signal ends the process


@BOTH
@pytest.mark.parametrize("deferred", [False, True])
def test_the_second_signal_ends_the_process_at_once_and_says_so(tmp_path, number, deferred):
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.interrupts import SignalHandler
from minibert.errors import Interrupted
with SignalHandler(deferred={deferred}):
    try:
        os.kill(os.getpid(), {int(number)})
        print("deferred", flush=True)
    except Interrupted:
        print("raised", flush=True)
    finally:
        os.kill(os.getpid(), {int(number)})
        print("never", flush=True)
"""
    process = start_script(["-c", script], cwd=tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.strip() == "stopped at once by a second signal"
    assert output == ("deferred\n" if deferred else "raised\n")


def test_an_ignored_signal_stays_ignored():
    """A shell lets its background jobs ignore Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with SignalHandler() as signals:
            send(signal.SIGTERM)
        assert signals.number is None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_in_another_thread_nothing_is_handled():
    seen = []

    def work() -> None:
        with SignalHandler():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]

"""SIGINT and SIGTERM: the first one lets work end well, a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """A signal ended the work; `hint` says how to go on with it."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(number)
        self.number, self.hint = number, hint

    def __str__(self) -> str:
        said = f"stopped by {signal.Signals(self.number).name}"
        return f"{said}; {self.hint}" if self.hint else said


class Signals:
    """Makes the first signal raise Stopped, or, with `patient`, only be kept in `number`.

    A context; the handlers of before are back after it. Python has signals in its main thread only:
    in another one this does nothing.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell lets its background jobs ignore Ctrl-C; they go on doing so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Signals):  # to that one, the next signal is the second
                outer.number = outer.number or self.number

    def at_once(self, work: Callable[[], T]) -> T | None:
        """Do some work and return what it returns; nothing where a signal cut it short."""
        try:
            self.patient = False
            result = work()
            self.patient = True
        except Stopped:
            self.patient = True
            return None
        return result

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if not self.patient:
            raise Stopped(number)

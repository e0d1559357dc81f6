"""SIGINT and SIGTERM: the first signal lets work end well, a second one ends the process."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from minibert.errors import Interrupted


class SignalHandler:
    """A context in which the first signal raises Interrupted; a second one ends the process.

    With `deferred`, the first signal is only recorded in `number`, for the work to stop where it
    can be continued. With `once`, later signals are ignored: torchrun sends each process two, and
    ends it after 30 seconds. The previous handlers are restored at the end. Python delivers signals
    to its main thread only; in another thread the context does nothing.
    """

    def __init__(self, *, deferred: bool = False, once: bool = False) -> None:
        self.deferred, self.once = deferred, once
        self.number: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "SignalHandler":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell makes its background jobs ignore Ctrl-C: keep that.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, SignalHandler):  # for the outer one, the next is the second
                outer.number = outer.number or self.number

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted if a signal was recorded."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise Interrupted at once inside this context, also for a signal recorded before."""
        self.raise_if_interrupted()
        self.deferred = False
        try:
            yield
        finally:
            self.deferred = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and self.once:
            return
        if self.number is not None:
            os.write(2, b"\nstopped at once by a second signal\n")
            os._exit(128 + number)
        self.number = number
        if not self.deferred:
            raise Interrupted(number)

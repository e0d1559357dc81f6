"""What a user's mistake looks like: one line on standard error, exit status 2, no traceback."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

from minibert.stopping import Signals, Stopped

# What a terminal obeys, what ends a line, and halves of characters: no name holds them.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Something the user gave that cannot be used; the message says what, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, limit=1000))


def printable(text: str, limit: int = 200) -> str:
    """Return `text` on one line of at most `limit` characters, control characters escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def begin() -> None:
    """Call before the imports, which take a second: Ctrl-C in them ends the process quietly."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A file opened later would get a closed stream's number, and what is written to that stream.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:  # print() would take standard output in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def run_command(main: Callable[[Sequence[str]], None]) -> int:
    """Run a script's `main` on the command line's words and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever a terminal cannot show
    with Signals():
        try:
            main(sys.argv[1:])
            if sys.stdout is not None:  # closed by who started this
                sys.stdout.flush()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            # The reader left (`| head`); Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13  # as a process that SIGPIPE ended; Windows does not know its name
        except OSError as error:  # a full disk behind standard output, a name too long
            print(f"error: {printable(str(error), limit=1000)}", file=sys.stderr)
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 2
        except Stopped as stopped:
            print(printable(str(stopped), limit=1000), file=sys.stderr)
            return 128 + stopped.number
    return 0

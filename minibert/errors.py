"""What a user's mistake looks like: one line on standard error, exit status 2, no traceback."""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
    """Something the user gave that cannot be used; the message says what, where, and what to do."""


def printable(text: str, limit: int = 200) -> str:
    """Return `text` on one line of at most `limit` characters, control characters escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def run_command(main: Callable[[Sequence[str]], None]) -> int:
    """Run a script's `main` on the command line's words and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever a terminal cannot show
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {printable(str(error), limit=1000)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader left (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a process that SIGPIPE ended; Windows does not know its name
    except OSError as error:  # a full disk behind standard output, a name too long for the system
        print(f"error: {printable(str(error), limit=1000)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0

"""The errors that a user meets: one printable line each, without a traceback in the commands."""

import re
import signal
import sys
from pathlib import Path

# Terminal control, ends of lines and lone surrogates: not allowed in names.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SCRIPTS = ("train.py", "eval.py", "predict.py")  # of a checkout


class InputError(ValueError):
    """Input that cannot be used. The message says what was found, where, and what to do.

    Example:
        >>> raise InputError("reviews.csv, line 3: column label: has no label")
        Traceback (most recent call last):
        minibert.errors.InputError: reviews.csv, line 3: column label: has no label
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, limit=1000))


class ProcessLost(InputError):
    """Another process of the same command has ended, so this one cannot go on."""


class Silent(Exception):
    """This process ends with this exit status and no line: another process prints it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Interrupted(KeyboardInterrupt):
    """A signal stopped the command. `hint` says how to continue."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(number)
        self.number, self.hint = number, hint

    def __str__(self) -> str:
        message = f"stopped by {signal.Signals(self.number).name}"
        return f"{message}; {self.hint}" if self.hint else message


def printable(text: str, limit: int = 200) -> str:
    """Return `text` on one line of at most `limit` characters, with control characters escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def program_name(name: str) -> str:
    """Return a command's name: the script's, if a script is running, or else `minibert NAME`."""
    script = Path(sys.argv[0]).name in SCRIPTS and f"{name}.py" in SCRIPTS
    return f"{name}.py" if script else f"minibert {name}"


def command_line(name: str) -> str:
    """Return what a user types to start a command."""
    program = program_name(name)
    return f"python {program}" if program.endswith(".py") else program

"""Options as fields of a dataclass: default, unit, range and help text in one place."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from minibert.errors import InputError


def option(
    default: Any,
    text: str,
    *,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
    shown: str | None = None,
) -> Any:
    """Return a dataclass field. `text` is its help, with the unit; `shown` its default in --help.

    `parse` reads it from the command line; `bounds` are the lowest and highest value, inclusive.
    A default of None means that the option may be left out.
    """
    metadata = {
        "help": text,
        "parse": parse,
        "choices": choices,
        "bounds": bounds,
        "shown": str(default) if shown is None else shown,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_options(options: Any, *more_problems: str) -> None:
    """Raise one InputError for all values of an options dataclass outside their range."""
    problems = [
        f"{flag_name(field.name)} {problem}"
        for field in dataclasses.fields(options)
        if (problem := _problem(getattr(options, field.name), field))
    ]
    problems += more_problems
    if problems:
        raise InputError("; ".join(problems))


def flag_name(name: str) -> str:
    """Return the command line's name of an option."""
    return "--" + name.replace("_", "-")


def _problem(value: Any, field: Any) -> str | None:
    choices, (low, high) = field.metadata["choices"], field.metadata["bounds"]
    if value is None:
        return None if field.default is None or field.metadata["parse"] is length else "is empty"
    if value == "":
        return "is empty"
    if choices and value not in choices:
        return f"is {value!r}, not one of {', '.join(choices)}"
    if low is None or isinstance(value, bool):
        return None
    try:
        # Written so that NaN fails too, and infinity where there is no upper bound.
        inside = value >= low and (value < float("inf") if high is None else value <= high)
    except TypeError:
        return f"is {value!r}, not a number"
    limits = f"{low} or more" if high is None else f"from {low} to {high}"
    return None if inside else f"is {value}; it must be {limits}"


def length(text: str) -> int | None:
    """Parse --max-length: a number of tokens, or auto (None)."""
    return None if text == "auto" else int(text)

"""Options as fields of a dataclass: default, unit, range and help text in one place."""

import argparse
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
    """Return a dataclass field. A default of None means that the option is optional.

    Args:
        default: the value if the option is not given.
        text: the help text, with the unit.
        parse: converts the command line's text to the value.
        choices: the allowed values.
        bounds: the lowest and highest value, inclusive.
        shown: the default as --help shows it.
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
    """Raise one InputError for all values of an options dataclass that are not allowed.

    `more_problems` are those that concern several options.
    """
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
    """Return what is wrong with a value, which may be of any type: settings.json can be edited."""
    parse, choices = field.metadata["parse"], field.metadata["choices"]
    if value is None:
        return None if field.default is None or parse is length else "is empty"
    if value == "":
        return "is empty"
    kind, name = _kind(field)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return f"is {value!r}, not {name}"
    if choices and value not in choices:
        return f"is {value!r}, not one of {', '.join(choices)}"
    low, high = field.metadata["bounds"]
    if low is None:
        return None
    # Written so that NaN fails too, and infinity if there is no upper bound.
    inside = value >= low and (value < float("inf") if high is None else value <= high)
    limits = f"{low} or more" if high is None else f"from {low} to {high}"
    return None if inside else f"is {value}; it must be {limits}"


def _kind(field: Any) -> tuple[Any, str]:
    """Return the type of a field's values, and its name in messages."""
    if isinstance(field.default, bool):
        return bool, "true or false"
    kinds: dict[Any, tuple[Any, str]] = {
        int: (int, "a whole number"),
        length: (int, "a whole number or auto"),
        float: ((int, float), "a number"),
        str: (str, "text"),
    }
    return kinds.get(field.metadata["parse"], (object, "of this type"))


def length(text: str) -> int | None:
    """Parse --max-length: a number of tokens, or auto (None)."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None

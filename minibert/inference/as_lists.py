"""Columns of texts and labels, as callers of the Python interface give them, to lists."""

from collections.abc import Iterable, Sequence
from typing import Any

from minibert.data.columns import Columns
from minibert.data.labels import Label, read_label
from minibert.data.limits import SURROGATE
from minibert.errors import CONTROL_CHARACTERS, InputError, printable
from minibert.model.config import HeadConfig


def as_texts(values: str | Iterable[str], name: str) -> list[str]:
    """Return texts as a list. Raises InputError, with the argument's name, for other values."""
    texts = as_list(values, name)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{name}[{number}] is {shown(text)}, not a string")
        if SURROGATE.search(text):
            raise InputError(f"{name}[{number}] has half of a surrogate pair: {shown(text)}")
    return [str(text) for text in texts]  # numpy has a string type of its own


def as_names(values: str | Iterable[Any], name: str) -> list[str]:
    """Return class names or numbers as strings. Raises InputError for other values."""
    names = []
    for number, value in enumerate(as_list(values, name)):
        label = value.item() if getattr(value, "ndim", None) == 0 else value  # of numpy or torch
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, str | int):
            raise InputError(f"{name}[{number}] is {shown(value)}, not a class name or number")
        if CONTROL_CHARACTERS.search(str(label)):  # no model can be loaded with such a name
            raise InputError(f"{name}[{number}] is {shown(value)}; remove its control characters")
        names.append(str(label))
    return names


def as_labels(values: Iterable[Any], head: HeadConfig) -> Sequence[Label]:
    """Return labels as `labels.Label`. Raises InputError, with the place, for other values.

    The columns of an array of 0 and 1 (N, C) are the classes.
    """
    if head.task == "single-label":
        return as_names(values, "labels")
    found: list[Label] = []
    columns = Columns("", label="labels")
    is_table = head.task == "multi-label" and getattr(values, "ndim", 1) == 2
    if is_table and values.shape[1] != len(head.labels):  # type: ignore[attr-defined]
        shape = tuple(values.shape)  # type: ignore[attr-defined]
        raise InputError(f"labels has the shape {shape}; the model has {len(head.labels)} classes")
    for number, value in enumerate(as_list(values, "labels")):
        cell = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
        cell = list(cell) if isinstance(cell, tuple | set) else cell
        try:
            if not is_table and head.task == "multi-label" and _is_row_of_flags(cell, head):
                raise ValueError(f"is {shown(value)}; give names, or an array of 0 and 1 (N, C)")
            if is_table:
                cell = dict(zip(head.labels, cell, strict=True))
            found.append(read_label(cell, head.task, columns, None))
        except ValueError as error:
            raise InputError(f"labels[{number}]: {error}") from None
    return found


def _is_row_of_flags(cell: Any, head: HeadConfig) -> bool:
    """Return whether a list may be meant as a row of 0 and 1, one for each class."""
    if not isinstance(cell, list) or len(cell) != len(head.labels):
        return False
    return all(isinstance(x, int | float) and x in (0, 1) for x in cell)


def as_list(values: Any, name: str) -> list[Any]:
    """Return a column as a list; a single string is a column of one."""
    if isinstance(values, str):
        return [values]
    try:
        if isinstance(values, bytes | dict | set):
            raise TypeError
        return list(values)
    except TypeError:
        raise InputError(f"{name} is {shown(values)}; give a string or a list") from None


def check_lengths(texts: Sequence[str], others: Sequence[Any], name: str) -> None:
    """Raise InputError unless there is one of the others for each text."""
    if len(texts) != len(others):
        raise InputError(f"{len(texts)} texts have {len(others)} {name}; give one for each text")


def shown(value: Any) -> str:
    """Return a value for an error message."""
    return printable(repr(value), 80)

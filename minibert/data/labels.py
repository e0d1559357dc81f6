"""The cells of a row to its label: one class, several classes, or numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from minibert.data.columns import Columns
from minibert.data.readers import Row
from minibert.errors import CONTROL_CHARACTERS, InputError, printable

# A class; the classes of a row, which may be none; or its numbers.
Label = str | tuple[str, ...] | tuple[float, ...]

SEPARATOR = "|"
LARGEST = 2.0**127  # of numbers; float32's largest is nearly twice as large


@dataclass(frozen=True)
class LabelFormat:
    """How labels are read. With the task `auto`, the cells and the model decide."""

    task: str = "auto"
    separator: str | None = None  # between the classes in a cell
    model_task: str | None = None  # what the checkpoint was trained for


def label_cells(row: Row, columns: Columns) -> Any:
    """Return a row's label as it is written: one value, or one for each label column."""
    if columns.labels:
        return {name: _plain(row.fields.get(name)) for name in columns.labels}
    assert columns.label is not None
    return _plain(row.fields.get(columns.label))


def choose_task(cells: Sequence[Any], columns: Columns, form: LabelFormat) -> tuple[str, str]:
    """Return the task that the labels of all rows suggest, and the reason if it needs one."""
    if form.task != "regression":
        check_not_flags(cells, columns)
    if form.task != "auto":
        return form.task, "as requested"
    if columns.labels:
        values = [x for cell in cells for x in cell.values()]
        others = sum(_flag(x) is None and _number(x) is not None for x in values)
        if 10 * others > len(values):  # fewer are errors in columns of 0 and 1
            return "regression", "--label-columns names columns of numbers"
        return "multi-label", "--label-columns names one column of 0 and 1 for each class"
    if form.separator:
        return "multi-label", "--label-separator is given"
    if form.model_task == "multi-label" and all(isinstance(cell, str) for cell in cells):
        return "multi-label", "the model predicts several labels"
    lists = [cell for cell in cells if isinstance(cell, list)]
    if lists:
        values = [x for cell in lists for x in cell]
        fractions = (isinstance(x, float) and not x.is_integer() for x in values)
        if any(fractions) and None not in map(_number, values):
            return "regression", f"the column {columns.label} has lists of numbers"
        return "multi-label", f"the column {columns.label} has lists"
    numbers = [number for number in map(_number, cells) if number is not None]
    if 2 * len(numbers) > len(cells):  # the other cells are errors
        if form.model_task == "regression":
            return "regression", "the model predicts numbers"
        if any(number != int(number) for number in numbers):
            return "regression", f"the column {columns.label} has numbers with fractions"
        if len(set(numbers)) > 2:
            return "single-label", "whole numbers are classes; --task regression predicts them"
    texts = {cell.strip() for cell in cells if isinstance(cell, str)}
    combined = (x for x in sorted(texts) if SEPARATOR in x and texts.issuperset(x.split(SEPARATOR)))
    if (example := next(combined, None)) is not None:
        hint = f"--label-separator '{SEPARATOR}' makes several of it"
        return "single-label", f"{_shown(example)} is one class; {hint}"
    return "single-label", ""


def check_not_flags(cells: Sequence[Any], columns: Columns) -> None:
    """Raise InputError for lists that have 0 or 1 for each class.

    As names of classes, [0, 1] and [1, 0] are the same two.
    """
    lists = {tuple(map(_flag, cell)) for cell in cells if isinstance(cell, list)}
    lengths = {len(flags) for flags in lists}
    if (
        len(lists) > 1
        and len(lengths) == 1
        and min(lengths) > 1
        and None not in set().union(*lists)
    ):
        raise InputError(
            f"the column {columns.label} has lists of 0 and 1; make a column of each class and "
            "give --label-columns, or --task regression if they are numbers"
        )


def read_label(cells: Any, task: str, columns: Columns, separator: str | None) -> Label:
    """Return a row's label. Raises ValueError with what is wrong with it."""
    column = columns.label or ", ".join(columns.labels)
    try:
        if task == "multi-label":
            return _several_classes(cells, separator or SEPARATOR)
        if task == "regression":
            return _numbers(cells)
        return one_class(cells)
    except ValueError as error:
        raise ValueError(f"column {column}: {error}") from None


def read_class(cell: Any, column: str) -> str:
    """Return the class in a cell. Raises ValueError with the column and what is wrong with it."""
    try:
        return one_class(cell)
    except ValueError as error:
        raise ValueError(f"column {column}: {error}") from None


def one_class(value: Any) -> str:
    """Return a class's name. Raises ValueError with what is wrong with it."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else (None if value != value else value)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("has no label")
    if not isinstance(value, str) or CONTROL_CHARACTERS.search(value.strip()):
        raise ValueError(f"holds {_shown(value)}, not a label")
    return whole_number(value.strip())


def whole_number(name: str) -> str:
    """Return 1 for 1.0, which pandas writes if a column of whole numbers has a gap."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", name)


def _several_classes(value: Any, separator: str) -> tuple[str, ...]:
    """Return the classes of a list, a separated string, or columns of 0 and 1."""
    if isinstance(value, Mapping):
        flags = {name: _flag(cell) for name, cell in value.items()}
        wrong = next((name for name, flag in flags.items() if flag is None), None)
        if wrong is not None:
            raise ValueError(f"{wrong} holds {_shown(value[wrong])}, not 0 or 1")
        return tuple(name for name, flag in flags.items() if flag)
    if isinstance(value, str):
        value = [name for name in value.split(separator) if name.strip()]
    if value is None:
        raise ValueError("has no label; an empty list or cell is a row without any class")
    names = [one_class(name) for name in (value if isinstance(value, list) else [value])]
    found = tuple(dict.fromkeys(names))
    if len(found) < len(names) and None not in map(_flag, names):
        raise ValueError(
            f"holds {_shown(value)}, which repeats a class; for a column of 0 and 1 for each class "
            "give --label-columns"
        )
    return found


def _numbers(value: Any) -> tuple[float, ...]:
    """Return the number of a cell, or those of a list or of several columns."""
    if isinstance(value, Mapping):
        wrong = next((name for name, cell in value.items() if _number(cell) is None), None)
        if wrong is not None:
            raise ValueError(f"{wrong} holds {_shown(value[wrong])}, not a number")
        value = list(value.values())
    values = value if isinstance(value, list) else [value]
    numbers = [_number(x) for x in values]
    if not values or None in numbers:
        wrong = value if not values else values[numbers.index(None)]
        raise ValueError(f"holds {_shown(wrong)}, not a number")
    return tuple(x for x in numbers if x is not None)


def _plain(value: Any) -> Any:
    """Return a Decimal, which Parquet files of databases have, as int or float."""
    if isinstance(value, list):
        return [_plain(x) for x in value]
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _number(value: Any) -> float | None:
    """Return a cell's number; None if it has none or is not finite in float32."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < LARGEST else None


def _flag(value: Any) -> bool | None:
    """Return whether a cell of 0 or 1 is 1; None for another value."""
    text = str(value).strip().lower()
    if text in ("1", "1.0", "true"):
        return True
    return False if text in ("0", "0.0", "false") else None


def _shown(value: Any) -> str:
    return printable(repr(value), 40)

"""The labels of examples to the names of a model's outputs, and to what the loss compares with."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from minibert.data.examples import Examples
from minibert.data.labels import whole_number
from minibert.errors import CONTROL_CHARACTERS, InputError, printable

HIDDEN_HINT = "; -1 is how GLUE hides the labels of its test files"


def output_names(examples: Examples) -> tuple[str, ...]:
    """Return the names of the outputs: the classes, or the columns of the numbers.

    Classes are sorted, numbers by value before names, or in the order of their columns. The column
    `label_text` names the numbers. Raises InputError if there is only one class, if no row has the
    class of a column, and for a column whose name has control characters.
    """
    columns = examples.columns
    if examples.task == "regression":
        count = max(len(label) for label in examples.labels)
        names = _column_names(columns.labels or (columns.label or "label",), examples.source)
        return names if count == len(names) else tuple(f"{names[0]}_{n}" for n in range(count))
    if examples.task == "multi-label":
        found = {name for label in examples.labels for name in label}
        names = _column_names(columns.labels, examples.source) or tuple(sorted(found, key=_natural))
        if not found:
            raise InputError(f"{examples.source}: no row has a class")
        if absent := [name for name in names if name not in found]:
            raise InputError(
                f"{examples.source}: no row has the class {printable(absent[0])!r}; drop it from "
                "--label-columns, or add rows"
            )
        return names
    return class_names(examples)


def class_names(examples: Examples) -> tuple[str, ...]:
    """Return the classes of rows with one class each; `label_text` names the numbers.

    Raises InputError if there are fewer than two labels.
    """
    labels = sorted(set(examples.labels), key=_natural)
    if len(labels) < 2:
        raise InputError(
            f"{examples.source}: has only the label {printable(labels[0])!r}; it needs two or more"
            + (HIDDEN_HINT if labels == ["-1"] else "")
        )
    names = tuple(examples.names.get(label, label) for label in labels)
    if len(set(names)) < len(names):
        raise InputError(f"{examples.source}: the column label_text names two labels alike")
    return names


def class_ids(examples: Examples, classes: Sequence[str], *, numbers: bool = False) -> np.ndarray:
    """Return each example's class number, int64.

    A label's name, from `label_text`, matches a class's name, in any case if no two classes differ
    only in case. If a name is no class but all labels are, the labels match. With `numbers`, a
    label may also be a class's number, unless a class name has a digit. Raises InputError for a
    label that matches no class.
    """
    find = class_finder(examples, classes, numbers=numbers)
    return np.array([find(row, label) for row, label in enumerate(examples.labels)], dtype=np.int64)


def class_set(examples: Examples, classes: Sequence[str], *, numbers: bool = False) -> np.ndarray:
    """Return 1 for each class of each example and 0 for all others: float32 (N, C).

    Labels match as in `class_ids`.
    """
    columns = examples.columns.labels
    fold = case_folding(classes)
    known = set(map(fold, columns))
    if missing := [name for name in classes if columns and fold(name) not in known]:
        listed = ", ".join(printable(name, 40) for name in missing[:10])
        raise InputError(f"{examples.source}: --label-columns has no column for {listed}")
    find = class_finder(examples, classes, numbers=numbers)
    targets = np.zeros((len(examples), len(classes)), dtype=np.float32)
    for row, labels in enumerate(examples.labels):
        for label in labels:
            targets[row, find(row, label)] = 1
    return targets


def number_rows(examples: Examples, names: Sequence[str]) -> np.ndarray:
    """Return the numbers of each example, float32 (N, K), in the order of the names.

    Several label columns are matched by name, in any case. Raises InputError for other names or
    counts.
    """
    fold, columns = case_folding(names), examples.columns.labels
    places = {fold(name): place for place, name in enumerate(columns)}
    if len(columns) > 1 and places.keys() != set(map(fold, names)):
        raise InputError(
            f"{examples.source}: the columns {', '.join(columns)} are not the model's numbers "
            f"({', '.join(printable(name, 40) for name in names[:10])})"
        )
    for row, numbers in enumerate(examples.labels):
        if len(numbers) != len(names):
            found = f"{len(numbers)} number{'s' if len(numbers) > 1 else ''}"
            raise InputError(
                f"{examples.places[row]}: {found}; the model predicts {len(names)} "
                f"({', '.join(printable(name, 40) for name in names[:10])})"
            )
    exact = np.array(examples.labels, dtype=np.float64).reshape(len(examples), len(names))
    rows = exact.astype(np.float32)
    spread = np.ptp(exact, axis=0)
    lost = np.abs(rows - exact).max(axis=0) > 0.01 * spread
    if (lost & (spread > 0)).any():
        raise InputError(
            f"{examples.source}: float32 has too few digits for the numbers, up to "
            f"{np.abs(exact).max():.9g}, to differ as they do; subtract a constant from all"
        )
    return rows[:, [places[fold(name)] for name in names]] if len(columns) > 1 else rows


def case_folding(names: Sequence[str]) -> Callable[[str], str]:
    """Return what makes two spellings of a name equal: none if two names differ only in case."""
    return str.lower if len({name.lower() for name in names}) == len(names) else str


def class_finder(
    examples: Examples, classes: Sequence[str], *, numbers: bool
) -> Callable[[int, str], int]:
    """Return a function from a row and one of its labels to the number of the class."""
    ids = {name.lower(): number for number, name in enumerate(classes)}
    if len(ids) < len(classes):
        ids = {}
    if numbers and not any(re.search(r"\d", name) for name in classes):
        ids |= {str(number): number for number in range(len(classes))}
    exact = {name: number for number, name in enumerate(classes)}
    # A name that did not come from a cell, such as the column 1.0, is read as 1 in one.
    ids = {whole_number(name): number for name, number in exact.items()} | ids | exact

    names = examples.names
    known = all(name in ids or name.lower() in ids for name in names.values())
    if not known and exact.keys() >= set(examples.classes()):
        names = {}  # the model was trained on the labels, not on their names

    def find(row: int, label: str) -> int:
        name = names.get(label, label)
        found = ids.get(name, ids.get(name.lower()))
        if found is not None:
            return found
        known = ", ".join(printable(name, 40) for name in classes[:10])
        raise InputError(
            f"{examples.places[row]}: the label {printable(label, 80)!r} is none of the model's "
            f"{len(classes)} classes ({known}{', ...' if len(classes) > 10 else ''})"
            + (HIDDEN_HINT if label == "-1" else "")
        )

    return find


def _column_names(columns: tuple[str, ...], source: str) -> tuple[str, ...]:
    """Return names of columns as names of outputs, with which a model can be loaded."""
    for name in columns:
        if CONTROL_CHARACTERS.search(name):
            raise InputError(
                f"{source}: the column {printable(repr(name), 40)} has control characters in its "
                "name, which becomes that of an output; rename it"
            )
    return columns


def _natural(label: str) -> tuple[int, float, str]:
    """Return a sort key that puts numbers, by value, before names."""
    return (0, float(label), label) if re.fullmatch(r"-?\d{1,300}", label) else (1, 0.0, label)

"""Folds of cross-validation: equal texts are in one fold, and each class is in proportion."""

from collections.abc import Sequence

import numpy as np

from minibert.data.classes import class_ids, class_set, output_names
from minibert.data.duplicates import text_keys
from minibert.data.examples import Examples
from minibert.data.stratify import stratified_multi_label, with_all_classes
from minibert.errors import InputError, printable


def fold_rows(
    examples: Examples, number: int, folds: int, ratios: Sequence[int] | None, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row numbers for training, for validation, and of the fold `number` from 1.

    Rows whose texts are equal up to case, spaces and punctuation are in the same one of the three.
    The rows outside the fold are split in `ratios` for training and validation; None: all are for
    training. Raises InputError if any fold would be empty or have all texts of a class.
    """
    _, text_of_row = np.unique(text_keys(examples), return_inverse=True)
    classes = _classes_of_texts(examples, text_of_row)
    texts_of_folds = stratified_multi_label(classes, (1,) * folds, seed=seed)
    _check_folds(examples, texts_of_folds, classes)
    held_out = texts_of_folds[number - 1]
    train = np.setdiff1d(np.arange(len(classes)), held_out)
    validation = train[:0]
    if ratios:
        parts = [train[x] for x in stratified_multi_label(classes[train], ratios, seed=seed)]
        train, validation = with_all_classes(parts, classes)
        if not len(validation):
            raise _too_few(examples, len(classes), folds)
    train, validation, held_out = (
        np.flatnonzero(np.isin(text_of_row, texts)) for texts in (train, validation, held_out)
    )
    return train, validation, held_out


def _classes_of_texts(examples: Examples, text_of_row: np.ndarray) -> np.ndarray:
    """Return which classes the rows of each distinct text have: bool (texts, C).

    C is 0 in a regression.
    """
    names = () if examples.task == "regression" else output_names(examples)
    found = np.zeros((int(text_of_row.max()) + 1, len(names)), dtype=bool)
    if examples.task == "single-label":
        found[text_of_row, class_ids(examples, names)] = True
    elif examples.task == "multi-label":
        np.logical_or.at(found, text_of_row, class_set(examples, names) > 0)
    return found


def _check_folds(
    examples: Examples, texts_of_folds: Sequence[np.ndarray], classes: np.ndarray
) -> None:
    """Raise InputError if a fold is empty, or has all texts of a class."""
    folds = len(texts_of_folds)
    if len(classes) < folds:
        raise _too_few(examples, len(classes), folds)
    in_folds = np.sum([classes[texts].any(axis=0) for texts in texts_of_folds], axis=0)
    if (in_folds < 2).any():
        rarest = int(in_folds.argmin())
        texts = int(classes[:, rarest].sum())
        raise InputError(
            f"{examples.source}: the class {printable(output_names(examples)[rarest])!r} has "
            f"{texts} distinct text{'s' if texts > 1 else ''}, all in one of {folds} folds; add "
            "rows, or merge classes"
        )


def _too_few(examples: Examples, texts: int, folds: int) -> InputError:
    return InputError(
        f"{examples.source}: has {texts} distinct texts, too few for {folds} folds; add rows, or "
        "lower --folds"
    )

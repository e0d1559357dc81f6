"""Rows whose label is probably wrong, from probabilities of models that were not trained on them.

This is confident learning (Northcutt, Jiang & Chuang 2021, arXiv 1911.00068, section 3): the rows
off the diagonal of the confident joint. The package cleanlab has it too; it needs pandas.
"""

import numpy as np


def label_issues(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers (M,) of the rows whose label is probably wrong, and the suggested classes.

    `probabilities` (N, C) must be of models that were not trained on the row; `labels` (N,) are the
    given class numbers. A label is probably wrong if another class is more probable, and at least
    as probable as it is on average in the rows that are labelled with it. Of several such classes
    the most probable is suggested. The rows with the least probable label come first.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    given = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, given, classes) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf
    # As in cleanlab: rounding must not keep a probability below a mean of equal ones.
    confident = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    found = np.flatnonzero(confident[rows, suggested] > given)
    found = found[np.argsort(given[found], kind="stable")]
    return found, suggested[found]

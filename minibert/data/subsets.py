"""A part of the training texts, for a learning curve: a smaller part is in every larger one."""

from collections import Counter, defaultdict
from collections.abc import Hashable

import numpy as np

from minibert.data.examples import Examples


def take_percent(examples: Examples, percent: int, *, seed: int) -> Examples:
    """Return so many percent of the examples, rounded up, of each class alike, in their order.

    With one seed, a smaller part is in every larger one. Every class keeps at least one example.
    Rows with several classes count as their rarest one.
    """
    if percent == 100:
        return examples
    rows = np.random.default_rng(seed).permutation(len(examples)).tolist()
    strata = _strata(examples)
    of_stratum = defaultdict(list)
    for row in rows:
        of_stratum[strata[row]].append(row)
    kept = {
        row for found in of_stratum.values() for row in found[: -(-len(found) * percent // 100)]
    }
    if examples.task == "multi-label":  # a class may be nobody's rarest
        first = {name: row for row in reversed(rows) for name in examples.labels[row]}
        kept.update(first.values())
    part = examples.take(sorted(kept), f"{percent}% of {examples.source}")
    part.dropped, part.possible_pair = examples.dropped, examples.possible_pair
    return part


def _strata(examples: Examples) -> list[Hashable]:
    """Return the class of each row that its part has in proportion; numbers have none."""
    if examples.task == "regression":
        return [None] * len(examples)
    if examples.task == "single-label":
        return list(examples.labels)
    counts = Counter(name for names in examples.labels for name in names)
    return [
        min(names, key=lambda name: (counts[name], name), default=None) for names in examples.labels
    ]

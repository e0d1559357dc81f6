"""Splits to a data report: a short one before each run, a full one for `train.py --check-data`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from minibert.data.characters import wrongly_encoded
from minibert.data.duplicates import LISTED, TextIndex, normalize
from minibert.data.examples import Examples
from minibert.data.options import DataOptions
from minibert.data.report import FEW, SHORT, DataReport, Finding, SplitReport
from minibert.data.splits import Splits, read_splits
from minibert.data.token_report import report_tokens
from minibert.data.tokenizer import Tokenizer


def check_data(
    options: DataOptions, tokenizer: Tokenizer | None = None, *, model_task: str | None = None
) -> DataReport:
    """Read a data set and report what is in it, and what to look at before training.

    Rows that cannot be used are counted, and nothing is dropped as a leak. With a tokenizer, the
    report has token lengths and unknown words. `model_task` is what the checkpoint was trained for.
    Raises InputError for files, columns or labels of which no splits can be made.

    Example:
        >>> import minibert
        >>> report = minibert.check_data(minibert.DataOptions("examples/reviews.csv"))
        >>> report.splits["train"].rows
        665
        >>> report.splits["test"].leaks.count
        0
    """
    splits = read_splits(replace(options, leaks="keep", bad_rows="drop"), model_task=model_task)
    report = check_splits(splits, near=True)
    if tokenizer is None:
        return report
    tokens = {name: report_tokens(split, tokenizer) for name, split in splits.named().items()}
    return replace(report, tokens=tokens)


def check_splits(splits: Splits, *, near: bool = False) -> DataReport:
    """Report what is in the splits; with `near`, also texts that are nearly in them twice."""
    train, named = splits.train, splits.named()
    indices = {name: TextIndex(split, near=near) for name, split in named.items()}
    absent = absent_classes(named)
    reports = {
        name: _split_report(index, None if name == "train" else indices["train"], absent[name])
        for name, index in indices.items()
    }
    in_test = None
    if near and splits.test is not None:
        in_test = indices["test"].duplicates_of(indices["validation"])
    counts = Counter(train.classes()).most_common()
    return DataReport(
        columns=train.columns,
        possible_pair=train.possible_pair,
        task=train.task,
        task_reason=train.task_reason,
        splits=reports,
        leaks_dropped=splits.leaks_dropped,
        validation_in_test=in_test,
        similar_classes=tuple(similar_classes(label for label, _ in counts)),
        small_classes={label: count for label, count in counts if count < FEW},
        tokens=None,
    )


def absent_classes(splits: Mapping[str, Examples]) -> dict[str, list[str]]:
    """Return, for each split, the classes that another split has and it has not."""
    classes = {
        name: {split.class_key(label): label for label in split.classes()}
        for name, split in splits.items()
    }
    # Of labels that mean one class, the training split's is named.
    known = {key: label for found in reversed(classes.values()) for key, label in found.items()}
    return {
        name: [label for key, label in known.items() if key not in found]
        for name, found in classes.items()
    }


def class_counts(split: Examples, train: Examples) -> Counter[str]:
    """Count a split's classes by the name that the training split has for them."""
    known = set(train.classes())
    names = {train.class_key(label): label for label in known}
    counts: Counter[str] = Counter()
    for label, count in Counter(split.classes()).items():
        counts[label if label in known else names.get(split.class_key(label), label)] += count
    return counts


def similar_classes(classes: Iterable[str]) -> list[str]:
    """Return the classes that equal another one without case and spaces."""
    found = sorted(set(classes), key=lambda name: (_plain(name), name))
    counts = Counter(map(_plain, found))
    return [name for name in found if counts[_plain(name)] > 1]


def _split_report(index: TextIndex, train: TextIndex | None, absent: list[str]) -> SplitReport:
    split, near = index.examples, index.signatures is not None
    return SplitReport(
        source=split.source,
        rows=len(split),
        classes=dict(class_counts(split, train.examples if train else split).most_common()),
        without_class=sum(label == () for label in split.labels),
        numbers=tuple(_numbers(split)),
        absent_classes=tuple(absent),
        bad=Finding(len(split.dropped), tuple(split.dropped[:LISTED])),
        bad_kinds=dict(Counter(x.rpartition(": ")[2] for x in split.dropped).most_common()),
        short=_finding(_short_texts(split)),
        wrong_encoding=_finding(_wrong_texts(split)),
        duplicates=index.duplicates(),
        near_duplicates=index.near_duplicates() if near else None,
        leaks=index.duplicates_of(train) if train else None,
        near_leaks=index.near_duplicates_of(train) if train and near else None,
    )


def _finding(found: Iterator[str]) -> Finding:
    """Count what was found and keep the first."""
    first: list[str] = []
    count = 0
    for count, place in enumerate(found, start=1):
        if count <= LISTED:
            first.append(place)
    return Finding(count, tuple(first))


def _short_texts(split: Examples) -> Iterator[str]:
    for place, text in zip(split.places, split.texts, strict=True):
        if len(text) < 10 * SHORT and len(normalize(text)) < SHORT:
            yield f"{place}: {text!r}"


def _wrong_texts(split: Examples) -> Iterator[str]:
    for column in (split.texts, split.pairs or []):
        for row, text in enumerate(column):
            if (part := wrongly_encoded(text)) is not None:
                yield f"{split.places[row]}: {part!r}"


def _numbers(split: Examples) -> Iterator[tuple[float, float, float]]:
    """Yield the lowest, the highest and the mean of each number of a regression."""
    if split.task == "regression":
        for values in zip(*split.labels, strict=False):
            yield min(values), max(values), sum(values) / len(values)


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()

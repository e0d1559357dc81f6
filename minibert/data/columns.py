"""Which columns of a file hold the text, the second text and the label."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from minibert.data.readers import Row
from minibert.errors import InputError, printable

# Names people give to columns; lower case, compared without case.
TEXT_NAMES = (
    *("text", "sentence", "message", "review", "content", "comment", "tweet", "sms", "body"),
    *("review_text", "reviewtext", "utterance", "question", "query", "description", "post"),
    *("email", "document", "phrase"),
)
HEADING_NAMES = ("headline", "title")  # the text only if no column has a name from TEXT_NAMES
LABEL_NAMES = (
    *("label", "labels", "category", "class", "sentiment", "target", "intent", "topic"),
    *("emotion", "gold_label", "tag", "y"),
)
NUMBER_NAMES = ("score", "rating", "stars", "similarity")  # if no column is in LABEL_NAMES
# Only names that mean a pair: a title and a text are one text or two, which the user must say.
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair")),
    *(("sentence_a", "sentence_b"), ("question", "sentence"), ("question", "passage")),
    *(("query", "passage"),),
)


@dataclass(frozen=True)
class Columns:
    """The columns of text, second text, label, and (SetFit's `label_text`) the label's name."""

    text: str
    pair: str | None = None
    label: str | None = None
    label_name: str | None = None
    labels: tuple[str, ...] = ()  # one column for each class or number, in place of `label`

    def texts(self) -> set[str]:
        """Return the columns of the text and the second text."""
        return {self.text} if self.pair is None else {self.text, self.pair}

    def __str__(self) -> str:
        roles = {"text": self.text, "second text": self.pair, "label": self.label}
        roles["label's name"] = self.label_name
        roles["labels"] = ", ".join(self.labels) or None
        return ", ".join(f"{role} {printable(name, 40)!r}" for role, name in roles.items() if name)


@dataclass(frozen=True)
class RequestedColumns:
    """The columns that --text-column, --pair-column, --label-column and --label-columns name."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()


def choose_columns(
    names: Sequence[str],
    where: str,
    requested: RequestedColumns = RequestedColumns(),
    *,
    labelled: bool = True,
    default: Columns | None = None,
) -> Columns:
    """Choose a file's columns: the requested ones, then a run's `default` ones, then by name.

    A run trained on one text reads one text, and a run trained on pairs reads pairs. Raises
    InputError if the choice is not clear.
    """
    text, pair, label = requested.text, requested.pair, requested.label
    labels = requested.labels
    listing = f"its columns are {', '.join(printable(name, 40) for name in names[:50])}"
    for flag, name in (("text", text), ("pair", pair), ("label", label)):
        if name is not None and name not in names:
            raise InputError(f"{where}: no column {name!r} for --{flag}-column; {listing}")
    if missing := [name for name in labels if name not in names]:
        raise InputError(f"{where}: no column {missing[0]!r} for --label-columns; {listing}")
    if not (label or labels) and labelled and default:
        if missing := [name for name in default.labels if name not in names]:
            raise InputError(
                f"{where}: no column {missing[0]!r}, a label column of the run; {listing}; give "
                "--label-columns"
            )
        labels = default.labels
        label = default.label if default.label in names else None
    if text is None and pair is None:
        if default and default.texts() <= set(names):
            text, pair = default.text, default.pair
        elif default is None or default.pair:
            text, pair = _pair_by_name(names, taken=(label, *labels))
    if text is None:
        found = _text_by_name(names, taken=(pair, label, *labels))
        if len(found) != 1:
            problem = "more than one column may be the text" if found else "no text column found"
            remedy = "choose with --text-column"
            if len(names) == 1 and re.search("[;\t,]", names[0]):
                remedy = "fields are separated by commas in .csv files and by tabs in .tsv files"
            raise InputError(f"{where}: {problem}; {listing}; {remedy}")
        text = found[0]
    if default and default.pair and pair is None:
        raise InputError(f"{where}: the model reads two texts; {listing}; give --pair-column")
    if not (label or labels) and labelled:
        taken = (text, pair)
        found = _named(LABEL_NAMES, names, taken=taken) or _named(NUMBER_NAMES, names, taken=taken)
        if len(found) != 1:
            problem = "more than one column may be the label" if found else "no label column found"
            raise InputError(f"{where}: {problem}; {listing}; choose with --label-column")
        label = found[0]
    roles = [name for name in (text, pair, label, *labels) if name is not None]
    if len(set(roles)) < len(roles):
        raise InputError(f"{where}: one column is named for two roles; {listing}")
    has_names = label is not None and label.lower() == "label"
    label_names = _named(("label_text",), names, taken=roles) if has_names else []
    return Columns(text, pair, label, label_names[0] if label_names else None, labels)


def possible_pair(
    names: Sequence[str], columns: Columns, requested: RequestedColumns
) -> str | None:
    """Return an unused column that may be a second text, if no text column was requested."""
    if columns.pair or requested.text:
        return None
    used = [name for name in (*astuple(columns), *columns.labels) if name]
    found = _named((*HEADING_NAMES, *TEXT_NAMES), names, taken=used)
    return found[0] if found else None


def field_names(rows: Iterable[Row]) -> list[str]:
    """Return the names of all fields of the readable rows, in their order."""
    return list(dict.fromkeys(name for row in rows if not row.error for name in row.fields))


def _named(
    known: Sequence[str], names: Sequence[str], *, taken: Sequence[str | None] = ()
) -> list[str]:
    """Return the columns with a known name that are not taken, in the order of `known`."""
    lower = {name.lower(): name for name in reversed(names)}
    return [lower[name] for name in known if name in lower and lower[name] not in taken]


def _text_by_name(names: Sequence[str], *, taken: Sequence[str | None]) -> list[str]:
    return _named(TEXT_NAMES, names, taken=taken) or _named(HEADING_NAMES, names, taken=taken)


def _pair_by_name(
    names: Sequence[str], *, taken: Sequence[str | None]
) -> tuple[str | None, str | None]:
    for pair in PAIR_NAMES:
        if len(found := _named(pair, names, taken=taken)) == 2:
            return found[0], found[1]
    return None, None

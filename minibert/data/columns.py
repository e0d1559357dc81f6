"""Which columns of a file hold the text, the second text and the label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minibert.data.readers import Row
from minibert.errors import InputError, printable

# Names people give to columns, the likeliest first; lower case, compared without case.
TEXT_NAMES = (
    *("text", "sentence", "message", "review", "content", "comment", "tweet", "sms", "body"),
    *("review_text", "reviewtext", "utterance", "question", "query", "headline", "title"),
    *("description", "post", "email", "document", "phrase"),
)
LABEL_NAMES = (
    *("label", "labels", "category", "class", "sentiment", "target", "intent", "topic"),
    *("emotion", "gold_label", "tag", "y"),
)
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair")),
    *(("question", "sentence"), ("question", "passage"), ("title", "description")),
    *(("title", "body"), ("title", "content"), ("title", "text")),
)


@dataclass(frozen=True)
class Columns:
    """The columns of text, second text, label, and (SetFit's `label_text`) the label's name."""

    text: str
    pair: str | None = None
    label: str | None = None
    label_name: str | None = None

    def texts(self) -> set[str]:
        """Return the columns of the text and the second text."""
        return {self.text} if self.pair is None else {self.text, self.pair}

    def __str__(self) -> str:
        roles = {"text": self.text, "second text": self.pair, "label": self.label}
        roles["label's name"] = self.label_name
        return ", ".join(f"{role} {printable(name, 40)!r}" for role, name in roles.items() if name)


def choose_columns(
    names: Sequence[str],
    where: str,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    labelled: bool = True,
    default: Columns | None = None,
) -> Columns:
    """Find the columns by the flags, by the `default` ones of a run, or by the names people use.

    A run trained on one text is not given two, nor the reverse. Raises InputError where it is not
    clear which columns to take.
    """
    text, pair, label = text_column, pair_column, label_column
    listing = f"its columns are {', '.join(printable(name, 40) for name in names[:50])}"
    for flag, name in (("text", text), ("pair", pair), ("label", label)):
        if name is not None and name not in names:
            raise InputError(f"{where}: no column {name!r} for --{flag}-column; {listing}")
    lower = {name.lower(): name for name in reversed(names)}
    if (
        text is None
        and pair is None
        and default
        and {default.text, default.pair} - {None} <= set(names)
    ):
        text, pair = default.text, default.pair
    if label is None and labelled and default and default.label in names:
        label = default.label
    taken = {pair, label}
    if text is None and pair is None and (default is None or default.pair):
        for first, second in PAIR_NAMES:
            if {first, second} <= lower.keys() and not {lower[first], lower[second]} & taken:
                text, pair = lower[first], lower[second]
                break
    if text is None:
        found = [lower[name] for name in TEXT_NAMES if lower.get(name, label) not in taken]
        if len(found) != 1:
            problem = "more than one column may be the text" if found else "no text column found"
            raise InputError(f"{where}: {problem}; {listing}; choose with --text-column")
        text = found[0]
    if default and default.pair and pair is None:
        raise InputError(f"{where}: the model reads two texts; {listing}; give --pair-column")
    if label is None and labelled:
        found = [lower[name] for name in LABEL_NAMES if lower.get(name, text) not in (text, pair)]
        if len(found) != 1:
            problem = "more than one column may be the label" if found else "no label column found"
            raise InputError(f"{where}: {problem}; {listing}; choose with --label-column")
        label = found[0]
    if len({text, pair, label} - {None}) < sum(name is not None for name in (text, pair, label)):
        raise InputError(f"{where}: one column is named for two roles; {listing}")
    label_name = lower.get("label_text") if label and label.lower() == "label" else None
    return Columns(text, pair, label, label_name)


def field_names(rows: Iterable[Row]) -> list[str]:
    """Return the fields that the readable ones of some rows have, in their order."""
    return list(dict.fromkeys(name for row in rows if not row.error for name in row.fields))

"""A run's figures to the sections of its report, in the order of the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibert.errors import printable
from minibert.evaluation.figures import is_fraction, show_value, title
from minibert.report import pictures
from minibert.report.mistakes import mistakes
from minibert.report.parts import SHOWN, Cell, Picture, Row, Section, Table
from minibert.report.probabilities import probabilities
from minibert.report.run_data import RunData

EPOCHS = 100  # of a table

Curves = dict[str, tuple[Sequence[float], Sequence[float | None]]]  # x and y by name


def sections(run: RunData, *, command: str | None) -> list[Section]:
    """Return the sections that have something to show."""
    found = [
        figures(run),
        *series(run),
        training(run),
        *data(run),
        *classes(run),
        *mistakes(run),
        *lengths(run),
        *probabilities(run),
        settings(run, command),
    ]
    return [section for section in found if section.pictures or section.tables or section.code]


def figures(run: RunData) -> Section:
    """Each figure with its interval, beside those of the baselines."""
    columns = {name: run.metrics[name] for name in ("validation", "test") if name in run.metrics}
    names = {"guess": "guessing", "tf_idf": "TF-IDF"}
    for name, splits in run.metrics.get("baselines", {}).items():
        columns[f"{names[name]}, {run.scored}"] = splits[run.scored]
    rows: list[Row] = [
        [title(name), *(figure_cell(name, column) for column in columns.values())]
        for name, value in run.scores.items()
        if f"{name}_95" in run.scores or isinstance(value, float)
    ]
    table = Table("", ["", *columns], rows, note="The 95% interval follows each figure.")
    order = sorted(columns, key=lambda name: name != run.scored)
    beside = [(x, columns[x].get(run.figure), columns[x].get(f"{run.figure}_95")) for x in order]
    known = [(name, value, interval) for name, value, interval in beside if value is not None]
    percent = is_fraction(run.figure)
    draw = pictures.whiskers(known, x=title(run.figure), name="figures", percent=percent)
    notes = ["Validation chose the epoch, so its figures are a little too good."]
    if run.scored == "validation":
        notes = ["The run has no test split. Validation chose the epoch: its figures are too good."]
    shown = [Picture(f"{title(run.figure)} and its 95% interval", draw)]
    return Section("Figures", shown, [table], notes)


def series(run: RunData) -> Iterator[Section]:
    """Mean and deviation over seeds, or the learning curve."""
    name = run.figure
    select = "map" if name == "mean_average_precision" else name.replace("_", "-")
    if seeds := run.metrics.get("seeds"):
        splits = [x for x in ("validation", "test") if x in seeds]
        rows: list[Row] = [
            [which, *(show_value(name, x[split][select]) for split in splits)]
            for which, x in seeds["runs"].items()
        ]
        means = [seeds[split][select] for split in splits]
        for what in ("mean", "deviation"):
            rows.append([what, *(show_value(name, x[what]) for x in means)])
        note = f"Kept: {seeds['kept']}, the best on validation. The figures are of this run."
        yield Section("Seeds", tables=[Table(title(name), ["run", *splits], rows, note=note)])
    if points := run.metrics.get("learning_curve"):
        splits = [x for x in ("validation", "test") if x in points[0]]
        texts = [point["training_texts"] for point in points]
        curves: Curves = {x: (texts, [point[x][select] for point in points]) for x in splits}
        draw = pictures.lines(curves, x="training texts", y=title(name), percent=_y(name))
        rows = [
            [f"{point['training_texts']:,}", *(show_value(name, point[x][select]) for x in splits)]
            for point in points
        ]
        table = Table("", ["training texts", *splits], rows, words=0, folded=True)
        yield Section("Learning curve", [Picture(title(name), draw)], [table])


def training(run: RunData) -> Section:
    """The figures of each epoch."""
    epochs = [row["epoch"] or 0.0 for row in run.history]
    best = run.metrics["training"]["best_epoch"]
    columns = {
        name: [row[name] for row in run.history]
        for name in (run.history or [{}])[0]
        if any(row[name] is not None for row in run.history)
    }
    shown: list[Picture] = []
    loss = {"training": "train_loss", "validation": "validation_loss"}
    curves: Curves = {name: (epochs, columns[x]) for name, x in loss.items() if x in columns}
    chosen = next((x for x in columns if x == f"validation_{_select(run)}"), None)
    if len(epochs) > 1:
        picture = pictures.lines(curves, x="epoch", y="loss", marked=best, whole=True)
        shown.append(Picture("Loss", picture))
        if chosen and chosen not in loss.values():
            one: Curves = {"validation": (epochs, columns[chosen])}
            name = title(run.figure)
            draw = pictures.lines(
                one,
                x="epoch",
                y=f"validation {name}",
                marked=best,
                whole=True,
                percent=_y(run.figure),
            )
            shown.append(Picture(name, draw))
    rows = [
        [str(int(row["epoch"] or 0)), *(_number(row[x]) for x in columns if x != "epoch")]
        for row in run.history[-EPOCHS:]
    ]
    heads = [name.replace("_", " ") for name in columns]
    table = Table("", heads, rows, words=0, folded=len(rows) > 1)
    seconds = run.metrics["training"]["seconds"]
    note = f"{run.metrics['training']['texts']:,} texts, {seconds:,.1f} s of training steps."
    if len(rows) > 1:
        note += f" Epoch {best} is the best on validation and was kept."
    return Section("Training", shown, [table], [note])


def data(run: RunData) -> Iterator[Section]:
    """The splits, their classes and lengths."""
    if not (found := run.metrics.get("data")):
        return
    splits = {x: found[x] for x in ("train", "validation", "test") if x in found}
    lengths, longest = found["train"]["lengths"], found["max_length"]
    width, counts = lengths["width"], lengths["texts"]
    draw = pictures.histogram(counts, width, marked=longest)
    names = ("texts", "repeated_texts", "texts_in_train", "tokens", "cut_texts", "lost_tokens")
    counted = [[split, *(f"{x[name]:,}" for name in names)] for split, x in splits.items()]
    heads = ["split", *(name.replace("_", " ") for name in names)]
    bins: list[Row] = [
        [f"{k * width + 1} to {(k + 1) * width}", Cell(f"{n:,}", bar=n / max(counts))]
        for k, n in enumerate(counts)
    ]
    tables = [
        Table("Splits", heads, counted),
        *_balance(splits),
        Table("Lengths of the training texts", ["tokens", "texts"], bins, folded=True),
    ]
    caption = f"Lengths of the training texts; texts over {longest} tokens are shortened"
    yield Section("Data", [Picture(caption, draw)], tables)


def classes(run: RunData) -> Iterator[Section]:
    """Precision, recall and F1 of each class, or the figures of each number."""
    for kind in ("per_class", "per_output"):
        found = run.scores.get(kind, {})
        if not found or (kind == "per_output" and len(found) < 2):
            continue
        names = [x for x in next(iter(found.values())) if not x.endswith("_95")]
        order = sorted(found, key=lambda name: found[name].get("f1") or 0)
        listed = found if len(found) <= SHOWN else order[:SHOWN]
        rows: list[Row] = [
            [
                printable(name, 60),
                *(figure_cell(x, found[name], percent=kind == "per_class") for x in names),
            ]
            for name in listed
        ]
        note = ""
        if len(found) > SHOWN:
            which = f"The {SHOWN} of {len(found):,} classes with the lowest F1"
            if kind == "per_output":
                which = f"The first {SHOWN} of {len(found):,} numbers"
            note = f"{which}; metrics.json has all."
        heads = ["class" if kind == "per_class" else "number", *map(title, names)]
        what = "Classes" if kind == "per_class" else "Numbers"
        yield Section(what, tables=[Table("", heads, rows, note=note)])


def lengths(run: RunData) -> Iterator[Section]:
    """The accuracy by length in tokens."""
    groups: Mapping[str, Any] = run.scores.get("by_length", {})
    if len(groups) < 2:
        return
    points = [(name, x["accuracy"], x["accuracy_95"]) for name, x in groups.items()]
    draw = pictures.whiskers(points, x="accuracy", name="lengths", percent=True)
    rows: list[Row] = [
        [name, f"{x['texts']:,}", figure_cell("accuracy", x)] for name, x in groups.items()
    ]
    table = Table("", ["length", "texts", "accuracy"], rows, folded=True)
    yield Section("Accuracy by length", [Picture("Accuracy and its 95% interval", draw)], [table])


def settings(run: RunData, command: str | None) -> Section:
    """The command that repeats the run, its options and its environment."""
    environment = run.settings.get("environment", {})
    apart = ("columns", "digests", "environment")
    values = {name: x for name, x in run.settings.items() if name not in apart}
    rows = [
        [name, printable("none" if value is None else str(value), 300)]
        for name, value in {**values, **environment}.items()
    ]
    table = Table("All settings", ["option", "value"], rows, words=2, folded=True)
    return Section("Settings", tables=[table], code=command or "")


def _balance(splits: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the classes of each split, the most frequent of the training split first."""
    train = splits["train"]["classes"]
    if not train:
        return
    most = max(train.values())
    rows: list[Row] = []
    for name, texts in list(train.items())[:SHOWN]:
        others = [f"{x['classes'].get(name, 0):,}" for x in list(splits.values())[1:]]
        rows.append([printable(name, 60), Cell(f"{texts:,}", bar=texts / most), *others])
    note = ""
    if len(train) > SHOWN:
        rarest, texts = list(train.items())[-1]
        note = f"The {SHOWN} most frequent of {len(train):,}. The rarest, {printable(rarest, 60)}, "
        note += f"has {texts:,} texts."
    yield Table("Classes", ["class", *splits], rows, note=note)


def figure_cell(name: str, values: Mapping[str, Any], *, percent: bool = False) -> Cell:
    """Return a figure, and its interval if it has one; an empty cell if it is not there."""
    if name not in values:
        return Cell("")
    value, interval = values[name], values.get(f"{name}_95")
    name = "f1" if percent and name in ("precision", "recall", "average_precision") else name
    if isinstance(value, int):
        return Cell(f"{value:,}")
    ends = [show_value(name, end).rstrip("%") for end in interval or ()]
    return Cell(show_value(name, value), " to ".join(ends))


def _y(name: str) -> str:
    return "y" if is_fraction(name) else ""


def _select(run: RunData) -> str:
    return "map" if run.figure == "mean_average_precision" else run.figure


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

"""A finished run to its model card, the README.md of a repository on the hub.

The card says what the run's files hold and nothing else. Names are data: the template escapes them.
Paths stay on this computer: of a local checkpoint or data file the card has the name alone.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path, PureWindowsPath
from typing import Any

from markupsafe import Markup

from minibert.checkpoint.config_file import read_encoder_config
from minibert.data.options import SEPARATORS, DataOptions
from minibert.errors import printable
from minibert.evaluation.figures import show_value, title
from minibert.hub import dataset_path, model_id
from minibert.report import sections
from minibert.report.parts import SHOWN, Cell, Section, Table
from minibert.report.run_data import RunData, made_by_this_version, read_run
from minibert.training.logistic import USED
from minibert.training.options import TrainingOptions

MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$@]|:(?=//))")
# Our names of figures -> the hub's.
METRICS = {"macro_f1": "f1", "micro_f1": "f1", "pearson": "pearsonr", "spearman": "spearmanr"}
PREDICTS = {
    "single-label": "one of {} classes",
    "multi-label": "any number of {} classes",
    "regression": "numbers ({} for each text)",
}
LONG_TEXTS = {
    "cut": "It reads the first {} tokens.",
    "head-tail": "Of more than {} tokens it reads the first and the last.",
    "windows": "It reads more than {} tokens in overlapping windows.",
}
OPTIONS = (
    *("head", "pooling", "max_length", "long_texts", "stride", "window_pooling", "max_windows"),
    *("split", "split_seed", "fold", "train_percent", "leaks", "bad_rows"),
    *(field.name for field in fields(TrainingOptions)),
    *("precision", "minibert", "torch"),
)
# Those that the card has at their default values too.
ALWAYS = (
    *("head", "pooling", "max_length", "split", "split_seed", "epochs", "batch_size"),
    *("encoder_lr", "head_lr", "seed", "precision", "minibert", "torch"),
)


def model_card(folder: Path, repository: str) -> str:
    """Return the card of a finished run that is published as `repository` (owner/name).

    Raises InputError for a folder that is not a finished run.
    """
    from jinja2 import Environment, StrictUndefined

    run, family = read_run(folder), read_encoder_config(folder).family
    environment = Environment(
        finalize=as_markdown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files("minibert.report") / "card.md").read_text("utf-8"))
    head, names = run.head, [printable(name, 60) for name in run.head.labels[:SHOWN]]
    with made_by_this_version(folder):
        model = run.settings["model"]
        return template.render(
            header=Markup(header(run, repository, family=family)),
            name=repository.rpartition("/")[2],
            repository=Markup(repository),
            predicts=PREDICTS[head.task].format(len(head.labels)),
            labels=", ".join(names) + ", ..." * (len(head.labels) > SHOWN),
            model=model_id(model) or file_name(model),
            data=data_name(run),
            head=head,
            pairs=run.settings["columns"]["pair"] is not None,
            sections=[x for x in map(shown, card_sections(run)) if x["tables"]],
            limits=list(limits(run)),
        )


def header(run: RunData, repository: str, *, family: str) -> str:
    """Return the YAML that the hub reads: what the model is, and its figures."""
    from huggingface_hub import EvalResult, ModelCardData

    names = [name for name, value in run.scores.items() if isinstance(value, float)]
    data = data_name(run)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split=run.scored,
            metric_type=METRICS.get(name, name),
            metric_value=run.scores[name],
            metric_name=metric_name(run, name),
        )
        for name in names
    ]
    card = ModelCardData(
        base_model=model_id(run.settings["model"]),
        datasets=[data] if dataset_path(run.settings["data"]) else None,
        library_name="transformers" if run.head.kind == "native" else "minibert",
        pipeline_tag="text-classification",
        tags=["minibert", family],
        metrics=sorted({METRICS.get(name, name) for name in names if name != "loss"}),
        model_name=repository.rpartition("/")[2],
        eval_results=results,
    )
    return card.to_yaml()


def metric_name(run: RunData, name: str) -> str:
    """Return a figure's name with its interval, for which the hub has no entry."""
    interval = run.scores.get(f"{name}_95")
    if interval is None:
        return title(name)
    low, high = (show_value(name, end) for end in interval)
    return f"{title(name)} (95% interval {low} to {high})"


def card_sections(run: RunData) -> Iterator[Section]:
    """Yield the sections of the report that have no texts and no paths, and the options."""
    yield sections.figures(run)
    for section in sections.series(run):  # the card has the table in place of the picture
        tables = [replace(table, title=title(run.figure), folded=False) for table in section.tables]
        yield replace(section, tables=tables)
    yield from sections.classes(run)
    yield from sections.data(run)
    rows = [[name.replace("_", " "), value] for name, value in options(run).items()]
    yield Section("Training", tables=[Table("", ["option", "value"], rows)])


def options(run: RunData) -> dict[str, str]:
    """Return the options that the run used: those of ALWAYS, and others that are not defaults."""
    settings = run.settings
    used = {"pooling": run.head.pooling, "max_length": run.head.max_length}
    values = {**settings, **used, **settings["environment"]}
    defaults = {x.name: x.default for kind in (DataOptions, TrainingOptions) for x in fields(kind)}
    found = {}
    for name in OPTIONS:
        value, matters = values[name], name in ALWAYS or values[name] != defaults[name]
        if matters and value is not None and name not in unused(settings):
            separator = SEPARATORS.get(name)
            found[name] = separator.join(map(str, value)) if separator else str(value)
    return found


def unused(settings: Mapping[str, Any]) -> set[str]:
    """Return the options that changed nothing in a run with these settings."""
    names = {"encoder_lr"} if settings["freeze"] else set()
    if settings["head"] == "logistic":
        names |= {field.name for field in fields(TrainingOptions)} - {*USED}
    # Most datasets of the hub have splits of their own.
    if settings["validation"] or dataset_path(settings["data"]):
        names |= {"split"}
        if settings["fold"] is None and settings["train_percent"] == 100:
            names |= {"split_seed"}
    return names


def shown(section: Section) -> dict[str, Any]:
    """Return the rows of a section's tables that are open in the report, and its notes."""
    tables = [table for table in section.tables if not table.folded]
    notes = [*(table.note for table in tables if table.note), *section.notes]
    rows = [(table.title, [table.heads, *table.rows]) for table in tables]
    return {"title": section.title, "tables": rows, "notes": notes}


def limits(run: RunData) -> Iterator[str]:
    """Yield what a user of the model must know about its predictions."""
    head = run.head
    train, scored = run.metrics["training"]["texts"], run.scores["texts"]
    yield (
        f"It was trained on {train:,} texts. Its figures are measured on {scored:,} texts of the "
        f"{run.scored} split of the same data; on other texts they can differ."
    )
    yield LONG_TEXTS[head.long_texts.how].format(head.max_length)
    if "calibration" in run.scores:
        calibration = run.scores["calibration"]
        before, after = (
            show_value("accuracy", calibration[x]["expected_calibration_error"])
            for x in ("before", "after")
        )
        yield (
            f"Its probabilities have the temperature {calibration['temperature']:.4g}, fitted on "
            f"the validation split. Calibration error on the {run.scored} split: {before} without "
            f"it, {after} with it."
        )
    if head.thresholds:
        yield "minibert's labels follow thresholds in config.json, which other libraries ignore."
    if head.min_probability:
        yield f"minibert marks labels below the probability {head.min_probability:.4g} as rejected."


def data_name(run: RunData) -> str:
    """Return the data's id on the hub, or the file's name."""
    data = run.settings["data"]
    path = dataset_path(data)
    return "/".join(path.split("/")[:2]) if path else printable(file_name(data), 100)


def file_name(path: str) -> str:
    """Return a path's last part. A run may be of another computer, with Windows."""
    return PureWindowsPath(path).name  # it splits at / too


def as_markdown(value: Any) -> str:
    """Return text that Markdown shows as it is, on one line. Markup is returned unchanged."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, Cell):
        value = f"{value.text} ({value.small})" if value.small else value.text
    return MARKUP.sub(r"\\\1", printable(str(value), 1000))

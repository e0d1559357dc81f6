"""A finished run to its model card, the README.md of a repository on the hub.

The card says what the run's files hold and nothing else. Names are data: the template escapes them.
Paths stay on this computer: of a local checkpoint or data file the card has the name alone.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from minibert.checkpoint.config_file import read_encoder_config
from minibert.errors import printable
from minibert.evaluation.figures import show_value, title
from minibert.hub import dataset_path, model_id
from minibert.report import sections
from minibert.report.parts import SHOWN, Cell, Section, Table
from minibert.report.run_data import RunData, made_by_this_version, read_run
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
OPTIONS = ("head", "pooling", "max_length", "long_texts", "split", "split_seed", "precision")


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
            model=model_id(model) or Path(model).name,
            data=data_name(run),
            head=head,
            pairs=run.settings["columns"]["pair"] is not None,
            sections=[shown(section) for section in card_sections(run) if section.tables],
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
    yield from sections.series(run)
    yield from sections.classes(run)
    yield from sections.data(run)
    names = [*OPTIONS, *(field.name for field in fields(TrainingOptions)), "minibert", "torch"]
    used = {"pooling": run.head.pooling, "max_length": run.head.max_length}
    values = {**run.settings, **used, **run.settings["environment"]}
    rows = [
        [name.replace("_", " "), str(values[name]).strip("[]")]
        for name in names
        if values.get(name) is not None
    ]
    yield Section("Training", tables=[Table("", ["option", "value"], rows)])


def shown(section: Section) -> dict[str, Any]:
    """Return the rows of a section's tables that are open in the report, and its notes."""
    tables = [table for table in section.tables if not table.folded]
    notes = [*(table.note for table in tables if table.note), *section.notes]
    rows = [[table.heads, *table.rows] for table in tables]
    return {"title": section.title, "tables": rows, "notes": notes}


def limits(run: RunData) -> Iterator[str]:
    """Yield what a user of the model must know about its predictions."""
    head = run.head
    train, scored = run.metrics["training"]["texts"], run.scores["texts"]
    yield (
        f"It was trained on {train:,} texts, and its figures are of {scored:,} texts of the "
        f"{run.scored} split, of the same data. On other texts they can differ."
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
    return "/".join(path.split("/")[:2]) if path else printable(Path(data).name, 100)


def as_markdown(value: Any) -> str:
    """Return text that Markdown shows as it is, on one line. Markup is returned unchanged."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, Cell):
        value = f"{value.text} ({value.small})" if value.small else value.text
    return MARKUP.sub(r"\\\1", printable(str(value), 1000))

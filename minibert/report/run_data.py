"""The files of a finished run, read for its report."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.checkpoint.config_file import read_head_config
from minibert.errors import InputError
from minibert.evaluation.figures import json_name
from minibert.files import read_json
from minibert.model.config import HeadConfig
from minibert.runs import NO_MODEL, RunFolder
from minibert.tasks.choice import task_of


@dataclass(frozen=True)
class RunData:
    """What is in the folder of a finished run."""

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, float | None]]  # of each epoch
    predictions: Sequence[Mapping[str, Any]]  # of the test split; none without one
    head: HeadConfig

    @property
    def title(self) -> str:
        """The model, the data and the task."""
        model, data = (Path(str(self.settings.get(x))).name for x in ("model", "data"))
        outputs = f"{len(self.head.labels):,} " + (
            "numbers" if self.head.task == "regression" else "classes"
        )
        return f"{model} on {data}, {self.head.task}, {outputs}"

    @property
    def scored(self) -> str:
        """The split that the report is about: test if there is one, else validation."""
        return "test" if "test" in self.metrics else "validation"

    @property
    def scores(self) -> Mapping[str, Any]:
        """The figures of that split."""
        figures: Mapping[str, Any] = self.metrics[self.scored]
        return figures

    @property
    def figure(self) -> str:
        """The name in metrics.json of the figure that selected the epoch."""
        return json_name(task_of(self.head).selects(self.settings.get("select")))


def read_run(folder: Path) -> RunData:
    """Read a finished run. Raises InputError for another folder."""
    run = RunFolder(folder)
    if run.is_cross_validation:
        raise InputError(f"{folder}: {NO_MODEL}")
    head = read_head_config(folder)
    if head is None or not (run.metrics_file.is_file() and run.settings_file.is_file()):
        raise InputError(
            f"{folder}: is not a finished run of train.py, which has settings.json and metrics.json"
        )
    try:
        history, predictions = [], []
        if run.history_file.is_file():
            with open(run.history_file, encoding="utf-8", newline="") as file:
                history = [
                    {name: float(cell) if cell else None for name, cell in row.items()}
                    for row in csv.DictReader(file)
                ]
        if run.predictions_file.is_file():
            with open(run.predictions_file, encoding="utf-8") as file:
                predictions = [json.loads(line) for line in file]
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read ({error})") from None
    name = folder.resolve().name
    settings, metrics = read_json(run.settings_file), read_json(run.metrics_file)
    return RunData(name, settings, metrics, history, predictions, head)


@contextmanager
def made_by_this_version(folder: Path) -> Iterator[None]:
    """Raise InputError if what is written from a run lacks entries that this version writes."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: metrics.json or history.csv is not as this version of minibert writes it "
            f"({error!r}); train again"
        ) from error

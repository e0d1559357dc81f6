"""The end of a cross-validation: the folds' predictions become one file, and one set of figures.

runs/NAME/out_of_fold.jsonl   each row's prediction by the run that held it out, in file order
runs/NAME/label_issues.csv   the rows whose label is probably wrong, the most likely first
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from minibert.checkpoint.config_file import read_head_config
from minibert.commands.compare import comparable
from minibert.commands.series_figures import damaged, fold_figures
from minibert.data.examples import Examples
from minibert.data.readers import read_rows
from minibert.evaluation.label_issues import label_issues
from minibert.files import json_text, write_text
from minibert.inference.formats import is_formula
from minibert.runs import OUT_OF_FOLD, RunFolder
from minibert.tasks.choice import task_of
from minibert.tasks.task import Task

ISSUES = "label_issues.csv"

Fields = dict[str, Any]  # of one row


def join_folds(folder: Path, runs: Mapping[str, Path]) -> dict[str, Any]:
    """Write the rows of all folds, print their figures, return what metrics.json has."""
    head = read_head_config(next(iter(runs.values())))
    assert head is not None  # the run is finished
    task = task_of(replace(head, temperature=1.0, thresholds=(), min_probability=0.0))
    rows = [row for run in runs.values() for row in read_fold(run)]
    rows.sort(key=lambda row: row.pop("row"))
    write_text(folder / OUT_OF_FOLD, "".join(json_text(row) + "\n" for row in rows))
    figures = fold_figures(runs, score_rows(task, rows))
    if head.task != "single-label":
        print("wrong labels are listed for one class per text only")
        return {"folds": figures}
    issues = find_issues(task, rows)
    write_text(folder / ISSUES, as_csv(issues))
    print(
        f"{len(issues):,} of {len(rows):,} labels are probably wrong: {folder / ISSUES}, "
        "the most likely first"
    )
    return {"folds": {**figures, "label_issues": len(issues)}}


def read_fold(run: Path) -> list[Fields]:
    """Return what a fold's run predicted for its rows."""
    rows = [row.fields for row in read_rows(RunFolder(run).predictions_file)]
    if not all(
        {"text", "label", "prediction", "row", "file", "line"} <= row.keys() for row in rows
    ):
        raise damaged(run, "test_predictions.jsonl")
    return rows


def score_rows(task: Task, rows: Sequence[Fields]) -> dict[str, Any]:
    """Return the figures of all predictions with their intervals.

    Figures of probabilities are left out: each fold has a temperature of its own.
    """
    targets, predicted = (targets_of(task, rows, name) for name in ("label", "prediction"))
    logits = predicted  # numbers
    if task.head.task == "multi-label":
        logits = 2 * predicted - 1
    elif task.head.task == "single-label":
        logits = F.one_hot(predicted, len(task.names)).float()
    figures = task.score_with_intervals(logits, targets).to_json()
    return {
        name: value
        for name, value in figures.items()
        if not name.startswith(("loss", "mean_average_precision", "per_class", "confusion"))
    }


def targets_of(task: Task, rows: Sequence[Fields], name: str) -> torch.Tensor:
    """Return the labels, or the predictions, as the task's targets."""
    texts = [row["text"] for row in rows]
    labels = [comparable(row[name], task.head.task) for row in rows]
    examples = Examples(OUT_OF_FOLD, texts, labels=labels, task=task.head.task, places=texts)
    return torch.from_numpy(task.targets(examples))


def find_issues(task: Task, rows: Sequence[Fields]) -> list[Fields]:
    """Return the rows whose label is probably wrong, as the columns of a table."""
    probabilities = np.array([[row["probabilities"][name] for name in task.names] for row in rows])
    numbers, suggested = label_issues(probabilities, targets_of(task, rows, "label").numpy())
    issues = []
    for number, other in zip(numbers.tolist(), suggested.tolist(), strict=True):
        row, name = rows[number], task.names[other]
        given = row["label"]
        issues.append(
            {
                **{key: row[key] for key in ("text", "pair") if key in row},
                **{"label": given, "suggested": name},
                "label_probability": row["probabilities"][given],
                "suggested_probability": row["probabilities"][name],
                **{key: row[key] for key in ("file", "line")},
            }
        )
    return issues


def as_csv(rows: Sequence[Fields]) -> str:
    """Return a CSV of rows with the same columns; "" without a row.

    It is made to be looked at: no cell is a formula for a spreadsheet.
    """
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: safe(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def safe(cell: Any) -> Any:
    """Return a cell with ' before it if a spreadsheet would run it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and is_formula(cell) else cell

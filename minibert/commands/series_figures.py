"""The figures of a series of runs: mean and deviation over seeds or folds; the learning curve."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from minibert.checkpoint.config_file import read_head_config
from minibert.errors import InputError
from minibert.evaluation.figures import (
    LOWER_IS_BETTER,
    is_fraction,
    json_name,
    show_figure,
    show_value,
    title,
)
from minibert.evaluation.intervals import show_interval
from minibert.files import read_json
from minibert.tasks.choice import task_of
from minibert.tasks.task import Task

PERCENTS = (10, 20, 50, 100)  # of the training texts, for a learning curve

Figures = dict[str, float | None]  # by the names of --select; None is undefined


def seed_figures(runs: Mapping[str, Path], select: str | None) -> tuple[str, dict[str, Any]]:
    """Print mean and standard deviation over the runs.

    Returns the name of the run that is best on validation, of equal ones the first, and what
    metrics.json has. Test figures choose nothing.
    """
    task = _task(runs)
    splits = {name: _figures(run, task) for name, run in runs.items()}
    print(f"\n{len(runs)} seeds, mean and standard deviation")
    summary = {}
    for split in splits[next(iter(runs))]:
        summary[split] = _summary(task, [figures[split] for figures in splits.values()])
        shown = (_show_deviation(name, *x.values()) for name, x in summary[split].items())
        print(f"{split}: {', '.join(shown)}")
    name = task.selects(select)
    kept = max(runs, key=lambda run: _goodness(name, splits[run]["validation"][name]))
    best = splits[kept]["validation"][name]
    reason = f"the best on validation ({show_figure(name, best)})"
    if best is None:
        reason = f"the first: {title(name)} is undefined on validation for all"
    print(f"kept: {kept}, {reason}")
    return kept, {"seeds": {"kept": kept, **summary, "runs": splits}}


def curve_figures(runs: Mapping[str, Path], select: str | None) -> tuple[str, dict[str, Any]]:
    """Print a line for each part of the training texts, and whether more would help.

    Returns the name of the run on all texts, and what metrics.json has.
    """
    task = _task(runs)
    points = []
    for percent, run in zip(PERCENTS, runs.values(), strict=True):
        texts, splits = figures_of_training(run)["texts"], _figures(run, task)
        points.append({"percent": percent, "training_texts": texts, **splits})
        shown = [
            f"{split} {', '.join(show_figure(name, x) for name, x in figures.items())}"
            for split, figures in splits.items()
        ]
        print(f"{percent:4d}%, {texts:,} training texts: {'; '.join(shown)}")
    last = list(runs)[-1]
    print(_would_more_help(task.selects(select), points, runs[last]))
    return last, {"learning_curve": points}


def fold_figures(runs: Mapping[str, Path], of_all: Mapping[str, Any]) -> dict[str, Any]:
    """Print mean and standard deviation over folds, with the intervals of all rows' figures.

    Returns what metrics.json has.
    """
    task = _task(runs)
    folds = {name: _figures(run, task)["test"] for name, run in runs.items()}
    summary = _summary(task, list(folds.values()))
    texts = f"{of_all['texts']:,} rows"
    print(f"\n{len(runs)} folds, mean and standard deviation; all {texts} together (95% interval)")
    for name, x in summary.items():
        factor, style = (100, ".1f") if is_fraction(name) else (1, ".4g")
        shown, of_rows = _show_deviation(name, *x.values()), of_all.get(json_name(name))
        interval = show_interval(of_all.get(f"{json_name(name)}_95"), style, factor)
        if of_rows is not None and interval:
            shown += f"; all rows {factor * of_rows:{style}} ({interval})"
        print(f"  {shown}")
    return {"held_out": summary, "all_rows": dict(of_all), "runs": folds}


def _task(runs: Mapping[str, Path]) -> Task:
    head = read_head_config(next(iter(runs.values())))
    assert head is not None  # the run is finished
    return task_of(head)


def _figures(run: Path, task: Task) -> dict[str, Figures]:
    """Return the figures of validation, and of test if there is one."""
    metrics = read_json(run / "metrics.json")
    splits = ["validation", *(["test"] if "test" in metrics else [])]
    try:
        figures = {x: {name: metrics[x][json_name(name)] for name in task.figures} for x in splits}
    except (KeyError, TypeError):
        raise damaged(run) from None
    if not all(type(x) in (int, float, NoneType) for y in figures.values() for x in y.values()):
        raise damaged(run)
    return figures


def figures_of_training(run: Path) -> dict[str, int]:
    """Return how many texts a finished run was trained on, for how many epochs, and the best."""
    try:
        training = read_json(run / "metrics.json")["training"]
        return {name: int(training[name]) for name in ("texts", "epochs", "best_epoch")}
    except (KeyError, TypeError, ValueError):
        raise damaged(run) from None


def damaged(run: Path, file: str = "metrics.json") -> InputError:
    """Return the error for a finished run's file that lacks what the series needs."""
    remedy = f"delete the folder {run}, then --resume trains it again"
    seeds = [int(x.name[5:]) for x in run.parent.glob("seed-*") if x.name[5:].isdigit()]
    if seeds and run.name == f"seed-{min(seeds)}":  # which says with which seed the series begins
        remedy = "restore it, or train a new series"
    return InputError(f"{run / file}: lacks figures of the run; {remedy}")


def _summary(task: Task, runs: Sequence[Figures]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation of each figure over runs."""
    return {name: _mean_and_deviation([run[name] for run in runs]) for name in task.figures}


def _mean_and_deviation(values: list[float | None]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation; undefined if one value is."""
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return {"mean": None, "deviation": None}
    return {"mean": statistics.mean(defined), "deviation": statistics.stdev(defined)}


def _show_deviation(name: str, mean: float | None, deviation: float | None) -> str:
    if mean is None or deviation is None:
        return show_figure(name, None)
    return f"{show_figure(name, mean)} (sd {show_value(name, deviation).rstrip('%')})"


def _goodness(name: str, value: float | None) -> float:
    """Return a number that is higher for a better figure; the lowest for an undefined one."""
    if value is None:
        return float("-inf")
    return -value if name in LOWER_IS_BETTER else value


def _would_more_help(name: str, points: list[dict[str, Any]], run: Path) -> str:
    """Return what the last texts brought, and whether that is more than chance may bring."""
    before, after = (point["validation"][name] for point in points[-2:])
    line = (
        f"from {PERCENTS[-2]} to 100% of the texts, validation {title(name)} went from "
        f"{show_value(name, before)} to {show_value(name, after)}"
    )
    interval = read_json(run / "metrics.json")["validation"].get(f"{json_name(name)}_95")
    if interval is None or before is None or after is None:
        return line
    gain, half = _goodness(name, after) - _goodness(name, before), (interval[1] - interval[0]) / 2
    verdict = "the gain may be chance; this validation split cannot tell whether more labels help"
    if gain > half:
        verdict = "more labels are likely to help"
    return f"{line} (half of its 95% interval: {show_value(name, half)}): {verdict}"

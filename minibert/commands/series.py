"""The story of a series of runs: several seeds, more and more of the training texts, or folds.

runs/NAME/seed-0/ runs/NAME/seed-1/ ...   the runs, each in an ordinary run folder
runs/NAME/config.json model.safetensors ...   a copy of the kept run, when all are finished
runs/NAME/metrics.json   the kept run's figures and those of the series; written last

No run of a cross-validation is kept: see commands/folds.py for its files.
"""

import itertools
import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from minibert.commands.arguments import TrainArguments
from minibert.commands.folds import join_folds
from minibert.commands.options import Settings
from minibert.commands.report import try_report
from minibert.commands.series_figures import (
    PERCENTS,
    curve_figures,
    figures_of_training,
    seed_figures,
)
from minibert.commands.session import MAY_CHANGE, check_sources, use_of_model
from minibert.errors import InputError, Interrupted, command_line, printable
from minibert.files import read_json, write_atomic, write_json
from minibert.locks import locked
from minibert.report.page import REPORT
from minibert.run_folders import check_new, make_folder
from minibert.runs import Metadata, RunFolder

TrainOne = Callable[[TrainArguments], None]


def runs_of_series(settings: Settings) -> dict[str, Settings]:
    """Return the settings of each run by the name of its folder; none if it is not a series."""
    if settings.run.learning_curve:
        return {
            f"{percent}-percent": replace(
                settings, data=replace(settings.data, train_percent=percent)
            )
            for percent in PERCENTS
        }
    if folds := settings.run.folds:
        return {
            f"fold-{number}": replace(settings, data=replace(settings.data, fold=(number, folds)))
            for number in range(1, folds + 1)
        }
    first, count = settings.training.seed, settings.run.seeds
    if count == 1:
        return {}
    return {
        f"seed-{seed}": replace(settings, training=replace(settings.training, seed=seed))
        for seed in range(first, first + count)
    }


def series_settings(arguments: TrainArguments) -> Settings | None:
    """Return the settings of a new or resumed series; None for one run, or none."""
    if arguments.check_data:
        return None
    settings = saved_settings(arguments.resume) if arguments.resume else arguments.settings
    return settings if settings and runs_of_series(settings) else None


def saved_settings(folder: Path) -> Settings | None:
    """Return the settings of the first run of a series; None if the folder has no such run.

    They have what the first run chose: device, precision, the hub's commit.
    """
    found = []
    names = ("seed-*", "*-percent", "fold-*")
    for file in itertools.chain(*(sorted(folder.glob(f"{x}/settings.json")) for x in names)):
        values = read_json(file)
        for name in fields(Metadata):
            values.pop(name.name, None)
        settings = Settings.from_json(values, file)
        if file.parent.name in runs_of_series(settings):
            found.append(settings)
    return min(found, key=lambda settings: settings.training.seed, default=None)


def train_series(arguments: TrainArguments, settings: Settings, train_one: TrainOne) -> None:
    """Train the runs that are not finished, one after the other; then keep the chosen one."""
    if arguments.out:
        check_new(arguments.out)
    given = arguments.resume or arguments.out
    is_new = given is None or not given.exists()
    folder = arguments.resume or make_folder(arguments.out, settings.to_dict())
    where = printable(shlex.quote(str(folder)), 1000)
    try:
        with locked(folder, "--resume" if arguments.resume else "--out"):
            RunFolder(folder).check_links()
            RunFolder(folder).check_unfinished()
            train_runs(folder, settings, train_one)
            finish(folder, settings)
    except Interrupted as interrupted:
        if not saved_settings(folder):
            raise
        hint = f"resume with: {command_line('train')} --resume {where}"
        raise Interrupted(interrupted.number, hint) from None
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # if the first run did not come to make its own folder in it
    use = "train without --folds to get a model" if settings.run.folds else use_of_model(folder)
    print(f"finished: {where} ({use})")
    if not settings.run.folds:
        try_report(folder)


def train_runs(folder: Path, settings: Settings, train_one: TrainOne) -> None:
    """Train the runs that are not finished."""
    names = list(runs_of_series(settings))
    for number, name in enumerate(names, start=1):
        run = RunFolder(folder / name)
        if run.settings_file.exists():
            check_same_settings(folder, names[:number])
        if run.metrics_file.exists():
            check_epochs(run, settings)
        else:
            print(f"\nrun {number} of {len(names)}: {name}")
            if run.settings_file.exists():
                train_one(TrainArguments(settings, out=None, resume=run.path))
            else:
                settings_of_run = runs_of_series(saved_settings(folder) or settings)[name]
                if number > 1:
                    check_sources(RunFolder(folder / names[0]), settings_of_run)
                train_one(TrainArguments(settings_of_run, out=run.path, resume=None))
        check_same_data(folder, names[:number], settings)


def check_epochs(run: RunFolder, settings: Settings) -> None:
    """Raise InputError if a finished run's settings.json was given more epochs afterwards."""
    training = figures_of_training(run.path)
    wanted, trained = read_json(run.settings_file).get("epochs"), training["epochs"]
    patience = settings.training.patience
    stopped = patience is not None and trained - training["best_epoch"] >= patience
    if settings.run.head != "logistic" and not stopped and wanted != trained:
        raise InputError(
            f"{run.settings_file}: epochs is {wanted}; the finished run was trained for {trained}; "
            "set it back, or start a new series"
        )


def check_same_settings(folder: Path, names: Sequence[str]) -> None:
    """Raise InputError if the last run has other options than the first, but for its own one."""
    first, last = (read_json(folder / name / "settings.json") for name in (names[0], names[-1]))
    may_differ = {"seed", "train_percent", "fold", "columns", "digests", "environment", *MAY_CHANGE}
    changed = sorted(
        name
        for name in (first.keys() | last.keys()) - may_differ
        if first.get(name) != last.get(name)
    )
    if changed:
        raise InputError(
            f"{folder / names[-1]}: {', '.join(changed)} of settings.json is not as in the run "
            f"{names[0]}; set it back, or start a new series"
        )


def check_same_data(folder: Path, names: Sequence[str], settings: Settings) -> None:
    """Raise InputError if a run of a series read other data, or another model, than the first."""
    first, *others = [RunFolder(folder / x).parse_settings()[1].digests for x in names]
    for name, digests in zip(names[1:], others, strict=True):
        changed = {split for split, _ in first.items() ^ digests.items()}
        changed -= {"train"} if settings.run.learning_curve else set()
        if changed:
            what = ", ".join(sorted(changed))
            raise InputError(
                f"{folder / name}: {what} changed since the run {names[0]}; start a new series"
            )


def finish(folder: Path, settings: Settings) -> None:
    """Print the figures of a series, copy the kept run into its folder, write metrics.json."""
    runs = {name: folder / name for name in runs_of_series(settings)}
    if settings.run.folds:
        write_json(folder / "metrics.json", join_folds(folder, runs))
        return
    summarize = curve_figures if settings.run.learning_curve else seed_figures
    kept, figures = summarize(runs, settings.training.select)
    for file in sorted(runs[kept].iterdir()):
        if file.is_file() and file.name not in ("metrics.json", "log.jsonl", REPORT):
            write_atomic(folder / file.name, partial(shutil.copyfile, file))
    metrics = read_json(runs[kept] / "metrics.json")
    write_json(folder / "metrics.json", {**metrics, **figures})

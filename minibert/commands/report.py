"""The report of a finished run: written at its end, and again by `eval.py --report RUN`."""

import shlex
from dataclasses import fields, replace
from pathlib import Path

from minibert.commands.options import Settings
from minibert.data.options import SEPARATORS
from minibert.errors import InputError, command_line, printable
from minibert.files import read_json
from minibert.options import flag_name
from minibert.report.page import write_report
from minibert.runs import Metadata, RunFolder


def report_run(folder: Path) -> None:
    """Write a finished run's report and print where it is."""
    command = None
    file = RunFolder(folder).settings_file
    if file.is_file():
        command = repeat_command(folder)
    path = write_report(folder, command=command)
    print(f"report: {printable(shlex.quote(str(path)), 1000)}")


def try_report(folder: Path) -> None:
    """Write a finished run's report; one line says why if that fails, as the run did not."""
    try:
        report_run(folder)
    except Exception as error:
        reason = printable(str(error) or type(error).__name__, 300)
        print(f"no report.html: {reason}; {command_line('eval')} --report writes it again")


def repeat_command(folder: Path) -> str | None:
    """Return the command that repeats a run; None if another version of minibert made it."""
    values, metrics = read_json(folder / "settings.json"), read_json(folder / "metrics.json")
    for name in fields(Metadata):
        values.pop(name.name, None)
    try:
        settings = Settings.from_json(values, folder / "settings.json")
    except InputError:
        return None
    # A run of a series has the options of the series, and those that the series has set for it.
    run, training = settings.run, settings.training
    if "seeds" in metrics:
        first = min(int(name.removeprefix("seed-")) for name in metrics["seeds"]["runs"])
        training = replace(training, seed=first)
    elif "learning_curve" not in metrics:
        run = replace(run, seeds=1, learning_curve=False, folds=None)
    words = command_line("train").split()
    for group in (run, settings.data, training):
        for field in fields(group):
            value = getattr(group, field.name)
            if value == field.default:
                continue
            if isinstance(value, tuple):
                value = SEPARATORS.get(field.name, ",").join(map(str, value))
            elif value is None:  # of options whose default is another value
                value = "auto"
            flag = flag_name(field.name)
            words.append(flag if value is True else f"{flag}={value}")
    return shlex.join(words)

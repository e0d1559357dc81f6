"""A training run's folder while it trains: new or resumed, locked, saved, interruptible."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

import minibert
from minibert.checkpoint.tensors import fingerprint
from minibert.commands.agreement import check_same_start, check_shared
from minibert.commands.arguments import TrainArguments
from minibert.commands.interrupts import SignalHandler
from minibert.commands.options import Settings
from minibert.commands.run_callback import RunCallback
from minibert.data.splits import Splits
from minibert.device import choose_compute
from minibert.errors import InputError, Interrupted, ProcessLost, command_line, printable
from minibert.inference.text_classifier import TextClassifier
from minibert.locks import locked
from minibert.processes import ONE_PROCESS, Processes
from minibert.run_folders import check_new
from minibert.runs import Metadata, RunFolder
from minibert.training.step_log import check_tensorboard

# What a resumed run may have otherwise in settings.json, beside more epochs. Of the last five,
# fingerprints say whether they are the same.
MAY_CHANGE = (
    *("device", "save_every", "keep_states", "tensorboard", "log_json"),
    *("model", "revision", "data", "validation", "test"),
)


class Session:
    """What a new or resumed run begins with: settings, device and precision.

    Raises InputError for an output folder that is not empty, and for a run that cannot be resumed.
    """

    def __init__(self, arguments: TrainArguments, processes: Processes = ONE_PROCESS) -> None:
        self.settings, self.out = arguments.settings, arguments.out
        self.processes = processes
        self.resumed = RunFolder(arguments.resume) if arguments.resume else None
        self.saved: Metadata | None = None
        if self.out and processes.is_first:
            check_new(self.out)
        if self.resumed:
            values, self.saved = processes.call_first(self.resumed.read_settings)
            self.settings = Settings.from_json(values, self.resumed.settings_file)
            check_settings(self.resumed, self.settings)
            check_sources(self.resumed, self.settings)
        requested = self.settings.run
        if requested.tensorboard:
            check_tensorboard()
        self.compute = choose_compute(requested.device, requested.precision, processes=processes)
        if self.resumed:
            reason = self.compute.reason.replace("as requested", "as when the run started")
            self.compute = replace(self.compute, reason=reason)
        # A resumed run keeps what `auto` chose, also on another machine.
        device, precision = str(self.compute.device), self.compute.precision
        run = replace(self.settings.run, device=device, precision=precision)
        self.settings = replace(self.settings, run=run)

    def notes(self, classifier: TextClassifier) -> tuple[str, ...]:
        """Return what loading the model had to say. A resumed run overwrites the weights."""
        return () if self.resumed else classifier.checkpoint.notes

    @contextmanager
    def open(
        self, classifier: TextClassifier, splits: Splits, model_folder: Path
    ) -> Iterator[RunCallback]:
        """Make the run's folder, or check it; hold its lock; say how to resume if interrupted."""
        metadata = current_metadata(splits, model_folder)
        check_same_start(self.processes, self.settings, metadata)
        run = RunFolder(self.processes.call_first(lambda: self._prepare(metadata, model_folder)))
        check_shared(self.processes, run)
        where = printable(shlex.quote(str(run.path)), 1000)
        print(f"run: {where}")
        resume = f"resume with: {command_line('train')} --resume {where}"
        held = locked(run.path, "--resume" if self.resumed else "--out")
        several = self.processes.size > 1
        try:
            with (
                held if self.processes.is_first else nullcontext(),
                SignalHandler(once=several) as signals,
            ):
                run.check_unfinished()  # by another process, while this one read its data
                try:
                    yield RunCallback(run, classifier, self.settings, signals, self.processes)
                except ProcessLost as error:
                    raise ProcessLost(f"{error}; {resume}") from None
                except InputError as error:
                    if run.history_file.exists():
                        raise InputError(f"{error}; the best epoch is kept in {where}") from None
                    raise
        except Interrupted as interrupted:
            raise Interrupted(interrupted.number, resume) from None
        print(f"finished: {where} ({use_of_model(run.path)})")

    def _prepare(self, metadata: Metadata, model_folder: Path) -> Path:
        """Make the run's folder, or check the resumed one; return its path."""
        if self.resumed and self.saved:
            check_unchanged(self.resumed, self.saved.digests, metadata.digests, self.settings)
            if self.saved.columns != metadata.columns:
                raise InputError(
                    f"--resume {self.resumed.path}: the entry columns of settings.json is not what "
                    "the run reads; undo the change"
                )
            return self.resumed.path
        values = self.settings.to_dict()
        if model_folder.parent.name == "snapshots" and not Path(values["model"]).is_dir():
            values["revision"] = model_folder.name  # the commit, in the hub's cache
        return RunFolder.create(self.out, values, metadata).path


def use_of_model(folder: Path) -> str:
    """Return the commands that score and use a finished run."""
    model = f"--model {printable(shlex.quote(str(folder)), 1000)}"
    columns = RunFolder(folder).columns()
    source = "--input FILE" if columns and columns.pair else "TEXT"
    return f"{command_line('eval')} {model}; {command_line('predict')} {model} {source}"


def check_settings(run: RunFolder, settings: Settings) -> None:
    """Raise InputError for options that the saved state had otherwise and that may not change."""
    saved = run.saved_settings()
    changed = []
    for name, value in json.loads(json.dumps(settings.to_dict())).items():  # tuples become lists
        old = saved.get(name, value)
        more_epochs = name == "epochs" and isinstance(old, int) and value > old
        if value != old and name not in MAY_CHANGE and not more_epochs:
            changed.append(f'"{name}" was {json.dumps(old)} and is {json.dumps(value)}')
    if changed:
        raise InputError(
            f"--resume {run.path}: settings.json is not as when the state was saved: "
            f"{', '.join(changed)}; set it back, or start a new run"
        )


def check_sources(run: RunFolder, settings: Settings) -> None:
    """Raise InputError if a resumed run's model folder or data is not where it was."""
    data = settings.data
    sources = (("data", data.data), ("validation", data.validation), ("test", data.test))
    for name, source in (("model", settings.run.model), *sources):
        if source and Path(source).is_absolute() and not Path(source).exists():
            raise InputError(
                f"--resume {run.path}: the {name} {source} is not there; put it back, or set "
                f'"{name}" in {run.settings_file} to where it is now'
            )


def check_unchanged(
    run: RunFolder, saved: dict[str, str], current: dict[str, str], settings: Settings
) -> None:
    """Raise InputError if a resumed run would read other data, or another model, than before."""
    changed = sorted({name for name, _ in saved.items() ^ current.items()})
    if changed:
        data = settings.data
        files = {"validation": data.validation, "test": data.test}
        splits = [
            f"the {name} split of {files.get(name) or data.data}"
            for name in changed
            if name != "model"
        ]
        names = [f"the model {settings.run.model}", *splits] if "model" in changed else splits
        raise InputError(
            f"--resume {run.path}: {' and '.join(names)} has changed since; start a new run"
        )


def current_metadata(splits: Splits, model_folder: Path) -> Metadata:
    """Return what settings.json keeps beside the options: fingerprints and versions."""
    environment = {
        "model_folder": str(model_folder.resolve()),
        "torch": torch.__version__,
        "minibert": minibert.__version__,
    }
    digests = {**splits.fingerprints(), "model": fingerprint(model_folder)}
    return Metadata(splits.train.columns, digests, environment)

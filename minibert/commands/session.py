"""A training run's folder while it trains: new or resumed, locked, saved, interruptible."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import minibert
from minibert.checkpoint.save import save_weights
from minibert.checkpoint.tensors import fingerprint
from minibert.commands.agreement import check_same_start, check_shared
from minibert.commands.arguments import TrainArguments
from minibert.commands.interrupts import SignalHandler
from minibert.commands.options import Settings
from minibert.data.splits import Splits
from minibert.device import choose_compute
from minibert.errors import InputError, Interrupted, ProcessLost, printable
from minibert.inference.text_classifier import TextClassifier
from minibert.locks import locked
from minibert.model.classifier import Classifier
from minibert.processes import ONE_PROCESS, Processes
from minibert.runs import Metadata, RunFolder, check_new
from minibert.training.progress import ProgressBar
from minibert.training.state import TrainState

# What a resumed run may have otherwise in settings.json, beside more epochs. Of the last five,
# fingerprints say whether they are the same.
MAY_CHANGE = (
    *("device", "save_every", "keep_states"),
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
            check_model_exists(self.resumed, self.settings)
        requested = self.settings.run
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
    ) -> Iterator["RunCallback"]:
        """Make the run's folder, or check it; hold its lock; say how to resume if interrupted."""
        metadata = current_metadata(splits, model_folder)
        check_same_start(self.processes, self.settings, metadata)
        run = RunFolder(self.processes.call_first(lambda: self._prepare(metadata, model_folder)))
        check_shared(self.processes, run)
        where = printable(shlex.quote(str(run.path)), 1000)
        print(f"run: {where}")
        resume = f"resume with: python train.py --resume {where}"
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
        print(f"finished: {where} (python eval.py; python predict.py TEXT)")

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


class RunCallback(ProgressBar):
    """Shows a run's progress, saves it, and after a signal stops it where it can be resumed.

    All of several processes stop after the same step; the first one shows and saves.
    """

    def __init__(
        self,
        folder: RunFolder,
        classifier: TextClassifier,
        settings: Settings,
        signals: SignalHandler,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        super().__init__()
        self.folder, self.classifier = folder, classifier
        self.settings, self.signals, self.processes = settings, signals, processes

    def scratch_folder(self) -> Path:
        """Return the run's folder."""
        return self.folder.path

    def on_start(self, state: TrainState) -> None:
        """Continue from the newest saved state; defer signals to the end of a step."""
        self.signals.deferred = True
        self.folder.load_state(state, repair=self.processes.is_first)
        if state.step:
            epochs = f"{state.epoch} of {state.options.epochs} epochs"
            print(f"resuming after step {state.step}, with {epochs} finished")

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """Show the step; save the state if it is due, or if a signal asks to stop."""
        if self.processes.is_first:
            super().on_step(state, loss, lr)
        every, ends_epoch = self.settings.run.save_every, state.step % state.steps_per_epoch == 0
        signal = self.signal_of_any()
        if signal or (every and state.step % every == 0 and not ends_epoch):
            self.save(state)
        if signal:
            raise Interrupted(signal)

    @contextmanager
    def validating(self, state: TrainState) -> Iterator[None]:
        """Let a signal stop the validation at once; the epoch's training is saved."""
        self.close()  # the bar
        try:
            with self.signals.interruptible():
                yield
        except (Interrupted, ProcessLost):
            self.save(state)
            raise

    def on_best(self, model: Classifier) -> None:
        """Save the weights."""
        checkpoint = self.classifier.checkpoint
        if self.processes.is_first:
            save_weights(self.folder.path, model, checkpoint.encoder, checkpoint.head)

    def on_epoch(self, state: TrainState) -> None:
        """Print the figures and save the state."""
        super().on_epoch(state)
        self.save(state)
        if signal := self.signal_of_any():  # all wait here until the epoch is saved
            raise Interrupted(signal)

    def on_end(self, state: TrainState) -> None:
        """Stop deferring signals."""
        self.signals.deferred = False
        self.signals.raise_if_interrupted()

    def save(self, state: TrainState) -> None:
        """Save the state of the run."""
        settings = self.settings
        if self.processes.is_first:
            self.folder.save_state(state, settings.to_dict(), keep=settings.run.keep_states)

    def signal_of_any(self) -> int:
        """Return the number of a signal that any process has received; 0 for none.

        All processes return the same, and wait here for each other.
        """
        return self.processes.largest(self.signals.number or 0)


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


def check_model_exists(run: RunFolder, settings: Settings) -> None:
    """Raise InputError if a resumed run's model folder is not where it was."""
    model = Path(settings.run.model)
    if model.is_absolute() and not model.is_dir():
        raise InputError(
            f"--resume {run.path}: the model folder {model} is not there; put it back, or set "
            f'"model" in {run.path / "settings.json"} to where it is now'
        )


def check_unchanged(
    run: RunFolder, saved: dict[str, str], current: dict[str, str], settings: Settings
) -> None:
    """Raise InputError if a resumed run would read other data, or another model, than before."""
    changed = sorted({name for name, _ in saved.items() ^ current.items()})
    if changed:
        splits = [
            f"the {name} split of {settings.data.data}" for name in changed if name != "model"
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

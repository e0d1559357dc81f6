"""What happens around the steps of a run: shown, logged, saved, and stopped by a signal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from minibert.checkpoint.save import save_weights
from minibert.commands.interrupts import SignalHandler
from minibert.commands.options import Settings
from minibert.errors import Interrupted, ProcessLost
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier
from minibert.processes import ONE_PROCESS, Processes
from minibert.runs import RunFolder
from minibert.training.progress import ProgressBar
from minibert.training.state import TrainState
from minibert.training.step_log import StepLog


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
        self.log: StepLog | None = None

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
        run, folder = self.settings.run, self.folder
        if self.processes.is_first and (run.log_json or run.tensorboard):
            file = folder.log_file if run.log_json else None
            self.log = StepLog(file, folder.events if run.tensorboard else None, state)

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """Show the step; save the state if it is due, or if a signal asks to stop."""
        if self.processes.is_first:
            super().on_step(state, loss, lr)
        if self.log:
            self.log.on_step(state, loss)
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
        if self.log:
            self.log.on_epoch(state)
        self.save(state)
        if signal := self.signal_of_any():  # all wait here until the epoch is saved
            raise Interrupted(signal)

    def on_end(self, state: TrainState) -> None:
        """Stop deferring signals."""
        if self.log:
            self.log.close()
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
